"""Components and holes of many masks at once, without a label image.

The horizontal runs of a mask are far fewer than its pixels. Runs that touch in neighbouring rows are the edges of a
graph whose connected parts are the regions, so one pass over the runs of a stack of masks replaces a labelling of
each mask. Components connect through corners and holes do not, as in lib/masks/morphology.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from lib.masks.metrics import IGNORED


@dataclass(frozen=True)
class Runs:
    """Horizontal runs of a stack of masks, in reading order, as positions: row * (width + 1) + column.

    Rows are numbered through the stack. An end is the position after the run's last pixel, so a row has width + 1
    positions.
    """

    start: np.ndarray  # (runs,) int32
    end: np.ndarray  # (runs,) int32
    shape: tuple[int, int, int]  # masks, height, width

    @classmethod
    def of(cls, masks: np.ndarray) -> "Runs":
        """The runs of masks uint8 0/1 (masks, height, width)."""
        count, height, width = masks.shape
        pixels = np.zeros(1 + count * height * (width + 1), np.uint8)  # background before the first and after each row
        pixels[1:].reshape(-1, width + 1)[:, :width] = masks.reshape(-1, width)
        places = np.flatnonzero(pixels[1:] != pixels[:-1]).astype(np.int32)
        return cls(places[::2], places[1::2], masks.shape)

    def complement(self) -> "Runs":
        count, height, width = self.shape
        rows = np.arange(count * height) * (width + 1)
        places = np.sort(np.concatenate([rows, self.start, self.end, rows + width]), kind="stable")
        start, end = places[::2], places[1::2]
        return Runs(start[start < end], end[start < end], self.shape)

    @cached_property
    def mask(self) -> np.ndarray:
        """The number of each run's mask."""
        count, height, width = self.shape
        beyond = np.searchsorted(self.start, np.arange(1, count + 1) * height * (width + 1))
        return np.repeat(np.arange(count), np.diff(beyond, prepend=0))

    @cached_property
    def place_in_mask(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends, counted from each mask's first row."""
        first = self.mask * (self.shape[1] * (self.shape[2] + 1))
        return self.start - first, self.end - first

    def labels(self, through_corners: bool) -> np.ndarray:
        """The connected component of each run, numbers from 0."""
        _, height, width = self.shape
        # A run touches the runs first ... last - 1 of the next row, from the first end to the last start within reach.
        sides = ("left", "right") if through_corners else ("right", "left")
        first = np.searchsorted(self.end, self.start + width + 1, side=sides[0])
        last = np.searchsorted(self.start, self.end + width + 1, side=sides[1])
        at_bottom = self.place_in_mask[0] >= (height - 1) * (width + 1)
        touching = np.where(at_bottom, 0, last - first)
        offsets = np.concatenate([[0], np.cumsum(touching)])
        neighbours = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], touching)
        edges = csr_array((np.ones(len(neighbours), bool), neighbours, offsets), shape=(len(first), len(first)))
        return connected_components(edges, directed=False)[1]

    def enclosed(self) -> tuple["Runs", np.ndarray]:
        """For the runs of the background: those that lie in holes, and the number of each one's hole, from 0."""
        _, height, width = self.shape
        labels = self.labels(through_corners=False)
        start, end = self.place_in_mask
        row, column = np.divmod(start, width + 1)
        at_border = (row == 0) | (row == height - 1) | (column == 0) | (column + end - start == width)
        is_hole = np.ones(labels.max(initial=-1) + 1, dtype=bool)
        is_hole[labels[at_border]] = False
        inside = is_hole[labels]
        return Runs(self.start[inside], self.end[inside], self.shape), np.cumsum(is_hole)[labels[inside]] - 1


@dataclass(frozen=True)
class ComponentStats:
    """Pixel counts of runs, or of the components or holes merged from them, in a stack of masks."""

    area: np.ndarray  # (components,) pixels
    hits: np.ndarray  # (components,) true positives
    known: np.ndarray  # (components,) pixels that the truth does not ignore
    mask: np.ndarray  # (components,) number of the mask
    first: np.ndarray  # (components,) position of the first pixel

    @classmethod
    def of_runs(cls, runs: Runs, truth_before: np.ndarray, known_before: np.ndarray | None) -> "ComponentStats":
        """The counts of each run by itself.

        `truth_before` counts the mask pixels of the truth to the left of each position in a row, `known_before` the
        pixels that the truth does not ignore; None if it ignores none.
        """
        start, end = runs.place_in_mask
        area = end - start
        known = area if known_before is None else known_before[end] - known_before[start]
        return cls(area, truth_before[end] - truth_before[start], known, runs.mask, runs.start)

    def merged(self, labels: np.ndarray) -> "ComponentStats":
        """Merge entries of equal label, which must lie in one mask; labels are numbers from 0."""
        count = labels.max(initial=-1) + 1
        mask, first = np.zeros(count, dtype=int), np.full(count, np.iinfo(int).max)
        mask[labels] = self.mask
        np.minimum.at(first, labels, self.first)
        area, hits = np.bincount(labels, self.area), np.bincount(labels, self.hits)
        known = area if self.known is self.area else np.bincount(labels, self.known)
        return ComponentStats(area, hits, known, mask, first)

    def joined(self, other: "ComponentStats") -> "ComponentStats":
        """These entries followed by the others."""
        return ComponentStats(*map(np.concatenate, zip(vars(self).values(), vars(other).values(), strict=True)))

    def sums(self, chosen: np.ndarray, masks: int) -> np.ndarray:
        """Hits and known pixels of the chosen components (bool) in each of the stack's masks: (2, masks)."""
        return np.stack([np.bincount(self.mask[chosen], term[chosen], masks) for term in (self.hits, self.known)])

    def largest(self) -> np.ndarray:
        """True for the largest component of each mask, bool (components,). Ties: the first in reading order."""
        descending = np.lexsort((self.first, -self.area))
        _, largest = np.unique(self.mask[descending], return_index=True)  # where each mask comes first
        chosen = np.zeros(len(self.area), dtype=bool)
        chosen[descending[largest]] = True
        return chosen


def _pixels_before(chosen: np.ndarray) -> np.ndarray:
    """The number of chosen pixels to the left of each position in its row."""
    return np.pad(chosen.cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0))).ravel()


class MaskStack:
    """The components and holes of several masks of one image, and their overlap with its truth."""

    def __init__(self, masks: np.ndarray, truth: np.ndarray):
        """`masks` is uint8 0/1 (masks, height, width), `truth` uint8 0, 1 or IGNORED (height, width)."""
        self.runs, self.truth, self.count = Runs.of(masks), truth, len(masks)
        is_ignored = truth == IGNORED
        self.truth_before = _pixels_before(truth == 1)
        self.known_before = _pixels_before(~is_ignored) if is_ignored.any() else None
        self.component_of_run = self.runs.labels(through_corners=True)
        self.components = self._merged(self.runs, self.component_of_run)

    def _merged(self, runs: Runs, labels: np.ndarray) -> ComponentStats:
        return ComponentStats.of_runs(runs, self.truth_before, self.known_before).merged(labels)

    def filled(self) -> tuple[ComponentStats, ComponentStats, np.ndarray]:
        """The holes; the components with all holes filled; the number of the filled component that holds each one."""
        hole_runs, hole_of_run = self.runs.complement().enclosed()
        holes = self._merged(hole_runs, hole_of_run)
        # In its row, a run of a hole lies between two runs of the mask: together these are all components it touches.
        left = np.searchsorted(self.runs.start, hole_runs.start) - 1
        beside = self.component_of_run[np.concatenate([left, left + 1])]
        components = len(self.components.area)
        nodes = components + len(holes.area)
        edges = (components + np.tile(hole_of_run, 2), beside)
        graph = coo_array((np.ones(len(beside), bool), edges), shape=(nodes, nodes))
        labels = connected_components(graph, directed=False)[1]
        return holes, self.components.joined(holes).merged(labels), labels[:components]

    def painted(self, components: np.ndarray) -> Iterator[np.ndarray]:
        """Yield each mask, uint8 (height, width), with only the chosen components, bool (components,)."""
        _, height, width = self.runs.shape
        chosen = components[self.component_of_run]
        start, end = self.runs.place_in_mask
        first_of_mask = np.searchsorted(self.runs.mask, np.arange(self.count + 1))
        for first, last in pairwise(first_of_mask):
            here = np.flatnonzero(chosen[first:last]) + first
            edges = np.stack([start[here], end[here]], axis=1).ravel()
            lengths = np.diff(edges, prepend=0, append=height * (width + 1))  # alternating background and mask
            values = (np.arange(len(lengths)) % 2).astype(np.uint8)
            yield np.repeat(values, lengths).reshape(height, width + 1)[:, :width].copy()
