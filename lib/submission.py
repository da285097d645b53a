"""The file to upload: from test maps to masks or objects to run lengths, in the sample's rows and columns."""

import csv
import io
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from lib.config import Settings
from lib.data import SubmissionRow, TestData
from lib.errors import UserError
from lib.files import atomic_path
from lib.instances import ObjectRule
from lib.maps import MapStore, resized
from lib.parallel import THREADS, prefetched
from lib.progress import progress
from lib.rle import decode, decode_labels, encode, encode_labels
from lib.rules import Rule, apply_rules

Rules = dict[str, Rule] | dict[str, ObjectRule]  # of each class; objects where submission.rows is instance


def write_submission(path: Path, data: TestData, store: MapStore, rules: Rules, settings: Settings) -> int:
    """Write the submission and read it back; return the number of rows.

    The file appears only when its columns, ids and their order are the sample's, and the run lengths of every mask are
    in order, inside the image, share no pixel, and decode to what was encoded. Raises UserError when a map is absent,
    or when what was written does not come back the same.
    """
    class_rows = defaultdict(list)
    for number, row in enumerate(data.rows):
        class_rows[row.id].append((number, row.class_index))
    texts = [[""]] * len(data.rows)
    checks = [(0, 0, 0)] * len(data.rows)

    def found_in(image_id: str) -> np.ndarray:
        return apply_rules(rules, resized(store.read(image_id), settings.submission.size))

    for image_id, found in progress("submission", prefetched(found_in, class_rows, ahead=4 * THREADS), len(class_rows)):
        for number, class_index in class_rows[image_id]:
            layer = np.ascontiguousarray(found[..., class_index])
            texts[number] = encode_rows(layer, settings)
            checks[number] = (*layer.shape, zlib.crc32(layer))
    with atomic_path(path) as temporary:
        temporary.write_text(table_text(data.columns, with_texts(data.rows, texts, data.rle_column)))
        _verify(temporary, data, checks, settings)
    return sum(map(len, texts))


def encode_rows(layer: np.ndarray, settings: Settings) -> list[str]:
    """Run lengths of a mask uint8 0/1 as one text, or of a label image int32 as one text an object (one if empty)."""
    if settings.submission.rows == "mask":
        return [encode(layer, settings.data.rle)]
    return list(encode_labels(layer, settings.data.rle).values()) or [settings.data.rle.empty]


def decode_rows(texts: list[str], shape: tuple[int, int], settings: Settings) -> np.ndarray:
    """What `encode_rows` encoded. Raises UserError for runs out of order, outside the image, or sharing a pixel."""
    if settings.submission.rows == "mask":
        (text,) = texts
        return decode(text, shape, settings.data.rle, disjoint=True)
    return decode_labels([text for text in texts if text != settings.data.rle.empty], shape, settings.data.rle)


def with_texts(rows: Iterable[SubmissionRow], texts: Iterable[list[str]], rle_column: int) -> Iterator[list[str]]:
    """The values of the file's rows: each of `rows` once for each of its texts, which stand in the column given."""
    for row, texts_of_row in zip(rows, texts, strict=True):
        for text in texts_of_row:
            yield [text if column == rle_column else value for column, value in enumerate(row.values)]


def table_text(columns: list[str], rows: Iterable[list[str]]) -> str:
    """A csv file's content."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def grouped_texts(rows: Iterable[list[str]], rle_column: int) -> Iterator[tuple[list[str], list[str]]]:
    """The values beside the run lengths and the run lengths of each mask; rows that follow each other may be one's."""

    def beside(row: list[str]) -> list[str]:
        return row[:rle_column] + row[rle_column + 1 :]

    for values, found in groupby(rows, key=beside):
        yield values, [row[rle_column] for row in found]


def _verify(path: Path, data: TestData, checks: list[tuple[int, int, int]], settings: Settings) -> None:
    """Raise UserError unless the file holds the sample's columns and masks, in its order, with these checksums."""
    with path.open(newline="") as file:
        columns, *rows = csv.reader(file)
    found = list(grouped_texts(rows, data.rle_column))
    expected = [values for values, _ in grouped_texts(map(list, (row.values for row in data.rows)), data.rle_column)]
    if columns != data.columns or [values for values, _ in found] != expected:
        raise UserError("the submission does not have the sample's columns, ids and their order; this is a bug")
    for (_, texts), row, (height, width, checksum) in zip(found, data.rows, checks, strict=True):
        if zlib.crc32(decode_rows(texts, (height, width), settings)) != checksum:
            raise UserError(f"the submission's row of '{row.id}' does not decode to its mask; this is a bug")
