"""Morphology on masks, uint8 0/1 of shape (height, width); the result is a new array of the same kind.

Dilation, erosion, opening and closing also take grey maps: flat morphology commutes with thresholding, so that
`dilation(map, r) >= t` is `dilation(map >= t, r)` for every t. Pixels outside the image never decide.
Foreground is connected through corners (8 neighbours), holes are not (4 neighbours): the usual consistent pair.
"""

from functools import cache

import cv2
import numpy as np


@cache
def disk(radius: int) -> np.ndarray:
    """Elliptic kernel: the pixels at most `radius` from the centre, dx² + dy² <= radius²; uint8 (2r + 1, 2r + 1).

    cv2's own MORPH_ELLIPSE is another shape, neither symmetric nor a disk at small radii.
    """
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)


def dilation(image: np.ndarray, radius: int) -> np.ndarray:
    """Largest value within the disk around each pixel."""
    return cv2.dilate(image, disk(radius))


def erosion(image: np.ndarray, radius: int) -> np.ndarray:
    """Smallest value within the disk around each pixel."""
    return cv2.erode(image, disk(radius))


def opening(image: np.ndarray, radius: int) -> np.ndarray:
    """Erosion, then dilation: removes what the disk does not fit into."""
    return dilation(erosion(image, radius), radius)


def closing(image: np.ndarray, radius: int) -> np.ndarray:
    """Dilation, then erosion: fills gaps that the disk does not fit into."""
    return erosion(dilation(image, radius), radius)


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels int32 (height, width) of the components, 0 for background, and the number of labels, background included."""
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    return labels, count


def holes(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 (height, width) of the background's components, and for each label whether it is a hole.

    A hole is a component of the background that does not touch the image's border.
    """
    count, labels = cv2.connectedComponents(1 - mask, connectivity=4)
    is_hole = np.ones(count, dtype=bool)
    is_hole[0] = False  # the mask itself
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        is_hole[border] = False
    return labels, is_hole


def fill_holes(mask: np.ndarray, max_area: int | None = None) -> np.ndarray:
    """Fill the holes, or those of at most `max_area` pixels."""
    labels, filled = holes(mask)
    if max_area is not None:
        filled &= np.bincount(labels.ravel(), minlength=len(filled)) <= max_area
    return mask | filled.view(np.uint8)[labels]


def remove_small(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Keep the components of at least `min_area` pixels."""
    labels, count = components(mask)
    kept = np.bincount(labels.ravel(), minlength=count) >= min_area
    kept[0] = False
    return kept.view(np.uint8)[labels]


def keep_largest(mask: np.ndarray) -> np.ndarray:
    """Keep the component with the largest area; of equals the one that is labelled first."""
    labels, count = components(mask)
    areas = np.bincount(labels.ravel(), minlength=count)
    areas[0] = 0
    return (labels == np.argmax(areas)).view(np.uint8) & mask


def convex_hulls(mask: np.ndarray) -> np.ndarray:
    """Replace each component by the convex hull of its pixels' centres; hulls may touch or overlap."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = mask.copy()
    for contour in contours:
        cv2.fillConvexPoly(filled, cv2.convexHull(contour), 1)
    return filled
