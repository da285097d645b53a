"""The triplet (top, area, bottom): a threshold, `bottom`, for the images where `area` pixels of the map reach `top`.

The masks of all other images are empty. It suits competitions with many empty images and comes from the winners of
SIIM-ACR Pneumothorax Segmentation.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.sparse import vstack
from scipy.special import logit

from lib.masks.metrics import THRESHOLDS, pooled, ratio
from lib.masks.rules import Gate, Rule
from lib.masks.statistics import membership, run_around
from lib.tuning.plateau import ROUNDING, TOLERANCE
from lib.tuning.score_table import ScoreTable, sums_within

REACH = 0.3  # in logits: neighbouring levels differ by up to 20 at one half, and by none where maps are saturated


def best_gate(table: ScoreTable) -> Gate | None:
    """The gate of the best triplet, over all 255 tops, all bottoms up to the top, and areas 1, 2, 4, ... pixels.

    Chosen like a threshold (`best_threshold`): of the triplets at most half a standard error below the best, the one
    whose neighbourhood has the best mean (`_neighbourhood_means`). Three numbers have far more isolated peaks than one.

    None if no gate beats both the plain threshold and no mask at all, which still larger areas amount to.
    Ties: the smallest area, the middle of the tops.
    """
    areas = [2**power for power in range(int(table.predicted(1).max(initial=1)).bit_length())]
    highest = [_opening_tops(table, area) for area in areas]
    everywhere = gated_scores(table, highest)
    scores = np.where(np.tri(len(THRESHOLDS), dtype=bool), everywhere, -np.inf)  # bottoms up to the top
    if scores.max() <= max(table.scores().max(), pooled(*table.empty_terms())) + ROUNDING:
        return None
    area, top, bottom = np.unravel_index(np.argmax(scores), scores.shape)
    peak = table.behind_gates(Rule(1, Gate(int(THRESHOLDS[top]), areas[area]))).terms_at(int(THRESHOLDS[bottom]))
    is_candidate = scores >= scores.max() - TOLERANCE * _largest_errors(table, highest, peak) - ROUNDING
    judged = np.where(is_candidate, _neighbourhood_means(everywhere), -np.inf)
    area, top, bottom = np.unravel_index(np.argmax(judged), judged.shape)
    low, high = run_around(int(top), judged[area, :, bottom] >= judged.max() - ROUNDING)
    return Gate(top=int(THRESHOLDS[(low + high) // 2]), area=areas[area])


def gated_scores(table: ScoreTable, highest: Sequence[np.ndarray]) -> np.ndarray:
    """Scores with gates at every level, (kinds of gates, levels 1 to 255, thresholds); see `_gated_sums`."""
    return ratio(*_gated_sums(table.in_parts(), table.empty_terms(), highest))


def _neighbourhood_means(scores: np.ndarray) -> np.ndarray:
    """The mean score of triplets with half to twice the area and with levels near both levels; (areas, 255, 255)."""
    logits = logit(THRESHOLDS / 256)
    near = (np.abs(logits[:, None] - logits) <= REACH).astype(float)
    near /= near.sum(axis=1, keepdims=True)
    return uniform_filter1d(near @ scores @ near.T, 3, axis=0, mode="nearest")


def _largest_errors(table: ScoreTable, highest: Sequence[np.ndarray], peak: np.ndarray) -> np.ndarray:
    """The standard error of the difference of each triplet from the one with the terms `peak` (2, images), at most.

    It is the error if all images of a group differ alike. That needs no sum for each group: (d_1 + ... + d_n)^2 is at
    most n (d_1^2 + ... + d_n^2). Ratios are linearised at the peak (delta method). Shape as of `gated_scores`.
    """
    _, numbers, sizes = np.unique(table.clusters, return_inverse=True, return_counts=True)
    score, size = pooled(*peak), peak[1].mean() or 1

    def squares(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        """Weighted squares of the differences, (images, columns)."""
        lost = (peak[0] - score * peak[1])[:, None] - (numerator - score * denominator)
        return sizes[numbers, None] * np.square(lost / size)

    shut = squares(*table.empty_terms()[:, :, None])[None, :, 0]
    (total,) = _gated_sums(([squares(*terms)] for terms in table.in_parts()), shut, highest)
    count = len(sizes)
    return np.sqrt(np.maximum(total, 0) * count / max(count - 1, 1)) / len(numbers)


def _gated_sums(parts: Iterable[Sequence[np.ndarray]], shut: np.ndarray, highest: Sequence[np.ndarray]) -> np.ndarray:
    """Sums over the images with gates at every level, (values, kinds of gates, levels 1 to 255, thresholds).

    `parts` yields values of images with an open gate, each (images, thresholds), some thresholds at a time; `shut` are
    those of images with a shut gate, (values, images).

    A gate opens for an image at all levels up to its `highest`, (images,) 0 to 255 for each kind of gate. Up to that
    level the image replaces its values of a shut gate by those of an open one. So the differences are summed by highest
    level, then cumulated from level 255 down.
    """
    images_by_level = vstack([membership(of_kind, len(THRESHOLDS) + 1) for of_kind in highest])
    gained = sums_within(parts, images_by_level) - (images_by_level @ shut.T).T[:, :, None]
    gained = gained.reshape(len(shut), len(highest), len(THRESHOLDS) + 1, -1)
    return shut.sum(axis=1)[:, None, None, None] + gained[:, :, :0:-1].cumsum(axis=2)[:, :, ::-1]


def _opening_tops(table: ScoreTable, area: int) -> np.ndarray:
    """The highest top at which a gate of that area opens, (images,); 0 if none does."""
    low, high = np.zeros(len(table.tp), int), np.full(len(table.tp), len(THRESHOLDS))
    images = np.arange(len(table.tp))
    while (low < high).any():  # bisection: masks shrink from top to top
        middle = (low + high + 1) // 2
        opens = table.tp[images, middle - 1] + table.fp[images, middle - 1] >= area
        low, high = np.where(opens, middle, low), np.where(opens, high, middle - 1)
    return low
