"""The file to upload: test maps to masks to run lengths, in the rows and columns of the sample submission."""

import csv
import io
import zlib
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from lib.config import Settings
from lib.data import TestData
from lib.errors import UserError
from lib.files import atomic_path
from lib.maps import MapStore
from lib.parallel import THREADS, prefetched
from lib.rle import decode, encode
from lib.rules import Rule, apply_rules


def write_submission(path: Path, data: TestData, store: MapStore, rules: dict[str, Rule], settings: Settings) -> int:
    """Write the submission and read it back; return the number of rows.

    The file appears only when its columns, ids and order are the sample's and every mask decodes to what was encoded.
    Raises UserError when a map is absent, or when what was written does not come back the same.
    """
    class_rows = defaultdict(list)
    for number, row in enumerate(data.rows):
        class_rows[row.id].append((number, row.class_index))
    encoded = [""] * len(data.rows)
    checks = [(0, 0, 0)] * len(data.rows)

    def masks_of(image_id: str) -> np.ndarray:
        return predicted_masks(store.read(image_id), rules, settings.submission.size)

    for image_id, masks in tqdm(
        prefetched(masks_of, class_rows, ahead=4 * THREADS), total=len(class_rows), desc="submission", unit="image"
    ):
        for number, class_index in class_rows[image_id]:
            mask = np.ascontiguousarray(masks[..., class_index])
            encoded[number] = encode(mask, settings.data.rle)
            checks[number] = (*mask.shape, zlib.crc32(mask))
    with atomic_path(path) as temporary:
        temporary.write_text(_table(data, encoded))
        _verify(temporary, data, checks, settings)
    return len(data.rows)


def predicted_masks(maps: np.ndarray, rules: dict[str, Rule], size: tuple[int, int] | None) -> np.ndarray:
    """Masks uint8 0/1 (height, width, classes) of uint8 maps of the same shape, or of `size` if one is asked for.

    The probabilities are resized, not the masks: a mask of half the size keeps its sub-pixel borders that way.
    """
    if size is not None:
        maps = cv2.resize(maps, size[::-1], interpolation=cv2.INTER_AREA).reshape(*size, -1)
    return apply_rules(rules, maps)


def _table(data: TestData, encoded: list[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(data.columns)
    for row, rle in zip(data.rows, encoded, strict=True):
        writer.writerow([rle if column == data.rle_column else value for column, value in enumerate(row.values)])
    return text.getvalue()


def _verify(path: Path, data: TestData, checks: list[tuple[int, int, int]], settings: Settings) -> None:
    """Raise UserError unless the file holds the sample's columns and rows, and masks with the expected checksums."""
    with path.open(newline="") as file:
        columns, *rows = csv.reader(file)
    if columns != data.columns or len(rows) != len(data.rows):
        raise UserError("the submission does not have the sample's columns and number of rows; this is a bug")
    for values, row, (height, width, checksum) in zip(rows, data.rows, checks, strict=True):
        kept = [value for column, value in enumerate(values) if column != data.rle_column]
        expected = [value for column, value in enumerate(row.values) if column != data.rle_column]
        mask = decode(values[data.rle_column], (height, width), settings.data.rle, disjoint=True)
        if kept != expected or zlib.crc32(mask) != checksum:
            raise UserError(f"the submission's row of '{row.id}' does not decode to its mask; this is a bug")
