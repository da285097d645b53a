"""From the pixels of a mask file to masks: data.masks says what numbers, colours, palettes and alpha mean.

A mask is uint8: 0, 1, or IGNORED where nothing is known, which counts neither as mask nor as background.
"""

from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lib.base.errors import UserError
from lib.config.mask_settings import MaskSettings, rgb
from lib.images.reading import Content, read_content
from lib.masks.metrics import EXACT_IN_FLOAT32, IGNORED

LOSSY_FORMATS = ("JPEG", "WEBP")
MAY_BE_LOSSY = (*LOSSY_FORMATS, "JPEG2000")  # which Pillow and OpenCV write without loss unless told otherwise
BLACK = "#000000"
PACKED = np.array([1 << 16, 1 << 8, 1])  # R, G, B to one number
GRAY_WITHIN = 8  # of 255; R, G and B of a gray pixel may differ so much in lossy files, which store colour coarsely

Value = int | float | str  # a number, an index of a palette, or a colour as #rrggbb


class MaskPixels(NamedTuple):
    """The pixels of a mask file, before they are given a meaning."""

    values: np.ndarray  # numbers or indexes of the palette (height, width), or colours uint8 (height, width, 3)
    palette: np.ndarray | None  # uint8 (colours, 3)
    alpha: np.ndarray | None  # (height, width), where the file has an alpha plane beside the values
    orientation: int = 1  # EXIF, not applied
    format: str = ""  # as of Content
    is_picture: bool = True  # as of Content

    @property
    def are_colours(self) -> bool:
        return self.values.ndim == 3


def read_mask_pixels(path: Path, settings: MaskSettings, max_pixels: int) -> MaskPixels:
    """The pixels that hold the mask. RGB whose three planes are equal is gray, unless the settings speak of colours.

    Raises UserError naming the file, as read_image does, and where the settings do not fit what it holds.
    """
    content = read_content(path, max_pixels, keep_palette=not settings.alpha)
    of_file = {"orientation": content.orientation, "format": content.format, "is_picture": content.is_picture}
    return _pixels_of(content, settings, path)._replace(**of_file)


def _pixels_of(content: Content, settings: MaskSettings, path: Path) -> MaskPixels:
    if settings.object_planes:
        return MaskPixels(_numbered(content.values), None, None)
    values, palette = _as_meant(content, settings, path), content.palette
    if palette is not None and not np.ptp(palette, axis=1).any():  # gray: writers number such colours as they like
        values, palette = _by_index(palette[:, 0], values), None
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are not finite")
    values = values.view(np.uint8) if values.dtype == bool else values
    alpha = None
    if values.shape[2] in (2, 4) and content.is_picture:
        values, alpha = values[:, :, :-1], values[:, :, -1]
    if settings.alpha:
        if alpha is None:
            raise UserError(f"{path} has no alpha plane, which data.masks.alpha says to be the mask")
        return MaskPixels(alpha, None, None)
    if values.shape[2] not in (1, 3):
        raise UserError(
            f"{path} has {values.shape[2]} planes; a mask file must have one, or R, G and B: save each as a file if "
            "they are of several classes, as in masks/{class}/{id}.png, or of several images, or set "
            "data.masks.object_planes=true if each is the mask of an object"
        )
    if settings.are_colours:
        if values.shape[2] == 1 and palette is None:
            values = np.repeat(values, 3, axis=2)
        values = _colours(values, path)
    elif values.shape[2] == 3:
        values = _gray(values, content.format)
        values = values if values.shape[2] == 1 else _colours(values, path)
        if values.shape[2] == 3 and (settings.values or settings.above is not None):
            raise UserError(
                f'{path} is in colour, but data.classes or data.masks speaks of numbers; write colours as "#804000" '
                'or "128 64 0" in quotes'
            )
    return MaskPixels(values[:, :, 0] if values.ndim == 3 and values.shape[2] == 1 else values, palette, alpha)


def _as_meant(content: Content, settings: MaskSettings, path: Path) -> np.ndarray:
    """The stored values; inverted if 0 is to be shown white and data.masks.miniswhite is `shown`."""
    if not content.white_is_zero or settings.miniswhite == "stored":
        return content.values
    if settings.miniswhite is None:
        share = np.count_nonzero(content.values) / content.values.size
        raise UserError(
            f"{path} stores white as 0 (MINISWHITE of a tif, MONOCHROME1 of DICOM): {share:.1%} of its pixels are not "
            "0 as stored; set data.masks.miniswhite=stored where the numbers are the mask, as tifffile writes them, or "
            "=shown where what a viewer shows white is the mask"
        )
    if content.full_range is None:
        raise UserError(
            f"{path} holds {content.values.dtype} values, of which none is white for sure; set "
            "data.masks.miniswhite=stored where the numbers are the mask"
        )
    return int(content.full_range[1]) - content.values


def _numbered(planes: np.ndarray) -> np.ndarray:
    """For each pixel the number, from 1, of the last plane that is not 0 there; 0 if none. int32 (height, width)."""
    numbers = np.zeros(planes.shape[:2], np.int32)
    for number in range(planes.shape[2]):
        numbers[planes[:, :, number] != 0] = number + 1
    return numbers


def _by_index(of_index: np.ndarray, indexes: np.ndarray) -> np.ndarray:
    """The entry of `of_index` for each index; indexes beyond the palette are black (0)."""
    return np.pad(of_index, (0, 256 - len(of_index)))[indexes]


def _gray(values: np.ndarray, format: str) -> np.ndarray:
    """One plane (height, width, 1) if all three are equal; the luma if a lossy file has nearly equal ones."""
    if all(np.array_equal(values[:, :, 0], values[:, :, plane]) for plane in (1, 2)):
        return values[:, :, :1]
    if format in MAY_BE_LOSSY and np.ptp(values, axis=2).max() <= GRAY_WITHIN:
        return cv2.cvtColor(values, cv2.COLOR_RGB2GRAY)[:, :, None]
    return values


def _colours(values: np.ndarray, path: Path) -> np.ndarray:
    """Colours as uint8. Raises UserError where they are not whole numbers of 0 to 255."""
    if values.dtype == np.uint8:
        return values
    colours = values.clip(0, 255).astype(np.uint8)
    if not np.array_equal(colours, values):
        raise UserError(
            f"{path} holds colours that are not whole numbers from 0 to 255 ({values.dtype}); save it with 8 bits, or "
            "each plane as a file of its own, as in masks/{class}/{id}.png, if it is the mask of a class"
        )
    return colours


def class_masks(pixels: MaskPixels, settings: MaskSettings, classes: list[str]) -> list[np.ndarray]:
    """The mask of each class, uint8 (height, width): 1 mask, 0 background, IGNORED."""
    ignored = _matching(pixels, tuple(settings.ignore), settings.tolerance) if settings.ignore else None
    masks = []
    for name in classes:
        if settings.values:
            mask = _matching(pixels, tuple(settings.values[name]), settings.tolerance)
        else:
            mask = foreground(pixels, settings)
        mask = mask.view(np.uint8)
        if ignored is not None:
            mask[ignored] = IGNORED
        masks.append(mask)
    return masks


def foreground(pixels: MaskPixels, settings: MaskSettings) -> np.ndarray:
    """The pixels above a limit, bool (height, width); by default those that are not 0, or not black."""
    values = pixels.values
    if settings.above is None and pixels.palette is not None:
        values = _by_index(pixels.palette.max(axis=1), values)
    elif pixels.are_colours:
        values = values.max(axis=2)
    mask = values > (settings.above or 0)
    return ~mask if settings.inverted else mask


def _matching(pixels: MaskPixels, wanted: tuple[int | str, ...], tolerance: int) -> np.ndarray:
    """The pixels of any of the wanted numbers or colours, bool (height, width)."""
    values = pixels.values
    if pixels.palette is not None and isinstance(wanted[0], str):
        return _by_index(_near(pixels.palette[:, None], wanted, tolerance)[:, 0], values)
    if isinstance(wanted[0], str):
        return _near(values, wanted, tolerance)
    if values.dtype == np.uint8:
        return cv2.LUT(values, _table(wanted)).view(bool)
    return np.isin(values, wanted)


@lru_cache(maxsize=256)
def _table(wanted: tuple[int, ...]) -> np.ndarray:
    """0 or 1 for each value of 8 bits, uint8 (256,)."""
    return np.isin(np.arange(256), wanted).astype(np.uint8)


def _near(colours: np.ndarray, wanted: tuple[str, ...], tolerance: int) -> np.ndarray:
    """True where a colour, uint8 (height, width, 3), is within the tolerance of a wanted one in each of R, G and B."""
    near = np.zeros(colours.shape[:2], bool)
    for colour in wanted:
        channels = np.array(rgb(colour))
        low, high = np.clip(channels - tolerance, 0, 255), np.clip(channels + tolerance, 0, 255)
        near |= cv2.inRange(np.ascontiguousarray(colours), low, high) > 0
    return near


def hex_colours(colours: np.ndarray) -> list[str]:
    """Colours uint8 (colours, 3) as #rrggbb."""
    return ["#" + colour.tobytes().hex() for colour in np.ascontiguousarray(colours)]


def file_objects(pixels: MaskPixels, settings: MaskSettings, class_name: str) -> np.ndarray:
    """The objects of a mask file, numbered from 1, int32 (height, width), 0 being background and -1 ignored.

    Each number or index but 0, or colour but black, is an object, so that those that touch stay apart. Where the
    settings say which pixels are mask, all of them are one object.
    """
    (mask,) = class_masks(pixels, settings, [class_name])
    if settings.say_what_is_mask:
        return np.where(mask == IGNORED, -1, mask).astype(np.int32)
    values = pixels.values @ PACKED if pixels.are_colours else pixels.values
    numbers = np.unique(np.where(mask == 1, values, 0), return_inverse=True)[1].reshape(mask.shape)
    numbers += mask.all()  # without background the first number is an object, too
    return np.where(mask == IGNORED, -1, numbers).astype(np.int32)


def share_of_mask(mask: np.ndarray) -> float:
    """The share of mask among the pixels of a mask uint8 that are not IGNORED; 0 where all are."""
    known = mask.size - np.count_nonzero(mask == IGNORED)
    return np.count_nonzero(mask == 1) / known if known else 0.0


def count_values(pixels: MaskPixels, as_colours: bool) -> dict[Value, int]:
    """The number of pixels of each value; for a palette file of each index or, with `as_colours`, of each colour."""
    if pixels.are_colours:
        packed, counts = np.unique(pixels.values.reshape(-1, 3) @ PACKED, return_counts=True)
        return dict(zip((f"#{number:06x}" for number in packed.tolist()), counts.tolist(), strict=True))
    numbers, counts = _count_numbers(pixels.values)
    if pixels.palette is None or not as_colours:
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    total = Counter()
    for colour, count in zip(hex_colours(pixels.palette[numbers]), counts.tolist(), strict=True):
        total[colour] += count
    return total


def _count_numbers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers that occur, and their counts; integers of 8 or 16 bits are counted without sorting."""
    if values.dtype == np.uint8 and values.size < EXACT_IN_FLOAT32:
        counts = cv2.calcHist([np.ascontiguousarray(values)], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    elif values.dtype in (np.uint8, np.uint16):
        counts = np.bincount(values.ravel())
    else:
        return np.unique(values, return_counts=True)
    numbers = np.flatnonzero(counts)
    return numbers, counts[numbers]
