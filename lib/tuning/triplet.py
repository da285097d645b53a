"""The triplet (top, area, bottom): a threshold, `bottom`, for the images where `area` pixels of the map reach `top`.

The masks of all other images are empty. It serves competitions with many empty images; Kaggle's pneumothorax winners
made it known.
"""

import numpy as np
from scipy.sparse import vstack

from lib.masks.metrics import THRESHOLDS, pooled, ratio
from lib.masks.rules import Gate
from lib.masks.statistics import membership, run_around
from lib.tuning.score_table import ScoreTable


def best_gate(table: ScoreTable) -> Gate | None:
    """The gate of the best triplet, over all 255 tops, all bottoms up to the top, and areas 1, 2, 4, ... pixels.

    None where no gate beats both the plain threshold and no mask at all, which is what larger areas would come to.
    Ties: the smallest area, the middle of the tops.
    """
    best_score, best = max(table.scores().max(), pooled(*table.empty_terms())), None
    is_triplet = np.tri(len(THRESHOLDS), dtype=bool)  # (tops, bottoms)
    areas = [2**power for power in range(int(table.predicted(1).max(initial=1)).bit_length())]
    for area, scores in zip(areas, np.where(is_triplet, _gated_scores(table, areas), -np.inf), strict=True):
        if scores.max() > best_score + 1e-12:
            best_score = scores.max()
            top, bottom = np.unravel_index(np.argmax(scores), scores.shape)
            low, high = run_around(int(top), scores[:, bottom] >= best_score - 1e-12)
            best = Gate(top=int(THRESHOLDS[(low + high) // 2]), area=area)
    return best


def shut_by(gate: Gate | None, table: ScoreTable) -> np.ndarray:
    """The images whose masks the gate empties, (images,) bool; `table` is that of the maps themselves."""
    return table.predicted(gate.top) < gate.area if gate else np.zeros(len(table.tp), bool)


def _gated_scores(table: ScoreTable, areas: list[int]) -> np.ndarray:
    """Scores behind every gate, (areas, tops, bottoms).

    A gate opens for an image up to some top, which its counts tell. So an image adds to the score of an empty mask
    what its terms gain over that, for all tops up to its own: sums by top, then added up from the highest.
    """
    empty = table.empty_terms()
    images_by_top = vstack([membership(_opening_tops(table, area), len(THRESHOLDS) + 1) for area in areas])
    gained = table.sums_within(images_by_top) - (images_by_top @ empty.T).T[:, :, None]
    gained = gained.reshape(2, len(areas), len(THRESHOLDS) + 1, len(THRESHOLDS))
    sums = empty.sum(axis=1)[:, None, None, None] + gained[:, :, :0:-1].cumsum(axis=2)[:, :, ::-1]
    return ratio(*sums)


def _opening_tops(table: ScoreTable, area: int) -> np.ndarray:
    """The highest top at which a gate of that area opens, (images,); 0 where none does."""
    low, high = np.zeros(len(table.tp), int), np.full(len(table.tp), len(THRESHOLDS))
    images = np.arange(len(table.tp))
    while (low < high).any():  # bisection: masks shrink from top to top
        middle = (low + high + 1) // 2
        opens = table.tp[images, middle - 1] + table.fp[images, middle - 1] >= area
        low, high = np.where(opens, middle, low), np.where(opens, high, middle - 1)
    return low
