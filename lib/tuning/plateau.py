"""The choice of a threshold on a plateau of scores, and the extent of the plateau."""

import numpy as np

from lib.masks.rules import NO_MASK
from lib.masks.statistics import influence, run_around, standard_error
from lib.tuning.score_table import ScoreTable

ROUNDING = 1e-12  # scores this close are equal
REACH = 10  # columns on each side of a threshold that form its neighbourhood
TOLERANCE = 0.5  # standard errors below the best score, up to which a plateau is preferred to the peak


def best_threshold(table: ScoreTable, reach: int = REACH) -> int:
    """The threshold to use, which prefers the centre of a plateau to an isolated peak.

    Candidates are the thresholds whose score is at most half a standard error of the paired difference below the best.
    Of these, the one whose neighbourhood, `reach` columns on each side, has the best mean score is taken; ties:
    the middle of their unbroken run. So a peak that clearly stands out from the rest is kept.
    """
    scores = table.scores()
    candidates = _not_worse(table, int(np.argmax(scores)), TOLERANCE)
    window = np.ones(2 * reach + 1) / (2 * reach + 1)
    neighbourhood = np.convolve(np.pad(scores, reach, mode="edge"), window, "valid")
    judged = np.where(candidates, neighbourhood, -np.inf)
    best = int(np.argmax(judged))
    low, high = run_around(best, judged >= judged[best] - ROUNDING)
    return int(table.thresholds[(low + high) // 2])


def plateau(table: ScoreTable, threshold: int) -> tuple[int, int]:
    """The unbroken run of thresholds around this one that score at most two standard errors less."""
    if threshold == NO_MASK:
        return NO_MASK, NO_MASK
    low, high = run_around(table.column(threshold), _not_worse(table, table.column(threshold), tolerance=2))
    return int(table.thresholds[low]), int(table.thresholds[high])


def _not_worse(table: ScoreTable, column: int, tolerance: float) -> np.ndarray:
    """True for thresholds whose score is at most `tolerance` standard errors below that of `column`, (thresholds,).

    The error is that of the paired difference: thresholds share most of their pixels, so unpaired errors would be far
    too wide.
    """
    best, near = influence(*table.terms(slice(column, column + 1))), []
    for terms in table.in_parts():
        lost = best - influence(*terms)
        near.append(lost.mean(axis=0) <= tolerance * np.nan_to_num(standard_error(lost, table.clusters)) + ROUNDING)
    return np.concatenate(near)
