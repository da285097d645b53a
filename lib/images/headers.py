"""Headers of image files: size, pages, bits, orientation, and which library decodes the pixels correctly.

Sizes are checked here, before any pixel is decoded.
"""

import logging
import os
import re
import warnings
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lib.base.errors import DamagedImage, UserError, one_line
from lib.images.gdal import NoRasterio, open_raster
from lib.images.unread_kinds import what_it_is

TIF = (".tif", ".tiff")
OPENCV_MAX_PIXELS = 1 << 30
START_BYTES = 4096  # of a file, in which most PNG and JPEG files begin their pixels
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Tags of a tif, and the values they may have.
SUBFILE, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, PLANES, PLANAR, EXTRA = 254, 258, 259, 262, 274, 277, 284, 338
GRAY, WHITE_IS_ZERO, PALETTE, SEPARATE, ALPHA, LOOSE_ALPHA = (0, 1), 0, 3, 2, (1, 2), 2
REDUCED_OR_MASK = 1 | 4  # bits of SUBFILE: an overview, and an internal mask
OPENCV_DECODES = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)  # values of COMPRESSION: none, fax, LZW, JPEG, deflate, PackBits
PNM_HEADER = re.compile(rb"P[2356](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d+)")

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would refuse slides that max_pixels admits
# The decoders' own warnings go to stderr without the file's name; the errors here carry it.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)

Reader = Literal["opencv", "pillow", "gdal"]


class Header(NamedTuple):
    height: int
    width: int
    pages: tuple[int, ...]  # numbers of a tif's full pages, without overviews and internal masks
    format: str  # Pillow's name, such as "PNG"
    reader: Reader
    is_plain_tiff: bool  # values stand for gray, RGB or YCbCr
    is_palette: bool = False
    white_is_zero: bool = False  # a tif that stores white as 0
    bits: int = 8  # of a tif's values
    orientation: int = 1  # EXIF: 1 is shown as stored, 2 to 8 are mirrored or turned
    largest: int | None = None  # value that a pnm says to be the largest


def read_header(path: Path) -> Header:
    """Size, pages and format by the header, and the library that decodes it correctly.

    Raises UserError naming the file if it is missing, unreadable or truncated.
    """
    try:
        with Image.open(path) as image:
            return _header_of(image, path)
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist") from None
    except UnidentifiedImageError:
        if suffix_of(path) in TIF:
            return _header_by_gdal(path)
        raise DamagedImage(f"{path} {what_it_is(path)}") from None
    except UserError:
        raise
    except Exception as error:  # Pillow raises whatever its parser stumbles over
        raise DamagedImage(f"{path} cannot be read: {one_line(error)}") from None


def _header_of(image: Image.Image, path: Path) -> Header:
    """The header of an open file."""
    if image.format == "TIFF":
        return _tif_header(image, path)
    format = "JPEG" if image.format == "MPO" else image.format  # a JPEG that other pictures follow
    orientation = _known_orientation(image.getexif()) if "exif" in image.info else 1
    beyond_opencv = format == "GIF" or image.height * image.width > OPENCV_MAX_PIXELS
    return Header(
        image.height,
        image.width,
        (0,),
        format,
        "pillow" if beyond_opencv else "opencv",
        is_plain_tiff=False,
        is_palette=image.mode == "P",
        orientation=orientation,
        largest=_largest_of_pnm(path) if format == "PPM" else None,
    )


def _known_orientation(tags: Mapping[int, object]) -> int:
    """The EXIF orientation. What the standard does not know, such as the 0 that some cameras write, is shown as 1."""
    orientation = tags.get(ORIENTATION, 1)
    return orientation if orientation in range(2, 9) else 1


def _largest_of_pnm(path: Path) -> int | None:
    """The largest value of a pgm or ppm; None for a pbm, whose two values OpenCV decodes as 0 and 255."""
    with path.open("rb") as file:
        match = PNM_HEADER.match(file.read(4096))
    return int(match[1]) if match else None


def is_png_without_exif(start: bytes) -> bool:
    """Whether the first bytes of a file are those of a PNG whose pixels begin there, without EXIF data before them."""
    before, pixels, _ = start.partition(b"IDAT")
    return start.startswith(PNG_SIGNATURE) and bool(pixels) and b"eXIf" not in before


def _tif_header(image: Image.Image, path: Path) -> Header:
    tags, pages = image.tag_v2, _full_pages(image)
    image.seek(pages[0])
    photometric = tags.get(PHOTOMETRIC)
    is_plain, orientation = photometric in (1, 2, 6), _known_orientation(tags)
    if orientation != 1 and (is_plain or photometric in (WHITE_IS_ZERO, PALETTE)):
        return _header_by_gdal(path)._replace(orientation=orientation)  # OpenCV and Pillow turn the pixels
    beyond_opencv = len(pages) > 1 or image.height * image.width > OPENCV_MAX_PIXELS
    return Header(
        image.height,
        image.width,
        pages,
        "TIFF",
        "pillow" if beyond_opencv else _reader_of_page(tags),
        is_plain,
        is_palette=photometric == PALETTE,
        white_is_zero=photometric == WHITE_IS_ZERO,
        bits=max(tags.get(BITS, (1,))),
        orientation=orientation,
    )


def _full_pages(image: Image.Image) -> tuple[int, ...]:
    """Numbers of a tif's pages that are neither an overview nor an internal mask of another."""
    pages = []
    for number in count():  # image.n_frames stumbles over masks
        try:
            image.seek(number)
        except EOFError:
            break
        except SyntaxError:  # Pillow has no mode for masks beside colour; it has read the tags before it says so
            if not _is_reduced_or_mask(image):
                raise
        if not _is_reduced_or_mask(image):
            pages.append(number)
    return tuple(pages) or (0,)


def _is_reduced_or_mask(image: Image.Image) -> bool:
    return bool(int(image.tag_v2.get(SUBFILE, 0)) & REDUCED_OR_MASK)


def _reader_of_page(tags: dict[int, object]) -> Reader:
    """The library that decodes a page correctly, by the tags of a tif.

    OpenCV multiplies 8-bit colours by an unassociated alpha, drops all planes of a gray tif but the first, decodes
    separate planes of more than 8 bits wrongly, and refuses gray of 2 or 4 bits.
    """
    planes, extra, bits = tags.get(PLANES, 1), tags.get(EXTRA, ()), max(tags.get(BITS, (1,)))
    is_gray_of_many = planes > 1 and tags.get(PHOTOMETRIC) in GRAY and not set(extra) & set(ALPHA)
    is_wide_apart = planes > 1 and tags.get(PLANAR) == SEPARATE and bits > 8
    if planes > 4 or is_gray_of_many or is_wide_apart or tags.get(COMPRESSION, 1) not in OPENCV_DECODES:
        return "gdal"
    return "pillow" if bits in (2, 4) or LOOSE_ALPHA in extra and planes == 4 and bits <= 8 else "opencv"


def _header_by_gdal(path: Path) -> Header:
    """The header of a tif that Pillow cannot read or would rotate. Raises UserError."""
    unknown = f"{path} is not an image of a known kind, or it is cut short"
    try:
        with open_raster(path) as file:
            height, width, pages = file.height, file.width, len(file.subdatasets)
            structure, of_plane = file.tags(ns="IMAGE_STRUCTURE"), file.tags(1, ns="IMAGE_STRUCTURE")
            bits = int(of_plane.get("NBITS", 8 * np.dtype(file.dtypes[0]).itemsize))
            is_palette = file.colorinterp[0].name == "palette"
            white_is_zero = structure.get("MINISWHITE") == "YES"
    except NoRasterio:
        raise UserError(f"{unknown}; some kinds of tif need one more package: pip install rasterio") from None
    except UserError:
        raise DamagedImage(unknown) from None
    if pages > 1:
        raise UserError(f"{path} is a tif of several pages, of a kind of which only single pages can be read")
    return Header(
        height, width, (0,), "TIFF", "gdal", not (is_palette or white_is_zero), is_palette, white_is_zero, bits
    )


def checked_size(height: int, width: int, max_pixels: int, path: Path) -> tuple[int, int]:
    """The size. Raises UserError if it exceeds `max_pixels`."""
    if height * width > max_pixels:
        raise UserError(f"{path} has {height} x {width} pixels, more than data.max_pixels = {max_pixels:,} allows")
    return height, width


def suffix_of(path: Path) -> str:
    """A file's suffix in lower case."""
    return os.path.splitext(path)[1].lower()
