"""Tif files by GDAL, through rasterio, which is optional: region by region, and in layouts that others do not read."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib.base.errors import UserError, one_line

if TYPE_CHECKING:
    from rasterio import DatasetReader

CACHE_MB = 128  # decoded tiles that the next windows share; GDAL's own limit is a share of the machine's memory


class NoRasterio(UserError):
    """The package that reads the file is not installed."""


@contextmanager
def gdal(path: Path) -> Iterator[None]:
    """GDAL with a small cache; its errors as ours, without a word on images that have no place on earth."""
    from rasterio import Env
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    silent = warnings.catch_warnings(category=NotGeoreferencedWarning, action="ignore")
    try:
        with Env(GDAL_CACHEMAX=CACHE_MB), silent:
            yield
    except RasterioError as error:
        raise UserError(f"{path} is cut short or damaged: {one_line(error)}") from None


def open_raster(path: Path) -> "DatasetReader":
    """The open file; its pixels are read within `gdal`. Raises UserError for what is damaged, NoRasterio without it."""
    try:
        import rasterio
    except ModuleNotFoundError:
        raise NoRasterio(f"{path} is a kind of tif that needs one more package: pip install rasterio") from None
    with gdal(path):
        return rasterio.open(path)


def read_raster(path: Path) -> np.ndarray:
    """All pixels of a file of one page, (height, width, planes), as they are stored. Raises as `open_raster` does."""
    with open_raster(path) as file, gdal(path):
        return np.moveaxis(file.read(), 0, 2)


def read_colours(path: Path) -> np.ndarray:
    """The palette of a file, uint8 (colours, 3). Raises as `open_raster` does."""
    with open_raster(path) as file, gdal(path):
        colours = file.colormap(1)
    return np.array([colours.get(index, (0, 0, 0))[:3] for index in range(max(colours) + 1)], np.uint8)
