"""Masks as image files, one for each image: for competitions that take a folder or a zip of them, and for new photos.

submission.pixels sets the value or colour of each class. By default these are the values of the training masks, if
data.classes names them; else 255 for one class, and 1, 2, 3 ... for several. Where a pixel is of several classes, the
last one counts. If the training masks have a file for each class ({class} in data.train_masks), so have these. With
submission.rows=instance the values are the numbers of the objects, 16 bits wide.
"""

import zipfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from lib.base.errors import UserError
from lib.base.files import atomic_path, write_bytes
from lib.base.prefetch import THREADS, prefetched
from lib.base.progress import progress
from lib.config.mask_settings import rgb
from lib.config.schema import Settings
from lib.data.competition import TestData
from lib.images.reading import TIF
from lib.masks.metrics import planes

GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 50844)  # of GeoTIFF: scale, tie points, matrix, keys, RPC


def write_masks(
    folder: Path, data: TestData, masks: Iterable[tuple[str, np.ndarray]], settings: Settings
) -> list[Path]:
    """Write `folder`/[CLASS/]ID.png or .tif for each (id, masks), masks (height, width, classes); return the paths.

    Unreadable images of known size get an empty mask. submission.file_name may add to the name. A tif keeps the
    georeference of its image. Raises UserError if a file does not hold what was meant.
    """
    suffix = settings.submission.format

    def write(pair: tuple[str, np.ndarray]) -> list[Path]:
        image_id, of_image = pair
        file = f"{settings.submission.file_name.replace('{id}', image_id)}.{suffix}"
        pictures = {folder / name / file: picture for name, picture in pictures_of(of_image, settings).items()}
        for path, picture in pictures.items():
            if suffix == "png":
                _write_png(path, picture)
            else:
                source = None if image_id in data.unreadable else data.image_path(image_id)
                _write_tif(path, picture, source, settings)
        return list(pictures)

    sizes = {image_id: size for image_id, size in unreadable_sizes(data, settings).items() if size}
    nothing = ((image_id, np.zeros((*size, len(data.classes)), np.uint8)) for image_id, size in sizes.items())
    everything = progress("masks", chain(masks, nothing), len(data.ids) + len(sizes))
    written = prefetched(write, everything, ahead=2 * THREADS)
    return [path for _, paths in written for path in paths]


def unreadable_sizes(data: TestData, settings: Settings) -> dict[str, tuple[int, int] | None]:
    """The size of each unreadable image's mask; None for one whose size is not known."""
    return {image_id: settings.submission.size or image.size for image_id, image in data.unreadable.items()}


def zip_files(paths: list[Path], folder: Path, target: Path) -> None:
    """Write a zip of the files, named relative to the folder."""
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path in paths:
            archive.write(path, path.relative_to(folder))


def pictures_of(masks: np.ndarray, settings: Settings) -> dict[str, np.ndarray]:
    """The mask images of an image by subfolder, uint8 or uint16, colour as RGB."""
    classes = settings.data.classes
    if settings.submission.rows == "instance":
        return _folders(classes, [_as_uint16(plane) for plane in planes(masks)])
    if has_file_per_class(settings):
        return _folders(classes, [255 * plane for plane in planes(masks)])
    colours = [_colour(value) for value in class_values(settings)]
    picture = np.zeros((*masks.shape[:2], len(colours[0])), np.uint8)
    for plane, colour in zip(planes(masks), colours, strict=True):
        picture[plane > 0] = colour
    return {"": picture[..., 0] if picture.shape[2] == 1 else picture}


def has_file_per_class(settings: Settings) -> bool:
    """Whether each class has its own mask files, in a folder of its name."""
    if len(settings.data.classes) == 1:
        return False
    is_drawn_so = settings.submission.pixels is None and "{class}" in settings.data.train_masks
    return is_drawn_so or settings.submission.rows == "instance"


def _folders(classes: list[str], pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip(classes if len(classes) > 1 else [""], pictures, strict=True))


def class_values(settings: Settings) -> list[int | str]:
    """The value or colour of each class: as submission.pixels or data.classes say, else 255, or 1, 2, 3 ..."""
    classes, submission = settings.data.classes, settings.submission
    if submission.pixels is not None:
        return submission.pixels
    if of_class := settings.data.masks.values:
        return [of_class[name][0] for name in classes]
    return [255] if len(classes) == 1 else list(range(1, len(classes) + 1))


def _colour(value: int | str) -> tuple[int, ...]:
    """A value 0 to 255, or R, G, B of '#rrggbb'."""
    if isinstance(value, str):
        return rgb(value)
    if value > 255:
        raise UserError(f"a mask file of 8 bits cannot hold the value {value}; set submission.pixels")
    return (value,)


def _as_uint16(labels: np.ndarray) -> np.ndarray:
    if labels.max(initial=0) > np.iinfo(np.uint16).max:
        raise UserError(f"an image has {labels.max()} objects, more than the 65,535 that 16 bits can number")
    return labels.astype(np.uint16)


def _write_png(path: Path, picture: np.ndarray) -> None:
    stored = np.ascontiguousarray(picture if picture.ndim == 2 else picture[..., ::-1])
    encoded = cv2.imencode(".png", stored)[1]
    if not np.array_equal(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), stored):
        raise UserError(f"{path} does not hold its mask; this is a bug")
    write_bytes(path, encoded.tobytes(), durable=False)


def _write_tif(path: Path, picture: np.ndarray, source: Path | None, settings: Settings) -> None:
    tags = _georeference(source)
    if tags and settings.submission.size:
        raise UserError(f"{source} has a georeference, which a resized mask would lose; set submission.size=null")
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(picture)).save(temporary, compression="tiff_deflate", tiffinfo=tags)
        with Image.open(temporary) as written:
            if not np.array_equal(np.asarray(written), picture):
                raise UserError(f"{path} does not hold its mask; this is a bug")


def _georeference(source: Path | None) -> ImageFileDirectory_v2:
    """The georeference tags of a tif; none for other files, and without a source."""
    tags = ImageFileDirectory_v2()
    if source and source.suffix.lower() in TIF:
        with source.open("rb") as file:  # not by Image.open, which refuses files of many bands
            header = file.read(8)
            if header[:2] not in (b"II", b"MM"):  # another format under this suffix
                return tags
            stored = ImageFileDirectory_v2(header + file.read(8) if 43 in header[2:4] else header)  # 43: BigTIFF
            file.seek(stored.next)
            stored.load(file)
        for tag in GEO_TAGS:
            if tag in stored:
                tags[tag] = stored[tag]
                tags.tagtype[tag] = stored.tagtype[tag]
    return tags
