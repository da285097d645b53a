"""Predictions at ignored pixels count nowhere after training: not in ensembles, morphology, scores or report.

The classes exclude each other, as they do wherever a mask file has a value for each.
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lib.config.check import check_settings
from lib.data.competition import TrainingData, open_training
from lib.masks.metrics import IGNORED, count_images
from lib.masks.rules import Rule, Step, apply_rules
from lib.prediction.ensemble import AveragedMaps, find_weights, weights_of_images
from lib.prediction.map_store import MapStore, read_pairs
from lib.report.findings import errors_part
from lib.report.measures import OofScores, measure_oof
from lib.submission.round_trip import round_trip_score
from lib.tuning.morphology_search import search_morphology

SHAPE, CUT = (36, 44), 30  # columns from here on are ignored
IDS = [f"image_{number}" for number in range(6)]
SETTINGS = {
    "name": "x",
    "data": {"train_masks": "masks", "classes": {"a": 1, "b": 2}, "masks": {"ignore": 255}},
    "postprocess": {"steps": ["opening", "remove", "fill"], "radii": [1], "areas": [8]},
    "ensemble": {"members": ["one", "two"], "weights": "search"},
}
STEPS = {"a": Rule(120, None, (Step("opening", 1),)), "b": Rule(140, None, (Step("dilation", 1), Step("remove", 9)))}


def labels(random: np.random.Generator) -> np.ndarray:
    values = cv2.GaussianBlur(random.normal(0, 1, SHAPE), (0, 0), 4)
    return np.select([values > 0.06, values < -0.08], [1, 2], 0).astype(np.uint8)


def member(root: Path, truths: dict[str, np.ndarray], seed: int, seed_of_ignored: int) -> MapStore:
    """Maps of a member, good at the known pixels and noise at the others."""
    store, random, other = MapStore(root, ("a", "b"), True), *map(np.random.default_rng, (seed, seed_of_ignored))
    for image_id, truth in truths.items():
        noise = cv2.GaussianBlur(random.normal(0, 120, (*SHAPE, 2)), (0, 0), 2)
        maps = 100 + 60 * (truth[..., None] == [1, 2]) + noise
        maps[:, CUT:] = other.integers(0, 256, (SHAPE[0], SHAPE[1] - CUT, 2))
        store.write(image_id, np.clip(maps, 0, 255).astype(np.uint8))
    return store


@pytest.fixture(scope="module")
def truths() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {image_id: labels(random) for image_id in IDS}


def training_data(root: Path, truths: dict[str, np.ndarray], width: int = SHAPE[1]) -> TrainingData:
    """Images and mask files in which all columns from CUT on are ignored, of some width."""
    for folder in ("train_images", "masks"):
        (root / folder).mkdir(parents=True)
    for image_id, truth in truths.items():
        written = np.where(np.arange(SHAPE[1]) < CUT, truth, 255).astype(np.uint8)[:, :width]
        for folder in ("train_images", "masks"):
            cv2.imwrite(str(root / folder / f"{image_id}.png"), written)
    return open_training(settings_at(root).data)


def settings_at(root: Path):
    return check_settings(SETTINGS | {"data": SETTINGS["data"] | {"root": str(root)}}, root)


def everything(root: Path, data: TrainingData, stores: list[MapStore]) -> tuple:
    """The results of 03, 05 and the report for two members' maps."""
    settings, table = settings_at(root), pd.DataFrame({"id": IDS, "fold": [0, 1, 2] * 2, "group": IDS})
    weights = find_weights(stores, settings, data, table)
    averaged = AveragedMaps(stores, weights_of_images(weights["of_part"], table), True)
    counts = count_images(read_pairs(averaged, data, IDS, None), data.classes)

    def read(ids):
        return read_pairs(stores[0], data, ids, None)

    of_first = count_images(read(IDS), data.classes)
    folds, groups = table.fold.to_numpy(), table.group.to_numpy()
    result = search_morphology(read, of_first, folds, groups, settings.threshold, settings.steps_to_try)
    score = round_trip_score(read(IDS), STEPS, settings)
    stats = measure_oof(read(IDS), STEPS, stores[0])
    part = errors_part(OofScores.of(of_first, STEPS), stats)
    of_images = {image_id: vars(of_image) for image_id, of_image in stats.items()}
    return weights, counts.tp, counts.fp, counts.pixels, result.to_dict(), score, of_images, part


def test_nothing_depends_on_what_is_predicted_there(tmp_path, truths):
    data = training_data(tmp_path, truths)
    found = [
        everything(tmp_path, data, [member(tmp_path / f"{name}{seed}", truths, number, seed)
                                    for number, name in enumerate(("one", "two"))])
        for seed in (11, 12)
    ]  # fmt: skip
    assert not np.array_equal(*(cv2.imread(str(tmp_path / f"one{seed}/a/image_0.png"), 0) for seed in (11, 12)))
    assert found[0][1].any() and found[0][4]["classes"]["a"]["tried"]
    np.testing.assert_equal(found[0], found[1])


def test_counts_and_coverage_are_those_of_images_with_these_pixels_cut_out(tmp_path, truths):
    whole, cut = training_data(tmp_path / "whole", truths), training_data(tmp_path / "cut", truths, CUT)
    store, cut_store = member(tmp_path / "maps", truths, 0, 1), MapStore(tmp_path / "cut_maps", ("a", "b"), True)
    for image_id in IDS:
        cut_store.write(image_id, np.ascontiguousarray(store.read(image_id)[:, :CUT]))
    thresholds = {"a": Rule(120), "b": Rule(140)}
    counts, stats = [], []
    for data, maps in ((whole, store), (cut, cut_store)):
        counts.append(count_images(read_pairs(maps, data, IDS, None), data.classes))
        stats.append(measure_oof(read_pairs(maps, data, IDS, None), thresholds, maps))
    for name in ("tp", "fp", "positives", "pixels"):
        np.testing.assert_array_equal(getattr(counts[0], name), getattr(counts[1], name))
    for image_id in IDS:
        assert (whole.read_mask(image_id) == IGNORED).any() and not (cut.read_mask(image_id) == IGNORED).any()
        np.testing.assert_allclose(stats[0][image_id].coverage, stats[1][image_id].coverage)


def test_no_pixel_of_an_average_is_of_two_classes(tmp_path, truths):
    data, table = training_data(tmp_path, truths), pd.DataFrame({"id": IDS, "fold": [0, 1, 2] * 2, "group": IDS})
    stores = [member(tmp_path / name, truths, number, 5) for number, name in enumerate(("one", "two"))]
    of_part = find_weights(stores, settings_at(tmp_path), data, table)["of_part"]
    found = []
    for _, maps, _ in read_pairs(AveragedMaps(stores, weights_of_images(of_part, table), True), data, IDS, None):
        masks = apply_rules({"a": Rule(60), "b": Rule(60)}, maps)
        assert masks.sum(axis=2).max() == 1
        found.append(masks.any(axis=(0, 1)))
    assert np.all(found)
