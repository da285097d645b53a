"""Threshold cross-validation: the threshold of each class from out-of-fold counts, and an honest score for it.

The classes are independent: every metric is a mean over classes, so the best threshold of each class is the best of
all. In-sample scores are tuned and scored on the same images. Nested scores are tuned on the other folds' images and
scored on the fold left out; each image counts once, so folds weigh by their size. For `dice_global` the left-out
images' pixels are pooled, each counted at the threshold tuned without its fold.
"""

import csv
import io
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.sparse import vstack

from lib.base.files import write_text
from lib.config.schema import ThresholdSettings
from lib.masks.metrics import THRESHOLDS, Counts, Metric, pooled, ratio
from lib.masks.rules import Gate, Rule
from lib.masks.statistics import (
    Terms,
    best_threshold,
    bootstrap_interval,
    group_numbers,
    membership,
    plateau,
    run_around,
    splits,
)

HALF = 128  # the threshold that is p >= .5
FOREIGN = 0.1  # a fold that loses more than this at the others' threshold has a model unlike theirs


@dataclass(frozen=True)
class ScoreTable:
    """The pixel counts of one class's images at all thresholds, and the terms (see `Metric.terms`) they make."""

    metric: Metric
    tp: np.ndarray  # (images, 255)
    fp: np.ndarray  # (images, 255)
    positives: np.ndarray  # (images,) mask pixels in the truth
    groups: np.ndarray  # (images,)

    def of(self, images: np.ndarray) -> "ScoreTable":
        """The table of some images, a bool array."""
        return replace(self, **{name: getattr(self, name)[images] for name in ("tp", "fp", "positives", "groups")})

    @property
    def terms(self) -> Terms:
        """The terms of the masks at all thresholds."""
        return Terms(len(THRESHOLDS), self._terms_at)

    def _terms_at(self, part: slice) -> tuple[np.ndarray, np.ndarray]:
        tp = self.tp[:, part]
        return self.metric.terms(tp, self.fp[:, part], self.positives[:, None] - tp)

    @cached_property
    def empty(self) -> np.ndarray:
        """The terms of an empty mask, (2, images)."""
        none = np.zeros_like(self.positives)
        return np.stack(self.metric.terms(none, none, self.positives))

    def predicted(self, column: int) -> np.ndarray:
        """Pixels of the masks at the threshold of a column, (images,)."""
        return self.tp[:, column] + self.fp[:, column]

    def behind(self, gate: Gate | None, terms: Terms) -> Terms:
        """Terms of the same images, an empty mask's where the gate shuts."""
        if gate is None:
            return terms
        shuts = self.predicted(gate.top - 1) < gate.area

        def read(part: slice) -> list[np.ndarray]:
            columns = zip(terms.read(part), self.empty, strict=True)
            return [np.where(shuts[:, None], empty[:, None], term) for term, empty in columns]

        return Terms(terms.columns, read)


@dataclass(frozen=True)
class ClassChoice:
    """What was chosen for one class, and how it scores."""

    rule: Rule
    plateau: tuple[int, int]  # thresholds that the images cannot tell from the chosen one
    fold_rules: dict[int, Rule]  # tuned on all folds but this one
    curve: np.ndarray  # (255,) score of all images at each threshold, with the rule's gate
    fold_curves: dict[int, np.ndarray]  # the same of each fold's images
    fold_nested: dict[int, float]  # each fold's score by the rule tuned without it
    in_sample: float
    nested: float
    at_half: float  # what no tuning gives
    all_empty: float
    numerator: np.ndarray  # (images,) nested terms
    denominator: np.ndarray  # (images,)

    def foreign_folds(self) -> dict[int, tuple[int, float, float]]:
        """Folds that the others' threshold does not suit: their own best one, its score, and theirs at the others'."""
        found = {}
        for fold, curve in self.fold_curves.items():
            best = int(curve.argmax())
            if curve[best] - self.fold_nested[fold] > FOREIGN:
                found[fold] = int(THRESHOLDS[best]), float(curve[best]), self.fold_nested[fold]
        return found

    def to_dict(self) -> dict:
        return {
            "rule": self.rule.to_dict(),
            "probability": round(self.rule.threshold / 255, 4),
            "plateau": list(self.plateau),
            "without_fold": {str(fold): str(rule) for fold, rule in self.fold_rules.items()},
            "nested": self.nested,
            "in_sample": self.in_sample,
            "at_half": self.at_half,
            "all_empty": self.all_empty,
        }


@dataclass(frozen=True)
class ThresholdResult:
    """The choices of all classes; scores are means over the classes."""

    metric: Metric
    classes: dict[str, ClassChoice]
    interval: tuple[float, float]  # 95 % bootstrap interval of the nested score

    def mean(self, field: str) -> float:
        """Mean over the classes of a score: nested, in_sample, at_half or all_empty."""
        return float(np.mean([getattr(choice, field) for choice in self.classes.values()]))

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
        for name, choice in self.classes.items():
            without = "; ".join(str(rule) for rule in choice.fold_rules.values())
            first, last = choice.plateau
            lines.append(f"  {name}: {choice.rule} (plateau {first} to {last}); without each fold {without}")
            for fold, (threshold, best, told) in choice.foreign_folds().items():
                lines.append(
                    f"  warning: fold {fold} scores {told:.4f} at {choice.fold_rules[fold]}, which is chosen on the "
                    f"other folds, and {best:.4f} at t={threshold}: its images or its model's probabilities are unlike "
                    "theirs. Look at its maps; train longer or with another train.seed"
                )
        return "\n".join(lines)

    def write_curves(self, path: Path) -> None:
        """Write threshold.csv: one row per class and threshold with the score of all images and of each fold's."""
        folds = list(next(iter(self.classes.values())).fold_curves)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["class", "threshold", "score", *(f"fold_{fold}" for fold in folds)])
        for name, choice in self.classes.items():
            columns = np.stack([choice.curve, *choice.fold_curves.values()], axis=1)
            for threshold, scores in zip(THRESHOLDS, columns, strict=True):
                writer.writerow([name, threshold, *(f"{score:.6f}" for score in scores)])
        write_text(path, text.getvalue())


def choose_thresholds(
    counts: Counts, folds: np.ndarray, settings: ThresholdSettings, groups: np.ndarray | None = None
) -> ThresholdResult:
    """Choose the rule of each class from out-of-fold counts.

    `folds` and `groups` are (images,), in the order of `counts.ids`; without groups every image is its own.
    Raises UserError when fewer than two folds have images.
    """
    metric = Metric.of(settings)
    groups = np.arange(len(counts.ids)) if groups is None else group_numbers(groups)
    classes = {
        str(name): _choose_class(score_table(counts, index, metric, groups), folds, settings.rule)
        for index, name in enumerate(counts.classes)
    }
    numerator = np.stack([choice.numerator for choice in classes.values()], axis=1)
    denominator = np.stack([choice.denominator for choice in classes.values()], axis=1)
    interval = bootstrap_interval(numerator, denominator, groups, settings.bootstrap)
    return ThresholdResult(metric, classes, interval)


def score_table(counts: Counts, index: int, metric: Metric, groups: np.ndarray) -> ScoreTable:
    """The table of class number `index`; its arrays are views of the counts."""
    return ScoreTable(metric, counts.tp[:, index], counts.fp[:, index], counts.positives[:, index], groups)


def tune(table: ScoreTable, rule: str) -> Rule:
    """The best rule for the table's images: a threshold, or for `triplet` a threshold behind a gate."""
    gate = best_gate(table) if rule == "triplet" else None
    column = best_threshold(_bottoms(gate, table.behind(gate, table.terms)), table.groups)
    return Rule(int(THRESHOLDS[column]), gate)


def _bottoms(gate: Gate | None, terms: Terms) -> Terms:
    """The terms at the thresholds that may stand behind the gate: up to its top."""
    return terms.first(gate.top) if gate else terms


def best_gate(table: ScoreTable) -> Gate | None:
    """The gate of the best triplet, over all 255 tops, all bottoms up to the top, and areas 1, 2, 4, ... pixels.

    None where no gate beats the plain threshold; of equal areas the smallest, of equal tops the middle.
    """
    best_score, best = table.terms.scores().max(), None
    is_triplet = np.tri(len(THRESHOLDS), dtype=bool)  # (tops, bottoms)
    areas = [2**power for power in range(int(table.predicted(0).max(initial=1)).bit_length())]
    for area, scores in zip(areas, np.where(is_triplet, _gated_scores(table, areas), -np.inf), strict=True):
        if scores.max() > best_score + 1e-12:
            best_score = scores.max()
            top, bottom = np.unravel_index(np.argmax(scores), scores.shape)
            low, high = run_around(int(top), scores[:, bottom] >= best_score - 1e-12)
            best = Gate(top=int(THRESHOLDS[(low + high) // 2]), area=area)
    return best


def _gated_scores(table: ScoreTable, areas: list[int]) -> np.ndarray:
    """Scores behind every gate, (areas, tops, bottoms).

    The gate opens for an image up to some top, which its counts tell. So an image adds to the score of an empty mask
    what its terms gain over that, for all tops up to its own: sums by top, then added up from the highest.
    """
    images_by_top = vstack([membership(_opening_tops(table, area), len(THRESHOLDS) + 1) for area in areas])
    gained = table.terms.sums_within(images_by_top) - (images_by_top @ table.empty.T).T[:, :, None]
    gained = gained.reshape(2, len(areas), len(THRESHOLDS) + 1, len(THRESHOLDS))
    sums = table.empty.sum(axis=1)[:, None, None, None] + gained[:, :, :0:-1].cumsum(axis=2)[:, :, ::-1]
    return ratio(*sums)


def _opening_tops(table: ScoreTable, area: int) -> np.ndarray:
    """The highest top at which a gate of that area opens, (images,); 0 where none does."""
    low, high = np.zeros(len(table.tp), int), np.full(len(table.tp), len(THRESHOLDS))
    images = np.arange(len(table.tp))
    while (low < high).any():  # halving, as masks shrink from top to top
        middle = (low + high + 1) // 2
        opens = table.tp[images, middle - 1] + table.fp[images, middle - 1] >= area
        low, high = np.where(opens, middle, low), np.where(opens, high, middle - 1)
    return low


def _choose_class(table: ScoreTable, folds: np.ndarray, rule: str) -> ClassChoice:
    chosen = tune(table, rule)
    terms, column = table.behind(chosen.gate, table.terms), chosen.threshold - 1
    curve = terms.scores()
    low, high = plateau(_bottoms(chosen.gate, terms), table.groups, column)
    nested = np.empty((2, len(folds)))
    fold_rules, fold_curves, fold_nested = {}, {}, {}
    for fold, others, left_out in splits(folds):
        alone = table.of(left_out)
        fold_curves[fold] = alone.behind(chosen.gate, alone.terms).scores()
        tuned = fold_rules[fold] = tune(table.of(others), rule)
        nested[:, left_out] = alone.behind(tuned.gate, alone.terms).column(tuned.threshold - 1)
        fold_nested[fold] = float(pooled(*nested[:, left_out]))
    return ClassChoice(
        rule=chosen,
        plateau=(int(THRESHOLDS[low]), int(THRESHOLDS[high])),
        fold_rules=fold_rules,
        curve=curve,
        fold_curves=fold_curves,
        fold_nested=fold_nested,
        in_sample=float(curve[column]),
        nested=float(pooled(*nested)),
        at_half=float(pooled(*table.terms.column(HALF - 1))),
        all_empty=float(pooled(*table.empty)),
        numerator=nested[0],
        denominator=nested[1],
    )
