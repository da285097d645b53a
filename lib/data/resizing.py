"""Images at the size at which the network sees them (data.resize). Maps are resized back to the images' own size."""

import math
from typing import NamedTuple

import numpy as np

from lib.base.errors import listed
from lib.config.resize_settings import ResizeSettings
from lib.data.images import Images
from lib.images.lazy_tif import ResizedSlide, Slide
from lib.masks.resize import Size, resized, resized_mask


def network_size(resize: ResizeSettings, size: Size, value: float | None = None) -> Size:
    """(height, width) at which the network sees an image of `size`; `value` is that of data.resize.column."""
    if not resize.is_set:
        return size
    if resize.size:
        return resize.size
    factor = value / resize.to if resize.column else resize.factor or resize.longest_side / max(size)
    return tuple(max(1, round(factor * length)) for length in size)


class ResizedImages:
    """Images, and masks where they have some, by id, at the size at which the network sees them."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.settings, self.classes = images.settings, images.classes

    def image_size(self, image_id: str) -> Size:
        """(height, width), without decoding the image."""
        value = self.images.resize_values.get(image_id)
        return network_size(self.settings.resize, self.images.image_size(image_id), value)

    def read_image(self, image_id: str) -> np.ndarray:
        """Image uint8 (height, width, channels). Of a slide only a few tiles at a time are in memory at full size."""
        return self.open_image(image_id)[:, :]

    def open_image(self, image_id: str) -> np.ndarray | ResizedSlide:
        """The image for reading regions, `[top:bottom, left:right]`."""
        image, size = self.images.open_image(image_id), self.image_size(image_id)
        if isinstance(image, Slide) and image.is_opaque:
            return ResizedSlide(image, size)
        return resized(image[:, :], size)

    def read_mask(self, image_id: str) -> np.ndarray:
        """Mask uint8 0, 1 or IGNORED (height, width, classes); a pixel has the value of at least half of its area."""
        return resized_mask(self.images.read_mask(image_id), self.image_size(image_id))


class Seen(NamedTuple):
    """A training image at the size at which the network sees it."""

    id: str
    size: Size
    masks: int  # of classes that the image holds
    lost: int  # of these, too thin to survive at that size


def seen_of(images: Images, image_id: str, mask: np.ndarray) -> Seen:
    """The image at that size; `mask` has the image's original size."""
    size = network_size(images.settings.resize, mask.shape[:2], images.resize_values.get(image_id))
    holds, still_holds = ((masks == 1).any(axis=(0, 1)) for masks in (mask, resized_mask(mask, size)))
    return Seen(image_id, size, int(holds.sum()), int((holds & ~still_holds).sum()))


def describe_seen(seen: list[Seen]) -> str:
    """The smallest and largest size, and the number of masks that are lost."""
    by_area = sorted({image.size for image in seen}, key=math.prod)
    sizes = " to ".join(dict.fromkeys(f"{height} x {width}" for height, width in (by_area[0], by_area[-1])))
    text = f"the network sees images of {sizes} (data.resize)"
    if not (lost := [image.id for image in seen if image.lost]):
        return text
    counted = f"{sum(image.lost for image in seen)} of {sum(image.masks for image in seen)} masks"
    return f"{text}; {counted} are too thin for that and become empty, those of {listed(lost)}"
