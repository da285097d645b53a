"""What the page knows of each image and class: scores from the counts, and what only the maps themselves tell.

Counts are known of all images. Maps are read for a sample, of at most so many images and pixels that the page takes
seconds whatever the competition's size.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lib.base.prefetch import THREADS, prefetched
from lib.masks import morphology
from lib.masks.metrics import Counts, dice, known_only
from lib.masks.rules import Rule, apply_rules

IMAGES, PIXELS = 1000, 64_000_000  # at most, in a sample of maps
LEAST = 24  # images in a sample, whatever their size
BORDER_EDGES = np.array([0, 1, 2, 4, 8, 16, 32, np.inf])  # pixels to the true border
BORDER_NAMES = ("1 px", "2", "3-4", "5-8", "9-16", "17-32", "33+")


@dataclass(frozen=True)
class OofScores:
    """Every training image and class at the threshold rules: arrays (images, classes)."""

    ids: list[str]
    classes: list[str]
    dice: np.ndarray
    wrong: np.ndarray  # pixels
    predicted: np.ndarray  # pixels
    positives: np.ndarray  # pixels of the truth
    coverage: np.ndarray  # 0 to 1, of the truth

    @classmethod
    def of(cls, counts: Counts, rules: dict[str, Rule]) -> "OofScores":
        """At the rules without their morphology steps: threshold, and gate if any."""
        tp, fp = np.empty(counts.positives.shape, int), np.empty(counts.positives.shape, int)
        for layer, rule in enumerate(rules.values()):
            if rule.is_empty:
                tp[:, layer] = fp[:, layer] = 0
                continue
            tp[:, layer], fp[:, layer] = (table[:, layer, rule.threshold - 1] for table in (counts.tp, counts.fp))
            if rule.gate:
                at_top = layer, rule.gate.top - 1
                reach = counts.tp[:, *at_top] + counts.fp[:, *at_top]
                tp[reach < rule.gate.area, layer] = fp[reach < rule.gate.area, layer] = 0
        fn = counts.positives - tp
        coverage = counts.positives / counts.pixels[:, None]
        ids, classes = counts.ids.tolist(), counts.classes.tolist()
        return cls(ids, classes, dice(tp, fp, fn), fp + fn, tp + fp, counts.positives, coverage)


@dataclass(frozen=True)
class OofLook:
    """What one training image's maps tell beyond its counts; arrays begin with the classes."""

    coverage: np.ndarray  # (classes,) predicted, by the final rules
    object_area: np.ndarray  # (classes,) mean pixels of the truth's objects, nan without any
    objects: list[tuple[int, float]]  # pixels, and share of them found, of each true object of any class
    border: np.ndarray  # (2, distances) false alarms and misses by their distance to the true border
    borderless: int  # wrong pixels where the truth has no border


@dataclass(frozen=True)
class TestLook:
    """What one test image's maps tell."""

    __test__ = False

    coverage: np.ndarray  # (classes,) predicted, by the final rules
    certainty: np.ndarray  # (classes,) Dice that the map expects of its own mask, nan where that is empty


def sample(ids: Sequence[str], pixels: float) -> list[str]:
    """Ids evenly spaced over `ids`, as many as a page can read; `pixels` is the mean size of an image."""
    number = int(min(len(ids), IMAGES, max(LEAST, PIXELS // max(pixels, 1))))
    return [ids[index] for index in np.linspace(0, len(ids) - 1, number).round().astype(int)] if number else []


def look_at_oof(pairs: Iterable[tuple[str, np.ndarray, np.ndarray]], rules: dict[str, Rule]) -> dict[str, OofLook]:
    """Look at a stream of (id, map, truth) of training images, both uint8 (height, width, classes)."""

    def look(pair: tuple[str, np.ndarray, np.ndarray]) -> OofLook:
        _, maps, truth = pair
        masks = apply_rules(rules, maps)
        known_masks, truth = known_only(masks, truth)
        layers = [np.ascontiguousarray(truth[..., layer]) for layer in range(truth.shape[2])]
        found = [objects_found(known_masks[..., layer], plane) for layer, plane in enumerate(layers)]
        errors = [border_distances(known_masks[..., layer], plane) for layer, plane in enumerate(layers)]
        return OofLook(
            masks.mean(axis=(0, 1)),
            np.array([np.mean([area for area, _ in objects]) if objects else np.nan for objects in found]),
            sum(found, []),
            sum(counted for counted, _ in errors),
            sum(borderless for _, borderless in errors),
        )

    return {image_id: looked for (image_id, *_), looked in prefetched(look, pairs, ahead=2 * THREADS)}


def look_at_test(ids: Sequence[str], rules: dict[str, Rule], read: Callable[[str], np.ndarray]) -> dict[str, TestLook]:
    """Look at the maps of some test images; `read` gives a map, uint8 (height, width, classes)."""

    def look(image_id: str) -> TestLook:
        maps = read(image_id)
        masks = apply_rules(rules, maps)
        return TestLook(masks.mean(axis=(0, 1)), expected_dice(masks, maps))

    return dict(prefetched(look, ids, ahead=2 * THREADS))


def expected_dice(masks: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """2 Σ m p / (Σ m + Σ p) of each class: what Dice would be if the truth were as the map says; nan for empty masks.

    `masks` uint8 0/1 and `maps` uint8, (height, width, classes).
    """
    inside, expected = (maps * masks).sum(axis=(0, 1)) / 255, maps.sum(axis=(0, 1)) / 255
    predicted = masks.sum(axis=(0, 1))
    return np.where(predicted > 0, 2 * inside / np.maximum(predicted + expected, 1), np.nan)


def objects_found(mask: np.ndarray, truth: np.ndarray) -> list[tuple[int, float]]:
    """Area in pixels and share covered by the mask of each object (8-connected component) of the truth."""
    labels, areas = morphology.components(truth)
    covered = np.bincount(labels.ravel(), weights=mask.ravel(), minlength=len(areas))
    return [(int(area), float(part / area)) for area, part in zip(areas[1:], covered[1:], strict=True)]


def border_distances(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, int]:
    """False alarms and misses by distance to the nearest pixel of the other kind in the truth, int (2, distances).

    The first bin holds distances up to 1 px (next to the true border), the last those above 32. Second result: the
    wrong pixels of a truth that is all empty or all full, which has no border.
    """
    wrong = mask != truth
    if truth.min() == truth.max():
        return np.zeros((2, len(BORDER_NAMES)), int), int(np.count_nonzero(wrong))
    counts = []
    for side in (1 - truth, truth):  # false alarms lie outside of the truth, misses inside
        distances = cv2.distanceTransform(side, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[wrong & (side > 0)]
        counts.append(np.histogram(np.ceil(distances - 1e-3) - 0.5, BORDER_EDGES)[0])
    return np.array(counts), 0


def largest_gap(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Largest gap between two distributions (Kolmogorov-Smirnov), and what chance exceeds once in a hundred times."""
    values = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(part), values, side="right") / len(part) for part in (first, second)]
    chance = 1.628 * np.sqrt((len(first) + len(second)) / (len(first) * len(second)))
    return float(np.abs(shares[0] - shares[1]).max()), float(chance)
