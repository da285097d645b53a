"""Morphology on masks, uint8 0/1 of shape (height, width); the result is a new array of the same kind.

Dilation, erosion, opening and closing also take grey maps: flat morphology commutes with thresholding, so that
`dilation(map, r) >= t` is `dilation(map >= t, r)` for every t. Pixels outside the image have no influence.
Components are connected through corners (8 neighbours), holes are not (4 neighbours), the usual consistent pair.
"""

from functools import cache

import cv2
import numpy as np


@cache
def disk(radius: int) -> np.ndarray:
    """Disk kernel: the pixels at most `radius` from the centre, dx² + dy² <= radius²; uint8 (2r + 1, 2r + 1).

    cv2's MORPH_ELLIPSE is neither symmetric nor a disk at small radii.
    """
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)


def dilation(image: np.ndarray, radius: int) -> np.ndarray:
    """The largest value within the disk around each pixel."""
    return cv2.dilate(image, disk(radius))


def erosion(image: np.ndarray, radius: int) -> np.ndarray:
    """The smallest value within the disk around each pixel."""
    return cv2.erode(image, disk(radius))


def opening(image: np.ndarray, radius: int) -> np.ndarray:
    """Erosion, then dilation: removes parts too narrow for the disk."""
    return dilation(erosion(image, radius), radius)


def closing(image: np.ndarray, radius: int) -> np.ndarray:
    """Dilation, then erosion: fills gaps too narrow for the disk."""
    return erosion(dilation(image, radius), radius)


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 (height, width) of the components, and each label's area; the background has label 0 and area 0."""
    labels = cv2.connectedComponents(mask, connectivity=8)[1]
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return labels, areas


def holes(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 (height, width) of the holes, and the area of each label, 0 for those that are not holes.

    A hole is a component of the background that does not touch the image's border.
    """
    labels = cv2.connectedComponents(1 - mask, connectivity=4)[1]
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        areas[border] = 0
    return labels, areas


def fill_holes(mask: np.ndarray, max_area: int | None = None) -> np.ndarray:
    """Fill the holes, or those of at most `max_area` pixels."""
    labels, areas = holes(mask)
    filled = areas > 0 if max_area is None else (areas > 0) & (areas <= max_area)
    return mask | filled.view(np.uint8)[labels]


def remove_small(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Keep the components of at least `min_area` pixels (at least 1)."""
    labels, areas = components(mask)
    return (areas >= min_area).view(np.uint8)[labels]


def keep_largest(mask: np.ndarray) -> np.ndarray:
    """Keep the component with the largest area. Ties: the first in reading order."""
    labels, areas = components(mask)
    is_largest = (areas > 0) & (areas == areas.max())
    first_pixel = np.argmax(is_largest[labels])
    return mask & (labels == labels.flat[first_pixel])


def convex_hulls(mask: np.ndarray) -> np.ndarray:
    """Replace each component by the convex hull of its pixels' centres; hulls may touch or overlap.

    The edges are drawn as lines of pixels, whose centres may lie up to half a pixel outside the hull.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = mask.copy()
    for contour in contours:
        cv2.fillConvexPoly(filled, cv2.convexHull(contour), 1)
    return filled
