"""Mask files against those of a solution: folders or zips, as submission.format=png and tif write them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lib.base.errors import UserError
from lib.config.mask_settings import MaskSettings
from lib.config.schema import Settings
from lib.images.mask_values import class_masks, file_objects, read_mask_pixels
from lib.images.reading import SUFFIXES
from lib.masks.metrics import IGNORED
from lib.masks.morphology import components
from lib.masks.objects import score_terms
from lib.submission.mask_images import class_values, has_file_per_class

Terms = tuple[int, list[tuple[float, float]]]  # class index, and the terms of the masks and of empty ones


def is_of_files(path: Path) -> bool:
    """Whether a submission is mask files rather than a table."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def terms_of_files(submission: Path, solution: Path, settings: Settings) -> Iterator[Terms]:
    """Score each mask of a folder or zip against the file of the same name in another.

    The submission's values are those that submission.pixels says, the solution's those of the training masks. Raises
    UserError unless both have the same names and sizes.
    """
    with TemporaryDirectory() as folder:
        predicted = _files_by_name(submission, Path(folder) / "submission")
        truth = _files_by_name(solution, Path(folder) / "solution")
        if predicted.keys() != truth.keys():
            name = min(predicted.keys() ^ truth.keys())
            lacking, having = (submission, solution) if name in truth else (solution, submission)
            raise UserError(f"{lacking} has no mask file '{name}', which {having} has")
        for name, path in truth.items():
            for class_index in _classes_of(name, settings):
                mask, known = _predicted(predicted[name], class_index, settings), _known(path, class_index, settings)
                if mask.shape != known.shape:
                    raise UserError(f"{submission}: '{name}' is {mask.shape}, but {known.shape} in {solution}")
                yield class_index, [score_terms(each, known, settings) for each in (mask, np.zeros_like(mask))]


def _files_by_name(path: Path, folder: Path) -> dict[str, Path]:
    """The image files of a folder or zip, by their names within it without suffix."""
    if path.is_file():
        try:
            shutil.unpack_archive(path, folder, "zip")
        except shutil.ReadError as error:
            raise UserError(f"{path} is not a zip of mask files: {error}") from None
        path = folder
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{path} holds no mask file")
    return {file.relative_to(path).with_suffix("").as_posix(): file for file in files}


def _classes_of(name: str, settings: Settings) -> list[int]:
    """The classes of a file: all of them, or the one whose folder it is in."""
    classes = settings.data.classes
    if not has_file_per_class(settings):
        return list(range(len(classes)))
    folder = name.partition("/")[0]
    if folder not in classes:
        raise UserError(f"mask file '{name}' is in none of the folders {', '.join(classes)}")
    return [classes.index(folder)]


def _predicted(path: Path, class_index: int, settings: Settings) -> np.ndarray:
    """Mask uint8 0/1, or objects int32, of a file as `pictures_of` makes them."""
    if settings.submission.rows == "instance":
        return read_mask_pixels(path, MaskSettings(), settings.data.max_pixels).values.astype(np.int32)
    if has_file_per_class(settings):
        values = {"": [255]}
    else:
        values = {name: [value] for name, value in zip(settings.data.classes, class_values(settings), strict=True)}
    as_written = MaskSettings(values=values)
    pixels = read_mask_pixels(path, as_written, settings.data.max_pixels)
    return class_masks(pixels, as_written, [list(values)[class_index if len(values) > 1 else 0]])[0]


def _known(path: Path, class_index: int, settings: Settings) -> np.ndarray:
    """Mask uint8 0, 1 or IGNORED, or objects int32, of a file like those of the training masks."""
    data, name = settings.data, settings.data.classes[class_index]
    pixels = read_mask_pixels(path, data.masks, data.max_pixels)
    if settings.submission.rows == "instance" and data.instances:
        return file_objects(pixels, data.masks, name)
    (mask,) = class_masks(pixels, data.masks, [name])
    if settings.submission.rows == "mask":
        return mask
    return np.where(mask == IGNORED, -1, components((mask == 1).view(np.uint8))[0])
