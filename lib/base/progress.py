"""The progress bar of a stage: on a terminal; elsewhere one plain line says what begins."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from lib.base.distributed import is_first

Item = TypeVar("Item")


TEXT_FIRST = "{desc}{percentage:3.0f}%|{bar}| {remaining} left"  # the bar takes what the text leaves of a line


def progress(
    what: str,
    items: Iterable[Item] | None = None,
    total: int | None = None,
    unit: str = "image",
    bar_format: str | None = None,
) -> tqdm:
    """A tqdm over `items`, or one to be updated by hand; of several processes the first shows it.

    The time left is reckoned from the mean speed since the start, so that pauses such as validation count.
    """
    on_terminal = None if is_first() else True  # of `disable`: tqdm looks where it prints to
    bar = tqdm(
        items,
        desc=what,
        total=total,
        unit=unit,
        disable=on_terminal,
        smoothing=0,
        dynamic_ncols=True,
        bar_format=bar_format,
    )
    if bar.disable and is_first():
        print(what if total is None else f"{what}: {total} {unit}{'' if total == 1 else 's'}", flush=True)
    return bar


def skip(bar: tqdm, count: int) -> None:
    """Advance over work that an earlier process did: it says nothing about the time that is left."""
    if not bar.disable:
        bar.initial += count
        bar.update(count)


def print_above(line: str) -> None:
    """Print a line to stdout; a bar that is on the terminal stays below it."""
    tqdm.write(line)
    sys.stdout.flush()
