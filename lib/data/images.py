"""Reading images and mask images, whatever the format, and nothing but whole ones.

Every reader checks the size that the file's header declares before it decodes the pixels, and refuses files that are
cut short: some decoders fill the missing part with gray and go on.
"""

import logging
import os
import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from lib.base.errors import UserError
from lib.data.gdal import NoRasterio, open_raster, read_raster

TIF = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", *TIF, ".bmp", ".gif", ".npy", ".dcm")
MAX_PIXELS = 1_000_000_000  # admits a slide of 30,000 x 30,000
OPENCV_MAX_PIXELS = 1 << 30
BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, PLANES, PLANAR, EXTRA = 258, 259, 262, 274, 277, 284, 338  # a tif's tags
GRAY, SEPARATE, ALPHA, LOOSE_ALPHA = (0, 1), 2, (1, 2), 2  # values of PHOTOMETRIC, PLANAR and EXTRA
OPENCV_DECODES = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)  # values of COMPRESSION: none, fax, LZW, JPEG, deflate, PackBits
PLAIN_MODES = ("1", "L", "I;16", "I;16B", "I", "F", "RGB", "RGBA")  # Pillow's modes that numpy holds as they are

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would refuse slides that max_pixels admits
# The decoders' own warnings go to stderr without the file's name; the errors here carry it.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
(cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)  # OpenCV 4, 5


class Content(NamedTuple):
    """What a file holds: values (height, width, planes) in the file's type, colour as R, G, B(, A)."""

    values: np.ndarray
    full_range: tuple[float, float] | None  # of the type; None for signed values and floats
    format: str  # "npy", "dicom", or Pillow's name, such as "PNG"


class Header(NamedTuple):
    height: int
    width: int
    pages: int
    format: str
    reader: Literal["opencv", "pillow", "gdal"]
    is_plain_tiff: bool  # values stand for gray, RGB or YCbCr


def read_image(
    path: Path,
    channels: int = 3,
    value_range: tuple[float, float] | str | None = None,
    plane: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Image as uint8 (height, width, channels), colour as RGB, orientation as stored (EXIF rotation is not applied).

    A single plane is repeated over 3 channels. In a picture a fourth channel (alpha) is dropped where 3 are asked, and
    colour becomes luma where 1 is asked. Any other difference is an error. `plane` picks one plane of a file of several
    (a band, a time step, a page).

    8-bit values stay as they are; other unsigned types are scaled from their whole range to 0..255 (16 bits: divided by
    257; DICOM: by its stored bits). `value_range` (low, high) maps low..high to 0..255 instead and clips what is
    outside; "image" takes the image's own least and largest value. Signed values and floats must have a range.

    Raises UserError naming the file when it is missing, unreadable, cut short, or larger than `max_pixels`.
    """
    return to_pixels(_read(path, max_pixels), path, channels, value_range, plane)


def to_pixels(
    content: Content, path: Path, channels: int, value_range: tuple[float, float] | str | None, plane: int | None
) -> np.ndarray:
    """What a file holds, or a region of it, as uint8 (height, width, channels): as read_image says."""
    values = content.values
    if plane is not None:
        if plane >= values.shape[2]:
            raise UserError(f"{path} has {values.shape[2]} planes, so there is no plane {plane} (the first is 0)")
        values = values[:, :, plane : plane + 1]
    if values.dtype != np.uint8 or value_range is not None:
        values = _to_uint8(values, value_range or content.full_range, path)
    return np.ascontiguousarray(_with_channels(values, channels, content.format, path))


def read_mask_image(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Mask as uint8 0/1 (height, width): nonzero pixels of any colour channel, or above 127 in a lossy JPEG.

    Alpha does not count. Raises UserError as read_image does.
    """
    values, _, format = _read(path, max_pixels)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are not finite")
    if values.shape[2] == 4 and format != "npy":
        values = values[:, :, :3]
    threshold = 127 if format == "JPEG" else 0
    mask = values[:, :, 0] > threshold
    for plane in range(1, values.shape[2]):
        mask |= values[:, :, plane] > threshold
    return mask.view(np.uint8)


def image_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) from the header, without decoding. Raises UserError as read_image does."""
    suffix = _suffix(path)
    if suffix == ".npy":
        height, width, _ = _as_planes(_map_npy(path), path).shape
    elif suffix == ".dcm":
        height, width = _dicom_size(_open_dicom(path, stop_before_pixels=True), path)
    else:
        height, width, *_ = read_header(path)
    return checked_size(height, width, max_pixels, path)


def dicom_field(path: Path, keyword: str) -> str:
    """An element of a DICOM file's header as text, such as PatientID. Raises UserError when there is none."""
    value = _open_dicom(path, stop_before_pixels=True).get(keyword)
    if value is None or not str(value).strip():
        raise UserError(f"{path} has no element '{keyword}' in its header (data.group)")
    return str(value).strip()


def _read(path: Path, max_pixels: int) -> Content:
    """All of a file, after a look at its header. Raises UserError as read_image does."""
    suffix = _suffix(path)
    if suffix == ".dcm":
        return _read_dicom(path, max_pixels)
    if suffix == ".npy":
        format = "npy"
        values = _as_planes(_map_npy(path), path)
        checked_size(*values.shape[:2], max_pixels, path)
        values = np.array(values)
    else:
        height, width, pages, format, reader, _ = read_header(path)
        checked_size(height, width, max_pixels, path)
        match reader:
            case "opencv":
                values = _decode(path, format)
            case "pillow":
                values = _decode_with_pillow(path, pages)
            case "gdal":
                values = read_raster(path)
        if values.shape[:2] != (height, width):
            raise UserError(f"{path} is {height} x {width} by its header and {values.shape[:2]} when decoded")
    return Content(values, full_range(values.dtype), format)


def full_range(dtype: np.dtype) -> tuple[float, float] | None:
    """The least and largest value of an unsigned type; None for signed values and floats."""
    largest = {"b": 1, "u": 2 ** (8 * dtype.itemsize) - 1}.get(dtype.kind)
    return None if largest is None else (0, largest)


def read_header(path: Path) -> Header:
    """Size, pages and format by the header, and what decodes it right. Raises UserError as read_image does."""
    try:
        with Image.open(path) as image:
            pages = image.n_frames if image.format == "TIFF" else 1
            format = "JPEG" if image.format == "MPO" else image.format  # a JPEG that other pictures follow
            tags = image.tag_v2 if image.format == "TIFF" else {}
            height, width = image.height, image.width
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist") from None
    except UnidentifiedImageError:
        if _suffix(path) in TIF:
            return _header_by_gdal(path)
        raise UserError(f"{path} is not an image of a known kind, or it is cut short") from None
    except Exception as error:  # Pillow raises whatever its parser stumbles over
        raise UserError(f"{path} cannot be read: {_one_line(error)}") from None
    is_plain = tags.get(PHOTOMETRIC) in (1, 2, 6)
    if is_plain and tags.get(ORIENTATION, 1) != 1:
        return _header_by_gdal(path)  # OpenCV and Pillow turn the pixels, which masks and run lengths do not expect
    beyond_opencv = pages > 1 or format == "GIF" or height * width > OPENCV_MAX_PIXELS
    reader = "pillow" if beyond_opencv else _reader_of_page(tags)
    return Header(height, width, pages, format, reader, is_plain)


def _reader_of_page(tags: dict[int, object]) -> Literal["opencv", "pillow", "gdal"]:
    """What decodes a page right; `tags` are those of a tif.

    OpenCV multiplies colours of 8 bits by a loose alpha, drops planes of a gray tif beyond the first, and gives wrong
    pixels for planes of more than 8 bits that lie one after another.
    """
    planes, extra = tags.get(PLANES, 1), tags.get(EXTRA, ())
    is_byte = max(tags.get(BITS, (1,))) <= 8
    is_gray_of_many = planes > 1 and tags.get(PHOTOMETRIC) in GRAY and not set(extra) & set(ALPHA)
    is_wide_apart = planes > 1 and tags.get(PLANAR) == SEPARATE and not is_byte
    if planes > 4 or is_gray_of_many or is_wide_apart or tags.get(COMPRESSION, 1) not in OPENCV_DECODES:
        return "gdal"
    return "pillow" if LOOSE_ALPHA in extra and planes == 4 and is_byte else "opencv"


def _header_by_gdal(path: Path) -> Header:
    """The header of a tif that Pillow does not know or would turn. Raises UserError."""
    unknown = f"{path} is not an image of a known kind, or it is cut short"
    try:
        with open_raster(path) as file:
            height, width, pages = file.height, file.width, len(file.subdatasets)
    except NoRasterio:
        raise UserError(f"{unknown}; some kinds of tif need one more package: pip install rasterio") from None
    except UserError:
        raise UserError(unknown) from None
    if pages > 1:
        raise UserError(f"{path} is a tif of several pages of a kind that only single pages are read of")
    return Header(height, width, 1, "TIFF", "gdal", is_plain_tiff=True)


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
        raise UserError(f"{path} is cut short, damaged, or of a kind that OpenCV does not read")
    if decoded.ndim == 2:
        return decoded[:, :, None]
    if decoded.shape[2] in (3, 4):  # in place: a slide is not held twice
        cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB if decoded.shape[2] == 3 else cv2.COLOR_BGRA2RGBA, dst=decoded)
    return decoded


def _decode_with_pillow(path: Path, pages: int) -> np.ndarray:
    """Decode with Pillow what OpenCV reads slowly (GIF), without noticing that it is cut short (several pages) or not
    at all (more than 2^30 pixels). The pages of a TIFF become planes; of a GIF only the first picture counts.
    """
    layers = []
    try:
        with Image.open(path) as image:
            for page in range(pages):
                image.seek(page)
                layer = np.array(image if image.mode in PLAIN_MODES else image.convert("RGB"))
                layers.append(layer.reshape(*layer.shape[:2], -1))
        return np.concatenate(layers, axis=2)
    except Exception as error:  # Pillow raises whatever its parser stumbles over
        raise UserError(f"{path} is cut short or damaged: {_one_line(error)}") from None


def _jpeg_ends(content: bytes) -> bool:
    """Whether the last scan of a JPEG is closed. Compressed data never holds the two marker bytes."""
    return content.find(b"\xff\xd9", content.rfind(b"\xff\xda")) >= 0


def _map_npy(path: Path) -> np.ndarray:
    """The array of an npy file, read from disk only where it is used."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist") from None
    except Exception as error:  # numpy raises whatever its parser of the header stumbles over
        raise UserError(f"{path} is not a whole npy file of numbers: {_one_line(error)}") from None


def _as_planes(array: np.ndarray, path: Path) -> np.ndarray:
    """View an array as (height, width, planes): the shorter of the first and the last axis holds the planes."""
    if array.dtype.kind not in "buif":
        raise UserError(f"{path} holds values of type {array.dtype}, not numbers")
    while array.ndim > 3 and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise UserError(f"{path} has shape {array.shape}, not (height, width) or (height, width, planes)")
    return np.moveaxis(array, 0, 2) if array.shape[0] < array.shape[2] else array


def _open_dicom(path: Path, stop_before_pixels: bool = False):
    """A pydicom dataset. Raises UserError when pydicom is not installed or the file is not DICOM."""
    try:
        import pydicom
    except ModuleNotFoundError:
        raise UserError(f"{path} is a DICOM file, which needs one more package: pip install pydicom") from None
    try:
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist") from None
    except Exception as error:  # pydicom raises whatever its parser stumbles over
        raise UserError(f"{path} cannot be read as DICOM: {_one_line(error)}") from None


def _dicom_size(dicom, path: Path) -> tuple[int, int]:
    try:
        return int(dicom.Rows), int(dicom.Columns)
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path} is a DICOM file without rows and columns") from None


def _read_dicom(path: Path, max_pixels: int) -> Content:
    """Stored values (no rescale slope), low shown dark also where low means white."""
    dicom = _open_dicom(path)
    checked_size(*_dicom_size(dicom, path), max_pixels, path)
    try:
        pixels = dicom.pixel_array
        largest = 2 ** int(dicom.BitsStored) - 1
        inverted = dicom.PhotometricInterpretation == "MONOCHROME1"
    except Exception as error:  # a missing field, an unknown compression, too few bytes
        raise UserError(f"{path} cannot be decoded as DICOM: {_one_line(error)}") from None
    values = _as_planes(largest - pixels if inverted else pixels, path)
    return Content(values, (0, largest) if values.dtype.kind == "u" else None, "dicom")


def checked_size(height: int, width: int, max_pixels: int, path: Path) -> tuple[int, int]:
    """The size. Raises UserError where it is more than `max_pixels`."""
    if height * width > max_pixels:
        raise UserError(f"{path} has {height} x {width} pixels, more than data.max_pixels = {max_pixels:,} allows")
    return height, width


def _to_uint8(values: np.ndarray, value_range: tuple[float, float] | str | None, path: Path) -> np.ndarray:
    """Map low..high to 0..255 and clip what is outside; a constant image by its own range becomes 0."""
    if value_range is None:
        raise UserError(f"{path} holds {values.dtype} values; set data.value_range to [low, high] or image")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are not finite")
    low, high = (values.min(), values.max()) if value_range == "image" else value_range
    scale = 255 / (float(high) - float(low)) if high > low else 0
    return np.rint(np.clip((values.astype(np.float32) - float(low)) * scale, 0, 255)).astype(np.uint8)


def _with_channels(image: np.ndarray, channels: int, format: str, path: Path) -> np.ndarray:
    """Repeat, drop or mix channels as read_image says."""
    found = image.shape[2]
    if found == channels:
        return image
    if channels == 3 and found == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if channels == 3 and found == 4 and format != "npy":
        return image[:, :, :3]
    if channels == 1 and found in (3, 4) and format != "npy":
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY if found == 3 else cv2.COLOR_RGBA2GRAY)[:, :, None]
    raise UserError(f"{path} has {found} channels, but data.channels is {channels}; set data.plane or data.channels")


def _suffix(path: Path) -> str:
    return os.path.splitext(path)[1].lower()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
