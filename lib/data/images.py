"""Images by id, of whatever files: their sizes, their pixels, and the neighbours of slices and frames."""

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lib.base.errors import UserError
from lib.config.data_settings import DataSettings
from lib.data.neighbours import NeighbourIndex, neighbour_index
from lib.images.lazy_tif import Slide, open_slide
from lib.images.reading import image_size, read_image


class Unreadable(NamedTuple):
    """An image that cannot be decoded. `size` is (height, width) by its header, if that is whole."""

    problem: str
    size: tuple[int, int] | None = None


class Images:
    """Images by id. `ids` are sorted and safe as file names."""

    def __init__(
        self,
        settings: DataSettings,
        files: dict[str, list[str]],
        resize_values: dict[str, float] | None = None,
        unreadable: dict[str, Unreadable] | None = None,
    ):
        self.settings = settings
        self.resize_values = resize_values or {}  # by id, those of data.resize.column
        self.unreadable = unreadable or {}  # by id; these ids are not in `ids`
        self.classes = settings.classes
        self.ids = sorted(files)
        self.files = files  # by id; several files are the planes of one image
        self._of_header = {"max_pixels": settings.max_pixels, "as_shown": settings.orientation == "shown"}
        self._of_pixels = {"value_range": settings.value_range, "plane": settings.plane, **self._of_header}
        self._sizes: dict[str, tuple[int, int]] = {}  # cached, so that each header is read once

    @property
    def pattern(self) -> tuple[str, str]:
        """The pattern by which the images are listed, and its setting."""
        return self.settings.test_images, "data.test_images"

    @cached_property
    def neighbours(self) -> NeighbourIndex | None:
        """The neighbours of each image, if data.neighbours is set."""
        if self.settings.neighbours.order is None:
            return None
        return neighbour_index(self.settings, *self.pattern, self.unreadable)

    def image_path(self, image_id: str) -> Path:
        """The image's file; the first of several (data.plane_files)."""
        return Path(self.files[image_id][0])

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(height, width) from the file's header."""
        if image_id not in self._sizes:
            channels = None if self.settings.plane_files else self.settings.channels
            self._sizes[image_id] = image_size(self.image_path(image_id), channels=channels, **self._of_header)
        return self._sizes[image_id]

    def read_image(self, image_id: str) -> np.ndarray:
        """Image uint8 (height, width, channels), colour as RGB. Raises UserError naming a damaged file."""
        paths = [Path(path) for path in self.files[image_id]]
        reading = {"nodata": self.settings.nodata, **self._of_pixels}
        if len(paths) == 1:
            planes = [read_image(paths[0], self.settings.channels, **reading)]
        else:
            planes = [read_plane(path, **reading) for path in paths]
        for path, plane in zip(paths, planes, strict=True):
            if plane.shape != planes[0].shape:
                raise UserError(f"{path} is {_size(plane)}, but {paths[0]}, another plane of it, is {_size(planes[0])}")
        self._sizes[image_id] = planes[0].shape[:2]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def open_image(self, image_id: str) -> np.ndarray | Slide:
        """The image for reading regions, `[top:bottom, left:right]`; of a slide only these regions are decoded."""
        settings, paths = self.settings, self.files[image_id]
        may_be_slide = len(paths) == 1 and not settings.nodata  # "no data" must not be averaged with data
        slide = open_slide(Path(paths[0]), settings.channels, **self._of_pixels) if may_be_slide else None
        return self.read_image(image_id) if slide is None else slide


def read_plane(path: Path, **reading: object) -> np.ndarray:
    """A file that is one plane of an image, as uint8 (height, width, 1); `reading` as of `read_image`.

    Raises UserError as read_image does, and for a file of different planes; equal R, G and B are gray.
    """
    image = read_image(path, None, **reading)
    if (image != image[:, :, :1]).any():
        raise UserError(
            f"{path} has {image.shape[2]} different planes, but with data.plane_files each file is one; save R, G and "
            "B as a file each, or set data.plane to the one that is meant"
        )
    return image[:, :, :1]


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"
