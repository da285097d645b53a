"""The presence gate: the mask is empty if the model's presence head (model.presence) doubts that the class is present.

Threshold cross-validation compares it with the rule without it, tunes it on the other folds like everything else, and
adopts it by its nested gain, as it does morphology.
"""

from dataclasses import dataclass

import numpy as np

from lib.masks.metrics import pooled
from lib.masks.rules import Rule
from lib.masks.statistics import Gain
from lib.tuning.gate_search import choose_gate
from lib.tuning.score_table import ScoreTable


def best_presence(table: ScoreTable) -> int | None:
    """The presence to require, 1 to 255, chosen with the threshold of the maps behind it (`choose_gate`).

    None if no pair beats both the best threshold alone and no mask at all, or if no presence is predicted.
    """
    if table.presence is None:
        return None
    chosen = choose_gate(table, [table.presence])
    return chosen and chosen[1]


def separation(presence: np.ndarray, is_there: np.ndarray) -> float | None:
    """Area under the ROC curve of presence (images,): the probability that an image with the class has the higher one.

    Ties count half. None if no image has the class, or all have.
    """
    there, absent = (np.bincount(presence[chosen], minlength=256) for chosen in (is_there, ~is_there))
    if not there.sum() or not absent.sum():
        return None
    lower = absent.cumsum() - absent / 2
    return float(there @ lower / there.sum() / absent.sum())


@dataclass(frozen=True)
class PresenceTrial:
    """The gain of requiring presence over the same kind of rule without it; it decides whether the gate is adopted."""

    rule: Rule  # tuned on all images, with presence available
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
        """The reason, in words, not to adopt the gate; empty if it is adopted."""
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
