"""The mask files of an image: decoded, fitted to its size, and put together into its mask or its objects."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lib.base.errors import UserError
from lib.config.data_settings import DataSettings
from lib.images.headers import read_header
from lib.images.mask_values import MaskPixels, class_masks, file_objects, read_mask_pixels
from lib.images.reading import upright
from lib.masks.resize import Size, have_one_shape

CV_CHANNELS = 128  # the most that OpenCV 5 takes in one array


class MaskFile(NamedTuple):
    """A decoded mask file, and the classes that it describes."""

    path: str
    class_indexes: list[int]
    pixels: MaskPixels


def read_mask_files(
    pieces: list[list[str]], settings: DataSettings, shape: tuple[int, int], image_path: Path
) -> list[MaskFile]:
    """Decode each of an image's mask files once, at the image's size; `pieces` are the paths for each class.

    Raises UserError naming a file that cannot be read, has another size, or has an EXIF orientation that leaves the
    meaning of its pixels open.
    """
    classes_of: dict[str, list[int]] = {}
    for class_index, paths in enumerate(pieces):
        for path in paths:
            classes_of.setdefault(path, []).append(class_index)
    files = []
    for path, class_indexes in classes_of.items():
        pixels = read_mask_pixels(Path(path), settings.masks, settings.max_pixels)
        if pixels.orientation != 1:
            pixels = _oriented(pixels, settings, path, image_path)
        files.append(MaskFile(path, class_indexes, _fitted(pixels, shape, settings.masks.rescale, path, image_path)))
    return files


def union_of_files(files: list[MaskFile], settings: DataSettings, shape: tuple[int, int]) -> np.ndarray:
    """Mask uint8 (height, width, classes): IGNORED where a file says so, else 1 where a file does, else 0."""
    union = [np.zeros(shape, np.uint8) for _ in settings.classes]
    for file in files:
        names = [settings.classes[class_index] for class_index in file.class_indexes]
        for class_index, mask in zip(file.class_indexes, class_masks(file.pixels, settings.masks, names), strict=True):
            union[class_index] |= mask
    return stacked(union)


def stacked(masks: list[np.ndarray]) -> np.ndarray:
    """Masks (height, width) as one array (height, width, masks), by OpenCV if possible, which is fastest."""
    if len(masks) > CV_CHANNELS:
        return np.stack(masks, axis=2)
    return cv2.merge(masks).reshape(*masks[0].shape, len(masks))


def objects_of_files(files: list[MaskFile], settings: DataSettings, shape: tuple[int, int]) -> np.ndarray:
    """Objects int32 (height, width, classes), numbered from 1 in each class, -1 where ignored.

    Where two objects overlap, the later one wins.
    """
    labels = np.zeros((*shape, len(settings.classes)), np.int32)
    for file in files:
        for class_index in file.class_indexes:
            objects = file_objects(file.pixels, settings.masks, settings.classes[class_index])
            of_class = labels[:, :, class_index]
            of_class[objects > 0] = objects[objects > 0] + of_class.max(initial=0)
            of_class[objects < 0] = -1
    return labels


def _oriented(pixels: MaskPixels, settings: DataSettings, path: str, image_path: Path) -> MaskPixels:
    """Pixels as data.orientation says; without it as stored, if image and mask file have the same orientation."""
    if settings.orientation == "shown":
        alpha = None if pixels.alpha is None else upright(pixels.alpha, pixels.orientation)
        return pixels._replace(values=upright(pixels.values, pixels.orientation), alpha=alpha)
    if settings.orientation is None and read_header(image_path).orientation != pixels.orientation:
        raise UserError(
            f"mask {path} has an EXIF orientation that its image {image_path} does not have; set data.orientation to "
            "stored or shown, whichever pixels of both belong together"
        )
    return pixels


def _fitted(pixels: MaskPixels, shape: tuple[int, int], may_rescale: bool, path: str, image_path: Path) -> MaskPixels:
    """Pixels at the image's size: rescaled (nearest) if the shapes agree and data.masks.rescale allows it."""
    size = pixels.values.shape[:2]
    if size == shape:
        return pixels
    has_its_shape = _has_shape(size, shape)
    if not has_its_shape or not may_rescale:
        sizes = f"{size[0]} x {size[1]} pixels (height x width), but its image {image_path} is {shape[0]} x {shape[1]}"
        remedy = (
            "set data.masks.rescale=true if they show the same" if has_its_shape else "neither is the other enlarged"
        )
        raise UserError(f"mask {path} is {sizes}; {remedy}")
    alpha = None if pixels.alpha is None else _scaled(pixels.alpha, shape)
    return pixels._replace(values=_scaled(pixels.values, shape), alpha=alpha)


def _has_shape(size: Size, shape: Size) -> bool:
    """Whether one size is the other enlarged; where only the height or the width differs, one is cut."""
    return size[0] != shape[0] and size[1] != shape[1] and have_one_shape(size, shape)


def _scaled(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """For each pixel of the new size the one of the old size that its centre lies in."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(shape, values.shape[:2], strict=True)
    )
    return np.ascontiguousarray(values[rows[:, None], columns])
