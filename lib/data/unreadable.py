"""Test images that cannot be decoded: which they are, and what lets prediction go on (data.unreadable_test_images)."""

from collections.abc import Iterator
from contextlib import contextmanager

from lib.base.errors import DamagedImage, UserError, each_kind, or_none
from lib.base.prefetch import prefetched
from lib.base.progress import progress
from lib.data.images import Images, Unreadable
from lib.images.lazy_tif import Slide

STRIP = 512  # rows of a slide decoded at a time


def find_unreadable(images: Images, what: str = "test images") -> dict[str, Unreadable]:
    """The images that cannot be decoded, by id; slides are decoded strip by strip."""

    def unreadable(image_id: str) -> Unreadable | None:
        try:
            image = images.open_image(image_id)
            if isinstance(image, Slide):
                for top in range(0, image.shape[0], STRIP):
                    image[top : top + STRIP, :]
        except UserError as error:
            return Unreadable(str(error), or_none(images.image_size, image_id))

    results = progress(what, prefetched(unreadable, images.ids), len(images.ids))
    return {image_id: image for image_id, image in results if image is not None}


def first_problems(unreadable: dict[str, Unreadable]) -> str:
    """The problems of the first few kinds."""
    return each_kind({image_id: image.problem for image_id, image in unreadable.items()})


@contextmanager
def naming_the_setting() -> Iterator[None]:
    """Add to the error of a damaged test image the setting that lets prediction go on."""
    try:
        yield
    except DamagedImage as error:
        raise UserError(f"{error}; data.unreadable_test_images=empty gives such images an empty mask") from None
