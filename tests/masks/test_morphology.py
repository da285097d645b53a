import json

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial import ConvexHull

from lib.masks import morphology
from lib.masks.rules import STEPS, Gate, Rule, Step

skimage = pytest.importorskip("skimage.morphology")

RADIUS_STEPS = ["dilation", "erosion", "opening", "closing"]
MASKS = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 1))
MAPS = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)))


@pytest.mark.parametrize("radius", range(1, 16))
def test_disk_is_the_pixels_within_the_radius(radius):
    assert np.array_equal(morphology.disk(radius), skimage.disk(radius))


@pytest.mark.parametrize("name", RADIUS_STEPS)
@given(image=MAPS, radius=st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_radius_steps_equal_skimage_on_maps(name, image, radius):
    ours, theirs = STEPS[name][0](image, radius), getattr(skimage, name)(image, skimage.disk(radius))
    assert ours.dtype == np.uint8 and np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", RADIUS_STEPS)
@given(image=MAPS, radius=st.integers(1, 5), threshold=st.integers(1, 255))
@settings(max_examples=40, deadline=None)
def test_radius_steps_commute_with_thresholding(name, image, radius, threshold):
    step = Step(name, radius)
    assert np.array_equal(step.apply(image) >= threshold, step.apply((image >= threshold).view(np.uint8)))


@given(mask=MASKS)
@settings(max_examples=100, deadline=None)
def test_fill_holes_equals_scipy(mask):
    assert np.array_equal(morphology.fill_holes(mask), ndimage.binary_fill_holes(mask))


@given(mask=MASKS, area=st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_fill_holes_up_to_an_area_fills_those_holes_only(mask, area):
    holes, _ = ndimage.label(ndimage.binary_fill_holes(mask) & (mask == 0))
    small = np.isin(holes, np.flatnonzero(np.bincount(holes.ravel()) <= area)) & (holes > 0)
    assert np.array_equal(morphology.fill_holes(mask, area), mask | small)


@given(mask=MASKS, area=st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_remove_small_keeps_components_of_at_least_the_area(mask, area):
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    kept = np.isin(labels, np.flatnonzero(np.bincount(labels.ravel()) >= area)) & (labels > 0)
    assert np.array_equal(morphology.remove_small(mask, area), kept)


@given(mask=MASKS)
@settings(max_examples=100, deadline=None)
def test_keep_largest_keeps_one_component_the_first_of_equals(mask):
    labels, count = ndimage.label(mask, np.ones((3, 3)))  # scipy numbers components in reading order
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    expected = labels == 1 + np.argmax(areas) if count else np.zeros_like(mask)
    assert np.array_equal(morphology.keep_largest(mask), expected)


def test_convex_hull_fills_each_component_on_its_own():
    mask = np.zeros((12, 24), np.uint8)
    mask[2:10, 2] = mask[9, 2:10] = 1  # an L, whose hull is a triangle
    mask[2:5, 14:20] = 1
    hulls = morphology.convex_hulls(mask)
    assert np.array_equal(hulls[:, 12:], mask[:, 12:])
    rows, columns = np.mgrid[2:10, 2:10]
    assert np.array_equal(hulls[2:10, 2:10], columns <= rows)


@given(seed=st.integers(0, 10**6), shape=st.tuples(st.integers(4, 24), st.integers(4, 24)), blur=st.floats(0.5, 3))
@settings(max_examples=100, deadline=None)
def test_convex_hulls_equal_scipys_but_for_their_edges(seed, shape, blur):
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=shape), (0, 0), blur)
    labels, count = ndimage.label(noise > noise.mean() + noise.std(), np.ones((3, 3)))
    largest = 1 + np.argmax(np.bincount(labels.ravel())[1:]) if count else 0
    pixels = np.argwhere(labels == largest)
    assume(count and np.linalg.matrix_rank(pixels - pixels[0]) == 2)
    hull = morphology.convex_hulls((labels == largest).astype(np.uint8)) == 1
    edges = ConvexHull(pixels).equations
    outside = (np.moveaxis(np.indices(shape), 0, 2) @ edges[:, :2].T + edges[:, 2]).max(axis=2)  # 0 on the hull's edge
    assert (outside[hull] < 0.5).all() and hull[outside <= 1e-9].all()


def test_rule_thresholds_then_applies_the_steps_in_order():
    image = np.zeros((20, 20), np.uint8)
    image[2:10, 2:10] = 117  # a square with a hole
    image[5, 5] = 0
    image[15, 15] = 200  # a speck
    rule = Rule(117, steps=(Step("fill"), Step("remove", 2)))
    expected = np.zeros_like(image)
    expected[2:10, 2:10] = 1
    assert np.array_equal(rule.apply(image), expected)
    assert str(rule) == "t=117, fill holes, remove <2"
    assert not Rule(118, steps=rule.steps).apply(image).any()


def test_gate_empties_the_mask_below_the_area_and_changes_nothing_else():
    image = np.array([[90, 90, 200], [90, 10, 200]], np.uint8)
    at_bottom = image >= 80
    assert np.array_equal(Rule(80, Gate(top=200, area=2)).apply(image), at_bottom)
    assert not Rule(80, Gate(top=200, area=3)).apply(image).any()
    assert not Rule(80, Gate(top=201, area=1)).apply(image).any()


@pytest.mark.parametrize(
    "rule",
    [
        Rule(1),
        Rule(128, Gate(191, 600)),
        Rule(255, None, (Step("closing", 3), Step("fill", 64), Step("remove", 40), Step("hull"))),
    ],
)
def test_rules_survive_json(rule):
    assert Rule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
