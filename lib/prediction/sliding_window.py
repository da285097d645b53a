"""Large images by windows: where the windows lie, how they are blended, and in how little memory.

Windows start at multiples of the network's stride, so that the network samples each pixel as it would in the whole
image: away from the windows' borders both give the same. Where windows overlap, three eighths at either end of the
overlap are left to the other window, since a border distorts what is near it; in between the weight of one window
falls along half a cosine while that of the next one rises, so that no seam shows.
"""

import math
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from typing import NamedTuple, Protocol

import numpy as np

from lib.prediction.map_store import to_map


class LargeImage(Protocol):
    """An image to cut into windows: an array uint8 (height, width, channels), or a file of which regions are read."""

    shape: tuple[int, ...]

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray: ...


Predict = Callable[[np.ndarray], np.ndarray]  # uint8 (batch, height, width, channels) to probabilities (..., classes)


class Window(NamedTuple):
    """A stretch of an axis: its pixels, and the weight of each, float32 from 0 to 1."""

    pixels: slice
    weights: np.ndarray

    @property
    def length(self) -> int:
        return len(self.weights)


def windows_along(length: int, window: int, overlap: int, stride: int) -> list[Window]:
    """Windows of at most `window` pixels that cover an axis of `length`; the weights of a pixel add up to 1.

    Neighbours share `overlap` pixels. All windows but the last have one length, the least that so many windows need.
    `window` and `overlap` are multiples of `stride`, and `overlap` is at most half of `window`.
    """
    if length <= window:
        return [Window(slice(0, length), np.ones(length, np.float32))]
    fewest = math.ceil((length - overlap) / (window - overlap))
    step = max(overlap, math.ceil((length - overlap) / fewest / stride) * stride)  # no pixel is in three windows
    starts = range(0, length - overlap, step)
    margin = 3 * overlap // 8
    rise = np.clip((np.arange(overlap) + 0.5 - margin) / (overlap - 2 * margin), 0, 1)
    rising = (np.sin(np.pi / 2 * rise) ** 2).astype(np.float32)
    windows = []
    for start in starts:
        weights = np.ones(min(step + overlap, length - start), np.float32)
        if start > 0:
            weights[:overlap] = rising
        if start < starts[-1]:
            weights[-overlap:] = 1 - rising
        windows.append(Window(slice(start, start + len(weights)), weights))
    return windows


def blended_map(
    image: LargeImage, predict: Predict, window: int, overlap: int, stride: int, batch_size: int
) -> np.ndarray:
    """The map uint8 (height, width, classes) of an image uint8 (height, width, channels), window by window.

    Beside the image and its map it holds one row of windows as probabilities: height x width never stands in floats.
    """
    height, width = image.shape[:2]
    rows, columns = (windows_along(length, window, overlap, stride) for length in (height, width))
    ends = [row.pixels.start for row in rows[1:]] + [height]  # up to where a row of windows completes the map
    strip = blended = None
    for row, end in zip(rows, ends, strict=True):
        for column, probabilities in _predicted(image, row, columns, predict, batch_size):
            if blended is None:
                classes = probabilities.shape[2]
                strip = np.zeros((row.length, width, classes), np.float32)
                blended = np.empty((height, width, classes), np.uint8)
            weights = row.weights[:, None, None] * column.weights[None, :, None]
            strip[: row.length, column.pixels] += weights * probabilities
        done = end - row.pixels.start
        blended[row.pixels.start : end] = to_map(strip[:done])
        strip[: len(strip) - done] = strip[done:]
        strip[len(strip) - done :] = 0
    return blended


def _predicted(
    image: LargeImage, row: Window, columns: list[Window], predict: Predict, batch_size: int
) -> Iterator[tuple[Window, np.ndarray]]:
    """The windows of a row with their probabilities (height, width, classes), predicted in batches of one length."""
    for _, equal in groupby(columns, key=lambda column: column.length):
        equal = iter(equal)
        while batch := list(islice(equal, batch_size)):
            crops = np.stack([image[row.pixels, column.pixels] for column in batch])
            yield from zip(batch, predict(crops), strict=True)
