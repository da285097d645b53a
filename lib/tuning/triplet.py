"""The triplet (top, area, bottom): a threshold, `bottom`, for the images where `area` pixels of the map reach `top`.

The masks of all other images are empty. It suits competitions with many empty images and comes from the winners of
SIIM-ACR Pneumothorax Segmentation.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import vstack

from lib.masks.metrics import THRESHOLDS, pooled, ratio
from lib.masks.rules import Gate
from lib.masks.statistics import membership, run_around
from lib.tuning.score_table import ScoreTable


def best_gate(table: ScoreTable) -> Gate | None:
    """The gate of the best triplet, over all 255 tops, all bottoms up to the top, and areas 1, 2, 4, ... pixels.

    None if no gate beats both the plain threshold and no mask at all, which still larger areas amount to.
    Ties: the smallest area, the middle of the tops.
    """
    best_score, best = max(table.scores().max(), pooled(*table.empty_terms())), None
    is_triplet = np.tri(len(THRESHOLDS), dtype=bool)  # (tops, bottoms)
    areas = [2**power for power in range(int(table.predicted(1).max(initial=1)).bit_length())]
    scored = gated_scores(table, [_opening_tops(table, area) for area in areas])
    for area, scores in zip(areas, np.where(is_triplet, scored, -np.inf), strict=True):
        if scores.max() > best_score + 1e-12:
            best_score = scores.max()
            top, bottom = np.unravel_index(np.argmax(scores), scores.shape)
            low, high = run_around(int(top), scores[:, bottom] >= best_score - 1e-12)
            best = Gate(top=int(THRESHOLDS[(low + high) // 2]), area=area)
    return best


def gated_scores(table: ScoreTable, highest: Sequence[np.ndarray]) -> np.ndarray:
    """Scores with gates at every level, (kinds of gates, levels 1 to 255, thresholds).

    A gate opens for an image at all levels up to its `highest`, (images,) 0 to 255 for each kind of gate. Up to that
    level the image replaces the terms of an empty mask by its own. So the differences are summed by highest level, then
    cumulated from level 255 down.
    """
    empty = table.empty_terms()
    images_by_level = vstack([membership(of_kind, len(THRESHOLDS) + 1) for of_kind in highest])
    gained = table.sums_within(images_by_level) - (images_by_level @ empty.T).T[:, :, None]
    gained = gained.reshape(2, len(highest), len(THRESHOLDS) + 1, len(table.thresholds))
    sums = empty.sum(axis=1)[:, None, None, None] + gained[:, :, :0:-1].cumsum(axis=2)[:, :, ::-1]
    return ratio(*sums)


def _opening_tops(table: ScoreTable, area: int) -> np.ndarray:
    """The highest top at which a gate of that area opens, (images,); 0 if none does."""
    low, high = np.zeros(len(table.tp), int), np.full(len(table.tp), len(THRESHOLDS))
    images = np.arange(len(table.tp))
    while (low < high).any():  # bisection: masks shrink from top to top
        middle = (low + high + 1) // 2
        opens = table.tp[images, middle - 1] + table.fp[images, middle - 1] >= area
        low, high = np.where(opens, middle, low), np.where(opens, high, middle - 1)
    return low
