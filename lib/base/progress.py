"""Progress bars on a terminal; elsewhere a plain line announces the work."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from lib.base.distributed import is_first
from lib.base.errors import plural

Item = TypeVar("Item")


TEXT_FIRST = "{desc}{percentage:3.0f}%|{bar}| {remaining} left"  # the bar fills the rest of the line


def progress(
    title: str,
    items: Iterable[Item] | None = None,
    total: int | None = None,
    unit: str = "image",
    bar_format: str | None = None,
) -> tqdm:
    """A tqdm over `items`, or one to be updated by hand; of several processes only the first shows it.

    Without a terminal a line is printed instead, unless there is nothing to do. The time left is estimated from the
    mean speed since the start, so that pauses such as validation count.
    """
    bar = tqdm(
        items,
        desc=title,
        total=total,
        unit=unit,
        disable=None if is_first() else True,  # None: off unless on a terminal
        smoothing=0,
        dynamic_ncols=True,
        bar_format=bar_format,
    )
    if bar.disable and is_first() and total != 0:
        print(title if total is None else f"{title}: {plural(total, unit)}", flush=True)
    return bar


def skip(bar: tqdm, count: int) -> None:
    """Advance over work done by an earlier process, which does not count for the time left."""
    if not bar.disable:
        bar.initial += count
        bar.update(count)


def print_above(line: str) -> None:
    """Print a line to stdout, above a bar on the terminal."""
    tqdm.write(line)
    sys.stdout.flush()
