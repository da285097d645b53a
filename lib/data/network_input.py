"""Images as the network sees them: with their neighbours' channels (data.neighbours), at its size (data.resize)."""

import numpy as np
import pandas as pd

from lib.base.errors import UserError, or_none, plural
from lib.data.images import Images
from lib.data.resizing import ResizedImages
from lib.data.unreadable import find_unreadable, first_problems


class WithNeighbours:
    """Images, and masks where they have some, by id; read_image puts the neighbours' channels before and after."""

    def __init__(self, images: Images) -> None:
        self.images, self.stacks = images, images.neighbours.stacks
        self.settings, self.classes, self.resize_values = images.settings, images.classes, images.resize_values
        self._all = Images(images.settings, images.neighbours.files)

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.images.image_size(image_id)

    def read_image(self, image_id: str) -> np.ndarray:
        """Image uint8 (height, width, network channels). Raises UserError for a neighbour of another size."""
        stack = self.stacks[image_id]
        read = {neighbour: self._all.read_image(neighbour) for neighbour in dict.fromkeys(stack)}
        for neighbour, image in read.items():
            if image.shape != read[image_id].shape:
                sizes = [" x ".join(map(str, read[each].shape[:2])) for each in (neighbour, image_id)]
                raise UserError(
                    f"{self._all.image_path(neighbour)} is {sizes[0]}, but '{image_id}', whose neighbour it is, "
                    f"{sizes[1]} (data.neighbours)"
                )
        return np.concatenate([read[neighbour] for neighbour in stack], axis=2)

    def open_image(self, image_id: str) -> np.ndarray:
        """The same: large images with neighbours are decoded as a whole."""
        return self.read_image(image_id)

    def read_mask(self, image_id: str) -> np.ndarray:
        """The image's mask; its neighbours' do not count."""
        return self.images.read_mask(image_id)


def require_usable_neighbours(images: Images) -> None:
    """Raise UserError for series of images that differ in size, and for neighbours without a mask that are damaged."""
    if images.neighbours is None:
        return
    everything = Images(images.settings, images.neighbours.files)
    others = {image_id: everything.files[image_id] for image_id in everything.files.keys() - set(images.ids)}
    if others and (problems := find_unreadable(Images(images.settings, others), "neighbours")):
        counted = plural(len(problems), "neighbour")
        raise UserError(f"{counted} cannot be read: {first_problems(problems)} (data.neighbours)")
    for ids in images.neighbours.series:
        sizes = {size: image_id for image_id in reversed(ids) if (size := or_none(everything.image_size, image_id))}
        if len(sizes) > 1:
            (size, image_id), (other_size, other_id), *_ = sizes.items()
            raise UserError(
                f"images '{image_id}' and '{other_id}' of one series are {size[0]} x {size[1]} and "
                f"{other_size[0]} x {other_size[1]} pixels "
                "(height x width), so that neither can be the other's neighbour (data.neighbours)"
            )


def describe_neighbours(images: Images, folds: pd.DataFrame) -> str:
    """Lines on the series of the training images, and a warning where folds split one; empty without neighbours."""
    if images.neighbours is None:
        return ""
    series, settings = images.neighbours.series, images.settings
    lengths, fold_of = [len(ids) for ids in series], dict(zip(folds.id, folds.fold, strict=True))
    text = (
        f"series    {len(series)} of {min(lengths)} to {max(lengths)} images by {{{settings.neighbours.order}}}; with "
        f"its neighbours an image has {settings.network_channels} channels\n"
    )
    split = [ids for ids in series if len({fold_of[image_id] for image_id in ids if image_id in fold_of}) > 1]
    if split:
        text += (
            f"warning   {len(split)} series are split over folds, such as that of '{split[0][0]}': neighbours are "
            "alike, so out-of-fold scores are too good; set data.group to what a series has in common\n"
        )
    return text


def as_network_sees(images: Images) -> Images | WithNeighbours | ResizedImages:
    """The images with their neighbours' channels, resized, as their settings say; they themselves without either."""
    seen = images if images.neighbours is None else WithNeighbours(images)
    return ResizedImages(seen) if images.settings.resize.is_set else seen
