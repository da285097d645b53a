"""Threshold cross-validation: chooses the threshold of each class on out-of-fold counts, and scores it honestly.

The classes are independent: every metric is a mean over classes, so the best threshold of each class is also the best
overall. In-sample scores are tuned and scored on the same images. Nested scores are tuned on the images of the other
folds and scored on the fold left out; each image counts once, so folds weigh by their size. For `dice_global` the
pixels of all images are pooled, those of each image counted at the threshold tuned without its fold.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from lib.config.schema import Settings, ThresholdSettings
from lib.data.competition import TrainingData
from lib.masks.metrics import Counts, Metric, pooled
from lib.masks.rules import NO_MASK, Rule
from lib.masks.statistics import Gain, bootstrap_interval, group_numbers, nested_parts, splits
from lib.prediction.map_store import MapReader, count_maps
from lib.tuning.blind_maps import BlindMaps
from lib.tuning.plateau import best_threshold, plateau
from lib.tuning.presence import PresenceTrial, best_presence
from lib.tuning.score_table import ScoreTable, TablesToTune
from lib.tuning.threshold_result import ClassChoice, ThresholdResult
from lib.tuning.triplet import best_gate

HALF = 128  # the threshold that is p >= .5


def score_maps(
    maps: MapReader, blind: Sequence[BlindMaps], data: TrainingData, table: pd.DataFrame, settings: Settings
) -> tuple[Counts, ThresholdResult]:
    """The pixel counts of out-of-fold maps and the rules chosen on them; `table` has the columns id, fold and group."""
    counts = count_maps(maps, data, table.id, settings.submission.size)
    return counts, choose_thresholds(counts, table.fold.to_numpy(), settings.threshold, table.group.to_numpy(), blind)


def choose_thresholds(
    counts: Counts,
    folds: np.ndarray,
    settings: ThresholdSettings,
    groups: np.ndarray | None,
    blind: Sequence[BlindMaps] = (),
) -> ThresholdResult:
    """Choose the rule of each class from out-of-fold counts.

    `folds` and `groups` are (images,), in the order of `counts.ids`; with None every image is a group of its own.
    Fewer than three folds are replaced by parts, see `nested_parts`. The rules for the parts that maps of `blind` are
    blind to are tuned on these. Raises UserError for a single image.
    """
    metric = Metric.of(settings)
    groups = np.arange(len(counts.ids)) if groups is None else group_numbers(groups)
    parts = nested_parts(folds, groups)
    classes = {
        str(name): _choose_class(_tables_to_tune(counts, blind, class_index, metric, groups), parts, settings.rule)
        for class_index, name in enumerate(counts.classes)
    }
    nested = np.stack([choice.nested_terms for choice in classes.values()], axis=2)
    interval = bootstrap_interval(*nested, groups, settings.bootstrap)
    return ThresholdResult(metric, classes, interval, parts, len(np.unique(folds)))


def _tables_to_tune(
    counts: Counts, blind: Sequence[BlindMaps], class_index: int, metric: Metric, groups: np.ndarray
) -> TablesToTune:
    blind_to = {}
    for maps in blind:
        blind_to |= dict.fromkeys(maps.parts, ScoreTable.of_class(maps.counts, class_index, metric, groups))
    return TablesToTune(ScoreTable.of_class(counts, class_index, metric, groups), blind_to)


def tune(table: ScoreTable, kind: str) -> Rule:
    """The best rule for the images of the table: a threshold, with a gate for `triplet`, or no mask at all.

    If the table has presence and requiring it gains, the rule requires it; presence is decided first.
    """
    rule = Rule(NO_MASK, presence=best_presence(table))
    gate = best_gate(table.behind_gates(rule)) if kind == "triplet" else None
    rule = replace(rule, gate=gate)
    behind = _behind(rule, table)
    threshold = best_threshold(behind)
    if pooled(*table.empty_terms()) > pooled(*behind.terms_at(threshold)):
        return Rule(NO_MASK)
    return replace(rule, threshold=threshold)


def _behind(rule: Rule, table: ScoreTable) -> ScoreTable:
    """The table after the rule's gates: masks emptied where they shut, and thresholds only up to the gate's top."""
    opened = table.behind_gates(rule)
    return opened.up_to(rule.gate.top) if rule.gate else opened


def _choose_class(tables: TablesToTune, parts: np.ndarray, kind: str) -> ClassChoice:
    """The choice of that kind; a triplet is compared with a threshold alone, since three numbers overfit more."""
    choice = _choose_with_presence(tables, parts, kind)
    if kind == "threshold":
        return choice
    alone = _choose_rule(tables.without_presence(), parts, "threshold")
    gain = Gain.between(alone.nested_terms, choice.nested_terms, tables.own.groups)
    return replace(choice, over_threshold=gain)


def _choose_with_presence(tables: TablesToTune, parts: np.ndarray, kind: str) -> ClassChoice:
    """The choice without presence or, if its nested score gains enough, with it."""
    without = _choose_rule(tables.without_presence(), parts, kind)
    if tables.own.presence is None:
        return without
    asking = _choose_rule(tables, parts, kind)
    trial = PresenceTrial.between(without.nested_terms, asking.nested_terms, asking.rule, tables.own)
    return replace(without if trial.reason_against else asking, presence=trial)


def _choose_rule(tables: TablesToTune, parts: np.ndarray, kind: str) -> ClassChoice:
    table = tables.own
    rule = tune(table, kind)
    curve = table.behind_gates(rule).scores()
    nested = np.empty((2, len(parts)))
    without_part, fold_curves, fold_nested = {}, {}, {}
    for fold, others, left_out in splits(parts):
        alone = table.of(left_out)
        fold_curves[fold] = alone.behind_gates(rule).scores()
        tuned = without_part[fold] = tune(tables.without(fold).of(others), kind)
        nested[:, left_out] = terms_of(tuned, alone)
        fold_nested[fold] = float(pooled(*nested[:, left_out]))
    return ClassChoice(
        kind=kind,
        rule=rule,
        plateau=plateau(_behind(rule, table), rule.threshold),
        without_part=without_part,
        curve=curve,
        fold_curves=fold_curves,
        fold_nested=fold_nested,
        in_sample_terms=terms_of(rule, table),
        nested_terms=nested,
        at_half=float(pooled(*table.terms_at(HALF))),
        empty_terms=table.empty_terms(),
        over_no_mask=Gain.between(table.empty_terms(), nested, table.groups),
    )


def terms_of(rule: Rule, table: ScoreTable) -> np.ndarray:
    """The terms of a rule without morphology, (2, images)."""
    tp, fp = table.counts_at(rule)
    return np.stack(table.metric.terms(tp, fp, table.positives - tp))
