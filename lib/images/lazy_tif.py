"""Slides: large tif files read region by region, so that none is ever decoded whole."""

from pathlib import Path

import numpy as np

from lib.base.errors import UserError
from lib.images.gdal import gdal, open_raster
from lib.images.headers import TIF, checked_size, read_header, suffix_of
from lib.images.reading import Content, full_range, to_pixels
from lib.masks.resize import Size

MAX_BLOCK_PIXELS = 1 << 22  # of a tile or strip, which is decoded as a whole


class Slide:
    """An image uint8 (height, width, channels) of which `slide[top:bottom, left:right]` reads just that region.

    Opening and reading raise UserError where the file is cut short or damaged.
    """

    def __init__(
        self, path: Path, channels: int, value_range: tuple[float, float] | None, plane: int | None, bits: int
    ) -> None:
        self.path = path
        self.bits = bits  # of a stored value
        self._conversion = (path, channels, value_range, plane)
        self._file = open_raster(path)
        self.shape = (self._file.height, self._file.width, channels)

    @property
    def block_pixels(self) -> int:
        """Pixels of a tile or strip."""
        return max(height * width for height, width in self._file.block_shapes)

    @property
    def is_opaque(self) -> bool:
        """Whether `resampled` counts every pixel: GDAL leaves out those that are transparent or a tag's "no data"."""
        from rasterio.enums import MaskFlags

        return all(MaskFlags.all_valid in flags for flags in self._file.mask_flag_enums)

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        return self._read(
            window=tuple(axis.indices(length)[:2] for axis, length in zip(region, self.shape, strict=False))
        )

    def resampled(self, size: Size, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
        """The image, or a box (top, left, bottom, right) of it, at a size: averaged down, interpolated linearly up.

        The box may cut pixels; boxes side by side give the pixels that the whole image gives.
        """
        from rasterio.enums import Resampling
        from rasterio.windows import Window

        top, left, bottom, right = box or (0, 0, *self.shape[:2])
        grows = size[0] > bottom - top or size[1] > right - left
        return self._read(
            window=Window(left, top, right - left, bottom - top),
            out_shape=(self._file.count, *size),
            resampling=Resampling.bilinear if grows else Resampling.average,
        )

    def _read(self, **how: object) -> np.ndarray:
        with gdal(self.path):
            values = np.moveaxis(self._file.read(**how), 0, 2)
        return to_pixels(Content(values, full_range(values.dtype, self.bits), "TIFF"), *self._conversion)


class ResizedSlide:
    """A slide at another size, of which regions are read and resized alone."""

    def __init__(self, slide: Slide, size: Size) -> None:
        self.slide = slide
        self.shape = (*size, slide.shape[2])

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        rows, columns = (axis.indices(length)[:2] for axis, length in zip(region, self.shape, strict=False))
        scale_y, scale_x = (full / length for full, length in zip(self.slide.shape, self.shape[:2], strict=False))
        box = (rows[0] * scale_y, columns[0] * scale_x, rows[1] * scale_y, columns[1] * scale_x)
        return self.slide.resampled((rows[1] - rows[0], columns[1] - columns[0]), box)


def open_slide(
    path: Path,
    channels: int,
    value_range: tuple[float, float] | str | None,
    plane: int | None,
    max_pixels: int,
    as_shown: bool = False,
) -> Slide | None:
    """The file by regions, or None where it must be decoded as a whole.

    That is where rasterio is not installed or does not open the file, and for other formats than tif, several pages,
    strips as high as the image, colour maps, images that `as_shown` turns, and value_range "image", which needs all
    values. Raises UserError for more than `max_pixels`.
    """
    if suffix_of(path) not in TIF or value_range == "image":
        return None
    header = read_header(path)
    checked_size(header.height, header.width, max_pixels, path)
    if len(header.pages) > 1 or not header.is_plain_tiff or as_shown and header.orientation != 1:
        return None
    try:
        slide = Slide(path, channels, value_range, plane, header.bits)
    except UserError:
        return None
    return slide if slide.block_pixels <= MAX_BLOCK_PIXELS else None
