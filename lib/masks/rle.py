"""Run-length encoding (RLE) of masks, in every convention that competitions use.

A mask is written as pairs of numbers: the start and the length of each run of mask pixels. Conventions differ in the
order of the pixels (down the columns or along the rows), in the number of the first pixel, in whether a start is
absolute or the gap since the previous run, and in how an empty mask is written: see RleSettings.
"""

import json
import re
from collections.abc import Sequence

import cv2
import numpy as np

from lib.base.errors import UserError, plural
from lib.config.data_settings import RleSettings

STANDARD = RleSettings()
OBJECTS = ";"  # between the lists of an image's objects, as in [12, 3];[40, 5]
LONGEST_SHOWN = 40  # characters of a text in a message
LONGEST_WORD = 1000  # characters of a text that may mean an empty mask


def encode(mask: np.ndarray, convention: RleSettings = STANDARD) -> str:
    """The run lengths of a mask (height, width), any nonzero pixel being mask. Runs are sorted and never touch."""
    flat = _flatten(mask != 0, convention)
    padded = np.zeros(flat.size + 2, np.uint8)  # the zeros at both ends close runs that touch the first or last pixel
    padded[1:-1] = flat
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    if len(changes) == 0:
        return convention.empty
    (text,) = _write(changes[::2], changes[1::2], np.zeros(1, int), convention)
    return text


def encode_labels(labels: np.ndarray, convention: RleSettings = STANDARD) -> dict[int, str]:
    """The run lengths of every object of a label image (height, width) of integers, 0 being background, in one pass.

    The texts never overlap, since a pixel has one label. Keys are in ascending order.
    """
    flat = _flatten(labels, convention)
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    order = np.argsort(values, kind="stable")  # stable keeps the runs of a label in pixel order
    order = order[values[order] != 0]
    if len(order) == 0:
        return {}
    objects, firsts = np.unique(values[order], return_index=True)
    return dict(zip(objects.tolist(), _write(starts[order], ends[order], firsts, convention), strict=True))


def decode(text: str, shape: tuple[int, int], convention: RleSettings = STANDARD, disjoint: bool = False) -> np.ndarray:
    """Mask uint8 0/1 of the given (height, width).

    Runs may come in any order and may overlap, as they do in hand-drawn training masks; with `disjoint` they must be
    sorted and share no pixel, as in a submission. Raises UserError (without the file and the id, which only the caller
    knows) for text that is not pairs of whole numbers and for runs outside the image. Memory is bounded by the mask and
    the text, whatever the numbers say.
    """
    starts, ends = parse_runs(text, shape[0] * shape[1], convention)
    if disjoint and not _in_order(starts, ends):
        raise UserError("its runs are not in order or overlap")
    return _paint(starts, ends, shape, convention)


def decode_union(
    texts: Sequence[str], shape: tuple[int, int], convention: RleSettings = STANDARD, factor: int = 1
) -> np.ndarray:
    """Mask uint8 0/1, the union of the texts: the objects of an image, painted in one pass.

    With a factor, the texts encode an image that many times smaller, and its pixels are repeated. Raises UserError as
    `decode` does, and for a size that the factor does not divide.
    """
    shape = divided(shape, factor)
    runs = [parse_runs(text, shape[0] * shape[1], convention) for text in texts]
    starts, ends = (np.concatenate(column) for column in zip(*runs, strict=True)) if runs else ([], [])
    mask = _paint(starts, ends, shape, convention) if runs else np.zeros(shape, np.uint8)
    return mask if factor == 1 else mask.repeat(factor, axis=0).repeat(factor, axis=1)


def divided(shape: tuple[int, int], factor: int) -> tuple[int, int]:
    """The shape divided by a factor. Raises UserError where that is no whole number of pixels."""
    if shape[0] % factor or shape[1] % factor:
        raise UserError(f"its image is {shape[0]} x {shape[1]}, which data.rle_factor = {factor} does not divide")
    return shape[0] // factor, shape[1] // factor


def decode_labels(texts: Sequence[str], shape: tuple[int, int], convention: RleSettings = STANDARD) -> np.ndarray:
    """Label image int32 (height, width) of objects that must not overlap: the pixels of texts[n] hold n + 1.

    Raises UserError as `decode` does, for two runs that share a pixel, and for an object whose runs are not sorted.
    """
    if not texts:
        return np.zeros(shape, np.int32)
    runs = [parse_runs(text, shape[0] * shape[1], convention) for text in texts]
    for number, (starts, ends) in enumerate(runs, start=1):
        if not _in_order(starts, ends):
            raise UserError(f"the runs of object {number} are not in order or overlap")
    starts, ends = (np.concatenate(column) for column in zip(*runs, strict=True))
    labels = np.repeat(np.arange(1, len(runs) + 1, dtype=np.int32), [len(run[0]) for run in runs])
    order = np.argsort(starts, kind="stable")
    starts, ends, labels = starts[order], ends[order], labels[order]
    if (overlap := starts[1:] < ends[:-1]).any():
        first = int(np.argmax(overlap))
        raise UserError(f"objects {labels[first]} and {labels[first + 1]} overlap")
    return _paint(starts, ends, shape, convention, labels)


def is_empty(text: str, convention: RleSettings) -> bool:
    """Whether a text means an empty mask."""
    return len(text) < LONGEST_WORD and " ".join(text.split()) in convention.blanks


def parse_runs(text: str, pixels: int, convention: RleSettings = STANDARD) -> tuple[np.ndarray, np.ndarray]:
    """First pixel and one past the last pixel of each run, int64, counted from 0 in the convention's pixel order.

    `pixels` is the number of pixels of the image. Raises UserError as `decode` does.
    """
    if is_empty(text, convention):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    text = _unlisted(text.strip())
    if not text.isascii() or text.encode().translate(None, b"0123456789 \t"):
        raise UserError(f"'{_excerpt(text)}' is not whole numbers with blanks between them{_remedy(text)}")
    numbers = np.fromstring(text, dtype=np.int64, sep=" ")  # larger than int64 becomes the largest int64
    if len(numbers) % 2:
        raise UserError(
            f"it holds {plural(len(numbers), 'number')}, but each run is a pair of start and length{_empty_hint(text)}"
        )
    starts, lengths = numbers[0::2], numbers[1::2]
    if (lengths < 1).any():
        raise UserError(f"run {_first(lengths < 1)} has length 0{_empty_hint(text)}")
    # Refuse numbers beyond the image before adding any, so that no sum can overflow.
    too_large = (starts > pixels) | (lengths > pixels)
    if too_large.any():
        raise UserError(f"run {_first(too_large)} goes past the end of the image ({pixels} pixels)")
    if convention.starts == "relative":
        starts = np.cumsum(starts) + np.cumsum(lengths) - lengths
    starts = starts - convention.base
    if (starts < 0).any():
        raise UserError(f"run {_first(starts < 0)} starts before the first pixel, whose number is {convention.base}")
    ends = starts + lengths
    if (ends > pixels).any():
        raise UserError(f"run {_first(ends > pixels)} goes past the end of the image ({pixels} pixels)")
    return starts, ends


def _unlisted(text: str) -> str:
    """The numbers of a list, as in [1, 2], with blanks between them; any other text as it is."""
    is_list = text[:1] == "[" and text[-1:] == "]" and text[1:2].isdigit() and text[-2:-1].isdigit()
    return text[1:-1].replace(",", " ") if is_list else text


def _paint(
    starts: np.ndarray,
    ends: np.ndarray,
    shape: tuple[int, int],
    convention: RleSettings,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """Paint runs into an image (height, width): 1 for a mask, whose runs may come in any order, or each run's label."""
    if labels is None and not _in_order(starts, ends):
        starts, ends = _merge(starts, ends)
    height, width = shape
    counts = np.empty(2 * len(starts) + 1, np.int64)  # alternating lengths of background and mask
    counts[0::2] = np.append(starts, height * width) - np.append(0, ends)
    counts[1::2] = ends - starts
    values = np.zeros(len(counts), np.uint8 if labels is None else labels.dtype)
    values[1::2] = 1 if labels is None else labels
    flat = np.repeat(values, counts)
    return flat.reshape(shape) if convention.order == "row" else _transpose(flat.reshape(width, height))


def _in_order(starts: np.ndarray, ends: np.ndarray) -> bool:
    return bool((starts[1:] >= ends[:-1]).all())


def _flatten(image: np.ndarray, convention: RleSettings) -> np.ndarray:
    """The pixels (height, width) in the convention's order."""
    if convention.order == "row":
        return image.ravel()
    return _transpose(image).ravel()


def _transpose(image: np.ndarray) -> np.ndarray:
    """Contiguous transpose. On bytes OpenCV is 5 to 8 times as fast as numpy; it has no 64-bit integers."""
    if image.dtype == bool:
        image = image.view(np.uint8)
    if image.dtype == np.uint8 and image.size:
        return cv2.transpose(image)
    return np.ascontiguousarray(image.T)


def _merge(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort runs and trim them so that none overlap; the pixels stay the same."""
    order = np.argsort(starts, kind="stable")
    starts = starts[order]
    ends = np.maximum.accumulate(ends[order])
    starts[1:] = np.maximum(starts[1:], ends[:-1])  # a run begins after all earlier ones; it may become empty
    return starts, ends


def _write(starts: np.ndarray, ends: np.ndarray, firsts: np.ndarray, convention: RleSettings) -> list[str]:
    """The texts of one or more objects, given their sorted runs (pixels counted from 0), object after object.

    `firsts` holds the number of each object's first run.
    """
    if convention.starts == "relative":
        counted_from = np.append(0, ends[:-1])
        counted_from[firsts] = -convention.base
    else:
        counted_from = -convention.base
    numbers = np.stack([starts - counted_from, ends - starts], axis=1).ravel()
    separators = np.full(len(numbers), ord(" "), np.uint8)
    separators[2 * firsts[1:] - 1] = ord("\n")
    return _decimal(numbers, separators).split("\n")


def _decimal(numbers: np.ndarray, separators: np.ndarray) -> str:
    """Non-negative integers in decimal, with a separator after each but the last: 5 to 10 times as fast as str.join.

    One row per decimal place and one column per number; leading zeros are zero bytes, which are dropped at the end.
    """
    places = len(str(numbers.max()))
    text = np.empty((places + 1, len(numbers)), np.uint8)
    text[places] = separators
    rest = numbers.astype(np.uint32 if places < 10 else np.uint64)
    for place in range(places - 1, -1, -1):
        higher = rest // 10
        digit = (rest - 10 * higher + ord("0")).astype(np.uint8)
        text[place] = digit if place == places - 1 else digit * (rest > 0)
        rest = higher
    return cv2.transpose(text).tobytes()[:-1].translate(None, b"\0").decode()


def _remedy(text: str) -> str:
    """Advice for a text that is no run lengths: what it may be."""
    start = text[:LONGEST_WORD]
    if re.match(r"(MULTI)?POLYGON|GEOMETRYCOLLECTION", start):
        return "; outlines as WKT are not read: draw them as mask images, or write COCO json"
    if re.fullmatch(r"[\[\](){}\s,;\d]*\d[\[\](){}\s,;\d]*", start):
        return (
            "; write the start and the length of each run with blanks between all numbers, without brackets or commas"
        )
    if len(text) > LONGEST_SHOWN and re.fullmatch(r"[0-o]+", start):
        return "; if these are COCO's compressed run lengths, write COCO json"
    return _empty_hint(text)


def _empty_hint(text: str) -> str:
    """Advice to set data.rle.also_empty, for a text short enough to mean an empty mask."""
    are_numbers = re.search(r"\d[^\d\s]+\d", text)  # as in 1,2
    if are_numbers or len(text.split()) > 2 or len(text) > LONGEST_SHOWN:
        return ""
    return f"; if {ascii(text)} stands for an empty mask, set data.rle.also_empty to [{json.dumps(text)}]"


def _first(wrong: np.ndarray) -> int:
    """Number of the first wrong run, counted from 1."""
    return int(np.argmax(wrong)) + 1


def _excerpt(text: str) -> str:
    return ascii(text[:LONGEST_SHOWN])[1:-1] + ("..." if len(text) > LONGEST_SHOWN else "")
