"""Threshold and morphology chosen together on out-of-fold maps, each class on its own.

lib/tuning/morphology_candidates.py says what is tried, lib/tuning/step_selection.py how it is chosen. A class adopts
steps only where selecting them gains more than two standard errors on folds that are left out of the selection too,
so no class falls.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lib.base.errors import UserError
from lib.base.files import write_text
from lib.base.prefetch import THREADS, prefetched
from lib.base.progress import progress
from lib.config.schema import PostprocessSettings, ThresholdSettings
from lib.masks.metrics import THRESHOLDS, Counts, Metric, pooled
from lib.masks.rules import Rule
from lib.masks.statistics import Terms, bootstrap_interval, group_numbers, influence, is_sure
from lib.tuning.disk_table import DiskTable
from lib.tuning.morphology_candidates import GRID, Candidates
from lib.tuning.step_selection import Block, ClassSearch, Family
from lib.tuning.thresholds import score_table

SCORES = ("nested", "in_sample", "gap")


@dataclass(frozen=True)
class ClassOutcome:
    """What was adopted for one class, and what it gains over the threshold alone."""

    rule: Rule
    before: dict[str, float]  # nested, in_sample, gap: the scores of the threshold alone
    after: dict[str, float]  # the same of the rule; its nested score leaves each fold out of the selection too
    gain: float  # nested, of selecting steps by this procedure
    standard_error: float
    without_fold: dict[int, Rule]  # what is selected without each fold
    tried: list[dict]  # each family: how many rules, the best of them, in-sample and nested gain, standard error
    terms: np.ndarray  # (2, images) nested terms of the rule
    image_gain: np.ndarray  # (images,) score of the rule minus that of the threshold alone, both tuned on all images
    shown: Rule  # what pictures show: the rule or, where no step is adopted, the best that was tried
    shown_gain: np.ndarray  # (images,) as image_gain

    def to_dict(self) -> dict:
        return {
            "rule": self.rule.to_dict(),
            "adopted": bool(self.rule.steps),
            "before": self.before,
            "after": self.after,
            "gain": self.gain,
            "standard_error": self.standard_error,
            "without_fold": {str(fold): str(rule) for fold, rule in self.without_fold.items()},
            "tried": self.tried,
        }


@dataclass(frozen=True)
class PostprocessResult:
    """The outcomes of all classes; scores are means over the classes."""

    metric: Metric
    classes: dict[str, ClassOutcome]
    interval: tuple[float, float]  # 95 % bootstrap interval of the nested score after
    ids: np.ndarray  # (images,)

    @property
    def shown_gain(self) -> np.ndarray:
        """What each image gains by the shown rules over the thresholds alone, mean over the classes, (images,)."""
        return np.mean([outcome.shown_gain for outcome in self.classes.values()], axis=0)

    def mean(self, when: str, score: str) -> float:
        """Mean over the classes; `when` is before or after, `score` nested, in_sample or gap."""
        return float(np.mean([getattr(outcome, when)[score] for outcome in self.classes.values()]))

    def to_dict(self) -> dict:
        """For postprocess.json; `read_rules` of lib/masks/rules.py reads the rules back."""
        return {
            "metric": vars(self.metric),
            **{when: {score: self.mean(when, score) for score in SCORES} for when in ("before", "after")},
            "interval": list(self.interval),
            "thresholds_of_component_steps": GRID.tolist(),  # of the other steps: all
            "classes": {name: outcome.to_dict() for name, outcome in self.classes.items()},
        }

    def write_gains(self, path: Path) -> None:
        """Write postprocess.csv: what each image gains by the rules, one column per class."""
        gains = {f"gain_{name}": outcome.image_gain for name, outcome in self.classes.items()}
        table = pd.DataFrame({"id": self.ids, **gains})
        write_text(path, table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))

    def __str__(self) -> str:
        low, high = self.interval
        nested, in_sample, gap = ([self.mean(when, score) for when in ("before", "after")] for score in SCORES)
        lines = [
            f"{self.metric}: nested {nested[0]:.4f} -> {nested[1]:.4f} (95 % {low:.4f} to {high:.4f}), "
            f"in-sample {in_sample[0]:.4f} -> {in_sample[1]:.4f}, gap {gap[0]:+.4f} -> {gap[1]:+.4f}"
        ]
        for name, outcome in self.classes.items():
            adopted = "" if outcome.rule.steps else ", no step adopted"
            tried = sum(row["rules"] for row in outcome.tried)
            gain = f"nested gain of searching {tried} rules {outcome.gain:+.4f} ± {outcome.standard_error:.4f}"
            lines.append(f"  {name}: {outcome.rule}; {gain}{adopted}")
        return "\n".join(lines)


class CandidateTerms:
    """The terms of all candidates on all images of one class, in float32 on disk: about 40 KB an image."""

    def __init__(self, candidates: Candidates, metric: Metric, folder: Path):
        self.candidates, self.metric = candidates, metric
        _, *component_steps = candidates.component_steps  # the first is no step: counted at all thresholds already
        self.blocks = [(first, THRESHOLDS) for first in candidates.radius]
        self.blocks += [(first + then, GRID) for then in component_steps for first in candidates.radius]
        self.rules = sum(len(thresholds) for _, thresholds in self.blocks)
        self.table = DiskTable(folder, 2 * self.rules if metric.pools else self.rules)  # denominators of a mean are 1

    def measure(self, probability_map: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An image's row of the table, and the true positives of its map itself at all thresholds, (255,)."""
        at_all, on_grid = self.candidates.count(probability_map, truth)
        tp, predicted = np.concatenate([at_all.reshape(2, -1), on_grid[:, 1:].reshape(2, -1)], axis=1)
        row = np.concatenate(self.metric.terms(tp, predicted - tp, np.count_nonzero(truth) - tp))
        return row[: self.table.columns].astype(np.float32), at_all[0, 0]

    def families(self) -> dict[Family, list[Block]]:
        """The blocks of each family, but for the threshold alone."""
        families: dict[Family, list[Block]] = {}
        before = 0
        for steps, thresholds in self.blocks:
            if steps:
                block = Block(steps, thresholds, Terms(len(thresholds), partial(self._read, before)))
                families.setdefault(tuple(step.name for step in steps), []).append(block)
            before += len(thresholds)
        return families

    def _read(self, before: int, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """The terms of some columns of the block that has so many columns before it."""
        first, end = before + part.start, before + part.stop
        numerator = self.table.read(slice(first, end))
        if not self.metric.pools:
            return numerator, np.broadcast_to(np.float32(1), numerator.shape)
        return numerator, self.table.read(slice(self.rules + first, self.rules + end))


def search_morphology(
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]],
    counts: Counts,
    folds: np.ndarray,
    groups: np.ndarray,
    thresholds: ThresholdSettings,
    settings: PostprocessSettings,
    folder: Path,
) -> PostprocessResult:
    """Choose threshold and morphology steps of each class.

    `pairs` streams (id, map, truth), both uint8 (height, width, classes), of the images of `counts` in any order;
    each is read once. `folds` and `groups` are (images,), in the order of `counts.ids`. With `settings.steps` empty
    nothing is read and no step adopted. The scores of all rules, about 40 KB for each image and class, are in a file
    in `folder` meanwhile. Raises UserError for fewer than three folds (selecting steps without one fold takes two
    others), for maps that are not the ones counted, and where that file finds no room.
    """
    searches = class_searches(pairs, counts, folds, groups, thresholds, settings, folder)
    outcomes = [choose_steps(search) for search in searches]
    terms = np.stack([outcome.terms for outcome in outcomes], axis=2)
    interval = bootstrap_interval(*terms, searches[0].table.groups, thresholds.bootstrap)
    classes = dict(zip(counts.classes.tolist(), outcomes, strict=True))
    return PostprocessResult(Metric.of(thresholds), classes, interval, counts.ids)


def class_searches(
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]],
    counts: Counts,
    folds: np.ndarray,
    groups: np.ndarray,
    thresholds: ThresholdSettings,
    settings: PostprocessSettings,
    folder: Path,
) -> list[ClassSearch]:
    """What there is to choose from for each class, measured on the pairs; as `search_morphology`, which chooses."""
    metric, groups = Metric.of(thresholds), group_numbers(groups)
    tables = [score_table(counts, index, metric, groups) for index in range(len(counts.classes))]
    families = [{(): [Block((), THRESHOLDS, table.terms)]} for table in tables]
    if settings.steps:
        for known, terms in zip(families, _measured(pairs, counts, folds, metric, settings, folder), strict=True):
            known.update(terms.families())
    return [ClassSearch(table, known, folds, thresholds.rule) for table, known in zip(tables, families, strict=True)]


def _measured(
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]],
    counts: Counts,
    folds: np.ndarray,
    metric: Metric,
    settings: PostprocessSettings,
    folder: Path,
) -> list[CandidateTerms]:
    """The terms of every class from the stream, measured on all cores."""
    if len(np.unique(folds)) < 3:
        raise UserError(
            "choosing morphology takes out-of-fold maps of at least three folds; train another fold with "
            "02_train.py, or set postprocess.steps=[] to do without"
        )
    measured = [CandidateTerms(Candidates.build(settings), metric, folder) for _ in counts.classes]
    numbers = {image_id: number for number, image_id in enumerate(counts.ids.tolist())}

    def measure(pair: tuple[str, np.ndarray, np.ndarray]) -> list[np.ndarray]:
        image_id, maps, truths = pair
        number, rows = numbers.get(image_id), []
        for index, terms in enumerate(measured):
            row, tp = terms.measure(np.ascontiguousarray(maps[..., index]), np.ascontiguousarray(truths[..., index]))
            if number is None or not np.array_equal(tp, counts.tp[number, index]):
                raise UserError(
                    f"the map or mask of image {image_id} is not the one counted in oof_counts.npz; "
                    "run 03_oof_threshold.py again"
                )
            rows.append(row)
        return rows

    missing = set(numbers)
    for (image_id, _, _), rows in progress("morphology", prefetched(measure, pairs, 2 * THREADS), len(numbers)):
        for terms, row in zip(measured, rows, strict=True):
            terms.table.write(numbers[image_id], row)
        missing.discard(image_id)
    if missing:
        raise UserError(f"there is no map of image {min(missing)}; run 03_oof_threshold.py again")
    return measured


def choose_steps(search: ClassSearch) -> ClassOutcome:
    """What to adopt for one class: the steps selected on all folds, where selecting gains enough to be sure of."""
    alone, procedure, tuned = search.nested(()), search.procedure(), search.tuned(frozenset())
    gain, error = search.gain(procedure, alone)
    tried = sorted(_tried(search), key=lambda row: -row["nested_gain"])
    adopted = search.select() if is_sure(gain, error) else ()
    shown = adopted or next((tuple(row["steps"]) for row in tried if row["steps"]), ())
    nested = procedure if adopted else alone
    in_sample_before, in_sample_after = search.terms(tuned[()]), search.terms(tuned[adopted])
    return ClassOutcome(
        rule=tuned[adopted].rule,
        before=_scores(alone, in_sample_before),
        after=_scores(nested, in_sample_after),
        gain=gain,
        standard_error=error,
        without_fold={fold: search.selected_without(fold).rule for fold in np.unique(search.folds).tolist()},
        tried=tried,
        terms=nested,
        image_gain=influence(*in_sample_after) - influence(*in_sample_before),
        shown=tuned[shown].rule,
        shown_gain=influence(*search.terms(tuned[shown])) - influence(*in_sample_before),
    )


def _scores(nested_terms: np.ndarray, in_sample_terms: np.ndarray) -> dict[str, float]:
    nested, in_sample = float(pooled(*nested_terms)), float(pooled(*in_sample_terms))
    return {"nested": nested, "in_sample": in_sample, "gap": in_sample - nested}


def _tried(search: ClassSearch) -> Iterator[dict]:
    """A row for each family: how many rules it has, the best of them, and what that gains over the threshold alone."""
    tuned, alone = search.tuned(frozenset()), search.nested(())
    for family, best in tuned.items():
        gain, error = search.gain(search.nested(family), alone)
        yield {
            "steps": list(family),
            "rules": sum(len(block.thresholds) for block in search.families[family]),
            "rule": str(best.rule),
            "in_sample_gain": float(pooled(*search.terms(best)) - pooled(*search.terms(tuned[()]))),
            "nested_gain": gain,
            "standard_error": error,
        }
