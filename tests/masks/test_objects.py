"""Objects: cutting masks apart and scoring, against skimage, pycocotools and the competitions' formulas."""

from fractions import Fraction

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco
from skimage.measure import label

from lib.config.schema import ObjectSettings
from lib.masks.objects import ObjectRule, Split, grow, match_objects, object_score
from lib.masks.rules import Gate, Rule, Step, at_least
from lib.tuning.object_search import OBJECT_THRESHOLDS, MaskRules, Trials, search_objects

AP, F2 = ObjectSettings(metric="ap"), ObjectSettings(metric="f_beta", beta=2)
SPLITS = [Split(), Split("depth", 1), Split("depth", 3), Split("rise", 40), Split("rise", 100)]
maps = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)))
labels = arrays(np.int32, (6, 7), elements=st.integers(0, 4))


def disks(*centres: tuple[int, int], radius: int = 7, shape: tuple[int, int] = (40, 60)) -> list[np.ndarray]:
    return [cv2.circle(np.zeros(shape, np.uint8), centre, radius, 1, -1) for centre in centres]


@given(maps, st.sampled_from(SPLITS), st.integers(1, 255))
def test_objects_share_out_the_mask_and_hang_together(probability_map, split, threshold):
    mask = (probability_map >= threshold).view(np.uint8)
    found = split.label(mask, probability_map, threshold)
    assert found.dtype == np.int32 and found.shape == mask.shape
    np.testing.assert_array_equal(found > 0, mask > 0)
    for number in range(1, found.max(initial=0) + 1):
        assert label(found == number, connectivity=2).max() == 1
    if split.kind == "components":
        assert found.max(initial=0) == label(mask, connectivity=2).max()


def test_a_neck_is_cut_and_a_blob_is_not():
    one, other = disks((20, 20), (32, 20))
    mask = one | other
    assert Split().label(mask, mask, 1).max() == 1
    found = Split("depth", 4).label(mask, mask, 1)
    assert found.max() == 2
    assert len(np.unique(found[:, :26][mask[:, :26] > 0])) == 1 and len(np.unique(found[:, 27:][mask[:, 27:] > 0])) == 1
    assert Split("depth", 4).label(one, one, 1).max() == 1


@pytest.mark.parametrize("kind", ["rise", "depth"])
def test_seeds_above_the_largest_value_are_none(kind):
    """numpy 2.0 and 2.1 crash on a view of bytes compared with a number above 255, so none may be made."""
    probability_map = np.full((25, 33), 200, np.uint8)
    probability_map[3:9, 4:11] = 255
    mask = (probability_map[1:20, 2:30] >= 201).view(np.uint8)
    found = Split(kind, 96).label(mask, probability_map[1:20, 2:30], 201)
    np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize("level", [256, 272, 1000])
def test_no_pixel_reaches_a_level_above_255(level):
    view = np.full((25, 33), 255, np.uint8)[3:9, 4:11]
    assert not at_least(view, level).any() and at_least(view, 255).all()
    assert not Rule(level).apply(view).any() and not Gate(level, 1).opens(view)


def test_peaks_are_parted_at_the_valley():
    probability_map = np.full((5, 11), 130, np.uint8)
    probability_map[:, 1:4], probability_map[:, 7:10] = 250, 240
    probability_map[:, 4:7] = [[170, 140, 180]]
    mask = np.ones_like(probability_map)
    assert Split("rise", 125).label(mask, probability_map, 120).max() == 1  # of the peaks one rises so much
    found = Split("rise", 100).label(mask, probability_map, 120)
    np.testing.assert_array_equal(found[0], [1, 1, 1, 1, 1, found[0, 5], 2, 2, 2, 2, 2])


def test_growing_leaves_no_region_out():
    wide = np.array([[1, 1, 1, 0, 1, 1]], np.uint8)
    seeds = np.array([[1, 0, 0, 0, 0, 0]], np.uint8)
    np.testing.assert_array_equal(grow([seeds, wide]), [[1, 1, 1, 0, 2, 2]])


@given(maps, st.sampled_from(SPLITS), st.integers(0, 9))
def test_small_objects_are_dropped_and_numbers_have_no_gaps(probability_map, split, min_area):
    every = ObjectRule(Rule(128), split).apply(probability_map)
    kept = ObjectRule(Rule(128), split, min_area).apply(probability_map)
    areas = np.bincount(every.ravel())
    large = [number for number in range(1, len(areas)) if areas[number] >= min_area]
    assert sorted(set(kept.ravel().tolist()) - {0}) == list(range(1, len(large) + 1))
    np.testing.assert_array_equal(kept > 0, np.isin(every, large))


def score_by_hand(predicted: np.ndarray, truth: np.ndarray, settings: ObjectSettings) -> float:
    """The formulas of the competitions' pages, with IoU by pycocotools, and limits as fractions."""
    ours, theirs = (
        [np.asfortranarray((image == number).astype(np.uint8)) for number in np.unique(image[image > 0])]
        for image in (predicted, truth)
    )
    if not ours and not theirs:
        return 1.0
    encoded = [[coco.encode(mask) for mask in masks] for masks in (ours, theirs)]
    table = np.array(coco.iou(*encoded, [0] * len(theirs))).reshape(len(ours), len(theirs)) if ours and theirs else None
    total = Fraction(0)
    for k in range(10, 20):
        limit = Fraction(k, 20)
        tp = 0
        for one in range(len(ours)):
            for other in range(len(theirs)):
                common = int((ours[one] & theirs[other]).sum())
                union = int((ours[one] | theirs[other]).sum())
                assert table[one, other] == pytest.approx(common / union)
                tp += Fraction(common, union) > limit
        fp, fn = len(ours) - tp, len(theirs) - tp
        total += Fraction(tp, tp + fp + fn) if settings.metric == "ap" else Fraction(5 * tp, 5 * tp + 4 * fn + fp)
    return float(total / 10)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(deadline=None, max_examples=60)
@given(labels, labels, st.integers(0, 35), st.sampled_from([AP, F2]))
def test_scores_are_those_of_the_formulas(predicted, truth, same, chosen):
    predicted.ravel()[:same] = truth.ravel()[:same]  # or hardly any object would have a partner
    assert object_score(match_objects(predicted, truth), chosen) == pytest.approx(
        score_by_hand(predicted, truth, chosen)
    )


def test_half_is_not_more_than_half():
    truth, predicted = np.zeros((1, 9), np.int32), np.zeros((1, 9), np.int32)
    truth[0, :4], predicted[0, :2] = 1, 1  # IoU exactly .5
    assert object_score(match_objects(predicted, truth), AP) == 0
    predicted[0, :3] = 1  # .75 exceeds .5 to .7
    assert object_score(match_objects(predicted, truth), AP) == 0.5
    predicted[0, 6] = 1
    predicted[0, 6] = 2  # a false alarm beside: 1 / 2 and 5 / (5 + 1)
    assert object_score(match_objects(predicted, truth), AP) == pytest.approx(0.25)
    assert object_score(match_objects(predicted, truth), F2) == pytest.approx(0.5 * 5 / 6)
    assert object_score(match_objects(predicted, truth), AP, min_area=2) == 0.5


def test_empty_images():
    nothing, something = np.zeros((3, 4), np.int32), np.ones((3, 4), np.int32)
    for chosen in (AP, F2):
        assert object_score(match_objects(nothing, nothing), chosen) == 1
        assert object_score(match_objects(something, nothing), chosen) == 0
        assert object_score(match_objects(nothing, something), chosen) == 0


PLAIN = Rule(128)


class Stored:
    """Maps and true objects by id, as MapStore and TrainingData give them."""

    def __init__(self, pairs: dict[str, tuple[np.ndarray, np.ndarray]]):
        self.pairs = pairs

    are_exclusive = False

    def read(self, image_id: str) -> np.ndarray:
        return self.pairs[image_id][0][:, :, None]

    def read_objects(self, image_id: str) -> np.ndarray:
        return self.pairs[image_id][1][:, :, None]

    def presence(self, image_id: str) -> np.ndarray:
        return np.array([200 if self.pairs[image_id][1].any() else 50], np.uint8)


def search(pairs: dict, chosen: ObjectSettings = AP, mask: Rule = PLAIN, without: dict[int, Rule] | None = None):
    ids = sorted(pairs)
    table = pd.DataFrame({"id": ids, "part": [n % 3 for n in range(len(ids))], "group": ids})
    stored, masks = Stored(pairs), MaskRules(mask, without or dict.fromkeys(range(3), mask))
    return search_objects(stored, stored, table, {"nucleus": masks}, chosen, bootstrap=1000)


def mean_by_hand(rule: ObjectRule, pairs: dict) -> float:
    return np.mean([object_score(match_objects(rule.apply(maps), truth), AP) for maps, truth in pairs.values()])


def scene(random: np.random.Generator, touching: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of disks, as a map of certain pixels and as objects."""
    gap = 12 if touching else 20
    top, left = random.integers(9, 29), random.integers(9, 25)
    truth, probability_map = np.zeros((40, 60), np.int32), random.integers(0, 60, (40, 60)).astype(np.uint8)
    for number, disk in enumerate(disks((left, top), (left + gap, top)), start=1):
        truth[(disk > 0) & (truth == 0)] = number
    probability_map[truth > 0] = random.integers(190, 256, np.count_nonzero(truth))
    return probability_map, truth


def test_cutting_is_adopted_where_it_gains_and_only_there():
    random = np.random.default_rng(0)
    pairs = {f"{n:02d}": scene(random, touching=True) for n in range(12)}
    touching = search(pairs)
    rule = touching.rules["nucleus"]
    assert rule.split.kind == "depth" and touching.mean("nested") > 0.8 > 0.3 > touching.mean("components")
    assert touching.mean("in_sample") == pytest.approx(mean_by_hand(rule, pairs))
    apart = search({f"{n:02d}": scene(random, touching=False) for n in range(12)})
    assert apart.rules["nucleus"].split.kind == "components" and apart.mean("nested") == 1


def test_objects_are_chosen_behind_the_presence_that_the_mask_asks_for():
    random = np.random.default_rng(4)
    pairs = {f"{n:02d}": scene(random, touching=False) for n in range(9)}
    for image_id in list(pairs)[::2]:
        pairs[image_id] = pairs[image_id][0], np.zeros_like(pairs[image_id][1])  # false alarms that presence tells
    assert search(pairs).mean("nested") < 0.6
    asking = search(pairs, mask=Rule(128, presence=128))
    assert asking.mean("nested") == 1 and asking.rules["nucleus"].mask.presence == 128


def test_nested_scores_are_those_of_rules_chosen_without_the_fold():
    random = np.random.default_rng(1)
    pairs = {f"{n:02d}": scene(random, touching=n % 2 == 0) for n in range(9)}
    result = search(pairs)
    choice = result.classes["nucleus"]
    for n, (probability_map, truth) in enumerate(pairs.values()):
        rule = choice.without_part[n % 3]
        assert choice.nested_scores[n] == object_score(match_objects(rule.apply(probability_map), truth), AP)
    assert choice.in_sample == pytest.approx(mean_by_hand(choice.rule, pairs))
    assert {rule.mask.threshold for rule in choice.without_part.values()} <= set(OBJECT_THRESHOLDS)


def test_every_column_is_the_score_of_its_rule():
    probability_map, truth = scene(np.random.default_rng(2), touching=True)
    trials = Trials(ObjectSettings(depths=[3], rises=[50], areas=[0, 60]))
    steps = (Step("erosion", 1),)
    masks = [Rule(1, gate=Gate(190, 10)), Rule(1, gate=Gate(190, 9999)), Rule(1, steps=steps), Rule(1, presence=60)]
    for mask, scores in zip(masks, trials.scores(masks, probability_map, truth, presence=59), strict=True):
        rules = [trials.rule(column, mask) for column in range(len(scores))]
        assert str(rules[-1]) == "no object at all" and {rule.mask.gate for rule in rules[:-1]} == {mask.gate}
        for rule, score in zip(rules, scores, strict=True):
            assert score == object_score(match_objects(rule.apply(probability_map, 59), truth), AP)


def test_no_object_at_all_is_chosen_where_it_scores_best():
    random = np.random.default_rng(0)
    pairs = {f"{n:02d}": scene(random, touching=False) for n in range(12)}
    pairs = {image_id: (np.where(truth > 0, 255, 0).astype(np.uint8), truth) for image_id, (_, truth) in pairs.items()}
    for image_id in list(pairs)[1:]:
        pairs[image_id] = pairs[image_id][0], np.zeros_like(pairs[image_id][1])  # false alarms in all but one
    result = search(pairs, ObjectSettings(areas=[0]))
    assert str(result.rules["nucleus"]) == "no object at all"
    assert result.mean("in_sample") == result.mean("nested") == result.mean("all_empty") == 11 / 12
    assert not result.rules["nucleus"].apply(pairs["00"][0]).any() and "all empty 0.9167" in str(result)
    assert "warning: no object at all scores 0.9167, more than any rule" in str(result)
    good = {f"{n:02d}": scene(random, touching=False) for n in range(12)}
    assert "warning" not in str(search(good))
    half = {n: (pair[0], pair[1] * (int(n) % 2)) for n, pair in good.items()}  # false alarms in every other image
    said = str(search(half, ObjectSettings(areas=[0])))
    assert "warning: no object at all scores 0.5000, about as much as t=" in said and "(nested +0.0000" in said


def test_an_image_is_scored_behind_the_gate_chosen_without_its_part():
    """The gate chosen without part 0 would empty its masks; the one chosen on all images has seen them and does not."""
    random = np.random.default_rng(0)
    pairs = {f"{n:02d}": scene(random, touching=False) for n in range(12)}
    shut, opened = Rule(128, gate=Gate(128, 9999)), Rule(128, gate=Gate(128, 1))
    result = search(pairs, mask=opened, without={0: shut, 1: opened, 2: opened}).classes["nucleus"]
    assert result.in_sample == 1 and result.nested == pytest.approx(2 / 3)
    assert [result.nested_scores[part::3].mean() for part in range(3)] == [0, 1, 1]
    assert result.without_part[1].mask.gate == opened.gate


def test_of_many_images_some_are_used():
    random = np.random.default_rng(0)
    result = search({f"{n:02d}": scene(random, touching=False) for n in range(12)}, ObjectSettings(images=7))
    assert len(set(result.ids)) == 7 and result.ids == sorted(result.ids)
