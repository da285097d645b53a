"""The candidate morphology steps, and their pixel counts on a map.

Candidates: at most one of opening, closing, dilation and erosion at each radius; then with or without filling all
holes; then nothing, removal below each area, or the largest component only; then with or without the convex hull; and
filling holes up to each area. Each combination gets its own threshold, since the best threshold depends on the steps.

Flat grey-scale morphology commutes with thresholding, so a radius step is counted exactly at all 255 thresholds by
one histogram of the processed map. Steps on components need the components at each threshold: they are counted at
every 16th, a fixed grid that is fitted to no image. One pass over the components gives all areas. The hull, off by
default, must be drawn for each mask and makes the search eight times slower.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, product

import numpy as np

from lib.config.schema import PostprocessSettings
from lib.masks import morphology
from lib.masks.components import ComponentStats, MaskStack
from lib.masks.metrics import THRESHOLDS, count_at_thresholds, count_mask
from lib.masks.rules import Step, apply_steps

GRID = np.arange(16, 256, 16, dtype=np.uint8)  # the thresholds at which components are counted
BATCH_PIXELS = 1 << 22  # of masks counted at once: fits into the caches, and numpy's overhead stays small

Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Candidates:
    """The combinations of steps: each of `radius` followed by each of `component_steps`."""

    radius: list[Steps]
    fill: list[Steps]
    removal: list[Steps]
    hull: list[Steps]
    hole_areas: list[Steps]

    @classmethod
    def build(cls, settings: PostprocessSettings) -> "Candidates":

        def tried(name: str, sizes: list[int] | None = None) -> list[Steps]:
            return [(Step(name, size),) for size in sizes or [None]] if name in settings.steps else []

        radius = [tried(name, settings.radii) for name in ("opening", "closing", "dilation", "erosion")]
        return cls(
            radius=[(), *sum(radius, [])],
            fill=[(), *tried("fill")],
            removal=[(), *tried("remove", settings.areas), *tried("largest")],
            hull=[(), *tried("hull")],
            hole_areas=tried("fill", settings.areas),
        )

    @property
    def component_steps(self) -> list[Steps]:
        """The steps that follow a radius step, in the order in which they are counted."""
        return [sum(steps, ()) for steps in product(self.fill, self.removal, self.hull)] + self.hole_areas

    @property
    def blocks(self) -> list[tuple[Steps, np.ndarray]]:
        """All combinations of steps, each with the thresholds at which it is counted."""
        _, *component_steps = self.component_steps  # the first is no step
        at_all = [(radius, THRESHOLDS) for radius in self.radius]
        return at_all + [(radius + then, GRID) for then in component_steps for radius in self.radius]

    def count(self, probability_map: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """True and false positives, int32 (2, rules), at every threshold of every block.

        `probability_map` and `truth` are uint8 (height, width).
        """
        at_all = [count_at_thresholds(image, truth) for image in self._after_radius_steps(probability_map)]
        window = self._window(probability_map)
        maps, truth = (image[window] for image in self._after_radius_steps(probability_map)), truth[window]
        batches = _masks_on_grid(maps, max(1, BATCH_PIXELS // truth.size))
        on_grid = np.concatenate([self._count_component_steps(MaskStack(masks, truth)) for masks in batches], axis=2)
        tp, predicted = on_grid[:, 1:].reshape(2, -1)
        counts = [np.stack(at_all, axis=1).reshape(2, -1), np.stack([tp, predicted - tp])]
        return np.concatenate(counts, axis=1).astype(np.int32)

    def _window(self, probability_map: np.ndarray) -> tuple[slice, slice]:
        """The part of the map that holds all masks on the grid after any radius step, with a margin of one pixel.

        Many maps are empty except for a corner. Holes stay holes: the margin connects everything outside the masks to
        the border of the window, as it is connected to the border of the image.
        """
        reach = 1 + max((step.size for steps in self.radius for step in steps), default=0)
        sides = [np.flatnonzero(probability_map.max(axis=axis) >= GRID[0]) for axis in (1, 0)]
        if len(sides[0]) == 0:
            return np.s_[:1, :1]
        top, left = (slice(max(0, side[0] - reach), side[-1] + reach + 1) for side in sides)
        return top, left

    def _after_radius_steps(self, probability_map: np.ndarray) -> Iterator[np.ndarray]:
        """The map after each of `radius`, computed lazily: of a large map, all of them would not fit in memory."""
        return (apply_steps(steps, probability_map) for steps in self.radius)

    def _count_component_steps(self, masks: MaskStack) -> np.ndarray:
        """The counts of each mask after each of `component_steps`: (2, component steps, masks)."""
        components = masks.components
        counts = self._count_removals(components, np.arange(len(components.area)), masks)
        if len(self.fill) > 1:
            holes, filled, part_of = masks.filled()
            plain = counts[0]
            counts += self._count_removals(filled, part_of, masks)
            counts += [plain + holes.sums(holes.area <= step.size, masks.count) for (step,) in self.hole_areas]
        return np.stack(counts, axis=1)

    def _count_removals(self, stats: ComponentStats, part_of: np.ndarray, masks: MaskStack) -> list[np.ndarray]:
        """The counts (2, masks) of the components after each of `removal`, without and with `hull`.

        `part_of` is the number in `stats` of each component of the masks; filling holes may join several.
        """
        counts = []
        for steps in self.removal:
            kept = _kept(stats, steps)
            counts.append(stats.sums(kept, masks.count))
            if len(self.hull) > 1:
                hulls = (morphology.convex_hulls(mask) for mask in masks.painted(kept[part_of]))
                tp, fp, _ = np.array([count_mask(hull, masks.truth) for hull in hulls], dtype=float).T
                counts.append(np.stack([tp, tp + fp]))
        return counts


def _masks_on_grid(maps: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The masks of each map at each of GRID, uint8 (masks, height, width), `count` at a time."""
    masks = (probability_map >= threshold for probability_map in maps for threshold in GRID)
    while batch := list(islice(masks, count)):
        yield np.stack(batch).view(np.uint8)


def _kept(stats: ComponentStats, removal: Steps) -> np.ndarray:
    """True for the components that a removal keeps, (components,) bool."""
    match removal:
        case ():
            return np.ones(len(stats.area), dtype=bool)
        case (Step("remove", min_area),):
            return stats.area >= min_area
        case _:  # largest
            return stats.largest()
