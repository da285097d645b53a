"""The choice of a gate, which empties the masks of images, together with the threshold of the masks behind it.

The gates of a search are of one kind or of several, each with 255 levels. A gate opens for an image at all levels up to
the image's highest, (images,) 0 to 255: `highest` holds that for each kind. Arrays of scores are (kinds, levels 1 to
255, thresholds).
"""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.sparse import vstack
from scipy.special import logit

from lib.masks.metrics import THRESHOLDS, pooled, ratio
from lib.masks.statistics import membership, run_around
from lib.tuning.plateau import ROUNDING, TOLERANCE
from lib.tuning.score_table import ScoreTable, sums_within

LOGIT_REACH = 0.3  # in logits: neighbouring levels differ by up to 20 at one half, and by none where they are saturated


def choose_gate(table: ScoreTable, highest: Sequence[np.ndarray], top_limits: bool = False) -> tuple[int, int] | None:
    """The kind of gate (its number) and the level, 1 to 255, to use, from the scores of all gates and thresholds.

    Chosen like a threshold (`best_threshold`): of the gates and thresholds at most half a standard error below the
    best, those whose neighbourhood has the best mean (`_neighbourhood_means`). Several numbers have far more isolated
    peaks than one. Ties: the first kind, the middle of the levels.

    None if no gate beats both the best threshold alone and no mask at all. With `top_limits`, levels are those of the
    maps, and a threshold may not be above its gate's.
    """
    everywhere = gated_scores(table, highest)
    scores = np.where(np.tri(len(THRESHOLDS), dtype=bool), everywhere, -np.inf) if top_limits else everywhere
    if scores.max() <= max(table.scores().max(), pooled(*table.empty_terms())) + ROUNDING:
        return None
    kind, level, column = np.unravel_index(np.argmax(scores), scores.shape)
    peak = table.emptied(highest[kind] < THRESHOLDS[level]).terms_at(int(THRESHOLDS[column]))
    is_candidate = scores >= scores.max() - TOLERANCE * largest_errors(table, highest, peak) - ROUNDING
    judged = np.where(is_candidate, _neighbourhood_means(everywhere), -np.inf)
    kind, level, column = np.unravel_index(np.argmax(judged), judged.shape)
    low, high = run_around(int(level), judged[kind, :, column] >= judged.max() - ROUNDING)
    return int(kind), int(THRESHOLDS[(low + high) // 2])


def gated_scores(table: ScoreTable, highest: Sequence[np.ndarray]) -> np.ndarray:
    """The scores of all images behind every gate, at every threshold."""
    return ratio(*_gated_sums(table.in_parts(), table.empty_terms(), highest))


def largest_errors(table: ScoreTable, highest: Sequence[np.ndarray], peak: np.ndarray) -> np.ndarray:
    """The standard error of the difference of each gated score from the one with the terms `peak`, at most.

    `peak` is (2, images). It is the error if all images of a group differ alike. That needs no sum for each group:
    (d_1 + ... + d_n)^2 is at most n (d_1^2 + ... + d_n^2). Ratios are linearised at the peak (delta method).
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


def _neighbourhood_means(scores: np.ndarray) -> np.ndarray:
    """The mean score of gates of the kinds before and after, with levels near both level and threshold."""
    logits = logit(THRESHOLDS / 256)
    near = (np.abs(logits[:, None] - logits) <= LOGIT_REACH).astype(float)
    near /= near.sum(axis=1, keepdims=True)
    return uniform_filter1d(near @ scores @ near.T, 3, axis=0, mode="nearest")


def _gated_sums(parts: Iterable[Sequence[np.ndarray]], shut: np.ndarray, highest: Sequence[np.ndarray]) -> np.ndarray:
    """Sums over the images behind every gate, at every threshold; (values, kinds, levels, thresholds).

    `parts` yields values of images with an open gate, each (images, thresholds), some thresholds at a time; `shut` are
    those of images with a shut gate, (values, images).

    Up to its highest level an image replaces its values of a shut gate by those of an open one. So the differences are
    summed by highest level, then cumulated from level 255 down.
    """
    images_by_level = vstack([membership(of_kind, len(THRESHOLDS) + 1) for of_kind in highest])
    gained = sums_within(parts, images_by_level) - (images_by_level @ shut.T).T[:, :, None]
    gained = gained.reshape(len(shut), len(highest), len(THRESHOLDS) + 1, -1)
    return shut.sum(axis=1)[:, None, None, None] + gained[:, :, :0:-1].cumsum(axis=2)[:, :, ::-1]
