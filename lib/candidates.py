"""The morphology that is tried, and how all of it is counted on a map.

Tried: at most one of opening, closing, dilation and erosion at each radius; then with or without filling all holes;
then nothing, removal below each area, or the largest component only; then with or without the convex hull; and
filling holes up to each area. Every combination has a threshold of its own, since the two move each other.

Flat grey-scale morphology commutes with thresholding, so a radius step is counted exactly at all 255 thresholds by
one histogram of the processed map. Steps on components need a labelling at each threshold: they are counted at
`OFFSETS` from the threshold chosen without steps. One labelling gives all areas. The hull, off by default, must be
drawn for each mask and makes the search several times slower.
"""

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from lib import morphology
from lib.config import PostprocessSettings
from lib.metrics import count_at_thresholds
from lib.rules import Step

OFFSETS = np.array([-80, -48, -24, -10, 0, 10, 24, 48, 80])  # close where the best threshold is likely

Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Candidates:
    """What is tried on the maps of one class: each of `radius` followed by each of `component_steps`."""

    radius: list[Steps]
    fill: list[Steps]
    removal: list[Steps]
    hull: list[Steps]
    hole_areas: list[Steps]
    few: np.ndarray  # thresholds at which components are labelled

    @classmethod
    def build(cls, settings: PostprocessSettings, threshold: int) -> "Candidates":
        """All candidates of the settings; `threshold` is the one chosen without steps."""

        def tried(name: str, sizes: list[int] | None = None) -> list[Steps]:
            return [(Step(name, size),) for size in sizes or [None]] if name in settings.steps else []

        radius = [tried(name, settings.radii) for name in ("opening", "closing", "dilation", "erosion")]
        return cls(
            radius=[(), *sum(radius, [])],
            fill=[(), *tried("fill")],
            removal=[(), *tried("remove", settings.areas), *tried("largest")],
            hull=[(), *tried("hull")],
            hole_areas=tried("fill", settings.areas),
            few=np.unique(np.clip(threshold + OFFSETS, 1, 255)),
        )

    @property
    def component_steps(self) -> list[Steps]:
        """The steps that follow a radius step, in the order in which they are counted."""
        return [sum(steps, ()) for steps in product(self.fill, self.removal, self.hull)] + self.hole_areas

    def count(self, probability_map: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True positives and predicted pixels of all candidates on one map, both uint8 (height, width).

        Two arrays of whole numbers: (2, radius, 255) without component steps, at all thresholds, and
        (2, radius, component steps, few thresholds).
        """
        truth_left_of = np.pad(truth.cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))
        at_all, at_few = [], []
        for steps in self.radius:
            processed = probability_map
            for step in steps:
                processed = step.apply(processed)
            tp, fp = count_at_thresholds(processed, truth)
            at_all.append((tp, tp + fp))
            masks = ((processed >= threshold).view(np.uint8) for threshold in self.few)
            at_few.append(np.stack([self._count_mask(mask, truth_left_of) for mask in masks], axis=-1))
        return np.stack(at_all, axis=1), np.stack(at_few, axis=1)

    def _count_mask(self, mask: np.ndarray, truth_left_of: np.ndarray) -> np.ndarray:
        """The counts of one mask after each of `component_steps`, (2, component steps)."""
        x, y, width, height = cv2.boundingRect(mask)
        if width == 0:
            return np.zeros((2, len(self.component_steps)))
        mask = mask[y : y + height, x : x + width]
        truth_left_of = truth_left_of[y : y + height, x : x + width + 1]
        counts = self._count_removals(mask, truth_left_of)
        if len(self.fill) == 1:
            return counts
        labels, is_hole = morphology.holes(mask)
        if not is_hole.any():
            return np.concatenate([counts, counts, np.repeat(counts[:, :1], len(self.hole_areas), axis=1)], axis=1)
        holes = _tally(labels, len(is_hole), 1 - mask, truth_left_of) * is_hole
        up_to_area = [counts[:, 0] + holes[:, holes[1] <= step.size].sum(axis=1) for (step,) in self.hole_areas]
        filled = mask | is_hole.view(np.uint8)[labels]
        return np.concatenate([counts, self._count_removals(filled, truth_left_of), np.stack(up_to_area, 1)], axis=1)

    def _count_removals(self, mask: np.ndarray, truth_left_of: np.ndarray) -> np.ndarray:
        """The counts of one mask after each of `removal`, without and with `hull`: (2, removal x hull)."""
        labels, count = morphology.components(mask)
        tally = _tally(labels, count, mask, truth_left_of)
        kept = np.stack([_kept(tally[1], steps) for steps in self.removal])
        counts = tally @ kept.T.astype(float)
        if len(self.hull) == 1:
            return counts
        truth = np.diff(truth_left_of, axis=1)
        hulls = [morphology.convex_hulls(labels_kept.view(np.uint8)[labels]) for labels_kept in kept]
        hull_counts = [((hull & truth).sum(), hull.sum()) for hull in hulls]
        return np.stack([counts, np.transpose(hull_counts)], axis=2).reshape(2, -1)


def _kept(areas: np.ndarray, removal: Steps) -> np.ndarray:
    """Which labels a removal keeps, by their areas; the background's area is 0, so that it is never kept."""
    match removal:
        case ():
            return areas > 0
        case (Step("remove", min_area),):
            return areas >= min_area
        case _:  # largest
            return (areas > 0) & (np.arange(len(areas)) == np.argmax(areas))


def _tally(labels: np.ndarray, count: int, mask: np.ndarray, truth_left_of: np.ndarray) -> np.ndarray:
    """Pixels of the truth and pixels of each label, counted inside the mask: (2, count).

    Sums over the mask's horizontal runs, of which there are far fewer than pixels: `truth_left_of[y, x]` is the
    number of truth pixels in row y left of x, so a run's truth is a difference of two entries.
    """
    padded = cv2.copyMakeBorder(mask, 0, 0, 1, 1, cv2.BORDER_CONSTANT, value=0)
    rows, columns = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), truth_left_of.shape[1])
    truth_at = truth_left_of[rows, columns]
    of_run = labels[rows[::2], columns[::2]]
    return np.stack(
        [
            np.bincount(of_run, truth_at[1::2] - truth_at[::2], minlength=count),
            np.bincount(of_run, columns[1::2] - columns[::2], minlength=count),
        ]
    )
