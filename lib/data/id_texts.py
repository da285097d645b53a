"""What stands around the ids in names: text before and after them, the same in most names or another in each."""

import re
from collections import Counter
from collections.abc import Collection
from os.path import commonprefix
from string import digits

from lib.data.discovery import without_suffix
from lib.data.name_patterns import compile_pattern

MAJORITY = 0.5  # share of the names tried that a cause must explain


def end_after_id(name: str, ids: Collection[str]) -> str | None:
    """What stands after one of the ids, or its file's name, in a name, as in _2; None if no id begins it."""
    ends = (place.start() for place in re.finditer(r"[\W_]", name))
    return next((name[end:] for end in reversed([*ends]) if without_suffix(name[:end]) in ids), None)


def finds(written: str, names: list[str], ids: Collection[str]) -> bool:
    """Whether a pattern such as {id}_* finds one of `ids` in most of the names."""
    matches = map(compile_pattern(written).fullmatch, names)
    return sum(match is not None and match["id"] in ids for match in matches) > MAJORITY * len(names)


def common_start_and_end(names: list[str]) -> tuple[str, str]:
    """The common start of all names, up to a non-digit, and their common end, from a sign that is no letter or digit.

    Both are empty for a single name.
    """
    start = commonprefix(names).rstrip(digits) if len(names) > 1 else ""
    end = commonprefix([name[len(start) :][::-1] for name in names])[::-1] if len(names) > 1 else ""
    first = re.search(r"[\W_]", end)
    return start, end[first.start() :] if first else ""


def inside(name: str, around: tuple[str, str]) -> str:
    """The name without the start and the end."""
    return name.removeprefix(around[0]).removesuffix(around[1])


def common_template(longer: list[str], shorter: set[str]) -> str | None:
    """The template, such as {id}_mask, that makes most of `longer` out of `shorter`; None without one, or of digits."""
    counts = Counter()
    for name in longer:
        lengths = range(len(name) - 1, 0, -1)
        places = ((start, start + length) for length in lengths for start in range(len(name) - length + 1))
        if place := next(((start, end) for start, end in places if name[start:end] in shorter), None):
            counts[name[: place[0]], name[place[1] :]] += 1
    (before, after), count = counts.most_common(1)[0] if counts else (("", ""), 0)
    if count <= max(MAJORITY * len(longer), 1) or (before + after).isdigit():
        return None
    return f"{before}{{id}}{after}"
