"""Ensembles of runs: a run whose maps are the weighted average of other runs' maps, on the same folds.

Weights are equal, given, or searched for: those whose averaged out-of-fold maps score best at their best threshold.
The maps of a fold are averaged with the weights found on the other folds, those of the test images with the weights
found on all. If fewer than three folds are there, parts of the images stand in for them (`nested_parts`). How the
averages score is not decided here but as for any other run (lib/tuning/member_scores.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd

from lib.base.distributed import is_first, wait_for_all
from lib.base.files import read_json, write_json
from lib.base.prefetch import THREADS, prefetched
from lib.base.progress import progress
from lib.config.schema import Settings
from lib.data.competition import TestData, TrainingData, open_test, open_training
from lib.masks.metrics import Metric, count_at_thresholds, planes, ratio
from lib.masks.statistics import nested_parts
from lib.prediction.map_store import MapStore, Prediction, keep_highest, read_pairs
from lib.prediction.run_maps import open_oof_maps, open_test_maps, own_missing, predict_out_of_fold, predict_test
from lib.run.folder import RunFolder
from lib.run.lock import lock_run
from lib.run.members import open_members
from lib.run.provenance import test_inputs, threshold_inputs

WEIGHT_STEPS = {2: 10, 3: 6}  # into how many equal parts the search divides the weight; 4 for more members

Weighting = tuple[float, ...]  # of each member, adding up to 1


@dataclass(frozen=True)
class Scores:
    """The scores of every weighting on each part of the images."""

    weightings: list[Weighting]
    sums: np.ndarray  # (weightings, parts, classes, 2, 255), the terms of the metric summed over a part's images
    parts: np.ndarray  # (parts,) their numbers

    def best(self, among: list[Weighting], on: np.ndarray) -> Weighting:
        """Of the weightings `among` the one that scores best on some parts (bool), each class at its best threshold."""
        numbers = [self.weightings.index(weighting) for weighting in among]
        curves = ratio(*np.moveaxis(self.sums[numbers][:, on].sum(axis=1), 2, 0))  # (among, classes, 255)
        return among[int(np.argmax(curves.max(axis=2).mean(axis=1)))]

    def best_without(self, among: list[Weighting]) -> dict[str, Weighting]:
        """For each part the weighting that scores best on the others."""
        return {str(part): self.best(among, self.parts != part) for part in self.parts.tolist()}


def average_out_of_fold(run: RunFolder, settings: Settings, data: TrainingData, table: pd.DataFrame) -> MapStore:
    """Find the weights, write them to ensemble.json, and average the out-of-fold maps.

    Members' maps that are missing are predicted. Raises UserError when a member is not trained as its settings say.
    """
    stores, have_presence = [], []
    for member, member_settings in open_members(settings):
        lock_run(member)
        have_presence.append(member_settings.model.presence > 0)
        stores.append(predict_out_of_fold(member, member_settings, open_training(member_settings.data), table))
    if is_first():
        if any(have_presence) and not all(have_presence):
            print("note      some members have no presence head (model.presence), so the average has no presence")
        write_json(run.ensemble, find_weights(stores, settings, data, table))
    wait_for_all()
    weights = weights_of_images(read_json(run.ensemble)["of_part"], table)
    store = open_oof_maps(run, settings, table, threshold_inputs(run, settings))
    averaged = AveragedMaps(stores, weights, store.are_exclusive)
    _write_averages(averaged, own_missing(store, table.id.tolist()), store, all(have_presence))
    wait_for_all()
    return store


def average_test(run: RunFolder, settings: Settings, data: TestData) -> MapStore:
    """Average the members' test maps with the weights of ensemble.json; maps that are missing are predicted."""
    weights, members, stores = read_json(run.ensemble)["weights"], open_members(settings), []
    have_presence = all(member_settings.model.presence > 0 for _, member_settings in members)
    for (member, member_settings), weight in zip(members, weights.values(), strict=True):
        if weight > 0:
            lock_run(member)
            stores.append(predict_test(member, member_settings, open_test(member_settings.data)))
    store = open_test_maps(run, settings, data, test_inputs(run, settings))
    used = tuple(weight for weight in weights.values() if weight > 0)
    averaged = AveragedMaps(stores, dict.fromkeys(data.ids, used), store.are_exclusive)
    _write_averages(averaged, own_missing(store, data.ids), store, have_presence)
    wait_for_all()
    return store


def member_maps(settings: Settings) -> list[MapStore]:
    """The members' out-of-fold maps, to be averaged: of classes that exclude each other all are kept."""
    return [MapStore(member.oof, tuple(settings.data.classes)) for member, _ in open_members(settings)]


def find_weights(stores: list[MapStore], settings: Settings, data: TrainingData, table: pd.DataFrame) -> dict:
    """The weights for test images, and those of each part's maps: of all members, and without each member.

    Without a member, the others have their weights scaled up, or searched for anew.
    """
    names = [str(path) for path in settings.ensemble.members]
    together, without = trials(settings.ensemble.weights, len(names))
    weightings = sorted({*together, *(row for rows in without for row in rows)})
    scores = count_weightings(stores, weightings, settings, data, table)
    return {
        "weights": dict(zip(names, scores.best(together, np.ones(len(scores.parts), bool)), strict=True)),
        "of_part": scores.best_without(together),
        "of_part_without": {name: scores.best_without(rows) for name, rows in zip(names, without, strict=True)},
    }


def trials(setting: str | list[float], members: int) -> tuple[list[Weighting], list[list[Weighting]]]:
    """The weightings tried for all members, and for all without each."""
    if setting == "search":
        steps = WEIGHT_STEPS.get(members, 4)
        drawn = combinations_with_replacement(range(members), steps)
        together = [tuple(chosen.count(member) / steps for member in range(members)) for chosen in drawn]
        return together, [[row for row in together if row[member] == 0] for member in range(members)]
    together = _normalised([1.0] * members if setting == "equal" else setting)
    return [together], [[_normalised([*together[:member], 0.0, *together[member + 1 :]])] for member in range(members)]


def count_weightings(
    stores: list[MapStore], weightings: list[Weighting], settings: Settings, data: TrainingData, table: pd.DataFrame
) -> Scores:
    """Score every weighting's average at all thresholds in one pass over the members' maps."""
    metric = Metric.of(settings.threshold)
    part_of = parts_of_images(table)
    parts = np.unique(list(part_of.values()))
    sums = np.zeros((len(weightings), len(parts), len(data.classes), 2, 255))

    def measure(pairs: tuple) -> np.ndarray:
        truth, maps = pairs[0][2], [pair[1] for pair in pairs]
        terms = []
        for weights in weightings:
            mean = average(maps, weights)
            mean = keep_highest(mean) if data.settings.are_exclusive else mean
            averaged = zip(planes(mean), planes(truth), strict=True)
            terms.append([_curve_terms(probability_map, plane, metric) for probability_map, plane in averaged])
        return np.array(terms)

    stores = [replace(store, are_exclusive=False) for store in stores]  # the highest class is that of the average
    streams = zip(*(read_pairs(store, data, table.id, settings.submission.size) for store in stores), strict=True)
    for pairs, terms in progress("weights", prefetched(measure, streams, ahead=2 * THREADS), len(table)):
        sums[:, np.searchsorted(parts, part_of[pairs[0][0]])] += terms
    return Scores(weightings, sums, parts)


@dataclass(frozen=True)
class AveragedMaps:
    """Weighted averages of runs' maps, made as they are read."""

    stores: list[MapStore]
    weights: Mapping[str, Weighting]  # by image; stores of weight 0 are not read
    are_exclusive: bool  # a pixel is of one class at most

    def read(self, image_id: str) -> np.ndarray:
        """The average of an image's maps, uint8 (height, width, classes)."""
        return self._average(image_id, [store.read for store in self.stores])

    def presence(self, image_id: str) -> np.ndarray | None:
        """The average of an image's presence, uint8 (classes,); None where a store that counts has none."""
        return self._average(image_id, [store.presence for store in self.stores])

    def _average(self, image_id: str, readers: list[Callable[[str], np.ndarray | None]]) -> np.ndarray | None:
        weighted = zip(readers, self.weights[image_id], strict=True)
        return average(*zip(*((read(image_id), weight) for read, weight in weighted if weight > 0), strict=True))


def parts_of_images(table: pd.DataFrame) -> dict[str, int]:
    """The part of each image, by id, usually its fold (see `nested_parts`); `table` has the columns id, fold, group."""
    parts = nested_parts(table.fold.to_numpy(), table.group.to_numpy())
    return dict(zip(table.id, parts.tolist(), strict=True))


def weights_of_images(of_part: Mapping[str, Weighting], table: pd.DataFrame) -> dict[str, Weighting]:
    """The weights of each image's part, by id; `table` has the columns id, fold and group."""
    return {image_id: of_part[str(part)] for image_id, part in parts_of_images(table).items()}


def average(arrays: Sequence[np.ndarray | None], weights: Sequence[float]) -> np.ndarray | None:
    """The weighted average of uint8 arrays of one shape, rounded; None if one is None. The weights add up to 1."""
    if any(array is None for array in arrays):
        return None
    total = sum(np.float32(weight) * array for weight, array in zip(weights, arrays, strict=True) if weight > 0)
    return np.rint(total).astype(np.uint8)


def average_predictions(predictions: Sequence[Prediction], weights: Sequence[float]) -> Prediction:
    """The weighted average of maps and of presence, which is None where one has none."""
    if len(predictions) == 1:
        return predictions[0]
    return Prediction(*(average(arrays, weights) for arrays in zip(*predictions, strict=True)))


def _write_averages(averaged: AveragedMaps, ids: list[str], target: MapStore, with_presence: bool) -> None:
    def write(image_id: str) -> None:
        target.write(image_id, averaged.read(image_id), averaged.presence(image_id) if with_presence else None)

    for _ in progress("averages", prefetched(write, ids, ahead=THREADS), len(ids)):
        pass


def _curve_terms(probability_map: np.ndarray, truth: np.ndarray, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    tp, fp = count_at_thresholds(probability_map, truth)
    return metric.terms(tp, fp, np.count_nonzero(truth == 1) - tp)


def _normalised(weights: list[float]) -> Weighting:
    return tuple(weight / sum(weights) for weight in weights)
