"""EXIF orientation: images that viewers rotate, and whether their masks belong to the stored or the shown pixels.

Annotators who work in a browser see the shown pixels; OpenCV and Pillow read the stored ones.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from lib.base.errors import UserError, or_none
from lib.base.prefetch import prefetched_in_batches
from lib.data.competition import TrainingData
from lib.data.images import Images
from lib.data.mask_index import is_annotations
from lib.images.headers import START_BYTES, is_png_without_exif, read_header, suffix_of
from lib.images.reading import image_size

JPEG_SIGNATURE = b"\xff\xd8"
JPEG_SCAN, JPEG_EXIF, JPEG_PADDING = 0xDA, 0xE1, 0xFF  # markers of the pixels, and of EXIF or XMP
WITHOUT_ORIENTATION = (".npy", ".dcm", ".bmp", ".gif")  # suffixes of formats that hold none


def orientation_line(training: TrainingData) -> str:
    """A line on the number of training images with an EXIF orientation and how they are read; empty without any.

    Without data.orientation they are read as stored if the sizes of the mask files agree. Raises UserError if the sizes
    say the contrary, or nothing.
    """
    turned = turned_images(training)
    if not turned:
        return ""
    counted = f"{len(turned)} of {len(training.ids)} training images have an EXIF orientation other than 1"
    by_size = {kind for image_id in turned for kind in _fitting(training, image_id, turned[image_id])}
    setting = training.settings.orientation
    if setting is not None:
        return f"checked   {counted}, and are read as {setting} (data.orientation)\n"
    if by_size == {"stored"}:
        return f"checked   {counted}, and are read as stored, as the sizes of their masks are\n"
    if by_size == {"shown"}:
        raise UserError(f"{counted}; their masks have the sizes of the shown pixels: set data.orientation=shown")
    why = "the sizes of their masks contradict one another" if by_size else "the sizes of their masks do not tell"
    first = training.image_path(next(iter(turned)))
    raise UserError(
        f"{counted}, such as {first}; {why} whether the masks belong to the pixels as stored or as viewers show them: "
        "look at one and set data.orientation to stored or shown (as browsers show it to those who draw masks)"
    )


def turned_images(images: Images) -> dict[str, int]:
    """The EXIF orientation of each image where it is not 1. Unreadable headers are left to the reader."""
    ids = [id for id in images.ids if suffix_of(images.image_path(id)) not in WITHOUT_ORIENTATION]
    read = prefetched_in_batches(lambda image_id: _orientation(images.files[image_id][0]), ids)
    return {image_id: orientation for image_id, orientation in read if orientation != 1}


def _orientation(path: str) -> int:
    header = None if _starts_without_exif(path) else or_none(read_header, Path(path))
    return header.orientation if header else 1


def _starts_without_exif(path: str) -> bool:
    """Whether the first bytes of a PNG or JPEG exclude EXIF data: ten times as fast as reading the header."""
    try:
        with open(path, "rb", buffering=0) as file:
            start = file.read(START_BYTES)
    except OSError:
        return False
    return is_png_without_exif(start) or start.startswith(JPEG_SIGNATURE) and _scan_comes_before_exif(start)


def _scan_comes_before_exif(start: bytes) -> bool:
    """Whether the first segments of a JPEG (T.81, B.1.1) lead to its pixels without a segment that may be EXIF."""
    place = len(JPEG_SIGNATURE)
    while place + 4 <= len(start) and start[place] == 0xFF:
        marker = start[place + 1]
        if marker in (JPEG_SCAN, JPEG_EXIF, JPEG_PADDING):
            return marker == JPEG_SCAN
        place += 2 + int.from_bytes(start[place + 2 : place + 4])
    return False


def _fitting(training: TrainingData, image_id: str, orientation: int) -> set[str]:
    """The one of "stored" and "shown" that the image's masks fit; empty if both or neither do.

    Decided by the proportions, if the orientation changes them. A mask file with the image's own orientation fits the
    stored pixels.
    """
    image = image_size(training.image_path(image_id), training.settings.max_pixels)
    kinds = set()
    for height, width, of_mask in _mask_sizes(training, image_id):
        as_stored, as_shown = height * image[1] == width * image[0], height * image[0] == width * image[1]
        if of_mask == orientation and as_stored:
            kinds.add("stored")
        elif orientation >= 5 and as_stored != as_shown:
            kinds.add("stored" if as_stored else "shown")
    return kinds


def _mask_sizes(training: TrainingData, image_id: str) -> Iterator[tuple[int, int, int]]:
    """Height, width and orientation of the image's mask files, or the size that its annotations state."""
    pieces = {piece for pieces in training.pieces(image_id) for piece in pieces if piece}
    if is_annotations(training.settings.train_masks):
        yield from ((*size, 1) for piece in pieces if (size := json.loads(piece).get("size")))
    elif not training.has_table:
        for path in map(Path, pieces):
            size = or_none(image_size, path, training.settings.max_pixels)
            if size is not None:  # else the check of every mask reports it
                yield *size, 1 if suffix_of(path) in WITHOUT_ORIENTATION else read_header(path).orientation
