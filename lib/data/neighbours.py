"""Neighbours as channels (2.5-D): the images before and after an image in its series, which the network sees with it.

A series are the images whose files' names differ in nothing but the number that data.neighbours.order names, such as
the slices of one scan. Neighbours are counted in its order, whatever the numbers between them, and never taken from
another series; beyond an end the last image there is repeated.
"""

import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

from lib.base.errors import UserError, listed
from lib.config.data_settings import DataSettings
from lib.data.image_index import list_images
from lib.data.mask_index import index_masks, is_table, paths_of_masks


@dataclass(frozen=True)
class NeighbourIndex:
    """Of which images an image's channels are. `files` has images without a mask, too, which only are neighbours."""

    series: list[list[str]]  # ids in their order
    stacks: dict[str, list[str]]  # by id those whose channels the network sees: before, the image itself, after
    files: dict[str, list[str]]

    def files_of(self, image_id: str) -> list[str]:
        """The files that the network's channels are read from, in their order."""
        return [path for neighbour in self.stacks[image_id] for path in self.files[neighbour]]


def neighbour_index(settings: DataSettings, pattern: str, setting: str, without: Collection[str]) -> NeighbourIndex:
    """The neighbours of the images of a pattern, `without` those of some ids.

    Raises UserError for images that have no order, and where no image has a neighbour.
    """
    is_training = setting == "data.train_images" and not is_table(settings.train_masks)
    masks = paths_of_masks(index_masks(settings, None), settings) if is_training else set()
    files, parts, _ = list_images(settings, pattern, setting, masks)
    files = {image_id: paths for image_id, paths in files.items() if image_id not in without}
    series = _series({image_id: parts[image_id] for image_id in files}, settings, f"{setting} = '{pattern}'")
    if len(files) > 1 and len(series) == len(files):
        raise UserError(
            f"each of the {len(files)} images of {setting} = '{pattern}' is a series of its own; put * in place of the "
            f"parts of the pattern that differ from one neighbour to the next (data.neighbours)"
        )
    reach, step = settings.neighbours.reach, settings.neighbours.step
    offsets, stacks = range(-reach * step, reach * step + 1, step), {}
    for ids in series:
        for place in range(len(ids)):
            stacks[ids[place]] = [ids[min(max(place + offset, 0), len(ids) - 1)] for offset in offsets]
    return NeighbourIndex(series, stacks, files)


def _series(parts: dict[str, dict[str, str]], settings: DataSettings, source: str) -> list[list[str]]:
    """The ids of each series in the order of their numbers."""
    order, members = settings.neighbours.order, defaultdict(list)
    for image_id, known in parts.items():
        if order not in known:
            raise UserError(f"{source} has no part {{{order}}}, by which data.neighbours.order puts images in order")
        others = tuple((name, text) for name, text in known.items() if name != order)
        members[others].append((_number(known[order], image_id, order), image_id))
    for numbered in members.values():
        numbered.sort()
        for (number, image_id), (next_number, next_id) in pairwise(numbered):
            if number == next_number:
                raise UserError(
                    f"images {listed([image_id, next_id])} have the same {{{order}}} in one series "
                    "(data.neighbours.order)"
                )
    return [[image_id for _, image_id in members[others]] for others in sorted(members)]


def _number(text: str, image_id: str, order: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{{{order}}} of image '{image_id}' is '{text}', which is not a number (data.neighbours.order)")
    return number
