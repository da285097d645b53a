"""Reading images and mask images, whatever the format, and nothing but whole ones.

Every reader checks the size that the file's header declares before it decodes the pixels, and refuses files that are
cut short: some decoders fill the missing part with gray and go on.
"""

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from lib.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".npy", ".dcm")
MAX_PIXELS = 1_000_000_000  # admits a slide of 30,000 x 30,000
JPEG_SUFFIXES = (".jpg", ".jpeg")
TIFF_SUFFIXES = (".tif", ".tiff")
OPENCV_MAX_PIXELS = 1 << 30
PLAIN_MODES = ("1", "L", "I;16", "I", "F", "RGB")  # Pillow's modes that numpy holds as they are
PILLOW_ERRORS = (OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError, struct.error, zlib.error)

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would refuse slides that max_pixels admits
# OpenCV's warnings go to stderr without the file's name; the errors here carry it. The function moved in OpenCV 5.
(cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)


def read_image(
    path: Path,
    channels: int = 3,
    value_range: tuple[float, float] | str | None = None,
    plane: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Image as uint8 (height, width, channels), colour as RGB, orientation as stored (EXIF rotation is not applied).

    A single plane is repeated over 3 channels; a fourth channel (alpha) is dropped where 3 are asked; colour becomes
    luma where 1 is asked; any other difference is an error. `plane` picks one plane of a file of several (a band, a
    time step, a page).

    8-bit values stay as they are; other unsigned types are scaled from their whole range to 0..255 (16 bits: divided by
    257; DICOM: by its stored bits). `value_range` (low, high) maps low..high to 0..255 instead and clips what is
    outside; "image" takes the image's own least and largest value. Signed values and floats must have a range.

    Raises UserError naming the file when it is missing, unreadable, cut short, or larger than `max_pixels`.
    """
    planes, full_range = _read_planes(path, max_pixels)
    if plane is not None:
        if plane >= planes.shape[2]:
            raise UserError(f"{path} has {planes.shape[2]} planes, so there is no plane {plane} (the first is 0)")
        planes = planes[:, :, plane : plane + 1]
    if planes.dtype != np.uint8 or value_range is not None:
        planes = _to_uint8(planes, value_range or full_range, path)
    return np.ascontiguousarray(_with_channels(planes, channels, path))


def read_mask_image(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Mask as uint8 0/1 (height, width): nonzero pixels of any colour channel, or above 127 in a lossy jpg.

    Alpha does not count. Raises UserError as read_image does.
    """
    planes, _ = _read_planes(path, max_pixels)
    if planes.dtype.kind == "f" and not np.isfinite(planes).all():
        raise UserError(f"{path} holds values that are not finite")
    if planes.shape[2] in (2, 4) and _suffix(path) != ".npy":
        planes = planes[:, :, :-1]
    lossy = _suffix(path) in JPEG_SUFFIXES
    return (planes > (127 if lossy else 0)).any(axis=2).view(np.uint8)


def image_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) from the header, without decoding. Raises UserError as read_image does."""
    suffix = _suffix(path)
    if suffix == ".npy":
        height, width, _ = _as_planes(_map_npy(path), path).shape
    elif suffix == ".dcm":
        height, width = _dicom_size(_read_dicom(path, stop_before_pixels=True), path)
    else:
        height, width, _ = _pillow_header(path)
    return _checked_size(height, width, max_pixels, path)


def _read_planes(path: Path, max_pixels: int) -> tuple[np.ndarray, tuple[float, float] | None]:
    """The file's values (height, width, planes) in the file's type, and the whole range of that type if it is unsigned.

    Colour planes come in the order R, G, B(, A).
    """
    suffix = _suffix(path)
    if suffix == ".dcm":
        return _read_dicom_planes(path, max_pixels)
    if suffix == ".npy":
        planes = _as_planes(_map_npy(path), path)
        _checked_size(*planes.shape[:2], max_pixels, path)
        planes = np.array(planes)
    else:
        height, width, pages = _pillow_header(path)
        _checked_size(height, width, max_pixels, path)
        use_pillow = suffix == ".gif" or pages > 1 or height * width > OPENCV_MAX_PIXELS
        planes = _decode_with_pillow(path, pages) if use_pillow else _decode(path)
        if planes.shape[:2] != (height, width):
            raise UserError(f"{path} is {height} x {width} by its header and {planes.shape[:2]} when decoded")
    largest = {"b": 1, "u": 2 ** (8 * planes.dtype.itemsize) - 1}.get(planes.dtype.kind)
    return planes, None if largest is None else (0, largest)


def _pillow_header(path: Path) -> tuple[int, int, int]:
    """(height, width, pages) of a picture file."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            pages = getattr(image, "n_frames", 1) if _suffix(path) in TIFF_SUFFIXES else 1
            return height, width, pages
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image, or it is cut short") from None
    except PILLOW_ERRORS as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _decode(path: Path) -> np.ndarray:
    """Decode with OpenCV, which is up to twice as fast as Pillow and reads 16-bit colour."""
    try:
        if _suffix(path) in TIFF_SUFFIXES:
            decoded = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # reads strip by strip: a slide may be gigabytes
        else:
            content = path.read_bytes()
            whole = _suffix(path) not in JPEG_SUFFIXES or _jpeg_ends(content)
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if whole else None
    except (OSError, cv2.error):
        decoded = None
    if decoded is None:
        raise UserError(f"{path} is cut short or damaged")
    if decoded.ndim == 2:
        return decoded[:, :, None]
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB if decoded.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


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
    except PILLOW_ERRORS as error:
        raise UserError(f"{path} is cut short or damaged: {error}") from None


def _jpeg_ends(content: bytes) -> bool:
    """Whether the last scan of a JPEG is closed. Compressed data never holds the two marker bytes."""
    return content.find(b"\xff\xd9", content.rfind(b"\xff\xda")) >= 0


def _map_npy(path: Path) -> np.ndarray:
    """The array of an npy file, read from disk only where it is used."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist") from None
    except (OSError, ValueError, EOFError, SyntaxError) as error:
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


def _read_dicom(path: Path, stop_before_pixels: bool = False):
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


def _read_dicom_planes(path: Path, max_pixels: int) -> tuple[np.ndarray, tuple[float, float] | None]:
    """As _read_planes, for DICOM: stored values (no rescale slope), low shown dark also where low means white."""
    dicom = _read_dicom(path)
    _checked_size(*_dicom_size(dicom, path), max_pixels, path)
    try:
        pixels = dicom.pixel_array
        largest = 2 ** int(dicom.BitsStored) - 1
        inverted = dicom.PhotometricInterpretation == "MONOCHROME1"
    except Exception as error:  # a missing field, an unknown compression, too few bytes
        raise UserError(f"{path} cannot be decoded as DICOM: {_one_line(error)}") from None
    planes = _as_planes(largest - pixels if inverted else pixels, path)
    return planes, (0, largest) if planes.dtype.kind == "u" else None


def _checked_size(height: int, width: int, max_pixels: int, path: Path) -> tuple[int, int]:
    if height * width > max_pixels:
        raise UserError(f"{path} has {height} x {width} pixels, more than data.max_pixels = {max_pixels:,} allows")
    return height, width


def _to_uint8(planes: np.ndarray, value_range: tuple[float, float] | str | None, path: Path) -> np.ndarray:
    """Map low..high to 0..255 and clip what is outside; a constant image by its own range becomes 0."""
    if value_range is None:
        raise UserError(f"{path} holds {planes.dtype} values; set data.value_range to [low, high] or image")
    if planes.dtype.kind == "f" and not np.isfinite(planes).all():
        raise UserError(f"{path} holds values that are not finite")
    low, high = (planes.min(), planes.max()) if value_range == "image" else value_range
    scale = 255 / (float(high) - float(low)) if high > low else 0
    return np.rint(np.clip((planes.astype(np.float32) - float(low)) * scale, 0, 255)).astype(np.uint8)


def _with_channels(image: np.ndarray, channels: int, path: Path) -> np.ndarray:
    """Repeat, drop or mix channels as read_image says."""
    found = image.shape[2]
    if found == channels:
        return image
    if channels == 3 and found in (1, 2):
        return np.repeat(image[:, :, :1], 3, axis=2)
    if channels == 3 and found == 4:
        return image[:, :, :3]
    if channels == 1 and found == 2:
        return image[:, :, :1]
    if channels == 1 and found in (3, 4):
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY if found == 3 else cv2.COLOR_RGBA2GRAY)[:, :, None]
    raise UserError(f"{path} has {found} channels, but data.channels is {channels}; set data.plane or data.channels")


def _suffix(path: Path) -> str:
    return os.path.splitext(path)[1].lower()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
