"""Crops that overlap are found without ids; images of different sources are not joined."""

import cv2
import numpy as np
import pytest

from lib.folds.likeness import unit_vectors
from lib.folds.overlaps import agreement, details_of, overlap_groups
from lib.images.hashes import THUMBNAIL, thumbnail


def texture(seed: int, side: int = 400) -> np.ndarray:
    random = np.random.default_rng(seed)
    noise = random.normal(0, 1, (side, side)).astype(np.float32)
    blurred = sum(cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (2, 4, 8))
    return np.clip(120 + 40 * blurred / blurred.std() + random.normal(0, 3, (side, side)), 0, 255).astype(np.uint8)


def crop(whole: np.ndarray, top: int, left: int, side: int = 192) -> np.ndarray:
    return thumbnail(np.ascontiguousarray(whole[top : top + side, left : left + side, None]))[:, :, 0]


def vectors_of(scenes: np.ndarray) -> np.ndarray:
    """Features that tell the scenes roughly."""
    random = np.random.default_rng(0)
    features = random.normal(0, 1, (len(scenes), 16)) + 2 * random.normal(0, 1, (scenes.max() + 1, 16))[scenes]
    return unit_vectors(features, features.mean(axis=0), features.std(axis=0))


@pytest.mark.parametrize(("down", "right"), [(96, 0), (0, 96), (60, 50), (31, 77), (-90, 13)])
def test_half_overlapping_crops_agree_and_crops_of_two_sources_do_not(down, right):
    for seed in range(5):
        first = details_of(crop(texture(seed), 100, 50))
        assert agreement(first, details_of(crop(texture(seed), 100 + down, 50 + right))) > 0.75
        assert agreement(first, details_of(crop(texture(seed + 5), 100 + down, 50 + right))) < 0.6


def test_shuffled_crops_of_few_scenes_are_grouped_by_scene():
    """Windows at half their size from each other; crops that touch nothing stay alone."""
    places = [(scene, 96 * row, 96 * column) for scene in range(6) for row in range(3) for column in range(3)]
    order = np.random.default_rng(0).permutation(len(places))
    scenes = np.array([places[number][0] for number in order])
    images = [texture(scene) for scene in range(6)]
    crops = np.stack([crop(images[scene], top, left) for scene, top, left in (places[number] for number in order)])
    groups = overlap_groups(crops, vectors_of(scenes))
    same_group, same_scene = (labels[:, None] == labels[None] for labels in (groups, scenes))
    assert not (same_group & ~same_scene).any()
    assert (same_group & same_scene).sum() > 0.7 * same_scene.sum()


def pictures(kind: str, count: int = 60) -> np.ndarray:
    """Independent images of one kind."""
    found = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        image = np.full((THUMBNAIL, THUMBNAIL), 60, np.float32) + random.normal(0, 2, (THUMBNAIL, THUMBNAIL))
        match kind:
            case "one spot":
                centre = tuple(int(place) for place in random.integers(14, 50, 2))
                image = cv2.circle(image.astype(np.float32), centre, int(random.integers(6, 12)), 200, -1)
            case "spots":
                for _ in range(6):
                    centre = tuple(int(place) for place in random.integers(0, 64, 2))
                    image = cv2.circle(image.astype(np.float32), centre, int(random.integers(2, 5)), 200, -1)
            case "rim":
                rim = cv2.circle(np.zeros((THUMBNAIL, THUMBNAIL), np.float32), (32, 32), 28, 1, -1)
                image = rim * (image + cv2.GaussianBlur(random.normal(0, 60, image.shape), (0, 0), 2))
            case "stripes":
                image = image + 60 * np.sin(np.arange(THUMBNAIL) * 0.5 + random.uniform(0, 6))[:, None]
            case "textures":
                image = texture(seed, THUMBNAIL)
        found.append(np.clip(image, 0, 255).astype(np.uint8))
    return np.stack(found)


@pytest.mark.parametrize("kind", ["one spot", "spots", "rim", "stripes", "textures", "plain"])
def test_independent_images_are_not_joined(kind):
    assert overlap_groups(pictures(kind), vectors_of(np.arange(60) // 4)) is None


def test_one_image_has_nobody_to_overlap():
    assert overlap_groups(pictures("textures", 1), np.ones((1, 16), np.float32)) is None
