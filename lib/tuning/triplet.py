"""The triplet (top, area, bottom): a threshold, `bottom`, for the images where `area` pixels of the map reach `top`.

The masks of all other images are empty. It suits competitions with many empty images and comes from the winners of
SIIM-ACR Pneumothorax Segmentation.
"""

import numpy as np

from lib.masks.metrics import THRESHOLDS
from lib.masks.rules import Gate
from lib.tuning.gate_search import choose_gate
from lib.tuning.score_table import ScoreTable


def best_gate(table: ScoreTable) -> Gate | None:
    """The gate of the best triplet, over all 255 tops, all bottoms up to the top, and areas 1, 2, 4, ... pixels.

    None if no gate beats both the plain threshold and no mask at all, which still larger areas amount to.
    """
    areas = [2**power for power in range(int(table.predicted(1).max(initial=1)).bit_length())]
    chosen = choose_gate(table, [_opening_tops(table, area) for area in areas], top_limits=True)
    if chosen is None:
        return None
    kind, top = chosen
    return Gate(top, areas[kind])


def _opening_tops(table: ScoreTable, area: int) -> np.ndarray:
    """The highest top at which a gate of that area opens, (images,); 0 if none does."""
    low, high = np.zeros(len(table.tp), int), np.full(len(table.tp), len(THRESHOLDS))
    images = np.arange(len(table.tp))
    while (low < high).any():  # bisection: masks shrink from top to top
        middle = (low + high + 1) // 2
        opens = table.tp[images, middle - 1] + table.fp[images, middle - 1] >= area
        low, high = np.where(opens, middle, low), np.where(opens, high, middle - 1)
    return low
