"""A competition's data as it lies on disk: ids, images, masks, groups and the sample submission.

Opening lists the files and reads the tables; images and masks are read when they are asked for. The run lengths of
the masks stay in memory as text. The objects can be pickled, so that loader processes hold a copy.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import translate
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lib.base.errors import UserError
from lib.base.prefetch import THREADS, prefetched
from lib.config.schema import DataSettings
from lib.data.discovery import PLACEHOLDER, WILDCARD, clean_id, fill, find_files, make_id
from lib.data.duplicates import perceptual_hash
from lib.data.images import dicom_field, image_size, read_image, read_mask_image
from lib.data.lazy_tif import Slide, open_slide
from lib.data.tables import column, read_table
from lib.masks.morphology import components
from lib.masks.rle import decode_union

RLE_COLUMN_HINTS = ("rle", "encod", "predicted", "annotation", "segmentation")
DICOM_GROUP = "dicom:"  # before the keyword of a header's element, such as PatientID
SHOWN = 3  # how many ids or files an error lists

Table = dict[str, list[str]]  # columns by name
Masks = dict[str, list[list[str]]]  # by id and class: run lengths or mask files, all of them together being the mask


class SubmissionRow(NamedTuple):
    """A row to be written: the image and class it is about, and its values, the run lengths still to be filled in."""

    id: str
    class_index: int
    values: tuple[str, ...]


class ImageFacts(NamedTuple):
    """What stage 01 wants to know about a training image."""

    id: str
    height: int
    width: int
    coverage: tuple[float, ...]  # share of mask pixels per class, 0 to 1
    sha256: str  # of the decoded pixels and their shape
    perceptual_hash: str  # nearly the same for near copies


class Images:
    """Images by id. `ids` are sorted and safe as file names."""

    def __init__(self, settings: DataSettings, files: dict[str, list[str]]):
        self.settings = settings
        self.classes = settings.classes
        self.ids = sorted(files)
        self.files = files  # by id; several are the planes of one image
        self._sizes: dict[str, tuple[int, int]] = {}  # of the images asked for, so that a file's header is read once

    def image_path(self, image_id: str) -> Path:
        """The image's file; the first one where each plane has its own."""
        return Path(self.files[image_id][0])

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(height, width) from the file's header."""
        if image_id not in self._sizes:
            self._sizes[image_id] = image_size(self.image_path(image_id), self.settings.max_pixels)
        return self._sizes[image_id]

    def read_image(self, image_id: str) -> np.ndarray:
        """Image uint8 (height, width, channels), colour as RGB. Raises UserError naming a file that is not whole."""
        settings = self.settings
        paths = [Path(path) for path in self.files[image_id]]
        channels = settings.channels if len(paths) == 1 else 1
        planes = [
            read_image(path, channels, settings.value_range, settings.plane, settings.max_pixels) for path in paths
        ]
        for path, plane in zip(paths, planes, strict=True):
            if plane.shape != planes[0].shape:
                raise UserError(f"{path} is {_size(plane)}, but {paths[0]}, another plane of it, is {_size(planes[0])}")
        self._sizes[image_id] = planes[0].shape[:2]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def open_image(self, image_id: str) -> np.ndarray | Slide:
        """What `[top:bottom, left:right]` reads regions of, as of read_image's array, decoding no more where it can."""
        settings, paths = self.settings, self.files[image_id]
        limits = settings.value_range, settings.plane, settings.max_pixels
        slide = open_slide(Path(paths[0]), settings.channels, *limits) if len(paths) == 1 else None
        return self.read_image(image_id) if slide is None else slide


class TrainingData(Images):
    """Training images with their masks. `groups` maps ids to the names of their groups, or is None."""

    def __init__(
        self, settings: DataSettings, files: dict[str, list[str]], masks: Masks, groups: dict[str, str] | None
    ):
        super().__init__(settings, files)
        self.groups = groups
        self._masks = masks

    def pieces(self, image_id: str) -> list[list[str]]:
        """For each class the run lengths, or the paths of the mask files, that make up the image's mask."""
        return self._masks[image_id]

    def read_mask(self, image_id: str) -> np.ndarray:
        """Mask uint8 0/1 (height, width, classes) of the image's size.

        Raises UserError naming the table and the id, or the mask file, when it cannot be read or does not fit.
        """
        shape = self.image_size(image_id)
        layers = [self._read_union(image_id, pieces, shape) for pieces in self._masks[image_id]]
        return cv2.merge(layers).reshape(*shape, len(layers))

    def read_objects(self, image_id: str) -> np.ndarray:
        """Objects int32 (height, width, classes), numbered from 1 in each class, 0 being background.

        With data.instances each row or mask file is an object, and the later one has the pixels that two claim;
        without, the components of the mask are the objects. Raises UserError as read_mask does.
        """
        shape = self.image_size(image_id)
        labels = np.zeros((*shape, len(self.classes)), np.int32)
        for index, pieces in enumerate(self._masks[image_id]):
            if self.settings.instances:
                for number, piece in enumerate(pieces, start=1):
                    labels[self._read_union(image_id, [piece], shape) > 0, index] = number
            else:
                labels[:, :, index], _ = components(self._read_union(image_id, pieces, shape))
        return labels

    def _read_union(self, image_id: str, pieces: list[str], shape: tuple[int, int]) -> np.ndarray:
        """Mask uint8 0/1 (height, width) of the pixels that any of the pieces holds."""
        if is_table(self.settings.train_masks):
            try:
                return decode_union(pieces, shape, self.settings.rle)
            except UserError as error:
                table = self.settings.root / self.settings.train_masks
                raise UserError(f"{table}, mask of '{image_id}' ({self.image_path(image_id)}): {error}") from None
        layer = np.zeros(shape, np.uint8)
        for path in map(Path, pieces):
            mask = read_mask_image(path, self.settings.max_pixels)
            if mask.shape != shape:
                image = f"its image {self.image_path(image_id)} is {shape[0]} x {shape[1]}"
                raise UserError(f"mask {path} is {_size(mask)} pixels (height x width), but {image}")
            layer |= mask
        return layer


class TestData(Images):
    """Test images with the rows that the submission must have, in their order."""

    __test__ = False  # not a test, whatever pytest makes of its name

    def __init__(
        self, settings: DataSettings, files: dict[str, list[str]], columns: list[str], rows: list[SubmissionRow]
    ):
        super().__init__(settings, files)
        self.columns = columns
        self.rle_column = columns.index(_sample_rle_column(columns, settings))
        self.rows = rows


def open_training(settings: DataSettings) -> TrainingData:
    """List the training images and match them with their masks and groups.

    Raises UserError for files or tables that are missing or do not belong together, listing the first ids and the
    count, and for settings that do not describe what is there.
    """
    files, parts = _list_images(settings, settings.train_images, "data.train_images")
    table = read_masks_table(settings, "data.train_masks") if is_table(settings.train_masks) else None
    masks = _match(_masks_of(settings, table), files, settings)
    files = {image_id: files[image_id] for image_id in masks}
    return TrainingData(settings, files, masks, _groups(settings, table, files, parts))


def open_compared(training: TrainingData) -> TrainingData:
    """The same images with the masks of data.compare_masks, of those ids that it has. Raises as open_training does."""
    settings = training.settings.model_copy(update={"train_masks": training.settings.compare_masks})
    table = read_masks_table(settings, "data.compare_masks") if is_table(settings.train_masks) else None
    masks = _masks_of(settings, table)
    known = {image_id: masks[image_id] for image_id in training.ids if image_id in masks}
    return TrainingData(settings, {image_id: training.files[image_id] for image_id in known}, known, None)


def open_test(settings: DataSettings) -> TestData:
    """List the test images and match them with the sample submission.

    Without a sample, or with one that has only a header, there is a row for each image and class in the order of the
    ids. Raises UserError when images and sample do not belong together, listing the first ids and the count.
    """
    if settings.test_images is None:
        raise UserError("data.test_images is not set, so there is nothing to predict")
    files, _ = _list_images(settings, settings.test_images, "data.test_images")
    columns, rows = _sample_rows(settings)
    if rows:
        listed = {row.id for row in rows}
        sample = f"{settings.root / settings.sample_submission} (data.sample_submission)"
        if absent := sorted(listed - files.keys()):
            images = f"{settings.root / settings.test_images}, or data.exclude leaves it out"
            raise UserError(f"{_listed(absent)} of {sample} have no image in {images}")
        if surplus := sorted(files.keys() - listed):
            raise UserError(f"test images {_listed(surplus)} are not in {sample}; leave them out with data.exclude")
    else:
        rows = _rows_of_all(sorted(files), columns, settings)
    return TestData(settings, files, columns, rows)


def inspect_all(training: TrainingData) -> list[ImageFacts]:
    """Decode every training image and mask once, and return their facts in the order of ids.

    Raises one UserError with the number of unusable images and what is wrong with the first few.
    """
    from lib.base.progress import progress

    facts, problems = [], []
    # threads: a process takes 0.4 s to start, and 0.1 of the 0.7 ms for 256 x 256 pixels hold Python's lock
    inspected = prefetched(partial(_inspect, training), training.ids, ahead=4 * THREADS)
    for _, result in progress("checking", inspected, len(training.ids)):
        (facts if isinstance(result, ImageFacts) else problems).append(result)
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        counted = f"{len(problems)} of {len(training.ids)} training images cannot be used"
        raise UserError(f"{counted}: {'; '.join(problems[:SHOWN])}{more} (data.exclude leaves images out)")
    return facts


def _inspect(training: TrainingData, image_id: str) -> ImageFacts | str:
    """The facts of an image, or what is wrong with it."""
    try:
        image = training.read_image(image_id)
        mask = training.read_mask(image_id)
    except UserError as error:
        return str(error)
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(image)
    coverage = tuple(float(cv2.countNonZero(layer)) / layer.size for layer in cv2.split(mask))
    return ImageFacts(image_id, *image.shape[:2], coverage, digest.hexdigest(), perceptual_hash(image))


def _list_images(
    settings: DataSettings, pattern: str, setting: str
) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """The files of each image, and what the pattern's placeholders stand for, by id; excluded ids left out."""
    if not settings.root.is_dir():
        raise UserError(f"the data folder {settings.root} does not exist (data.root)")
    files = defaultdict(list)
    parts_of = {}
    for parts, path in find_files(settings.root, pattern, setting):
        image_id = make_id(settings.image_id, parts, path)
        if not _is_excluded(image_id, settings):
            files[image_id].append(path)
            parts_of[image_id] = parts
    wanted = 1 if all(len(paths) == 1 for paths in files.values()) else settings.channels
    if odd := [image_id for image_id in sorted(files) if len(files[image_id]) != wanted]:
        raise UserError(
            f"images {_listed(odd)} have another number of files than data.channels = {settings.channels}: "
            f"{', '.join(files[odd[0]][:SHOWN])}; an image is one file, or one file for each channel"
        )
    if not files:
        raise UserError(f"data.exclude leaves no image of {setting} = '{pattern}'")
    return dict(files), parts_of


def read_masks_table(settings: DataSettings, setting: str) -> Table:
    """The csv of run lengths that data.train_masks names; one table of all files where it is a pattern."""
    if not WILDCARD.search(settings.train_masks):
        return read_table(settings.root / settings.train_masks, setting)
    whole: Table = {}
    for _, path in find_files(settings.root, settings.train_masks, setting):
        table = read_table(Path(path), setting)
        if whole and whole.keys() != table.keys():
            raise UserError(f"{path} has the columns {', '.join(table)}, but the table before it {', '.join(whole)}")
        for name, values in table.items():
            whole.setdefault(name, []).extend(values)
    return whole


def _masks_of(settings: DataSettings, table: Table | None) -> Masks:
    if table is None:
        return _masks_from_files(settings)
    return _masks_from_table(table, settings.root / settings.train_masks, settings)


def _masks_from_table(table: Table, path: Path, settings: DataSettings) -> Masks:
    """Run lengths by id and class, of all ids in the table but the excluded ones."""
    rle_name = settings.rle_column or _guess_rle_column(list(table), settings, path)
    texts = column(table, rle_name, path, "data.rle_column")
    masks: Masks = defaultdict(lambda: [[] for _ in settings.classes])
    for (image_id, class_index), text in zip(_row_keys(table, path, settings), texts, strict=True):
        if not _is_excluded(image_id, settings):
            masks[image_id][class_index].append(text)
    _check_single(masks, settings, f"rows in {path}")
    return dict(masks)


def _masks_from_files(settings: DataSettings) -> Masks:
    """Mask files by id and class, of all ids but the excluded ones."""
    pattern = settings.train_masks
    if len(settings.classes) > 1 and "{class}" not in pattern:
        raise UserError(
            f"data.train_masks = '{pattern}' must say where the {{class}} stands, as in masks/{{class}}/{{id}}.png"
        )
    masks: Masks = defaultdict(lambda: [[] for _ in settings.classes])
    for parts, path in find_files(settings.root, pattern, "data.train_masks"):
        image_id = make_id(settings.image_id, parts, path)
        if not _is_excluded(image_id, settings):
            masks[image_id][_class_index(parts.get("class", settings.classes[0]), settings, path)].append(path)
    _check_single(masks, settings, "mask files")
    return dict(masks)


def _row_keys(table: Table, path: Path, settings: DataSettings) -> Iterator[tuple[str, int]]:
    """Id and class index of each row. Without a class column, the id column holds <id>_<class> if there are several."""
    ids = column(table, settings.id_column or next(iter(table)), path, "data.id_column")
    if settings.class_column:
        names = column(table, settings.class_column, path, "data.class_column")
        for image_id, name in zip(ids, names, strict=True):
            yield clean_id(image_id, path), _class_index(name, settings, path)
    elif len(settings.classes) == 1:
        for image_id in ids:
            yield clean_id(image_id, path), 0
    else:
        for text in ids:
            image_id, index = _split_class(text, settings, path)
            yield clean_id(image_id, path), index


def _split_class(text: str, settings: DataSettings, path: Path) -> tuple[str, int]:
    """The two halves of <id>_<class>; a class may itself hold underscores, and the longest that fits is taken."""
    for name in sorted(settings.classes, key=len, reverse=True):
        if text.endswith(f"_{name}"):
            return text[: -len(name) - 1], settings.classes.index(name)
    raise UserError(
        f"{path}: '{text[:80]}' ends in none of the classes {settings.classes}; "
        "set data.classes, or data.class_column if a column holds the class"
    )


def _class_index(name: str, settings: DataSettings, source: Path | str) -> int:
    if name not in settings.classes:
        raise UserError(f"{source} has the class '{name}', which is not one of data.classes: {settings.classes}")
    return settings.classes.index(name)


def _check_single(masks: Masks, settings: DataSettings, what: str) -> None:
    """Raises UserError when an image and class has several masks and the settings do not say that it may."""
    if settings.instances:
        return
    if several := [image_id for image_id, pieces in masks.items() if max(map(len, pieces)) > 1]:
        raise UserError(
            f"{_listed(several)} have several {what}; set data.instances=true if each is an object of the image"
        )


def _match(masks: Masks, files: dict[str, list[str]], settings: DataSettings) -> Masks:
    """The masks of the images that are there, as data.images_without_mask and data.masks_without_image say."""
    source = settings.root / settings.train_masks
    if settings.masks_without_image == "error" and (lost := sorted(masks.keys() - files.keys())):
        raise UserError(
            f"masks {_listed(lost)} of {source} have no image in {settings.root / settings.train_images}; "
            "set data.masks_without_image=skip if that is right"
        )
    if settings.images_without_mask == "empty":
        nothing = [[] for _ in settings.classes]
        return {image_id: masks.get(image_id, nothing) for image_id in files}
    matched = {image_id: masks[image_id] for image_id in files if image_id in masks}
    bare = [image_id for image_id in files if image_id not in masks] if settings.images_without_mask == "error" else []
    if bare := bare + [image_id for image_id, pieces in matched.items() if not all(pieces)]:
        raise UserError(
            f"images {_listed(sorted(bare))} have no mask in {source}, or not for every class; "
            "set data.images_without_mask=empty (or skip) if that is right"
        )
    if not matched:
        raise UserError(f"no image in {settings.root / settings.train_images} has a mask in {source}")
    return matched


def _groups(
    settings: DataSettings, masks_table: Table | None, files: dict[str, list[str]], parts: dict[str, dict[str, str]]
) -> dict[str, str] | None:
    """The group of each id, from a column, the parts of the files' names or DICOM headers; None if there is none."""
    name, ids = settings.group, sorted(files)
    if name and name.startswith(DICOM_GROUP):
        return {image_id: dicom_field(Path(files[image_id][0]), name.removeprefix(DICOM_GROUP)) for image_id in ids}
    if name and PLACEHOLDER.search(name):
        return {image_id: fill(name, parts[image_id], "data.group") for image_id in ids}
    if settings.group_csv:
        path = settings.root / settings.group_csv
        table = read_table(path, "data.group_csv")
        keys = [clean_id(text, path) for text in next(iter(table.values()))]
    elif masks_table is not None and (name or "group" in masks_table):
        path, table = settings.root / settings.train_masks, masks_table
        keys = [image_id for image_id, _ in _row_keys(table, path, settings)]
    elif name:
        raise UserError(f"data.group = '{name}' is a column, but no table holds it; set data.group_csv")
    else:
        return None
    groups = {}
    for image_id, group in zip(keys, column(table, name or "group", path, "data.group"), strict=True):
        if groups.setdefault(image_id, group) != group:
            raise UserError(f"{path} puts '{image_id}' into two groups, '{groups[image_id]}' and '{group}'")
    if missing := [image_id for image_id in ids if not groups.get(image_id)]:
        raise UserError(f"{path} has no group for {_listed(missing)}")
    return {image_id: groups[image_id] for image_id in ids}


def _sample_rows(settings: DataSettings) -> tuple[list[str], list[SubmissionRow]]:
    """Columns of the sample submission and one row for each image and class in it, in the order they come first."""
    if settings.sample_submission is None:
        return ["id", *(["class"] if len(settings.classes) > 1 else []), "rle"], []
    path = settings.root / settings.sample_submission
    table = read_table(path, "data.sample_submission")
    # A sample may lack the columns that train.csv calls otherwise; then they are found as in a table without settings.
    absent = [field for field in ("id_column", "class_column") if getattr(settings, field) not in table]
    settings = settings.model_copy(update=dict.fromkeys(absent))
    rows = {}
    values_of_rows = zip(*table.values(), strict=True)
    for (image_id, class_index), values in zip(_row_keys(table, path, settings), values_of_rows, strict=True):
        rows.setdefault((image_id, class_index), SubmissionRow(image_id, class_index, values))
    return list(table), list(rows.values())


def _sample_rle_column(columns: list[str], settings: DataSettings) -> str:
    if settings.rle_column in columns:
        return settings.rle_column
    return _guess_rle_column(columns, settings, settings.sample_submission)


def _rows_of_all(ids: list[str], columns: list[str], settings: DataSettings) -> list[SubmissionRow]:
    """A row for each image and class: the class in a column of its own if there is one, else as <id>_<class>."""
    rows = []
    class_name = settings.class_column or "class"
    for image_id in ids:
        for index, name in enumerate(settings.classes):
            key = image_id if len(settings.classes) == 1 or class_name in columns else f"{image_id}_{name}"
            known = {columns[0]: key, class_name: name}
            rows.append(SubmissionRow(image_id, index, tuple(known.get(column, "") for column in columns)))
    return rows


def _guess_rle_column(columns: list[str], settings: DataSettings, path: Path | str) -> str:
    """The column of the run lengths: by its name, or the only one beside the ids and classes."""
    id_name = settings.id_column if settings.id_column in columns else columns[0]
    others = [name for name in columns if name not in (id_name, settings.class_column)]
    likely = [name for name in others if any(hint in name.lower() for hint in RLE_COLUMN_HINTS)]
    for candidates in (likely, others):
        if len(candidates) == 1:
            return candidates[0]
    raise UserError(f"{path}: set data.rle_column to the column of the run lengths, one of: {', '.join(columns)}")


@lru_cache(maxsize=8)
def _exclusion(patterns: tuple[str, ...]) -> re.Pattern | None:
    return re.compile("|".join(map(translate, patterns))) if patterns else None


def _is_excluded(image_id: str, settings: DataSettings) -> bool:
    expression = _exclusion(tuple(settings.exclude))
    return expression is not None and expression.fullmatch(image_id) is not None


def is_table(masks: str) -> bool:
    """Whether a setting points to run lengths and not to mask images."""
    return masks.lower().endswith(".csv")


def _listed(ids: list[str]) -> str:
    """The first few ids and how many there are beyond them."""
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(f"'{image_id}'" for image_id in ids[:SHOWN]) + more


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"
