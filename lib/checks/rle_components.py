"""Connected components of a mask counted on its run lengths, without drawing the mask."""

import numpy as np

from lib.config.data_settings import RleSettings
from lib.masks.components import Runs
from lib.masks.rle import parse_runs


def count_components(texts: list[str], shape: tuple[int, int], convention: RleSettings) -> int:
    """Connected components (through corners) of each text's mask, summed, from the runs alone.

    Raises UserError as lib.masks.rle.decode does.
    """
    length = shape[0] if convention.order == "column" else shape[1]
    total = 0
    for text in texts:
        starts, ends = _merged(*parse_runs(text, shape[0] * shape[1], convention))
        lines = Runs(*_within_lines(starts, ends, length), (1, shape[0] * shape[1] // length, length))
        total += int(lines.labels(through_corners=True).max(initial=-1)) + 1
    return total


def _merged(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge runs: the same pixels as sorted runs that neither overlap nor touch."""
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    begins = np.append(True, starts[1:] > ends[:-1])[: len(starts)]
    return starts[begins], ends[np.append(begins[1:], True)[: len(ends)]]


def _within_lines(starts: np.ndarray, ends: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut runs at the ends of lines of `length` pixels; positions become line * (length + 1) + pixel."""
    first, last = starts // length, (ends - 1) // length
    parts = last - first + 1
    run = np.repeat(np.arange(len(starts)), parts)
    line = first[run] + np.arange(len(run)) - (np.cumsum(parts) - parts)[run]
    left = np.maximum(starts[run] - line * length, 0)
    right = np.minimum(ends[run] - line * length, length)
    return line * (length + 1) + left, line * (length + 1) + right
