"""Statistics of each image and class: scores from the pixel counts, and what needs the maps themselves.

Counts exist for all images. Maps are read for a sample only, small enough that the page takes seconds whatever the
size of the competition.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lib.base.prefetch import THREADS, prefetched
from lib.masks import morphology
from lib.masks.metrics import IGNORED, Counts, Metric, Pair, dice, known_only, planes
from lib.masks.rules import Rule
from lib.prediction.map_store import MapReader, masks_by, scored_map
from lib.tuning.score_table import ScoreTable

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
        """At the rules without their morphology steps: threshold, and gates if any."""
        images = np.arange(len(counts.ids))
        tables = [ScoreTable.of_class(counts, class_index, Metric(), images) for class_index in range(len(rules))]
        at_rules = [table.counts_at(rule) for table, rule in zip(tables, rules.values(), strict=True)]
        tp, fp = np.stack(at_rules, axis=2).astype(int)
        fn = counts.positives - tp
        coverage = counts.positives / counts.pixels[:, None]
        ids, classes = counts.ids.tolist(), counts.classes.tolist()
        return cls(ids, classes, dice(tp, fp, fn), fp + fn, tp + fp, counts.positives, coverage)


@dataclass(frozen=True)
class OofStats:
    """Statistics of one training image's maps, beyond its counts; the first axis of arrays is the class."""

    coverage: np.ndarray  # (classes,) predicted, by the final rules, of the pixels that are not IGNORED
    object_area: np.ndarray  # (classes,) mean pixels of the truth's objects, nan without any
    objects: list[tuple[int, float]]  # (area in pixels, share covered) of each true object of any class
    border: np.ndarray  # (2, distances) false alarms and misses by their distance to the true border
    borderless: int  # wrong pixels where the truth has no border


@dataclass(frozen=True)
class TestStats:
    """Statistics of one test image's maps."""

    __test__ = False

    coverage: np.ndarray  # (classes,) predicted, by the final rules
    certainty: np.ndarray  # (classes,) expected Dice of the mask by its map; nan for an empty mask


def sample(ids: Sequence[str], pixels: float) -> list[str]:
    """Ids evenly spaced over `ids`, as many as a page can read; `pixels` is the mean size of an image."""
    number = int(min(len(ids), IMAGES, max(LEAST, PIXELS // max(pixels, 1))))
    return [ids[index] for index in np.linspace(0, len(ids) - 1, number).round().astype(int)] if number else []


def measure_oof(pairs: Iterable[Pair], rules: dict[str, Rule], store: MapReader) -> dict[str, OofStats]:
    """Statistics of training images, from a stream of (id, map, truth), both uint8 (height, width, classes)."""

    def measure(pair: Pair) -> OofStats:
        image_id, maps, truth = pair
        masks = masks_by(rules, maps, store, image_id)
        known = np.maximum(np.count_nonzero(truth != IGNORED, axis=(0, 1)), 1)
        known_masks, truth = known_only(masks, truth)
        of_classes = list(zip(planes(known_masks), planes(truth), strict=True))
        objects = [objects_covered(*of_class) for of_class in of_classes]
        errors = [border_distances(*of_class) for of_class in of_classes]
        return OofStats(
            known_masks.sum(axis=(0, 1)) / known,
            np.array([np.mean([area for area, _ in of_class]) if of_class else np.nan for of_class in objects]),
            sum(objects, []),
            sum(counted for counted, _ in errors),
            sum(borderless for _, borderless in errors),
        )

    return {image_id: stats for (image_id, *_), stats in prefetched(measure, pairs, ahead=2 * THREADS)}


def measure_test(
    ids: Sequence[str], rules: dict[str, Rule], store: MapReader, size: tuple[int, int] | None
) -> dict[str, TestStats]:
    """Statistics of test images at the size (height, width) of the submission."""

    def measure(image_id: str) -> TestStats:
        maps = scored_map(store, image_id, size)
        masks = masks_by(rules, maps, store, image_id)
        return TestStats(masks.mean(axis=(0, 1)), expected_dice(masks, maps))

    return dict(prefetched(measure, ids, ahead=2 * THREADS))


def expected_dice(masks: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """2 Σ m p / (Σ m + Σ p) of each class, the Dice to expect if the map is right; nan for empty masks.

    `masks` uint8 0/1 and `maps` uint8, (height, width, classes).
    """
    inside, expected = (maps * masks).sum(axis=(0, 1)) / 255, maps.sum(axis=(0, 1)) / 255
    predicted = masks.sum(axis=(0, 1))
    return np.where(predicted > 0, 2 * inside / np.maximum(predicted + expected, 1), np.nan)


def objects_covered(mask: np.ndarray, truth: np.ndarray) -> list[tuple[int, float]]:
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
    """Largest gap between two distributions (Kolmogorov-Smirnov), and the gap that chance exceeds 1 % of the time."""
    values = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(part), values, side="right") / len(part) for part in (first, second)]
    chance = 1.628 * np.sqrt((len(first) + len(second)) / (len(first) * len(second)))
    return float(np.abs(shares[0] - shares[1]).max()), float(chance)
