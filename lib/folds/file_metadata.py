"""The origin of images by file metadata: folder, camera, day, patient, JPEG tables, georeference."""

import hashlib
import struct
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from lib.base.errors import UserError
from lib.base.prefetch import prefetched_in_batches
from lib.data.competition import TrainingData
from lib.folds.id_patterns import Partition, Series
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
