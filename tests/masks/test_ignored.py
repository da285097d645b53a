"""Pixels of which nothing is known: every count and loss is that of the same images with these pixels cut out."""

import numpy as np
import pytest
import torch

from lib.config.schema import ObjectSettings, PostprocessSettings
from lib.config.training_settings import LossSettings
from lib.masks.components import MaskStack
from lib.masks.metrics import IGNORED, count_at_thresholds, count_images, count_mask
from lib.masks.objects import match_objects, object_score
from lib.masks.resize import resized_mask
from lib.masks.rules import Rule
from lib.prediction.map_store import keep_highest
from lib.training.augment import random_mask_pixel
from lib.training.losses import SegmentationLoss, signed_distance
from lib.tuning.morphology_candidates import Candidates

RANDOM = np.random.default_rng(3)
SHAPE = (40, 52)
CUT = 33  # columns from here on are ignored


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """A smooth map and a truth, uint8 (height, width), the truth without a border at the cut."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    waves = np.sin(rows / 4 + RANDOM.random() * 6) + np.cos(columns / 5 + RANDOM.random() * 6)
    noisy = np.clip(128 + 60 * waves + RANDOM.normal(0, 30, SHAPE), 0, 255).astype(np.uint8)
    return noisy, (waves > 0.3).astype(np.uint8)


def ignoring(truth: np.ndarray) -> np.ndarray:
    return np.where(np.arange(SHAPE[1]) < CUT, truth, IGNORED).astype(np.uint8)


def test_counts_are_those_of_the_known_pixels():
    maps, truth = drawn()
    for threshold in (60, 128, 200):
        mask = (maps >= threshold).view(np.uint8)
        np.testing.assert_array_equal(count_mask(mask, ignoring(truth)), count_mask(mask[:, :CUT], truth[:, :CUT]))
    both = count_at_thresholds(maps, ignoring(truth)), count_at_thresholds(maps[:, :CUT].copy(), truth[:, :CUT].copy())
    np.testing.assert_array_equal(*both)
    whole, part = (
        count_images([("a", m[..., None], t[..., None])], ["x"])
        for m, t in ((maps, ignoring(truth)), (maps[:, :CUT], truth[:, :CUT]))
    )
    for name in ("tp", "fp", "fn", "positives", "pixels"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(part, name))


def test_every_candidate_of_morphology_is_counted_on_the_known_pixels():
    steps = ["opening", "closing", "dilation", "erosion", "fill", "remove", "largest", "hull"]
    candidates = Candidates.build(PostprocessSettings(steps=steps, radii=[1, 2], areas=[8, 40]))
    maps, truth = drawn()
    counted = candidates.count(maps, ignoring(truth))
    rules = [Rule(int(level), None, block) for block, levels in candidates.blocks for level in levels]
    expected = [count_mask(rule.apply(maps)[:, :CUT], truth[:, :CUT])[:2] for rule in rules]
    np.testing.assert_array_equal(counted, np.array(expected).T)


def test_regions_keep_their_whole_area():
    mask = np.zeros((1, 6, 10), np.uint8)
    mask[0, 1:4, 2:8] = 1
    truth = np.zeros((6, 10), np.uint8)
    truth[2:4, 2:4] = 1
    truth[:, 5:] = IGNORED
    stack = MaskStack(mask, truth)
    assert stack.components.area.tolist() == [18] and stack.components.sums(np.array([True]), 1).tolist() == [[4], [9]]


def test_objects_lose_their_ignored_pixels():
    predicted, truth = RANDOM.integers(0, 4, SHAPE), RANDOM.integers(0, 3, SHAPE)
    cut = np.where(np.arange(SHAPE[1]) < CUT, truth, -1)
    for metric in ("ap", "f_beta"):
        settings = ObjectSettings(metric=metric)
        whole = object_score(match_objects(predicted, cut), settings)
        assert whole == object_score(match_objects(predicted[:, :CUT], truth[:, :CUT]), settings)


TERMS = ["bce", "border_bce", "dice", "tversky", "focal_tversky", "focal", "lovasz", "boundary"]


@pytest.mark.parametrize("region", ["image", "batch"])
@pytest.mark.parametrize("term", TERMS)
def test_losses_and_gradients_are_those_of_the_known_pixels(term, region):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 12, 20, generator=generator, requires_grad=True)
    truths = (torch.rand(3, 2, 12, 20, generator=generator) > 0.6).to(torch.uint8)
    distances = torch.randn(3, 2, 12, 20, generator=generator) / 9
    if term == "border_bce":
        distances = distances / distances.shape[-1]
    cut = truths.clone()
    cut[..., 13:] = IGNORED
    settings = LossSettings(terms=term, region=region, boundary_schedule="constant", label_smoothing=0.1)
    whole, _ = SegmentationLoss(settings, may_ignore=True)(logits, cut, distances, 0.5)
    (gradient,) = torch.autograd.grad(whole, logits)
    # the distances are in shares of the diagonal, which cutting must not change
    scale = np.hypot(12, 20) / np.hypot(12, 13) if term == "border_bce" else 1
    part, _ = SegmentationLoss(settings)(logits[..., :13], truths[..., :13], distances[..., :13] * scale, 0.5)
    (expected,) = torch.autograd.grad(part, logits)
    torch.testing.assert_close(whole, part)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("term", TERMS)
def test_a_batch_of_which_nothing_is_known_teaches_nothing(term):
    logits, zeros = torch.randn(2, 1, 8, 8, requires_grad=True), torch.zeros(2, 1, 8, 8)
    loss = SegmentationLoss(LossSettings(terms=term), may_ignore=True)
    total, _ = loss(logits, torch.full((2, 1, 8, 8), IGNORED), zeros, 0.5)
    total.backward()
    assert total == 0 and not logits.grad.any()


def test_distances_are_to_the_nearest_known_pixel():
    truth = drawn()[1]
    truth[:, 20:26] = IGNORED
    diagonal = np.hypot(*SHAPE)
    places = {value: np.argwhere(truth == value) for value in (0, 1)}
    distances = signed_distance(truth)
    for value, sign in ((0, 1), (1, -1)):
        for row, column in RANDOM.permutation(places[value])[:60]:
            nearest = np.hypot(*(places[1 - value] - (row, column)).T).min()
            assert distances[row, column] * diagonal == pytest.approx(sign * (nearest - 0.5), abs=1e-4)
    assert not distances[truth == IGNORED].any()


def test_crops_go_around_known_mask_pixels():
    mask = np.full((9, 9, 2), IGNORED, np.uint8)
    assert random_mask_pixel(mask, RANDOM) is None
    mask[4, 6, 1] = 1
    assert random_mask_pixel(mask, RANDOM) == (4, 6)


def test_a_smaller_truth_is_ignored_where_half_is():
    truth = np.zeros((4, 4, 1), np.uint8)
    truth[:2, :2] = 1
    truth[3:, 1:] = IGNORED
    truth[2, 2:] = IGNORED
    assert resized_mask(truth, (2, 2))[..., 0].tolist() == [[1, 0], [0, IGNORED]]


def test_classes_that_exclude_each_other_keep_the_highest():
    maps = RANDOM.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    maps[0, 0] = 200
    kept = keep_highest(maps)
    assert kept[0, 0].tolist() == [200, 0, 0]
    assert ((kept > 0).sum(axis=2) <= 1).all()
    np.testing.assert_array_equal(kept.max(axis=2), maps.max(axis=2))
    masks = kept >= np.array([30, 128, 200])
    assert (masks.sum(axis=2) <= 1).all()
