"""Run lengths from random text, against a twin that follows the definition run by run.

    python -m tests.masks.fuzz_run_lengths [--inputs 100000] [--seed 0]

Every text is either the right mask or a UserError in one line. tests/fuzz_reader.py goes through csv files as well.
"""

import argparse
import random
from itertools import product

import numpy as np

from lib.base.errors import UserError
from lib.config.data_settings import RleSettings
from lib.masks.rle import decode, decode_labels

CHARACTERS = "0123456789   -.\t,x\u0661\n"
SPECIAL = ["", "-1", "-", "1 0", " -1 ", "1 1", "nan", "1e3 2", "9223372036854775808 1", "1 99999999999999999999"]
CONVENTIONS = [
    RleSettings(order=order, base=base, starts=starts, empty=empty)
    for order, base, starts, empty in product(("column", "row"), (0, 1), ("absolute", "relative"), ("", "-1", "1 0"))
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    source, right, labelled = random.Random(arguments.seed), 0, 0
    for _ in range(arguments.inputs):
        shape, convention = (source.randint(1, 6), source.randint(1, 6)), source.choice(CONVENTIONS)
        texts = [draw(source) for _ in range(source.randint(1, 3))]
        twins = [walk(text, shape[0] * shape[1], convention) for text in texts]
        mask, in_order = twins[0]
        for disjoint in (False, True):
            expected = mask if in_order or not disjoint else None
            right += agree(expected, shape, convention, decode, texts[0], shape, convention, disjoint)
        labelled += agree(joined(twins), shape, convention, decode_labels, texts, shape, convention)
    print(f"{arguments.inputs} inputs, each read three ways: {right} masks and {labelled} label images, all right")
    print("all else was refused as it should be")


def draw(source: random.Random) -> str:
    """Text of any kind: noise, tokens, runs, runs with a character too many."""
    kind = source.random()
    if kind < 0.15:
        return "".join(source.choice(CHARACTERS) for _ in range(source.randint(0, 14)))
    if kind < 0.25:
        return source.choice(SPECIAL)
    text = " ".join(f"{source.randint(0, 20)} {source.randint(0, 6)}" for _ in range(source.randint(1, 3)))
    if kind < 0.35:
        place = source.randint(0, len(text))
        text = text[:place] + source.choice(CHARACTERS) + text[place:]
    return text


def walk(text: str, pixels: int, convention: RleSettings) -> tuple[np.ndarray | None, bool]:
    """The mask as a line of pixels, or None where the text must be refused; and whether its runs are in order."""
    line, end, in_order = np.zeros(pixels, int), None, True
    if text.split() in ([], convention.empty.split()):
        return line, True
    if set(text.strip()) - set("0123456789 \t"):
        return None, False
    numbers = [int(number) for number in text.split()]
    if len(numbers) % 2:
        return None, False
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        first = end + start if convention.starts == "relative" and end is not None else start - convention.base
        if length < 1 or first < 0 or first + length > pixels:
            return None, False
        in_order &= end is None or first >= end
        end = first + length
        line[first:end] = 1
    return line, in_order


def joined(twins: list[tuple[np.ndarray | None, bool]]) -> np.ndarray | None:
    """The label image as a line, or None where the objects may not stand in one submission."""
    if not all(in_order for _, in_order in twins) or np.sum([line for line, _ in twins], axis=0).max() > 1:
        return None
    return np.sum([number * line for number, (line, _) in enumerate(twins, start=1)], axis=0)


def agree(expected: np.ndarray | None, shape: tuple[int, int], convention: RleSettings, read, *arguments) -> bool:
    """Whether something was read. Raises AssertionError unless it is what is expected, or was refused as expected."""
    try:
        found = read(*arguments)
    except UserError as error:
        assert expected is None and "\n" not in str(error), arguments
        return False
    assert expected is not None, arguments
    expected = expected.reshape(shape) if convention.order == "row" else expected.reshape(shape[::-1]).T
    assert np.array_equal(found, expected), arguments
    return True


if __name__ == "__main__":
    main()
