"""The presence gate: masks are empty where the model's presence head (model.presence) doubts that the class is there.

Threshold cross-validation tries it beside the rule without it, tuned on the other folds like everything else, and
adopts it by its nested gain, as morphology is adopted.
"""

from dataclasses import dataclass, replace

import numpy as np

from lib.masks.metrics import THRESHOLDS, pooled
from lib.masks.rules import Rule
from lib.masks.statistics import Gain
from lib.tuning.plateau import ROUNDING, best_threshold
from lib.tuning.score_table import ScoreTable
from lib.tuning.triplet import gated_scores


def best_presence(table: ScoreTable) -> int | None:
    """The presence to ask for, 1 to 255, over all pairs of it and a threshold of the map.

    The pair with the best score says at which threshold; there presence is chosen as thresholds are, from the middle of
    its plateau. None where no pair beats both the best threshold alone and no mask at all, or nothing is predicted.
    """
    if table.presence is None:
        return None
    scores = gated_scores(table, [table.presence])[0]
    if scores.max() <= max(table.scores().max(), pooled(*table.empty_terms())) + ROUNDING:
        return None
    column = int(np.unravel_index(np.argmax(scores), scores.shape)[1])
    is_open = table.presence[:, None] >= THRESHOLDS
    by_presence = {name: np.where(is_open, getattr(table, name)[:, column, None], 0) for name in ("tp", "fp")}
    return best_threshold(replace(table, thresholds=THRESHOLDS, **by_presence))


def separation(presence: np.ndarray, is_there: np.ndarray) -> float | None:
    """Area under the ROC curve of presence (images,): the chance that an image with the class has the higher one.

    Ties count half. None where no image has the class, or all have.
    """
    there, absent = (np.bincount(presence[chosen], minlength=256) for chosen in (is_there, ~is_there))
    if not there.sum() or not absent.sum():
        return None
    lower = absent.cumsum() - absent / 2
    return float(there @ lower / there.sum() / absent.sum())


@dataclass(frozen=True)
class PresenceTrial:
    """What asking for presence gains over the same kind of rule without it, and so whether the gate is adopted."""

    rule: Rule  # tuned on all images with presence at hand
    gain: Gain  # nested
    nested: tuple[float, float]  # score without the gate and with it
    area: float | None  # under the ROC curve, see `separation`

    @classmethod
    def between(cls, without: np.ndarray, asking: np.ndarray, rule: Rule, table: ScoreTable) -> "PresenceTrial":
        """The trial of a class; nested terms are (2, images)."""
        gain = Gain.between(without, asking, table.groups)
        nested = float(pooled(*without)), float(pooled(*asking))
        return cls(rule, gain, nested, separation(table.presence, table.positives > 0))

    @property
    def reason_against(self) -> str:
        """Why the gate is not adopted, in words; empty where it is."""
        if self.rule.presence is None:
            return "on all images none beats the rule without it"
        return self.gain.doubt()

    def __str__(self) -> str:
        area = "" if self.area is None else f" (AUC {self.area:.4f})"
        outcome = f"not adopted: {self.reason_against}" if self.reason_against else "adopted"
        return f"presence gate{area}: nested {self.nested[0]:.4f} -> {self.nested[1]:.4f}, gain {self.gain}; {outcome}"

    def to_dict(self) -> dict:
        return {
            "rule": str(self.rule),
            "nested": list(self.nested),
            "gain": self.gain.mean,
            "standard_error": self.gain.standard_error,
            "area": self.area,
            "reason_against": self.reason_against,
        }
