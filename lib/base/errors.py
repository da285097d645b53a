"""UserError, the exception for bad input, and the wording of messages for users."""

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
SHOWN = 3  # ids or files that an error lists


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


def listed(ids: list[str]) -> str:
    """The first few ids, and the number of the others."""
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(f"'{image_id}'" for image_id in ids[:SHOWN]) + more


def plural(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless the number is 1."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())
