"""Nothing that is chosen for a part of the images depends on that part's truth, the weights of an ensemble included."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib.config.schema import ObjectSettings, PostprocessSettings, Settings
from lib.masks.morphology import components
from lib.prediction.ensemble import AveragedMaps, find_weights, parts_of_images, weights_of_images
from lib.prediction.map_store import count_maps, read_pairs
from lib.tuning.blind_maps import BlindMaps, build_blind_maps
from lib.tuning.morphology_search import search_morphology
from lib.tuning.object_search import MaskRules, search_objects
from lib.tuning.thresholds import choose_thresholds

IMAGES, SIDE = 15, 12
STEPS = PostprocessSettings(steps=["remove"], areas=[8])
OBJECTS = ObjectSettings(areas=[0, 4], depths=[1], rises=[])


@dataclass(frozen=True)
class Maps:
    """A member's maps and presence by image, in memory."""

    maps: dict[str, np.ndarray]
    presences: dict[str, np.ndarray]
    are_exclusive: bool = False

    def read(self, image_id: str) -> np.ndarray:
        return self.maps[image_id]

    def presence(self, image_id: str) -> np.ndarray:
        return self.presences[image_id]


def settings_of(rule: str) -> Settings:
    names = ["runs/a", "runs/b", "runs/c"]
    ensemble = {"members": names, "weights": "search"}
    return Settings(name="noise", ensemble=ensemble, threshold={"rule": rule, "bootstrap": 100})


def table_of(folds: int) -> pd.DataFrame:
    ids = [f"{number:02d}" for number in range(IMAGES)]
    return pd.DataFrame({"id": ids, "fold": np.arange(IMAGES) % folds, "group": ids})


def noise(random: np.random.Generator, table: pd.DataFrame) -> list[Maps]:
    return [
        Maps(
            {i: random.integers(0, 256, (SIDE, SIDE, 1), np.uint8) for i in table.id},
            {i: random.integers(0, 256, 1, np.uint8) for i in table.id},
        )
        for _ in range(3)
    ]


def truths_of(random: np.random.Generator, ids: pd.Series) -> dict[str, np.ndarray]:
    shares = random.choice([0, 0.1, 0.5], len(ids))
    return {i: (random.random((SIDE, SIDE, 1)) < share).astype(np.uint8) for i, share in zip(ids, shares, strict=True)}


def rules_without_parts(stores: list[Maps], truths: dict, table: pd.DataFrame, rule: str, is_blind: bool) -> dict:
    """By part, all that stages 03 and 05 choose without it."""
    data = SimpleNamespace(
        classes=["a"],
        settings=SimpleNamespace(are_exclusive=False),
        read_mask=truths.get,
        read_objects=lambda i: components(truths[i][..., 0])[0][..., None],
    )
    settings = settings_of(rule)
    of_part = find_weights(stores, settings, data, table)["of_part"]
    blind = build_blind_maps(of_part, stores, settings, data, table.id) if is_blind else []
    maps = AveragedMaps(stores, weights_of_images(of_part, table), False)
    counts, folds, groups = count_maps(maps, data, table.id, None), table.fold.to_numpy(), table.group.to_numpy()
    chosen = choose_thresholds(counts, folds, settings.threshold, groups, blind)

    def reader(averaged: AveragedMaps):
        return lambda ids: read_pairs(averaged, data, ids, None)

    readers = [(reader(each.maps), each) for each in blind]
    found = search_morphology(reader(maps), counts, folds, groups, settings.threshold, STEPS, readers).classes["a"]
    masks = {"a": MaskRules(found.rule, found.selected_without_part)}
    parts = table.assign(part=chosen.parts)
    objects = search_objects(maps, data, parts, masks, OBJECTS, 100, blind).classes["a"].without_part
    choices = of_part, chosen.classes["a"].without_part, found.selected_without_part, objects
    return {part: [choice.get(part, choice.get(str(part))) for choice in choices] for part in set(chosen.parts)}


@pytest.mark.parametrize(("rule", "folds"), [("threshold", 2), ("triplet", 3)])  # two folds are replaced by five parts
def test_what_is_chosen_without_a_part_does_not_depend_on_its_truth(rule, folds):
    random, table = np.random.default_rng(0), table_of(folds)
    stores, truths = noise(random, table), truths_of(random, table.id)
    first = {is_blind: rules_without_parts(stores, truths, table, rule, is_blind) for is_blind in (True, False)}
    assert len({tuple(weights) for weights, *_ in first[True].values()}) > 1  # or nothing would be tested
    others = truths | truths_of(random, table.id[table.id.map(parts_of_images(table)) == 0])
    assert rules_without_parts(stores, others, table, rule, True)[0] == first[True][0]
    assert rules_without_parts(stores, others, table, rule, False)[0] != first[False][0]  # tuned on out-of-fold maps


def test_weights_that_are_the_same_without_any_part_need_no_other_maps():
    random, table = np.random.default_rng(0), table_of(folds=3)
    stores, truths = noise(random, table), truths_of(random, table.id)
    data = SimpleNamespace(classes=["a"], settings=SimpleNamespace(are_exclusive=False), read_mask=truths.get)
    alike = dict.fromkeys("012", [0.5, 0.25, 0.25])
    assert build_blind_maps(alike, stores, settings_of("threshold"), data, table.id) == []
    mixed = alike | {"1": [1.0, 0.0, 0.0]}
    found = build_blind_maps(mixed, stores, settings_of("threshold"), data, table.id)
    assert [each.parts for each in found] == [(0, 2), (1,)]
    assert all(isinstance(each, BlindMaps) for each in found)
    for image_id in table.id:
        assert np.array_equal(found[1].maps.read(image_id), stores[0].read(image_id))
    mask = stores[0].read("05") >= 100
    assert found[1].counts.tp[5, 0, 99] == np.count_nonzero(mask & (truths["05"] == 1))
