"""Threshold and morphology chosen together on out-of-fold maps, each class on its own.

lib/candidates.py says what is tried, lib/selection.py how it is chosen. A class adopts steps only where selecting
them gains more than its standard error on folds that are left out of the selection too, so no class falls.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib.candidates import GRID, Candidates, Steps
from lib.config import PostprocessSettings, ThresholdSettings
from lib.errors import UserError
from lib.files import write_text
from lib.metrics import THRESHOLDS, Counts, Metric, pooled
from lib.nested import bootstrap_interval, group_numbers, influence
from lib.parallel import THREADS, prefetched
from lib.progress import progress
from lib.rules import Rule
from lib.selection import Block, ClassSearch, Family
from lib.thresholds import score_table

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
        """For postprocess.json; `read_rules` of lib/rules.py reads the rules back."""
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
    """The terms of all candidates on all images of one class, in float32: about 40 KB an image."""

    def __init__(self, candidates: Candidates, metric: Metric, images: int):
        self.candidates, self.metric = candidates, metric
        kept = 2 if metric.pools else 1  # the denominators of a mean are all 1
        radius, component, grid = len(candidates.radius), len(candidates.component_steps), len(GRID)
        self.at_all = np.empty((kept, images, radius, len(THRESHOLDS)), np.float32)
        self.on_grid = np.empty((kept, images, component, radius, grid), np.float32)

    def measure(self, row: int, probability_map: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Fill one image's row. Returns the true positives of the map itself at all thresholds, (255,)."""
        positives = np.count_nonzero(truth)
        at_all, on_grid = self.candidates.count(probability_map, truth)
        for kept, (tp, predicted) in (self.at_all, at_all), (self.on_grid, on_grid):
            kept[:, row] = self.metric.terms(tp, predicted - tp, positives - tp)[: len(kept)]
        true_positives, _ = at_all
        return true_positives[0]  # after no step at all

    def families(self) -> dict[Family, list[Block]]:
        """The blocks of each family, but for the threshold alone."""
        families = {}
        for radius, first in enumerate(self.candidates.radius):
            blocks = [self._block(first, THRESHOLDS, self.at_all[:, :, radius])] if first else []
            for component, then in enumerate(self.candidates.component_steps):
                if then:
                    blocks.append(self._block(first + then, GRID, self.on_grid[:, :, component, radius]))
            for block in blocks:
                families.setdefault(tuple(step.name for step in block.steps), []).append(block)
        return families

    @staticmethod
    def _block(steps: Steps, thresholds: np.ndarray, terms: np.ndarray) -> Block:
        denominator = terms[1] if len(terms) == 2 else np.broadcast_to(np.float32(1), terms[0].shape)
        return Block(steps, thresholds, terms[0], denominator)


def search_morphology(
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]],
    counts: Counts,
    folds: np.ndarray,
    groups: np.ndarray,
    thresholds: ThresholdSettings,
    settings: PostprocessSettings,
) -> PostprocessResult:
    """Choose threshold and morphology steps of each class.

    `pairs` streams (id, map, truth), both uint8 (height, width, classes), of the images of `counts` in any order;
    each is read once. `folds` and `groups` are (images,), in the order of `counts.ids`. With `settings.steps` empty
    nothing is read and no step adopted. Raises UserError for fewer than three folds (selecting steps without one fold
    takes two others) and for maps that are not the ones counted.
    """
    metric, groups = Metric.of(thresholds), group_numbers(groups)
    tables = [score_table(counts, index, metric, groups) for index in range(len(counts.classes))]
    families = [{(): [Block((), THRESHOLDS, table.numerator, table.denominator)]} for table in tables]
    if settings.steps:
        for known, terms in zip(families, _measured(pairs, counts, folds, metric, settings), strict=True):
            known.update(terms.families())
    outcomes = [
        choose_steps(ClassSearch(table, known, folds, thresholds.rule))
        for table, known in zip(tables, families, strict=True)
    ]
    terms = np.stack([outcome.terms for outcome in outcomes], axis=2)
    interval = bootstrap_interval(*terms, groups, thresholds.bootstrap)
    return PostprocessResult(metric, dict(zip(counts.classes.tolist(), outcomes, strict=True)), interval, counts.ids)


def _measured(
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]],
    counts: Counts,
    folds: np.ndarray,
    metric: Metric,
    settings: PostprocessSettings,
) -> list[CandidateTerms]:
    """The terms of every class from the stream, measured on all cores."""
    if len(np.unique(folds)) < 3:
        raise UserError(
            "choosing morphology takes out-of-fold maps of at least three folds; train another fold with "
            "02_train.py, or set postprocess.steps=[] to do without"
        )
    measured = [CandidateTerms(Candidates.build(settings), metric, len(folds)) for _ in counts.classes]
    rows = {image_id: row for row, image_id in enumerate(counts.ids.tolist())}

    def measure(pair: tuple[str, np.ndarray, np.ndarray]) -> str:
        image_id, maps, truths = pair
        row = rows.get(image_id)
        for index, terms in enumerate(measured):
            layers = np.ascontiguousarray(maps[..., index]), np.ascontiguousarray(truths[..., index])
            if row is None or not np.array_equal(terms.measure(row, *layers), counts.tp[row, index]):
                raise UserError(
                    f"the map or mask of image {image_id} is not the one counted in oof_counts.npz; "
                    "run 03_oof_threshold.py again"
                )
        return image_id

    measuring = prefetched(measure, pairs, ahead=2 * THREADS)
    missing = rows.keys() - {image_id for _, image_id in progress("morphology", measuring, len(rows))}
    if missing:
        raise UserError(f"there is no map of image {min(missing)}; run 03_oof_threshold.py again")
    return measured


def choose_steps(search: ClassSearch) -> ClassOutcome:
    """What to adopt for one class: the steps selected on all folds, where selecting gains more than its error."""
    alone, procedure, tuned = search.nested(()), search.procedure(), search.tuned(frozenset())
    gain, error = search.gain(procedure, alone)
    tried = sorted(_tried(search), key=lambda row: -row["nested_gain"])
    adopted = search.select() if gain > error else ()
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
