"""Choice of the rule from maps to objects, on out-of-fold maps and by the object score itself.

Candidates for each class separately: the components of the mask and every cut of touching objects (objects.depths,
objects.rises), at every 32nd threshold, without objects below each of objects.areas; and no object at all. The mask's
gates and morphology are those chosen by the pixel score, for the nested score those chosen without the image's fold.
All 255 thresholds would take hours; the grid is fixed, so it is fitted to no image. Cutting is adopted only if it gains
more than two standard errors on the folds left out of the choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.base.prefetch import THREADS, prefetched
from lib.base.progress import progress
from lib.config.schema import ObjectSettings
from lib.data.competition import TrainingData
from lib.masks.metrics import Pair, planes
from lib.masks.objects import ObjectRule, Split, describe_score, match_objects, object_score
from lib.masks.rules import NO_MASK, Rule, Step
from lib.masks.statistics import Gain, bootstrap_interval, group_numbers, splits
from lib.prediction.map_store import MapReader, MapStore, presence_for, read_objects
from lib.tuning.blind_maps import BlindMaps

OBJECT_THRESHOLDS = range(32, 256, 32)


class MaskRules(NamedTuple):
    """The rules of a class's masks, as the pixel score chose them: on all images, and without each part of them."""

    rule: Rule
    without_part: dict[int, Rule]

    @property
    def kinds(self) -> list[Rule]:
        return list(dict.fromkeys(map(without_threshold, (self.rule, *self.without_part.values()))))


def without_threshold(rule: Rule) -> Rule:
    return replace(rule, threshold=NO_MASK)


@dataclass(frozen=True)
class ClassObjects:
    """The rule chosen for one class; scores are means over the images."""

    rule: ObjectRule
    nested: float
    in_sample: float
    components: float  # nested, of connected components alone
    all_empty: float  # of no object at all
    over_none: Gain  # nested, over no object at all
    gain: Gain  # nested gain of cutting touching objects
    without_part: dict[int, ObjectRule]
    nested_scores: np.ndarray  # (images,) each at the rule chosen without its fold

    def about_no_object(self) -> str:
        """A warning if no object at all is chosen, or scores about as well as the choice; else an empty text."""
        if self.rule.mask.is_empty:
            return f"no object at all scores {self.all_empty:.4f}, more than any rule, so the submission has none"
        return self.over_none.about_nothing("no object at all", self.all_empty, self.rule)

    def to_dict(self) -> dict:
        return {
            "rule": self.rule.to_dict(),
            "nested": self.nested,
            "in_sample": self.in_sample,
            "components_nested": self.components,
            "all_empty": self.all_empty,
            "gain_over_no_object": self.over_none.mean,
            "about_no_object": self.about_no_object(),
            "gain_of_cutting": self.gain.mean,
            "standard_error": self.gain.standard_error,
            "cutting_not_adopted": self.gain.doubt(),
            "without_fold": {str(fold): str(rule) for fold, rule in self.without_part.items()},
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
        """Mean over the classes of a score: nested, in_sample, components or all_empty."""
        return float(np.mean([getattr(choice, field) for choice in self.classes.values()]))

    def to_dict(self) -> dict:
        return {
            "metric": self.metric,
            "images": len(self.ids),
            "nested": self.mean("nested"),
            "interval": list(self.interval),
            "in_sample": self.mean("in_sample"),
            "components_nested": self.mean("components"),
            "all_empty": self.mean("all_empty"),
            "classes": {name: choice.to_dict() for name, choice in self.classes.items()},
        }

    def __str__(self) -> str:
        low, high = self.interval
        lines = [
            f"{self.metric}: nested {self.mean('nested'):.4f} (95 % {low:.4f} to {high:.4f}), in-sample "
            f"{self.mean('in_sample'):.4f}; components alone {self.mean('components'):.4f}, all empty "
            f"{self.mean('all_empty'):.4f}; {len(self.ids)} images"
        ]
        for name, choice in self.classes.items():
            reason = f"; not adopted: {choice.gain.doubt()}" if choice.gain.doubt() else ""
            lines.append(f"  {name}: {choice.rule}; cutting gains {choice.gain} nested{reason}")
            if choice.about_no_object():
                lines.append(f"  warning: {choice.about_no_object()}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Trials:
    """The candidate rules of one class, numbered by cut, then threshold, then area; the last is no object at all."""

    settings: ObjectSettings

    @property
    def cuts(self) -> list[Split]:
        depths = [Split("depth", depth) for depth in self.settings.depths]
        return [Split(), *depths, *(Split("rise", rise) for rise in self.settings.rises)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of all rules but the last."""
        return len(self.cuts), len(OBJECT_THRESHOLDS), len(self.settings.areas)

    def rule(self, index: int, mask: Rule) -> ObjectRule:
        """The rule with this number, with the gates and steps of the mask's rule."""
        if index == np.prod(self.shape):
            return ObjectRule(Rule(NO_MASK))
        cut, threshold, area = np.unravel_index(index, self.shape)
        mask = replace(mask, threshold=OBJECT_THRESHOLDS[threshold])
        return ObjectRule(mask, self.cuts[cut], self.settings.areas[area])

    def scores(
        self, masks: Sequence[Rule], probability_map: np.ndarray, truth: np.ndarray, presence: int | None = None
    ) -> np.ndarray:
        """The score of each rule with the gates and steps of each mask's rule on one image, float64 (masks, rules)."""
        empty = object_score(match_objects(np.zeros_like(truth), truth), self.settings)
        scores, by_steps = np.full((len(masks), np.prod(self.shape) + 1), empty), {}
        for number, mask in enumerate(masks):
            if not mask.is_shut(probability_map, presence):
                if mask.steps not in by_steps:
                    by_steps[mask.steps] = self._scores_of_open_masks(mask.steps, probability_map, truth)
                scores[number, :-1] = by_steps[mask.steps]
        return scores

    def _scores_of_open_masks(
        self, steps: tuple[Step, ...], probability_map: np.ndarray, truth: np.ndarray
    ) -> np.ndarray:
        scores = np.empty(self.shape)
        for number, threshold in enumerate(OBJECT_THRESHOLDS):
            mask = Rule(threshold, steps=steps)
            for cut, split in enumerate(self.cuts):
                matches = match_objects(ObjectRule(mask, split).apply(probability_map), truth)
                scores[cut, number] = [object_score(matches, self.settings, area) for area in self.settings.areas]
        return scores.ravel()

    def choose(self, scores: np.ndarray, cut: bool) -> int:
        """The number of the rule with the best mean score, the first of equal ones, of scores (images, rules).

        Without `cut`, rules that cut touching objects do not take part.
        """
        means = scores.mean(axis=0)
        if not cut:
            means[len(means[:-1]) // len(self.cuts) : -1] = -np.inf
        return int(np.argmax(means))


@dataclass(frozen=True)
class ClassTrials:
    """The scores of one class's candidate rules on the images."""

    trials: Trials
    masks: MaskRules
    scores: dict[Rule, np.ndarray]  # by kind of the mask's rule, (images, rules)
    parts: np.ndarray  # (images,)
    blind_scores: dict[int, dict[Rule, np.ndarray]] = field(default_factory=dict)  # by part: on maps blind to it

    def best(self, cut: bool) -> tuple[ObjectRule, np.ndarray]:
        """The best rule on all images, and the score of each image."""
        scores = self.scores[without_threshold(self.masks.rule)]
        column = self.trials.choose(scores, cut)
        return self.trials.rule(column, self.masks.rule), scores[:, column]

    def nested(self, cut: bool) -> tuple[dict[int, ObjectRule], np.ndarray]:
        """The rule chosen without each part, mask and all, and the score of each image at that without its part."""
        left_out_scores, chosen = np.empty(len(self.parts)), {}
        for part, others, left_out in splits(self.parts):
            mask = self.masks.without_part[part]
            scores = self.blind_scores.get(part, self.scores)[without_threshold(mask)]
            column = self.trials.choose(scores[others], cut)
            chosen[part], left_out_scores[left_out] = self.trials.rule(column, mask), scores[left_out, column]
        return chosen, left_out_scores


def search_objects(
    store: MapStore,
    data: TrainingData,
    table: pd.DataFrame,
    masks: dict[str, MaskRules],
    settings: ObjectSettings,
    bootstrap: int,
    blind: Sequence[BlindMaps] = (),
) -> ObjectResult:
    """Choose the object rule of each class on out-of-fold maps.

    `table` has the columns id, group and part (see `nested_parts`); the interval is of `bootstrap` resamples. If there
    are more than objects.images images, a fixed random sample is used. The rules for the parts that maps of `blind` are
    blind to are chosen on these. Raises UserError for a single image.
    """
    table = table.sample(min(len(table), settings.images), random_state=0).sort_values("id")
    groups, parts, trials = group_numbers(table.group.to_numpy()), table.part.to_numpy(), Trials(settings)
    scores = score_trials(trials, store, data, table.id, masks)
    blind_scores = {}
    for maps in blind:
        blind_scores |= dict.fromkeys(maps.parts, score_trials(trials, maps.maps, data, table.id, masks))
    choices = {}
    for name, rules in masks.items():
        of_class = {part: of_part[name] for part, of_part in blind_scores.items()}
        choices[name] = choose_objects(ClassTrials(trials, rules, scores[name], parts, of_class), groups)
    nested = np.stack([choice.nested_scores for choice in choices.values()], axis=1)
    interval = bootstrap_interval(nested, np.ones_like(nested), groups, bootstrap)
    return ObjectResult(describe_score(settings), choices, interval, table.id.tolist())


def score_trials(
    trials: Trials, store: MapReader, data: TrainingData, ids: Sequence[str], masks: dict[str, MaskRules]
) -> dict[str, dict[Rule, np.ndarray]]:
    """By class and kind of its mask's rules, the scores of all candidates on the images, (images, rules)."""
    kinds = {name: rules.kinds for name, rules in masks.items()}
    required = dict(enumerate(sum(kinds.values(), [])))

    def measure(pair: Pair) -> list[np.ndarray]:
        image_id, maps, truth = pair
        presence = presence_for(required, store, image_id)
        of_classes = planes(maps), planes(truth), [None] * len(masks) if presence is None else presence.tolist()
        return [trials.scores(*of_class) for of_class in zip(kinds.values(), *of_classes, strict=True)]

    measured = prefetched(measure, read_objects(store, data, ids), ahead=2 * THREADS)
    scores = [of_image for _, of_image in progress("objects", measured, len(ids))]
    return {
        name: dict(zip(of_class, np.stack(of_images, axis=1), strict=True))
        for (name, of_class), *of_images in zip(kinds.items(), *scores, strict=True)
    }


def choose_objects(tried: ClassTrials, groups: np.ndarray) -> ClassObjects:
    """Choose the rule of one class; `groups` is (images,)."""
    by_cut = {cut: tried.nested(cut) for cut in (False, True)}
    components = by_cut[False][1]
    gain = _gain(components, by_cut[True][1], groups)
    adopted = not gain.doubt()
    without_part, nested = by_cut[adopted]
    rule, scores = tried.best(adopted)
    none = tried.scores[without_threshold(tried.masks.rule)][:, -1]
    return ClassObjects(
        rule=rule,
        nested=float(nested.mean()),
        in_sample=float(scores.mean()),
        components=float(components.mean()),
        all_empty=float(none.mean()),
        over_none=_gain(none, nested, groups),
        gain=gain,
        without_part=without_part,
        nested_scores=nested,
    )


def _gain(before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> Gain:
    """The gain in the mean from some scores (images,) to others."""
    return Gain.between(*(np.stack([scores, np.ones_like(scores)]) for scores in (before, after)), groups)
