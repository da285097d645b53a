"""The command line: arguments, exit codes, and the summary a stage ends with."""

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from lib.base.errors import UserError
from lib.base.streams import printable, survive_lost_streams

INTERRUPTED = 130  # the exit code of Ctrl-C
LOST_PROCESS = ("gloo/transport", "remote process exited")  # in torch's errors after that, on CPUs and on GPUs


def plain_parser(doc: str) -> argparse.ArgumentParser:
    """An argument parser whose help is the script's docstring."""
    program = shlex.join(["python", *program_words()])
    return argparse.ArgumentParser(program, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def parser(doc: str) -> argparse.ArgumentParser:
    """A `plain_parser` with `section.key=value` overrides, --quiet and --json."""
    command = plain_parser(doc)
    take_overrides(command, "section.key=value", "settings that win over the file")
    command.add_argument("--quiet", action="store_true", help="print nothing but errors")
    command.add_argument("--json", action="store_true", help="print what was written, and scores, as one line of JSON")
    return command


def take_overrides(command: argparse.ArgumentParser, form: str, meaning: str) -> None:
    """Let a command take words of a form, none of them required, among its arguments, as `overrides`."""
    command.add_argument("overrides", nargs="*", default=[], metavar=form, help=meaning)


@dataclass(frozen=True)
class StageSummary:
    """The end of a stage's output: files written, the next command and, for --json, the results."""

    written: list[Path]
    next_command: str
    seconds: float
    results: dict = field(default_factory=dict)

    def __str__(self) -> str:
        written = ", ".join(map(str, self.written)) or "nothing"
        return f"\nwrote     {written}   ({self.seconds:.1f} s)\nnext      {self.next_command}"

    def to_json(self) -> str:
        written = list(map(str, self.written))
        content = {"wrote": written, "next": self.next_command, "seconds": round(self.seconds, 2), **self.results}
        return json.dumps(content)


def run_command(run: Callable[[argparse.Namespace], StageSummary | None], command: argparse.ArgumentParser) -> None:
    """Parse the arguments and run; exit with 0, with 2 after one clear sentence, or with 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # Windows consoles may lack a character of an id
    words = sys.argv[1:]
    settings, others = split_settings(words, command)
    arguments = command.parse_intermixed_args(others)
    if settings and "overrides" not in arguments:
        command.error(f"no settings can be given here: {' '.join(settings)}")
    arguments.overrides = [*getattr(arguments, "overrides", []), *settings]
    as_json = getattr(arguments, "json", False)
    silent = as_json or getattr(arguments, "quiet", False)
    survive_lost_streams()
    try:
        with silence() if silent else nullcontext():
            summary = run(arguments)
        if summary and (as_json or not silent):
            print(summary.to_json() if as_json else summary)
    except UserError as error:
        leave(f"error: {error}", 2)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # a second Ctrl-C: exit at once
        again = shlex.join(word for word in [*program_words(), *words] if word != "--restart")
        leave(f"\nstopped; to continue, type: python {again}", INTERRUPTED)
    except RuntimeError as error:
        if not any(words in str(error) for words in LOST_PROCESS):
            raise
        leave("error: another process has ended; its own message says why", 2)
    except MemoryError as error:
        leave(f"error: not enough memory: {str(error) or 'close other programs, or lower train.workers'}", 2)
    except OSError as error:
        if error.filename is None:
            raise
        leave(f"error: {error.filename} cannot be used: {error.strerror}", 2)


def split_settings(words: list[str], command: argparse.ArgumentParser) -> tuple[list[str], list[str]]:
    """The words `section.key=value`, and the others. Parsed apart: `--folds 0 train.lr=1` has no fold train.lr=1.

    A word after an option that takes one value, such as `--out a=b`, is its value.
    """
    takes_one = {name for action in command._actions if action.nargs is None for name in action.option_strings}
    settings, others = [], []
    for before, word in zip(["", *words], words, strict=False):
        is_setting = "=" in word and not word.startswith("-") and "/" not in word.split("=")[0]
        (settings if is_setting and before not in takes_one else others).append(word)
    return settings, others


def program_words() -> list[str]:
    """The words after `python` that name the script or module of this process."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return ["-m", module.name.removesuffix(".__main__")] if module else sys.argv[:1]


def leave(message: str, code: int) -> None:
    print(printable(message), file=sys.stderr)
    sys.exit(code)


@contextmanager
def silence() -> Iterator[None]:
    """Discard all output inside the block; progress bars stay off, as without a terminal."""
    with Path(os.devnull).open("w", encoding="utf-8") as null, redirect_stdout(null), redirect_stderr(null):
        yield
