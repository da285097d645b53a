"""Reading tif files with GDAL through rasterio, an optional package: by regions, and in layouts only it can read."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib.base.errors import DamagedImage, UserError, one_line

if TYPE_CHECKING:
    from rasterio import DatasetReader

CACHE_MB = 128  # of decoded tiles, shared by neighbouring windows; GDAL's default is a share of the machine's memory


class NoRasterio(UserError):
    """rasterio is needed and not installed."""


@contextmanager
def gdal(path: Path) -> Iterator[None]:
    """GDAL environment: small tile cache, errors as UserError, no warnings about missing georeference."""
    from rasterio import Env
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)  # catch_warnings fails where threads read
    try:
        with Env(GDAL_CACHEMAX=CACHE_MB):
            yield
    except RasterioError as error:
        raise DamagedImage(f"{path} is cut short or damaged: {one_line(error)}") from None


def open_raster(path: Path) -> "DatasetReader":
    """Open a file, to be read within `gdal`. Raises UserError if it is damaged, NoRasterio without rasterio."""
    try:
        import rasterio
    except ModuleNotFoundError:
        raise NoRasterio(f"{path} is a kind of tif that needs one more package: pip install rasterio") from None
    with gdal(path):
        return rasterio.open(path)


def read_raster(path: Path) -> np.ndarray:
    """The stored pixels of a file of one page, (height, width, planes). Raises as `open_raster` does."""
    with open_raster(path) as file, gdal(path):
        return np.moveaxis(file.read(), 0, 2)


def read_colours(path: Path) -> np.ndarray:
    """The palette of a file, uint8 (colours, 3). Raises as `open_raster` does."""
    with open_raster(path) as file, gdal(path):
        colours = file.colormap(1)
    return np.array([colours.get(index, (0, 0, 0))[:3] for index in range(max(colours) + 1)], np.uint8)
