"""The file to upload: test maps as masks or objects, as run lengths, in the sample's rows and columns."""

import csv
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, zip_longest
from pathlib import Path

import numpy as np

from lib.base.errors import UserError
from lib.base.files import atomic_path
from lib.base.prefetch import prefetched
from lib.base.progress import progress
from lib.config.schema import Settings
from lib.data.competition import TestData
from lib.data.sample_submission import SubmissionRow
from lib.masks.objects import Rules
from lib.masks.rle import OBJECTS, decode, decode_labels, encode, encode_labels
from lib.prediction.map_store import MapReader, scored_masks

CHECKED = "every mask was decoded again and is the same"
Check = tuple[int, int, int]  # height, width and checksum of a mask


def write_submission(path: Path, data: TestData, store: MapReader, rules: Rules, settings: Settings) -> int:
    """Write the submission and read it back; return the number of rows.

    The file appears only when its columns, ids and their order are the sample's, and the run lengths of every mask are
    in order, inside the image, share no pixel, and decode to what was encoded. Raises UserError when a map is absent,
    when what was written does not come back the same, and for objects where the sample has one row for all classes.
    """
    if len(data.rle_columns) > 1 and settings.submission.rows == "instance" and settings.submission.text != "json":
        raise UserError(
            f"{settings.data.sample_submission} has one row for all classes of an image, so its objects cannot have "
            "rows of their own; set submission.rows=mask, or submission.text=json"
        )
    count, checks = 0, []

    def texts_of_rows() -> Iterator[tuple[SubmissionRow, list[str]]]:
        for row, (texts, check) in zip(data.rows, _encoded_in_order(data, store, rules, settings), strict=True):
            checks.append(check)
            yield row, texts

    with atomic_path(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(data.columns)
            for line in _lines(texts_of_rows(), data.rle_columns):
                writer.writerow(line)
                count += 1
        _verify(temporary, data, checks, settings)
    return count


def order_of_rows(settings: Settings) -> str:
    return "in the sample's columns and order" if settings.data.sample_submission else "for the test images"


def _encoded_in_order(
    data: TestData, store: MapReader, rules: Rules, settings: Settings
) -> Iterator[tuple[list[str], Check]]:
    """Run lengths and checksum of each row of the data.

    Each image is read once, so its later rows wait for their turn, as in a sample that is sorted by class.
    """
    numbers_of = defaultdict(list)
    for number, row in enumerate(data.rows):
        numbers_of[row.id].append(number)

    nothing = np.zeros((1, 1, len(data.classes)), np.uint8 if settings.submission.rows == "mask" else np.int32)

    def masks_of(image_id: str) -> np.ndarray:
        if image_id in data.unreadable:
            return nothing
        return scored_masks(store, image_id, rules, settings.submission.size)

    waiting, turn = {}, 0
    for image_id, masks in progress("submission", prefetched(masks_of, numbers_of), len(numbers_of)):
        for number in numbers_of[image_id]:
            plane = np.ascontiguousarray(masks[..., data.rows[number].class_index])
            waiting[number] = encode_rows(plane, settings), (*plane.shape, zlib.crc32(plane))
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def encode_rows(plane: np.ndarray, settings: Settings) -> list[str]:
    """Run lengths of a mask uint8 0/1 as one text, or of a label image int32 as one text per object (one if empty).

    With submission.text = json each is a list, [12, 3], and the objects of a label image are one text, joined by `;`.
    """
    rle, submission = settings.data.rle, settings.submission
    if submission.rows == "mask":
        texts = [text] if (text := encode(plane, rle)) != rle.empty else []
    else:
        texts = list(encode_labels(plane, rle).values())
    if submission.text == "json":
        texts = [OBJECTS.join(f"[{text.replace(' ', ', ')}]" for text in texts)] if texts else []
    return texts or [rle.empty]


def decode_rows(texts: list[str], shape: tuple[int, int], settings: Settings) -> np.ndarray:
    """Invert `encode_rows`. Raises UserError for runs out of order, outside the image, or sharing a pixel."""
    rle, submission = settings.data.rle, settings.submission
    texts = [text for text in texts if text != rle.empty]
    if submission.text == "json":
        texts = [of_object for text in texts for of_object in text.split(OBJECTS)]
    if submission.rows == "mask":
        return decode(*(texts or [""]), shape, rle, disjoint=True)
    return decode_labels(texts, shape, rle)


def _lines(rows: Iterable[tuple[SubmissionRow, list[str]]], rle_columns: list[int]) -> Iterator[list[str]]:
    """The lines of the file: one for each text, or one for all classes of an image where each has its column."""
    if len(rle_columns) == 1:
        for row, texts in rows:
            yield from with_texts(row, texts, *rle_columns)
        return
    for of_image in zip(*[iter(rows)] * len(rle_columns), strict=True):
        line = list(of_image[0][0].values)
        for row, (text,) in of_image:
            line[rle_columns[row.class_index]] = text
        yield line


def _masks(lines: Iterable[list[str]], rle_columns: list[int]) -> Iterator[tuple[list[str], list[str]]]:
    """Invert `_lines`: the other values and the run lengths of each mask."""
    if len(rle_columns) == 1:
        yield from grouped_texts(lines, *rle_columns)
        return
    for line in lines:
        yield from ((beside(line, rle_columns), [line[column]]) for column in rle_columns)


def with_texts(row: SubmissionRow, texts: list[str], rle_column: int) -> Iterator[list[str]]:
    """The values of the row once for each of its texts, with the text in the given column."""
    for text in texts:
        yield [text if column == rle_column else value for column, value in enumerate(row.values)]


def grouped_texts(rows: Iterable[list[str]], rle_column: int) -> Iterator[tuple[list[str], list[str]]]:
    """The other values and the run lengths of each mask; consecutive rows may belong to one mask."""
    for values, rows_of_mask in groupby(rows, key=lambda row: beside(row, [rle_column])):
        yield values, [row[rle_column] for row in rows_of_mask]


def beside(values: Sequence[str], rle_columns: list[int]) -> list[str]:
    """The values of a row that are not run lengths."""
    return [value for column, value in enumerate(values) if column not in rle_columns]


def _verify(path: Path, data: TestData, checks: list[Check], settings: Settings) -> None:
    """Raise UserError unless the file holds the sample's columns and masks, in its order, with these checksums."""
    disorder = UserError("the submission does not have the columns and ids of the sample in their order; this is a bug")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        if next(reader) != data.columns:
            raise disorder
        masks = _masks(reader, data.rle_columns)
        for mask, row, check in zip_longest(masks, data.rows, checks):
            if mask is None or row is None or mask[0] != beside(row.values, data.rle_columns):
                raise disorder
            (_, texts), (height, width, checksum) = mask, check
            if zlib.crc32(decode_rows(texts, (height, width), settings)) != checksum:
                raise UserError(f"the submission's row of '{row.id}' does not decode to its mask; this is a bug")
