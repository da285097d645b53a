"""The rule of each class that threshold cross-validation chose, its scores, and what is said of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.tables import write_table
from lib.masks.metrics import THRESHOLDS, Metric, pooled
from lib.masks.rules import Rule
from lib.masks.statistics import Gain
from lib.tuning.presence import PresenceTrial

ADVICE = {  # by threshold.rule
    "threshold": "Train longer, and try threshold.rule=triplet (docs/losses.md: mostly empty data)",
    "triplet": "Train longer; docs/losses.md, mostly empty data, has what else was tried",
}
FOREIGN = 0.1  # a fold that loses more at the threshold of the other folds has a model unlike theirs


@dataclass(frozen=True)
class ClassChoice:
    """The rule chosen for one class, and its scores."""

    kind: str  # threshold.rule
    rule: Rule
    plateau: tuple[int, int]  # thresholds whose scores do not differ significantly from that of the chosen one
    without_part: dict[int, Rule]  # by part: tuned on the others
    curve: np.ndarray  # (255,) score of all images at each threshold, with the rule's gate
    fold_curves: dict[int, np.ndarray]  # the same for the images of each fold
    fold_nested: dict[int, float]  # each fold's score with the rule tuned without it
    in_sample_terms: np.ndarray  # (2, images) of the rule; see `Metric.terms`
    nested_terms: np.ndarray  # (2, images) of each image at the rule tuned without its fold
    empty_terms: np.ndarray  # (2, images) of no mask at all
    over_no_mask: Gain  # nested, over no mask at all
    at_half: float  # the score at p >= .5, without tuning
    presence: PresenceTrial | None = None  # where presence is predicted
    over_threshold: Gain | None = None  # of a triplet: nested, over the best threshold without a gate

    @property
    def in_sample(self) -> float:
        return float(pooled(*self.in_sample_terms))

    @property
    def nested(self) -> float:
        return float(pooled(*self.nested_terms))

    @property
    def all_empty(self) -> float:
        """The score of no mask at all."""
        return float(pooled(*self.empty_terms))

    def about_no_mask(self) -> str:
        """A warning if no mask at all is chosen, or scores about as well as the choice; else an empty text."""
        best = int(self.curve.argmax())
        if self.all_empty == 1:
            return (
                "no image that is scored holds this class, so its score counts nothing but false alarms; if some "
                "should, look at data.classes and at how masks are matched and read"
            )
        if self.rule.is_empty:
            return (
                f"no mask at all scores {self.all_empty:.4f}, more than any threshold (the best, t={THRESHOLDS[best]}: "
                f"{self.curve[best]:.4f}), so every mask of the submission is empty. {ADVICE[self.kind]}"
            )
        doubt = self.over_no_mask.about_nothing("no mask at all", self.all_empty, self.rule)
        return doubt and f"{doubt}. {ADVICE[self.kind]}"

    def foreign_folds(self) -> dict[int, tuple[int, float, float]]:
        """Folds that the threshold of the others does not suit: their best threshold, its score, their nested score."""
        foreign = {}
        for fold, curve in self.fold_curves.items():
            best = int(curve.argmax())
            if curve[best] - self.fold_nested[fold] > FOREIGN:
                foreign[fold] = int(THRESHOLDS[best]), float(curve[best]), self.fold_nested[fold]
        return foreign

    def to_dict(self) -> dict:
        return {
            "rule": self.rule.to_dict(),
            "probability": round(self.rule.threshold / 255, 4),
            "plateau": list(self.plateau),
            "without_fold": {str(fold): str(rule) for fold, rule in self.without_part.items()},
            "nested": self.nested,
            "in_sample": self.in_sample,
            "at_half": self.at_half,
            "all_empty": self.all_empty,
            "gain_over_no_mask": self.over_no_mask.mean,
            "about_no_mask": self.about_no_mask(),
            **({"presence": self.presence.to_dict()} if self.presence else {}),
            **({"gain_over_threshold": self.over_threshold.mean} if self.over_threshold else {}),
        }


@dataclass(frozen=True)
class ThresholdResult:
    """The choices of all classes; scores are means over the classes."""

    metric: Metric
    classes: dict[str, ClassChoice]
    interval: tuple[float, float]  # 95 % bootstrap interval of the nested score
    parts: np.ndarray  # (images,) the part of each image, usually its fold, see `nested_parts`
    folds: int  # number of folds that have images

    def mean(self, field: str) -> float:
        """Mean over the classes of a score: nested, in_sample, at_half or all_empty."""
        return float(np.mean([getattr(choice, field) for choice in self.classes.values()]))

    @property
    def parts_are_folds(self) -> bool:
        """Whether the parts of the nested score are the folds, each of which has its own model."""
        return self.folds >= 3

    def rules_of_images(self) -> list[dict[str, Rule]]:
        """For each image, the rules of the classes tuned without its part."""
        return [
            {name: choice.without_part[part] for name, choice in self.classes.items()} for part in self.parts.tolist()
        ]

    def to_dict(self) -> dict:
        """For threshold.json; `read_rules` of lib/masks/rules.py reads the rules back."""
        nested, in_sample = self.mean("nested"), self.mean("in_sample")
        return {
            "metric": vars(self.metric),
            "nested": nested,
            "interval": list(self.interval),
            "in_sample": in_sample,
            "gap": in_sample - nested,
            "at_half": self.mean("at_half"),
            "all_empty": self.mean("all_empty"),
            "classes": {name: choice.to_dict() for name, choice in self.classes.items()},
        }

    def __str__(self) -> str:
        low, high = self.interval
        nested, in_sample = self.mean("nested"), self.mean("in_sample")
        lines = [
            f"{self.metric}: nested {nested:.4f} (95 % {low:.4f} to {high:.4f}), in-sample {in_sample:.4f}, "
            f"gap {in_sample - nested:+.4f}; at .5 {self.mean('at_half'):.4f}, all empty {self.mean('all_empty'):.4f}"
        ]
        if not self.parts_are_folds:
            parts = len(np.unique(self.parts))
            have = "1 fold has" if self.folds == 1 else "2 folds have"
            lines.append(f"  only {have} maps: in the nested score {parts} parts of the images stand in for folds")
        for name, choice in self.classes.items():
            without = "; ".join(str(rule) for rule in choice.without_part.values())
            around = "" if choice.rule.is_empty else " (plateau {} to {})".format(*choice.plateau)
            lines.append(f"  {name}: {choice.rule}{around}; without each fold {without}")
            if choice.presence:
                lines.append(f"  {name}: {choice.presence}")
            if gain := choice.over_threshold:
                instead = "; try threshold.rule=threshold" if gain.mean < 0 else ""
                lines.append(f"  {name}: triplet, nested {gain} over the best threshold alone{instead}")
            if choice.about_no_mask():
                lines.append(f"  warning: {choice.about_no_mask()}")
            foreign = choice.foreign_folds() if self.parts_are_folds else {}
            for fold, (threshold, best, reported) in foreign.items():
                lines.append(
                    f"  warning: fold {fold} scores {reported:.4f} at {choice.without_part[fold]}, which is chosen on "
                    f"the other folds, and {best:.4f} at t={threshold}: its images or its model's probabilities are "
                    "unlike theirs. Look at its maps; train longer or with another train.seed"
                )
        return "\n".join(lines)

    def write_curves(self, path: Path) -> None:
        """Write threshold.csv: a row per class and threshold, the score of all images and of each fold (or part)."""
        part = "fold" if self.parts_are_folds else "part"
        tables = [
            pd.DataFrame(
                {"class": name, "threshold": THRESHOLDS, "score": choice.curve}
                | {f"{part}_{number}": curve for number, curve in choice.fold_curves.items()}
            )
            for name, choice in self.classes.items()
        ]
        write_table(path, pd.concat(tables), "%.6f")
