"""Whether the numbers of a table are run lengths at all: corners, boxes, and starts with ends are numbers, too."""

from collections.abc import Iterable

import numpy as np

from lib.base.errors import or_none
from lib.masks.rle import STANDARD, parse_runs

MOST = 0.5  # share of the masks
FEWEST = 3  # masks of several runs
FEWEST_RISING = 6  # numbers; two runs that nearly fill an image may rise
ANY_SIZE = 2**60  # pixels
FROM_0 = STANDARD.model_copy(update={"base": 0})  # no start is before the first pixel


def other_numbers(masks: Iterable[tuple[list[str], tuple[int, int]]]) -> str | None:
    """What speaks against run lengths, and what the numbers may be; None if nothing does.

    Each mask is the texts of its objects and the image's (height, width).
    """
    count = small = rising = 0
    for texts, shape in masks:
        runs = [pair for text in texts if (pair := or_none(parse_runs, text, ANY_SIZE, FROM_0))]
        numbers = [np.stack([starts, ends - starts], axis=1).ravel() for starts, ends in runs]
        if max(map(len, numbers), default=0) > 2 and min(shape) > 2:
            count += 1
            small += max(of_text.max() for of_text in numbers) <= max(shape)
            rising += max(map(len, numbers)) >= FEWEST_RISING and all((np.diff(row) >= 0).all() for row in numbers)
    if count < FEWEST:
        return None
    if small > MOST * count:
        return (
            f"no number of {small} of {count} masks is beyond the image's longer side, as if they were corners (x, y) "
            "or boxes, which are not read from a table: draw them as mask images, or write COCO json"
        )
    if rising > MOST * count:
        return (
            f"the numbers of {rising} of {count} masks rise throughout, as the starts and ends of runs do: write the "
            "table anew with a length in the place of each end"
        )
    return None
