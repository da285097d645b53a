"""UserError, the exception for bad input, and the wording of messages for users."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Result = TypeVar("Result")
SHOWN = 3  # ids or files that an error lists
CLASSES_SHOWN = 12  # names that the reader may copy into the settings


class UserError(Exception):
    """Bad input or settings: one sentence that says what is wrong, in which file or setting, and what to do.

    The command line prints the sentence without a traceback and exits with code 2.
    """


class DamagedImage(UserError):
    """An image file that is there but cannot be decoded."""


def or_none(function: Callable[..., Result], *arguments: object) -> Result | None:
    """The result of a call, or None where it raises UserError."""
    try:
        return function(*arguments)
    except UserError:
        return None


def listed(ids: Sequence[str], noun: str = "", shown: int = SHOWN) -> str:
    """The first few ids and the number of the others, after a noun in the plural unless there is a single id."""
    before = noun and f"{noun}{'' if len(ids) == 1 else 's'} "
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return before + ", ".join(f"'{image_id}'" for image_id in ids[:shown]) + more


def has(ids: Sequence[str]) -> str:
    """The verb after `listed`."""
    return "has" if len(ids) == 1 else "have"


def each_kind(problems: Mapping[str, str]) -> str:
    """The problems of some images by id as one text: the first of each kind whole, and the ids of the others like it.

    Problems are alike if they differ only in paths and numbers.
    """
    alike = defaultdict(list)
    for image_id, problem in problems.items():
        words = (word for word in problem.split() if "/" not in word and os.sep not in word)
        alike[re.sub(r"\d+", "0", " ".join(words))].append(image_id)
    kinds = list(alike.values())
    texts = [problems[first] + (f"; likewise {listed(others)}" if others else "") for first, *others in kinds[:SHOWN]]
    further = sum(map(len, kinds[SHOWN:]))
    return "; ".join(texts) + (f"; and {further} more" if further else "")


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
