"""Resizing of images and maps (area averages down, linear interpolation up) and of masks (by majority)."""

import cv2
import numpy as np

from lib.masks.metrics import IGNORED

AT_ONCE = 4  # the most channels that OpenCV 5 resizes

Size = tuple[int, int]  # height, width


def have_one_shape(first: Size, second: Size) -> bool:
    """Whether one size is the other enlarged: by one factor for height and width, the smaller one rounded to pixels."""
    (height, width), (large_height, large_width) = sorted([first, second])
    return abs(height * large_width - width * large_height) < max(large_height, large_width)


def resized(array: np.ndarray, size: Size | None) -> np.ndarray:
    """uint8 (height, width, channels) resized to `size`; the array itself if it has that size or none is given.

    An axis that shrinks is averaged over areas, one that grows is interpolated linearly. Resize probabilities, not
    masks: thresholded afterwards, a map of half the size gives borders within one pixel.
    """
    if size is None or array.shape[:2] == tuple(size):
        return array
    starts = range(0, array.shape[2], AT_ONCE)
    parts = [_resized(np.ascontiguousarray(array[..., start : start + AT_ONCE]), size) for start in starts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def resized_mask(masks: np.ndarray, size: Size | None) -> np.ndarray:
    """Masks uint8 (height, width, classes) resized likewise: a pixel is mask, or IGNORED, if at least half of it is."""
    if size is None or masks.shape[:2] == tuple(size):
        return masks
    small = (resized(np.where(masks == 1, 255, 0).astype(np.uint8), size) > 127).view(np.uint8)
    if (masks == IGNORED).any():
        small[resized(np.where(masks == IGNORED, 255, 0).astype(np.uint8), size) > 127] = IGNORED
    return small


def _resized(array: np.ndarray, size: Size) -> np.ndarray:
    """`resized` for at most AT_ONCE channels."""
    smaller = tuple(map(min, size, array.shape))
    if smaller != array.shape[:2]:
        array = cv2.resize(array, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != tuple(size):
        array = cv2.resize(array, size[::-1], interpolation=cv2.INTER_LINEAR)
    return array.reshape(*size, -1)  # OpenCV drops a single channel's axis
