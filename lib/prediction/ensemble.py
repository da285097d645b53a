"""Ensembles of runs: a run whose maps are the weighted average of other runs' maps, on the same folds.

Weights are equal, given, or searched for: those whose averaged out-of-fold maps score best at their best threshold.
The maps of a fold are then averaged with the weights found on the other folds, and those of the test images with the
weights found on all. What a member adds is told in the same way: weights and threshold from the other folds, scored on
the fold left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd

from lib.base.distributed import is_first, wait_for_all
from lib.base.files import read_json, sha256_of_json, write_json
from lib.base.prefetch import THREADS, prefetched
from lib.base.progress import progress
from lib.config.schema import Settings
from lib.data.competition import TestData, TrainingData, open_test
from lib.data.input_files import open_unchanged_training
from lib.masks.metrics import Metric, count_at_thresholds, ratio
from lib.masks.statistics import splits
from lib.prediction.map_store import MapStore, read_pairs
from lib.prediction.run_maps import missing_maps, missing_test_maps, predict_out_of_fold, predict_test
from lib.run.folder import RunFolder
from lib.run.lock import lock_run
from lib.run.members import open_members
from lib.run.provenance import map_inputs, test_inputs

PARTS = {2: 10, 3: 6}  # into how many equal parts the search divides the weight; 4 for more members

Weighting = tuple[float, ...]  # of each member, adding up to 1


@dataclass(frozen=True)
class Scores:
    """How every weighting scores on each fold."""

    sums: np.ndarray  # (weightings, folds, classes, 2, 255), the terms of the metric summed over a fold's images
    folds: np.ndarray  # (folds,) their numbers

    def best(self, among: np.ndarray, folds: np.ndarray) -> tuple[int, np.ndarray]:
        """Of the weightings `among` the best on some folds (bool): its number, and each class's best column."""
        curves = ratio(*np.moveaxis(self.sums[among][:, folds].sum(axis=1), 2, 0))  # (among, classes, 255)
        number = int(np.argmax(curves.max(axis=2).mean(axis=1)))
        return int(among[number]), curves[number].argmax(axis=1)

    def nested(self, among: np.ndarray) -> float:
        """The score of choosing among weightings: each fold at the weights and thresholds of the other folds."""
        pooled = 0
        for _, others, left_out in splits(self.folds):
            number, columns = self.best(among, others)
            terms = self.sums[number, left_out].sum(axis=0)  # (classes, 2, 255)
            pooled = pooled + np.stack([terms[index, :, column] for index, column in enumerate(columns)])
        return float(ratio(pooled[:, 0], pooled[:, 1]).mean())


def average_out_of_fold(run: RunFolder, settings: Settings, data: TrainingData, table: pd.DataFrame) -> MapStore:
    """Find the weights, write them and what each member adds to ensemble.json, and average the out-of-fold maps.

    Members' maps that are missing are predicted. Raises UserError when a member is not trained as its settings say.
    """
    stores = []
    for member, own in open_members(settings):
        lock_run(member)
        stores.append(predict_out_of_fold(member, own, open_unchanged_training(member, own), table))
    if is_first():
        found = find_weights(stores, settings, data, table)
        write_json(run.ensemble, found)
    wait_for_all()
    found = read_json(run.ensemble)
    store = MapStore(run.oof, tuple(data.classes))
    makers = {f"fold_{fold}": table.id[table.fold == fold].tolist() for fold in range(settings.folds.count)}
    for maker, ids in missing_maps(store, makers, map_inputs(run, settings)).items():
        if ids:
            _average(stores, found["of_fold"][maker], ids, store)
    wait_for_all()
    return store


def average_test(run: RunFolder, settings: Settings, data: TestData) -> MapStore:
    """Average the members' test maps with the weights of ensemble.json; maps that are missing are predicted."""
    weights = read_json(run.ensemble)["weights"]
    stores = []
    for (member, own), weight in zip(open_members(settings), weights.values(), strict=True):
        if weight > 0:
            lock_run(member)
            stores.append(predict_test(member, own, open_test(own.data)))
    store, missing = missing_test_maps(run, data, sha256_of_json(test_inputs(run, settings)))
    _average(stores, [weight for weight in weights.values() if weight > 0], missing, store)
    wait_for_all()
    return store


def find_weights(stores: list[MapStore], settings: Settings, data: TrainingData, table: pd.DataFrame) -> dict:
    """The weights, those of each fold's maps, and nested scores: together, each member alone, all without it.

    Without a member, the others have their weights scaled up, or searched for anew.
    """
    names = [str(path) for path in settings.ensemble.members]
    together, without, alone = trials(settings.ensemble.weights, len(names))
    weightings = sorted({*together, *alone, *(row for rows in without for row in rows)})
    scores = count_weightings(stores, np.array(weightings), settings, data, table)

    def among(rows: Iterable[Weighting]) -> np.ndarray:
        return np.array([weightings.index(row) for row in rows])

    def best(folds: np.ndarray) -> Weighting:
        return weightings[scores.best(among(together), folds)[0]]

    return {
        "weights": dict(zip(names, best(np.ones(len(scores.folds), bool)), strict=True)),
        "of_fold": {f"fold_{fold}": best(others) for fold, others, _ in splits(scores.folds)},
        "metric": str(Metric.of(settings.threshold)),
        "nested": scores.nested(among(together)),
        "alone": {name: scores.nested(among([row])) for name, row in zip(names, alone, strict=True)},
        "without": {name: scores.nested(among(rows)) for name, rows in zip(names, without, strict=True)},
    }


def trials(setting: str | list[float], members: int) -> tuple[list[Weighting], list[list[Weighting]], list[Weighting]]:
    """The weightings tried for all members, for all without each, and each member alone."""
    if setting == "search":
        parts = PARTS.get(members, 4)
        drawn = combinations_with_replacement(range(members), parts)
        together = [tuple(chosen.count(member) / parts for member in range(members)) for chosen in drawn]
        without = [[row for row in together if row[member] == 0] for member in range(members)]
    else:
        together = [_scaled([1.0] * members if setting == "equal" else setting)]
        without = [[_scaled([*together[0][:member], 0.0, *together[0][member + 1 :]])] for member in range(members)]
    return together, without, [tuple(float(other == member) for other in range(members)) for member in range(members)]


def count_weightings(
    stores: list[MapStore], weightings: np.ndarray, settings: Settings, data: TrainingData, table: pd.DataFrame
) -> Scores:
    """Score every weighting's average at all thresholds in one pass over the members' maps."""
    metric = Metric.of(settings.threshold)
    folds, fold_of = np.unique(table.fold), dict(zip(table.id, table.fold, strict=True))
    sums = np.zeros((len(weightings), len(folds), len(data.classes), 2, 255))

    def measure(pairs: tuple) -> np.ndarray:
        truth, maps = pairs[0][2], [pair[1] for pair in pairs]
        averages = (average(maps, weights) for weights in weightings)
        return np.array(
            [[_terms(mean[..., c], truth[..., c], metric) for c in range(truth.shape[2])] for mean in averages]
        )

    streams = zip(*(read_pairs(store, data, table.id, settings.submission.size) for store in stores), strict=True)
    for pairs, terms in progress("weights", prefetched(measure, streams, ahead=2 * THREADS), len(table)):
        sums[:, np.searchsorted(folds, fold_of[pairs[0][0]])] += terms
    return Scores(sums, folds)


def average(maps: list[np.ndarray], weights: Iterable[float]) -> np.ndarray:
    """The weighted average of uint8 maps of one shape, rounded; the weights add up to 1."""
    total = sum(np.float32(weight) * one for weight, one in zip(weights, maps, strict=True) if weight > 0)
    return np.rint(total).astype(np.uint8)


def describe(found: dict) -> str:
    """What ensemble.json says, in a line for all members and one for each."""
    lines = [f"ensemble of {len(found['weights'])} runs: {found['metric']} nested {found['nested']:.4f}"]
    for name, weight in found["weights"].items():
        alone, without = found["alone"][name], found["without"][name]
        lines.append(
            f"  {name}: weight {weight:.2f}, alone {alone:.4f}, the others without it {without:.4f}, "
            f"so it adds {found['nested'] - without:+.4f}"
        )
    return "\n".join(lines)


def _average(stores: list[MapStore], weights: list[float], ids: list[str], target: MapStore) -> None:
    used = [(store, weight) for store, weight in zip(stores, weights, strict=True) if weight > 0]

    def write(image_id: str) -> None:
        maps = average([store.read(image_id) for store, _ in used], [weight for _, weight in used])
        target.write(image_id, maps)

    for _ in progress("averages", prefetched(write, ids, ahead=THREADS), len(ids)):
        pass


def _terms(probability_map: np.ndarray, truth: np.ndarray, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    truth = np.ascontiguousarray(truth)
    tp, fp = count_at_thresholds(np.ascontiguousarray(probability_map), truth)
    return metric.terms(tp, fp, np.count_nonzero(truth) - tp)


def _scaled(weights: list[float]) -> Weighting:
    return tuple(weight / sum(weights) for weight in weights)
