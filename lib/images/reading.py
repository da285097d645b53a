"""Read images of any format; refuse incomplete files.

The size in the header is checked before the pixels are decoded. Truncated files are refused, since some decoders fill
the missing part with gray and go on.
"""

import re
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from lib.base.errors import DamagedImage, UserError, one_line
from lib.config.data_settings import MAX_PIXELS
from lib.images.dicom import dicom_pixels, dicom_rescale, dicom_size, open_dicom
from lib.images.gdal import read_colours, read_raster
from lib.images.headers import TIF, Header, checked_size, read_header, suffix_of
from lib.images.npy import as_planes, map_npy
from lib.images.scaling import NoData, Range, is_nodata, to_uint8

PNM = (".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = (".png", ".jpg", ".jpeg", *TIF, ".bmp", ".gif", ".webp", ".jp2", *PNM, ".npy", ".dcm")
PLAIN_MODES = ("1", "L", "I;16", "I;16B", "I", "F", "RGB", "RGBA")  # Pillow's modes that numpy represents directly
ODD_BITS = (10, 12, 14)  # of a tif's values, which OpenCV shifts to the high bits of 16
JPEG_MARKER = re.compile(
    rb"\xff[^\x00\xd0-\xd7\xff]"
)  # what ends a scan: in compressed data 00 or a restart follows FF

(cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)  # OpenCV 4, 5


class Content(NamedTuple):
    """The content of a file: values (height, width, planes) in the file's type, colour as R, G, B(, A)."""

    values: np.ndarray
    full_range: tuple[float, float] | None  # of the stored bits; None for signed values and floats
    format: str  # "npy", "dicom", or Pillow's name, such as "PNG"
    palette: np.ndarray | None = None  # uint8 (colours, 3), where the values are indexes of it
    white_is_zero: bool = False  # values are to be inverted for display (a tif's MINISWHITE, DICOM's MONOCHROME1)
    orientation: int = 1  # EXIF
    pages: int = 1  # of a tif, or frames of a DICOM file; those of several are the planes
    rescale: tuple[float, float] = (1, 0)  # slope and intercept from stored values to units

    @property
    def is_picture(self) -> bool:
        """Whether three planes are R, G and B, and a fourth one is alpha."""
        return self.format != "npy" and self.pages == 1

    def in_units(self) -> "Content":
        """The content with its values in their units, such as Hounsfield: slope * stored + intercept."""
        slope, intercept = self.rescale
        if (slope, intercept) == (1, 0):
            return self
        values = self.values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        whole = self.full_range and tuple(sorted(slope * value + intercept for value in self.full_range))
        return self._replace(values=values, full_range=whole, rescale=(1, 0))


def read_image(
    path: Path,
    channels: int | None = 3,
    value_range: Range = None,
    plane: int | None = None,
    max_pixels: int = MAX_PIXELS,
    as_shown: bool = False,
    nodata: NoData = (),
) -> np.ndarray:
    """Image as uint8 (height, width, channels), colour as RGB; EXIF orientation is applied only if `as_shown`.

    A single plane is repeated if 3 channels are asked for. Of a picture a fourth channel (alpha) is dropped for 3
    channels, and colour becomes luma for 1. Any other difference is an error. None asks for all planes but alpha.
    `plane` picks one plane of a file of several (a band, a time step, a page).

    8-bit values stay as they are; other unsigned types are scaled from the range of their stored bits to 0..255 (16
    bits: divided by 257). `value_range` (low, high) maps low..high to 0..255 instead and clips what is outside; "image"
    takes the smallest and largest value of the image itself. Signed values and floats must have a range. Values of
    `nodata`, numbers or "nan", become 0 and do not count for that range. A tif whose 0 is white (MINISWHITE)
    is returned as it is shown, whatever its bits and compression, and so is DICOM's MONOCHROME1.

    Raises UserError naming the file if it is missing, unreadable, truncated, or larger than `max_pixels`.
    """
    content = read_content(path, max_pixels, channels=channels)
    pixels = to_pixels(content, path, channels, value_range, plane, nodata)
    return upright(pixels, content.orientation) if as_shown else pixels


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as viewers show them. EXIF 2.32, 4.6.4: the orientation says where the first row and column belong."""
    if orientation in (5, 6, 7, 8):  # the first row is shown on the left or right
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):  # from bottom to top
        image = image[::-1]
    if orientation in (2, 3, 6, 7):  # from right to left
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def to_pixels(
    content: Content, path: Path, channels: int | None, value_range: Range, plane: int | None, nodata: NoData = ()
) -> np.ndarray:
    """The content of a file, or a region of it, as uint8 (height, width, channels), converted as read_image says."""
    content = content.in_units()
    values = content.values
    if plane is not None:
        if plane >= values.shape[2]:
            raise UserError(f"{path} has {values.shape[2]} planes, so there is no plane {plane} (the first is 0)")
        values = values[:, :, plane : plane + 1]
    missing = is_nodata(values, nodata) if nodata else None
    if values.dtype != np.uint8 or value_range is not None or content.full_range != (0, 255):
        values = to_uint8(values, value_range or content.full_range, missing, path)
    if content.white_is_zero:
        values = 255 - values
    if missing is not None:
        values = np.where(missing, np.uint8(0), values)
    return np.ascontiguousarray(_with_channels(values, channels, content.is_picture, path))


def image_size(
    path: Path, max_pixels: int = MAX_PIXELS, as_shown: bool = False, channels: int | None = None
) -> tuple[int, int]:
    """(height, width) from the header, without decoding; `channels` tell the planes of an npy file from its rows.

    Raises UserError as read_image does.
    """
    suffix = suffix_of(path)
    if suffix == ".npy":
        height, width, _ = as_planes(map_npy(path), path, channels).shape
    elif suffix == ".dcm":
        height, width = dicom_size(open_dicom(path, stop_before_pixels=True), path)
    else:
        header = read_header(path)
        height, width = header.height, header.width
        if as_shown and header.orientation in (5, 6, 7, 8):
            height, width = width, height
    return checked_size(height, width, max_pixels, path)


def read_content(path: Path, max_pixels: int, keep_palette: bool = False, channels: int | None = None) -> Content:
    """Read a whole file, after checking its header: values as stored, whatever the compression.

    With `keep_palette` the values of a palette file are its indexes, else colours; `channels` as of image_size. Raises
    UserError as read_image does.
    """
    suffix = suffix_of(path)
    if suffix == ".dcm":
        dicom = open_dicom(path)
        checked_size(*dicom_size(dicom, path), max_pixels, path)
        pixels, largest, low_is_white = dicom_pixels(dicom, path)
        frames = int(dicom.get("NumberOfFrames") or 1)
        values = as_planes(pixels, path, frames if frames > 1 else None)
        whole = (0, largest) if values.dtype.kind == "u" else None
        rescale = dicom_rescale(dicom, path)
        return Content(values, whole, "dicom", white_is_zero=low_is_white, pages=frames, rescale=rescale)
    if suffix == ".npy":
        values = as_planes(map_npy(path), path, channels)
        checked_size(*values.shape[:2], max_pixels, path)
        return Content(np.array(values), full_range(values.dtype), "npy")
    header = read_header(path)
    checked_size(header.height, header.width, max_pixels, path)
    values, palette = _decoded(path, header, keep_palette)
    if values.shape[:2] != (header.height, header.width):
        declared = f"{header.height} x {header.width} by its header"
        raise DamagedImage(f"{path} is {declared} and {values.shape[:2]} when decoded")
    bits = header.bits if header.format == "TIFF" and not header.is_palette else 8 * values.dtype.itemsize
    whole = (0, header.largest) if header.largest else full_range(values.dtype, bits)
    return Content(values, whole, header.format, palette, header.white_is_zero, header.orientation, len(header.pages))


def _decoded(path: Path, header: Header, keep_palette: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Stored values (height, width, planes) and the palette, or None where the values are no indexes."""
    if header.is_palette and keep_palette and header.reader != "gdal":
        return _decode_palette(path)
    match header.reader:
        case "opencv":
            return _as_stored(_decode(path, header.format), header), None
        case "pillow":
            return _as_stored(_decode_with_pillow(path, header.pages), header), None
    values, palette = read_raster(path), read_colours(path) if header.is_palette else None
    if palette is None or keep_palette:
        return values, palette
    return palette[values[:, :, 0]], None


def _as_stored(values: np.ndarray, header: Header) -> np.ndarray:
    """The stored values of a tif: OpenCV and Pillow invert or stretch some values of few bits."""
    if header.format != "TIFF" or header.is_palette:
        return values
    if header.bits in ODD_BITS and values.dtype == np.uint16:
        return values >> 16 - header.bits
    if header.bits > 8 or values.dtype.kind not in "bu":
        return values
    largest = 2**header.bits - 1
    values = values.view(np.uint8) if values.dtype == bool else values // (255 // largest)
    return largest - values if header.white_is_zero else values


def full_range(dtype: np.dtype, bits: int = 64) -> tuple[float, float] | None:
    """The smallest and largest value of an unsigned type, or of `bits` of it; None for signed values and floats."""
    if dtype.kind == "b":
        return 0, 1
    return (0, 2 ** min(8 * dtype.itemsize, bits) - 1) if dtype.kind == "u" else None


def _decode(path: Path, format: str) -> np.ndarray:
    """Decode with OpenCV, which is up to twice as fast as Pillow and reads 16-bit colour."""
    try:
        if format == "TIFF":
            decoded = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # reads strip by strip: a slide may be gigabytes
        else:
            content = path.read_bytes()
            whole = format != "JPEG" or _jpeg_ends(content)
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if whole else None
    except (OSError, cv2.error):
        decoded = None
    if decoded is None:
        raise DamagedImage(f"{path} is cut short, damaged, or of a kind that OpenCV does not read")
    if decoded.ndim == 2:
        return decoded[:, :, None]
    if decoded.shape[2] in (3, 4):  # in place: a slide is not held twice
        cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB if decoded.shape[2] == 3 else cv2.COLOR_BGRA2RGBA, dst=decoded)
    return decoded


def _decode_with_pillow(path: Path, pages: tuple[int, ...]) -> np.ndarray:
    """Decode with Pillow what OpenCV reads slowly (GIF), truncated without noticing it (several pages), or not at all
    (more than 2^30 pixels). The pages of a TIFF become planes; of a GIF only the first picture counts.
    """
    planes = []
    try:
        with Image.open(path) as image:
            for page in pages:
                image.seek(page)
                pixels = np.array(image if image.mode in PLAIN_MODES else image.convert("RGB"))
                planes.append(pixels.reshape(*pixels.shape[:2], -1))
    except Exception as error:  # Pillow raises whatever its parser stumbles over
        raise DamagedImage(f"{path} is cut short or damaged: {one_line(error)}") from None
    if len(sizes := {f"{height} x {width}" for height, width, _ in (plane.shape for plane in planes)}) > 1:
        raise UserError(f"{path} has pages of several sizes ({', '.join(sorted(sizes))}); save its image alone")
    return np.concatenate(planes, axis=2)


def _decode_palette(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Indexes (height, width, 1) of the first picture, and the palette they belong to, uint8 (colours, 3)."""
    try:
        with Image.open(path) as image:
            values = np.array(image)
            palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    except Exception as error:  # Pillow raises whatever its parser stumbles over
        raise DamagedImage(f"{path} is cut short or damaged: {one_line(error)}") from None
    return values[:, :, None], palette


def _jpeg_ends(content: bytes) -> bool:
    """Whether the scans of a JPEG's first picture are complete. Data behind them, such as a phone's video, is not read.

    After T.81, B.1.1: segments have a length; the data of a scan goes on to the next marker that is no restart.
    """
    place = 2
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            return False
        marker = content[place + 1]
        if marker == 0xD9:
            return True
        if marker in (0x01, 0xFF, *range(0xD0, 0xD8)):  # without a length, or a byte of padding
            place += 1 if marker == 0xFF else 2
            continue
        place += 2 + int.from_bytes(content[place + 2 : place + 4])
        if marker == 0xDA:
            end_of_scan = JPEG_MARKER.search(content, place)
            if end_of_scan is None:
                return False
            place = end_of_scan.start()
    return content[place : place + 2] == b"\xff\xd9"


def _with_channels(image: np.ndarray, channels: int | None, is_picture: bool, path: Path) -> np.ndarray:
    """Repeat, drop or mix channels as read_image says."""
    count = image.shape[2]
    if channels in (3, None) and count == 4 and is_picture:
        return image[:, :, :3]
    if channels in (count, None):
        return image
    if channels == 3 and count == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if channels == 1 and count in (3, 4) and is_picture:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY if count == 3 else cv2.COLOR_RGBA2GRAY)[:, :, None]
    raise UserError(
        f"{path} has {count} channels, but data.channels is {channels}; set data.plane or data.channels (each has "
        f"{image.shape[0]} x {image.shape[1]} pixels), or save each plane as a file of its own if it is an image"
    )
