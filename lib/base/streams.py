"""Standard output and error that survive: a closed pipe or a full disk must not end a training."""

import os
import sys
from contextlib import suppress
from typing import TextIO

ALLOWED = "\n\t"


class SurvivingStream:
    """A text stream that ignores errors of writing, and escapes control characters if it is to be `printable`.

    From the first error on, printed text is lost. All else, such as `isatty`, is passed to the wrapped stream.
    """

    def __init__(self, stream: TextIO, is_printable: bool) -> None:
        self._stream, self._is_printable = stream, is_printable

    def write(self, text: str) -> int:
        try:
            return self._stream.write(printable(text) if self._is_printable else text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """Redirect the descriptor to the null device, for buffered text and for processes started later."""
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def survive_lost_streams() -> None:
    """Let this process continue if its output is closed, and start without any (pythonw, cron).

    What is printed to stdout cannot control a terminal; progress bars, on stderr, do.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115
        if not isinstance(stream, SurvivingStream):
            setattr(sys, name, SurvivingStream(stream, is_printable=name == "stdout"))


def printable(text: str) -> str:
    """Text with control characters escaped: file names and tables may hold some that control a terminal."""
    return "".join(char if char.isprintable() or char in ALLOWED else ascii(char)[1:-1] for char in text)
