"""Standard output and error that may go away: a closed pipe or a full disk must not end a training."""

import os
import sys
from contextlib import suppress
from typing import TextIO

ALLOWED = "\n\r\t"


class SurvivingStream:
    """A text stream that goes on as if nothing had happened once it can no longer be written.

    What is printed then is lost; everything else, such as `isatty`, is the wrapped stream's.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """Point the stream's descriptor to nowhere, for what is still buffered, and for processes started later."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def survive_lost_streams() -> None:
    """Let this process go on when its output goes away, and start where it has none (pythonw, cron)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115
        if not isinstance(stream, SurvivingStream):
            setattr(sys, name, SurvivingStream(stream))


def printable(text: str) -> str:
    """Text with control characters written out, as they come from file names and tables and would steer a terminal."""
    return "".join(char if char.isprintable() or char in ALLOWED else ascii(char)[1:-1] for char in text)
