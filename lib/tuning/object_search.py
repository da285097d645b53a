"""Choice of the rule from maps to objects, on out-of-fold maps and by the object score itself.

Candidates for each class separately: the components of the mask and every cut of touching objects (objects.depths,
objects.rises), at every 32nd threshold, without objects below each of objects.areas. The mask's gates and morphology
are those chosen by the pixel score. All 255 thresholds would take hours; the grid is fixed, so it is fitted to no
image. Cutting is adopted only if it gains more than two standard errors on the folds left out of the choice.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lib.base.prefetch import THREADS, prefetched
from lib.base.progress import progress
from lib.config.schema import ObjectSettings
from lib.data.competition import TrainingData
from lib.masks.metrics import Pair, planes
from lib.masks.objects import ObjectRule, Split, describe_score, match_objects, object_score
from lib.masks.rules import Rule
from lib.masks.statistics import Gain, bootstrap_interval, group_numbers, nested_parts, splits
from lib.prediction.map_store import MapStore, presence_for, read_objects

OBJECT_THRESHOLDS = range(32, 256, 32)
REPEATS = 1000  # bootstrap resamples


@dataclass(frozen=True)
class ClassObjects:
    """The rule chosen for one class; scores are means over the images."""

    rule: ObjectRule
    nested: float
    in_sample: float
    components: float  # nested, of connected components alone
    gain: Gain  # nested gain of cutting touching objects
    without_fold: dict[int, ObjectRule]
    scores: np.ndarray  # (images,) of the rule
    nested_scores: np.ndarray  # (images,) each at the rule chosen without its fold

    def to_dict(self) -> dict:
        return {
            "rule": self.rule.to_dict(),
            "nested": self.nested,
            "in_sample": self.in_sample,
            "components_nested": self.components,
            "gain_of_cutting": self.gain.mean,
            "standard_error": self.gain.standard_error,
            "cutting_not_adopted": self.gain.doubt(),
            "without_fold": {str(fold): str(rule) for fold, rule in self.without_fold.items()},
        }


@dataclass(frozen=True)
class ObjectResult:
    """The choices of all classes; scores are means over the classes."""

    metric: str
    classes: dict[str, ClassObjects]
    interval: tuple[float, float]  # 95 % bootstrap interval of the nested score
    ids: list[str]  # the images used

    @property
    def rules(self) -> dict[str, ObjectRule]:
        return {name: choice.rule for name, choice in self.classes.items()}

    def mean(self, field: str) -> float:
        """Mean over the classes of a score: nested, in_sample or components."""
        return float(np.mean([getattr(choice, field) for choice in self.classes.values()]))

    def to_dict(self) -> dict:
        """For objects.json."""
        return {
            "metric": self.metric,
            "images": len(self.ids),
            "nested": self.mean("nested"),
            "interval": list(self.interval),
            "in_sample": self.mean("in_sample"),
            "components_nested": self.mean("components"),
            "classes": {name: choice.to_dict() for name, choice in self.classes.items()},
        }

    def __str__(self) -> str:
        low, high = self.interval
        lines = [
            f"{self.metric}: nested {self.mean('nested'):.4f} (95 % {low:.4f} to {high:.4f}), in-sample "
            f"{self.mean('in_sample'):.4f}; components alone {self.mean('components'):.4f}; {len(self.ids)} images"
        ]
        for name, choice in self.classes.items():
            reason = f"; not adopted: {choice.gain.doubt()}" if choice.gain.doubt() else ""
            lines.append(f"  {name}: {choice.rule}; cutting gains {choice.gain} nested{reason}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Trials:
    """The candidate rules of one class, numbered by cut, then threshold, then area."""

    mask: Rule
    settings: ObjectSettings

    @property
    def cuts(self) -> list[Split]:
        depths = [Split("depth", depth) for depth in self.settings.depths]
        return [Split(), *depths, *(Split("rise", rise) for rise in self.settings.rises)]

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.cuts), len(OBJECT_THRESHOLDS), len(self.settings.areas)

    def rule(self, index: int) -> ObjectRule:
        """The rule with this number."""
        cut, threshold, area = np.unravel_index(index, self.shape)
        mask = replace(self.mask, threshold=OBJECT_THRESHOLDS[threshold])
        return ObjectRule(mask, self.cuts[cut], self.settings.areas[area])

    def scores(self, probability_map: np.ndarray, truth: np.ndarray, presence: int | None = None) -> np.ndarray:
        """The score of each rule on one image, float64 (rules,)."""
        scores = np.empty(self.shape)
        for number, threshold in enumerate(OBJECT_THRESHOLDS):
            mask = replace(self.mask, threshold=threshold)
            for cut, split in enumerate(self.cuts):
                matches = match_objects(ObjectRule(mask, split).apply(probability_map, presence), truth)
                scores[cut, number] = [object_score(matches, self.settings, area) for area in self.settings.areas]
        return scores.ravel()

    def choose(self, scores: np.ndarray, cut: bool) -> int:
        """The number of the rule with the best mean score (images, rules); without `cut`, among components only."""
        return int(np.argmax(scores[:, : scores.shape[1] if cut else scores.shape[1] // len(self.cuts)].mean(axis=0)))

    def nested(self, scores: np.ndarray, parts: np.ndarray, cut: bool) -> tuple[np.ndarray, dict[int, int]]:
        """Each image's score at the rule chosen without its fold, (images,), and its number for each fold."""
        left_out_scores, chosen = np.empty(len(parts)), {}
        for fold, others, left_out in splits(parts):
            chosen[fold] = self.choose(scores[others], cut)
            left_out_scores[left_out] = scores[left_out, chosen[fold]]
        return left_out_scores, chosen


def search_objects(
    store: MapStore, data: TrainingData, table: pd.DataFrame, rules: dict[str, Rule], settings: ObjectSettings
) -> ObjectResult:
    """Choose the object rule of each class on out-of-fold maps.

    `table` has the columns id, fold and group; `rules` are those of the masks. If there are more than
    objects.images images, a fixed random sample is used. Raises UserError for a single image.
    """
    trials = [Trials(rule, settings) for rule in rules.values()]

    def measure(pair: Pair) -> np.ndarray:
        image_id, maps, truth = pair
        presence = presence_for(rules, store, image_id)
        of_classes = planes(maps), planes(truth), [None] * len(rules) if presence is None else presence.tolist()
        return np.stack([trial.scores(*of_class) for trial, *of_class in zip(trials, *of_classes, strict=True)])

    table = table.sample(min(len(table), settings.images), random_state=0).sort_values("id")
    groups = group_numbers(table.group.to_numpy())
    parts = nested_parts(table.fold.to_numpy(), groups)
    measured = prefetched(measure, read_objects(store, data, table.id), ahead=2 * THREADS)
    scores = np.stack([of_image for _, of_image in progress("objects", measured, len(table))], axis=1)
    choices = [_choose(trial, of_class, parts, groups) for trial, of_class in zip(trials, scores, strict=True)]
    nested = np.stack([choice.nested_scores for choice in choices], axis=1)
    interval = bootstrap_interval(nested, np.ones_like(nested), groups, REPEATS)
    return ObjectResult(describe_score(settings), dict(zip(rules, choices, strict=True)), interval, table.id.tolist())


def _choose(trials: Trials, scores: np.ndarray, parts: np.ndarray, groups: np.ndarray) -> ClassObjects:
    components, _ = trials.nested(scores, parts, cut=False)
    cut, _ = trials.nested(scores, parts, cut=True)
    gain = Gain.between(*(np.stack([nested, np.ones_like(nested)]) for nested in (components, cut)), groups)
    adopted = not gain.doubt()
    nested, chosen = trials.nested(scores, parts, adopted)
    column = trials.choose(scores, adopted)
    return ClassObjects(
        rule=trials.rule(column),
        nested=float(nested.mean()),
        in_sample=float(scores[:, column].mean()),
        components=float(components.mean()),
        gain=gain,
        without_fold={fold: trials.rule(column) for fold, column in chosen.items()},
        scores=scores[:, column],
        nested_scores=nested,
    )
