"""The progress bar of a stage: on a terminal; elsewhere one plain line says what begins."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from lib.base.distributed import is_first

Item = TypeVar("Item")


def progress(what: str, items: Iterable[Item] | None = None, total: int | None = None, unit: str = "image") -> tqdm:
    """A tqdm over `items`, or one to be updated by hand; of several processes the first shows it."""
    bar = tqdm(items, desc=what, total=total, unit=unit, disable=None if is_first() else True)  # None: on a terminal
    if bar.disable and is_first():
        print(what if total is None else f"{what}: {total} {unit}{'' if total == 1 else 's'}", flush=True)
    return bar
