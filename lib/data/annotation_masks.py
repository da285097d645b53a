"""The pixels of annotated objects: polygons and run lengths by pycocotools, and masks that labelme keeps as PNG.

A polygon's corners lie between pixels, (0, 0) being the image's corner.
"""

import json
from base64 import b64decode
from collections.abc import Sequence
from types import ModuleType

import cv2
import numpy as np

from lib.base.errors import UserError, one_line


def annotated_union(texts: Sequence[str], shape: tuple[int, int]) -> np.ndarray:
    """Mask uint8 0/1 (height, width) of the pixels that any of the objects holds; a blank text holds none."""
    mask = np.zeros(shape, np.uint8)
    for text in filter(None, texts):
        mask |= decode_annotation(text, shape)
    return mask


def decode_annotation(text: str, shape: tuple[int, int]) -> np.ndarray:
    """Mask uint8 0/1 (height, width) of an object. Raises UserError for what does not fit an image of that size."""
    annotated = json.loads(text)
    if "size" in annotated and tuple(annotated["size"]) != shape:
        size = "{} x {}".format(*annotated["size"])
        raise UserError(
            f"the annotation is for an image of {size} pixels (height x width), not {shape[0]} x {shape[1]}"
        )
    try:
        if "png" in annotated:
            return _paste(annotated, shape)
        masks = require_pycocotools()
        if "counts" in annotated:
            return masks.decode(_compressed(annotated["counts"], shape, masks))
        scale = np.array(shape[::-1] if annotated.get("relative") else (1, 1), float)
        polygons = [_checked_polygon(np.reshape(polygon, (-1, 2)) * scale, shape) for polygon in annotated["polygons"]]
        return masks.decode(masks.merge(masks.frPyObjects(polygons, *shape)))
    except (ValueError, TypeError, cv2.error) as error:
        raise UserError(f"its annotation cannot be decoded: {one_line(error)}") from None


def _compressed(counts: list[int] | str, shape: tuple[int, int], masks) -> dict:
    """Run lengths as pycocotools decodes them."""
    if isinstance(counts, str):
        return {"size": list(shape), "counts": counts}
    if sum(counts) != shape[0] * shape[1] or min(counts) < 0:
        raise ValueError(f"its counts make {sum(counts)} pixels")
    return masks.frPyObjects({"size": list(shape), "counts": counts}, *shape)


def _checked_polygon(points: np.ndarray, shape: tuple[int, int]) -> list[float]:
    """The coordinates as pycocotools takes them. Raises ValueError for no area and for what lies outside the image."""
    if len(points) < 3:
        raise ValueError(f"a polygon has {len(points)} corners")
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    is_inside = left < shape[1] and top < shape[0] and right > 0 and bottom > 0
    is_near = np.abs(points).max() <= 2 * max(shape)  # pycocotools takes memory for the whole length of a polygon
    if not (is_inside and is_near):
        raise ValueError(
            f"a polygon from x {left:g} to {right:g}, y {top:g} to {bottom:g} lies outside the image of "
            f"{shape[0]} x {shape[1]} pixels (height x width)"
        )
    return points.ravel().tolist()


def _paste(annotated: dict, shape: tuple[int, int]) -> np.ndarray:
    """A mask that labelme keeps as a PNG, which begins at a corner given."""
    part = cv2.imdecode(np.frombuffer(b64decode(annotated["png"]), np.uint8), cv2.IMREAD_GRAYSCALE)
    left, top = (round(value) for value in annotated["at"])
    mask = np.zeros(shape, np.uint8)
    if part is not None and min(left, top) >= 0:
        place = mask[top : top + part.shape[0], left : left + part.shape[1]]
        if place.shape == part.shape:
            place[:] = part > 0
            return mask
    raise UserError("its mask cannot be decoded, or lies outside the image")


def require_pycocotools() -> ModuleType:
    """Pycocotools' functions for run lengths. Raises UserError where the package is not installed."""
    try:
        from pycocotools import mask
    except ModuleNotFoundError:
        raise UserError("COCO json and other annotations need one more package: pip install pycocotools") from None
    return mask
