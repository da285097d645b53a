"""Choice of threshold and morphology on out-of-fold maps, for each class separately.

lib/tuning/morphology_candidates.py lists the candidates, lib/tuning/step_selection.py selects. At most SEARCHED images
are searched, a random sample if there are more, with one of each fold that it misses: the counts of all rules take
80 KB per image. The selected rules, those on all folds and those without each fold, are then scored on all images. They
are adopted only if they gain more than two standard errors on the folds left out, so no class gets worse.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lib.base.errors import UserError
from lib.base.prefetch import THREADS, prefetched
from lib.base.progress import progress
from lib.config.schema import PostprocessSettings, ThresholdSettings
from lib.data.tables import write_table
from lib.masks.metrics import Counts, Metric, Pair, count_at_thresholds, count_mask, planes, pooled
from lib.masks.rules import Rule
from lib.masks.statistics import Gain, bootstrap_interval, group_numbers, influence
from lib.tuning.blind_maps import BlindMaps
from lib.tuning.morphology_candidates import GRID, Candidates
from lib.tuning.score_table import ScoreTable
from lib.tuning.step_selection import SelectedRules, StepSelection
from lib.tuning.threshold_result import ClassChoice, ThresholdResult
from lib.tuning.thresholds import choose_thresholds

SEARCHED = 2000  # images: 160 MB of counts, of one class at a time
SCORES = ("nested", "in_sample", "gap")

ReadPairs = Callable[[Sequence[str]], Iterable[Pair]]  # streams the images with these ids, in order
Search = Callable[[ReadPairs, Counts], StepSelection]  # `search_steps` for one class


@dataclass(frozen=True)
class ClassOutcome:
    """The rule adopted for one class, and its gain over the threshold alone."""

    before: ClassChoice  # the threshold alone
    rule: Rule
    shown: Rule  # the rule shown in pictures: the adopted one or, if it has no steps, the best one tried
    reason: str  # why no step is adopted; empty if one is
    gain: Gain  # nested gain of the whole selection procedure
    selected_without_part: dict[int, Rule]  # as the search selected them, adopted or not
    tried: list[dict]  # see `StepSelection.tried`
    nested_terms: np.ndarray  # (2, images) of the rule; each fold is left out of selecting and tuning
    in_sample_terms: np.ndarray  # (2, images) of the rule
    shown_terms: np.ndarray  # (2, images) in-sample, of `shown`

    @property
    def without_part(self) -> dict[int, Rule]:
        """By part, the rule that its images are scored with: selected and tuned without it."""
        return self.before.without_part if self.reason else self.selected_without_part

    @property
    def image_gain(self) -> np.ndarray:
        """In-sample score of the rule minus that of the threshold alone, (images,)."""
        return influence(*self.in_sample_terms) - influence(*self.before.in_sample_terms)

    @property
    def shown_gain(self) -> np.ndarray:
        """In-sample score of `shown` minus that of the threshold alone, (images,)."""
        return influence(*self.shown_terms) - influence(*self.before.in_sample_terms)

    def scores(self, when: str) -> dict[str, float]:
        """Nested score, in-sample score and their gap, `before` or `after`."""
        outcome = self.before if when == "before" else self
        nested, in_sample = float(pooled(*outcome.nested_terms)), float(pooled(*outcome.in_sample_terms))
        return {"nested": nested, "in_sample": in_sample, "gap": in_sample - nested}

    def to_dict(self) -> dict:
        return {
            "rule": self.rule.to_dict(),
            "adopted": bool(self.rule.steps),
            "before": self.scores("before"),
            "after": self.scores("after"),
            "reason": self.reason,
            "gain": self.gain.mean,
            "standard_error": self.gain.standard_error,
            "without_fold": {str(fold): str(rule) for fold, rule in self.selected_without_part.items()},
            "tried": self.tried,
        }


@dataclass(frozen=True)
class PostprocessResult:
    """The outcomes of all classes; scores are means over the classes."""

    metric: Metric
    classes: dict[str, ClassOutcome]
    interval: tuple[float, float]  # 95 % bootstrap interval of the nested score after
    ids: np.ndarray  # (images,)
    parts: np.ndarray  # (images,) the part of each image, see `ThresholdResult.parts`

    @property
    def shown_gain(self) -> np.ndarray:
        """Gain of each image by the `shown` rules over the thresholds alone, mean over the classes, (images,)."""
        return np.mean([outcome.shown_gain for outcome in self.classes.values()], axis=0)

    def mean(self, when: str, score: str) -> float:
        """Mean over the classes; `when` is before or after, `score` nested, in_sample or gap."""
        return float(np.mean([outcome.scores(when)[score] for outcome in self.classes.values()]))

    def to_dict(self) -> dict:
        """For postprocess.json; `read_rules` of lib/masks/rules.py reads the rules back."""
        return {
            "metric": vars(self.metric),
            **{when: {score: self.mean(when, score) for score in SCORES} for when in ("before", "after")},
            "interval": list(self.interval),
            "thresholds_of_component_steps": GRID.tolist(),  # other steps are tried at all
            "classes": {name: outcome.to_dict() for name, outcome in self.classes.items()},
        }

    def write_gains(self, path: Path) -> None:
        """Write postprocess.csv: the gain of each image by the rules, one column per class."""
        gains = {f"gain_{name}": outcome.image_gain for name, outcome in self.classes.items()}
        write_table(path, pd.DataFrame({"id": self.ids, **gains}), "%.6f")

    def __str__(self) -> str:
        low, high = self.interval
        nested, in_sample, gap = ([self.mean(when, score) for when in ("before", "after")] for score in SCORES)
        lines = [
            f"{self.metric}: nested {nested[0]:.4f} -> {nested[1]:.4f} (95 % {low:.4f} to {high:.4f}), "
            f"in-sample {in_sample[0]:.4f} -> {in_sample[1]:.4f}, gap {gap[0]:+.4f} -> {gap[1]:+.4f}"
        ]
        for name, outcome in self.classes.items():
            tried = sum(row["rules"] for row in outcome.tried)
            reason = f"; no step adopted: {outcome.reason}" if outcome.reason else ""
            lines.append(f"  {name}: {outcome.rule}; nested gain of searching {tried} rules {outcome.gain}{reason}")
        return "\n".join(lines)


def search_morphology(
    read: ReadPairs,
    counts: Counts,
    folds: np.ndarray,
    groups: np.ndarray,
    thresholds: ThresholdSettings,
    settings: PostprocessSettings,
    blind: Sequence[tuple[ReadPairs, BlindMaps]] = (),
) -> PostprocessResult:
    """Choose the threshold and the morphology steps of each class.

    `folds` and `groups` are (images,), in the order of `counts.ids`. With `settings.steps` empty nothing is read and
    no step is adopted. Fewer than three folds are replaced by parts, see `nested_parts`: selecting without one part
    needs two others. The rules for the parts that maps of `blind` are blind to are selected on these, each with its
    `read`. Raises UserError for fewer than three images, and for maps other than those counted.
    """
    chosen = choose_thresholds(counts, folds, thresholds, groups, [maps for _, maps in blind])
    parts, groups = chosen.parts, group_numbers(groups)
    if settings.steps and len(np.unique(parts)) < 3:
        raise UserError("choosing morphology needs at least three images; set postprocess.steps=[] to skip it")
    selected = []
    for class_index in range(len(chosen.classes)):
        search = partial(search_steps, chosen=chosen, class_index=class_index, groups=groups, settings=settings)
        selected.append(select_steps(search, read, counts, blind))
    if settings.steps:
        terms = score_rules(read, counts, parts, chosen.metric, selected)
    else:
        terms = [
            (choice.in_sample_terms, choice.in_sample_terms, choice.nested_terms) for choice in chosen.classes.values()
        ]
    classes = {
        name: adopt_steps(choice, rules, of_rules, groups)
        for (name, choice), rules, of_rules in zip(chosen.classes.items(), selected, terms, strict=True)
    }
    nested = np.stack([outcome.nested_terms for outcome in classes.values()], axis=2)
    interval = bootstrap_interval(*nested, groups, thresholds.bootstrap)
    return PostprocessResult(chosen.metric, classes, interval, counts.ids, parts)


def select_steps(
    search: Search, read: ReadPairs, counts: Counts, blind: Sequence[tuple[ReadPairs, BlindMaps]]
) -> SelectedRules:
    """The rules selected for one class, those without a part on maps that are blind to it."""
    selected = search(read, counts).selected(elsewhere={part for _, maps in blind for part in maps.parts})
    without_part = dict(selected.without_part)
    for read_blind, maps in blind:
        without_part |= search(read_blind, maps.counts).selected_without_each(maps.parts)
    return selected._replace(without_part=without_part)


def search_steps(
    read: ReadPairs,
    counts: Counts,
    chosen: ThresholdResult,
    class_index: int,
    groups: np.ndarray,
    settings: PostprocessSettings,
) -> StepSelection:
    """Count the masks of every rule of one class on the searched images; `groups` are whole numbers (images,).

    Rules require presence if the rule in `chosen` does.
    """
    choice = list(chosen.classes.values())[class_index]
    drawn = np.random.default_rng(0).permutation(len(counts.ids))
    _, of_each_part = np.unique(chosen.parts[drawn], return_index=True)
    images = np.union1d(drawn[:SEARCHED], drawn[of_each_part])
    plain = ScoreTable.of_class(counts, class_index, chosen.metric, groups).of(images)
    if choice.rule.presence is None:
        plain = replace(plain, presence=None)
    tables = {(): plain}
    if settings.steps:
        candidates = Candidates.build(settings)
        # that they are the maps of `counts` is checked once, when the rules are scored on all images
        tp, fp = count_candidates(candidates, read(counts.ids[images].tolist()), class_index, len(images))
        before = 0
        for steps, levels in candidates.blocks:
            columns = slice(before, before := before + len(levels))
            tables[steps] = replace(plain, thresholds=levels, tp=tp[:, columns], fp=fp[:, columns])
    return StepSelection(tables, chosen.parts[images], choice.kind)


def count_candidates(candidates: Candidates, pairs: Iterable[Pair], class_index: int, images: int) -> np.ndarray:
    """True and false positives of every rule on a stream of images, int32 (2, images, rules); on all cores."""

    def count(pair: Pair) -> np.ndarray:
        _, maps, truth = pair
        return candidates.count(planes(maps)[class_index], planes(truth)[class_index])

    counted = np.empty((2, images, sum(len(levels) for _, levels in candidates.blocks)), np.int32)
    for number, (_, row) in enumerate(progress("morphology", prefetched(count, pairs, 2 * THREADS), images)):
        counted[:, number] = row
    return counted


def require_counted(pairs: Iterable[Pair], counts: Counts) -> Iterator[Pair]:
    """Yield the pairs unchanged. Raises UserError for a map or mask other than the one counted."""
    numbers = {image_id: number for number, image_id in enumerate(counts.ids.tolist())}
    for image_id, maps, truth in pairs:
        tp = [count_at_thresholds(*of_class)[0] for of_class in zip(planes(maps), planes(truth), strict=True)]
        if not np.array_equal(tp, counts.tp[numbers[image_id]]):
            raise UserError(
                f"the map or mask of image {image_id} is not the one counted in oof_counts.npz; "
                "run 03_oof_threshold.py again"
            )
        yield image_id, maps, truth


def score_rules(
    read: ReadPairs, counts: Counts, parts: np.ndarray, metric: Metric, selected: list[SelectedRules]
) -> np.ndarray:
    """Terms on all images, (classes, 3, 2, images): of `rule`, of `best_tried` and of the image's `without_part`."""

    def measure(item: tuple[int, list[int | None], Pair]) -> list[list[tuple]]:
        part, presence, (_, maps, truths) = item
        terms = []
        for rules, *of_class, truth in zip(selected, planes(maps), presence, planes(truths), strict=True):
            scored = rules.rule, rules.best_tried, rules.without_part[part]
            terms.append([metric.terms(*count_mask(rule.apply(*of_class), truth)) for rule in scored])
        return terms

    presence = [[None] * len(selected)] * len(parts) if counts.presence is None else counts.presence.tolist()
    pairs = zip(parts.tolist(), presence, require_counted(read(counts.ids.tolist()), counts), strict=True)
    measured = progress("selected rules", prefetched(measure, pairs, 2 * THREADS), len(counts.ids))
    terms = np.empty((len(selected), 3, 2, len(counts.ids)))
    for number, (_, of_image) in enumerate(measured):
        terms[..., number] = of_image
    return terms


def adopt_steps(
    choice: ClassChoice, selected: SelectedRules, terms: Sequence[np.ndarray], groups: np.ndarray
) -> ClassOutcome:
    """Adopt the selected rule unless there is a reason against it; `terms` are those of the class by `score_rules`."""
    in_sample, of_best_tried, nested = terms
    gain = Gain.between(choice.nested_terms, nested, groups)
    reason = selected.reason_against(gain, float(pooled(*in_sample)) - choice.in_sample)
    return ClassOutcome(
        before=choice,
        rule=choice.rule if reason else selected.rule,
        shown=selected.best_tried if reason else selected.rule,
        reason=reason,
        gain=gain,
        selected_without_part=selected.without_part,
        tried=selected.tried,
        nested_terms=choice.nested_terms if reason else nested,
        in_sample_terms=choice.in_sample_terms if reason else in_sample,
        shown_terms=of_best_tried if reason else in_sample,
    )
