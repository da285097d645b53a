"""The origin of images by their files: folders, columns of the csv, camera, day, patient, JPEG tables, georeference."""

import hashlib
import re
import struct
from collections import defaultdict
from itertools import takewhile
from pathlib import Path

import numpy as np
from PIL import Image

from lib.base.errors import UserError
from lib.base.prefetch import prefetched_in_batches
from lib.data.competition import TrainingData
from lib.data.discovery import PLACEHOLDER, find_files
from lib.data.groups import GROUP, NO_GROUPS
from lib.data.image_column import images_of_rows, is_missing, shared_by_rows
from lib.data.mask_index import is_rle_table, masks_table_files, read_masks_table
from lib.data.rle_table import PANDAS_INDEX, class_columns, guess_rle_column, training_columns
from lib.data.tables import read_table
from lib.folds.id_patterns import MOST_CLASSES, Partition, Series, distinct, may_be_classes
from lib.images.dicom import dicom_fields
from lib.images.headers import START_BYTES, is_png_without_exif, suffix_of

MAKE, MODEL, EXIF_PART, TAKEN, SERIAL = 0x010F, 0x0110, 0x8769, 0x9003, 0xA431  # EXIF tags
PIXEL_SCALE, TIE_POINT = 33550, 33922  # of a GeoTIFF
DICOM_KEYS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
NAME_OF_KEY = {
    "folder": "the folder of the file",
    "camera": "the camera in the EXIF data",
    "day": "the day in the EXIF data",
    "jpeg": "the quantisation tables of the JPEG files",
    "size": "the size of the image",
    **{key: f"{key} in the DICOM header" for key in DICOM_KEYS},
}
# what Pillow and pydicom raise for headers that are damaged or unusual
DAMAGED = (UserError, OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error)
MAY_BE_CLASSES = ("folder", "camera", "jpeg", "size")  # may be kinds of images rather than scenes

MOST_LEVELS, MOST_COLUMNS = 4, 6  # candidates: folder levels or parts of the pattern, and columns


def metadata_candidates(data: TrainingData) -> tuple[list[Partition], list[Series]]:
    """Partitions and series by the keys that every file has; a key that some files lack is left out."""
    columns = defaultdict(list)
    paths = [data.image_path(image_id) for image_id in data.ids]
    for _, facts in prefetched_in_batches(file_facts, paths):
        for key, value in facts.items():
            columns[key].append(value)
    columns = {key: values for key, values in columns.items() if len(values) == len(data.ids)}
    partitions = [
        Partition(
            NAME_OF_KEY[key],
            np.array(columns[key]),
            f"dicom:{key}" if key in DICOM_KEYS else None,
            may_be_class=key in MAY_BE_CLASSES,
        )
        for key in NAME_OF_KEY
        if key in columns
    ]
    nowhere = np.full(len(data.ids), "")
    series = []
    if "seconds" in columns:
        keys = np.array(columns.get("camera", nowhere))
        series.append(Series("the time in the EXIF data", keys, np.array(columns["seconds"], np.int64)[:, None]))
    if "place" in columns:
        corners = np.array(columns["place"])
        series.append(Series("the place on earth", nowhere, np.rint(corners - corners.min(axis=0)).astype(np.int64)))
    return partitions, series


def path_partitions(data: TrainingData) -> list[Partition]:
    """Partitions by the parts that the images' pattern names, `{patient}/{visit}/...`, and by the levels of folders."""
    return distinct([*_by_pattern(data), *_by_folders(data)])


def _by_pattern(data: TrainingData) -> list[Partition]:
    pattern, setting = data.pattern
    names = list(dict.fromkeys(PLACEHOLDER.findall(pattern)))
    if len(names) < 2:
        return []
    parts_of = {path: parts for parts, path in find_files(data.settings.root, pattern, setting)}
    values = [[parts_of[data.files[image_id][0]][name] for name in names] for image_id in data.ids]
    partitions = []
    for places in _first_and_single(len(names)):
        groups = ["_".join(parts[places]) for parts in values]
        template = "_".join(f"{{{name}}}" for name in names[places])
        partitions.append(Partition(f"{template} of the path", np.array(groups), template, may_be_classes(set(groups))))
    return partitions


def _by_folders(data: TrainingData) -> list[Partition]:
    folders = [data.image_path(image_id).parent.parts for image_id in data.ids]
    shared = len(list(takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))))
    partitions = []
    for places in _first_and_single(min(map(len, folders), default=0) - shared):
        groups = ["/".join(parts[shared:][places]) for parts in folders]
        is_one = places.stop - places.start == 1
        name = f"level {places.stop} of the folders" if is_one else f"the first {places.stop} levels of the folders"
        partitions.append(Partition(name, np.array(groups), may_be_class=True))
    return partitions


def _first_and_single(count: int) -> list[slice]:
    """The first part, the first two, ..., and each later part alone."""
    count = min(count, MOST_LEVELS)
    return [*(slice(0, end) for end in range(1, count + 1)), *(slice(place, place + 1) for place in range(1, count))]


def column_partitions(data: TrainingData) -> list[Partition]:
    """Partitions by the other columns of the csv of run lengths that have one value for all rows of each image."""
    settings = data.settings
    if not is_rle_table(settings.train_masks):
        return []
    path = settings.root / settings.train_masks
    columns = training_columns(settings)
    header = read_table(masks_table_files(settings)[0], "data.train_masks", most=0)  # it may have no other columns
    of_rle = class_columns(header, columns, settings.classes) or [
        columns.rle or guess_rle_column([*header], columns, path)
    ]
    known = {columns.id or next(iter(header)), columns.class_name, *of_rle, *PANDAS_INDEX}
    known |= {GROUP} if settings.group == NO_GROUPS else set()
    if not header.keys() - known:
        return []
    table = read_masks_table(settings, "data.train_masks")
    images = images_of_rows(table, data.files, settings)
    by_column = [(name, _by_image(images, table[name], data.ids)) for name in table if name not in known]
    partitions = [
        Partition(
            f"the column {name}", np.array(values), name, may_be_classes(set(values)) or _may_be_measured(set(values))
        )
        for name, values in by_column
        if values is not None
    ]
    return distinct(partitions)[:MOST_COLUMNS]


def _by_image(images: list[str], values: list[str], ids: list[str]) -> list[str] | None:
    """The value of each id; None if an image has two, or none, since data.group takes no such column."""
    value_of = shared_by_rows(images, values) or {}
    found = [value_of.get(image_id, "") for image_id in ids]
    return None if any(map(is_missing, found)) else found


def _may_be_measured(values: set[str]) -> bool:
    """Whether values are as likely measurements, an age or a width, as numbers of patients."""
    are_numbers = all(re.fullmatch(r"[+-]?\d*[.]?\d+", value) for value in values)
    return are_numbers and (len(values) <= MOST_CLASSES or any("." in value for value in values))


def file_facts(path: Path) -> dict[str, object]:
    """The keys found in a file's name and header."""
    facts: dict[str, object] = {"folder": path.parent.name}
    try:
        if suffix_of(path) == ".dcm":
            return facts | dicom_fields(path, DICOM_KEYS)
        if size := _size_of_plain_png(path):
            return facts | {"size": size}
        with Image.open(path) as image:
            facts["size"] = f"{image.height} x {image.width}"
            if image.format == "JPEG":
                facts["jpeg"] = hashlib.sha256(repr(sorted(image.quantization.items())).encode()).hexdigest()[:8]
            if image.format == "TIFF":
                facts |= _geography(dict(image.tag_v2))
            elif "exif" in image.info:  # without it, Pillow would decode a PNG to look behind the pixels
                facts |= _exif(image)
    except DAMAGED:  # 01 reports damaged images when it decodes them; here a header is only a hint
        return facts
    return facts


def _size_of_plain_png(path: Path) -> str | None:
    """The size of a PNG without EXIF data, at a quarter of what Pillow takes; None for any other file."""
    with path.open("rb") as file:
        head = file.read(START_BYTES)
    if not is_png_without_exif(head):
        return None
    width, height = struct.unpack(">II", head[16:24])
    return f"{height} x {width}"


def _exif(image: Image.Image) -> dict[str, object]:
    tags = image.getexif()
    part = tags.get_ifd(EXIF_PART)
    facts: dict[str, object] = {}
    if camera := " ".join(str(tag).strip("\0 ") for tag in (tags.get(MAKE), tags.get(MODEL), part.get(SERIAL)) if tag):
        facts["camera"] = camera
    if taken := str(part.get(TAKEN, "")).strip("\0 "):
        moment = np.datetime64(f"{taken[:10].replace(':', '-')}T{taken[11:19]}")
        facts |= {"day": taken[:10], "seconds": int(moment.astype("datetime64[s]").astype(int))}
    return facts


def _geography(tags: dict[int, tuple[float, ...]]) -> dict[str, object]:
    """Row and column of the image's corner on the map of its projection, in units of the image's size."""
    if PIXEL_SCALE not in tags or TIE_POINT not in tags:
        return {}
    (column, row, _, x, y, *_), (width, height, *_) = tags[TIE_POINT], tags[PIXEL_SCALE]
    columns, rows = tags[256], tags[257]
    return {"place": ((y / height + row) / rows, (x / width - column) / columns)}
