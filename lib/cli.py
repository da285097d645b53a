"""The command line of the five scripts: arguments, exit codes, and what to type next."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from lib.errors import UserError


def parser(doc: str) -> argparse.ArgumentParser:
    """An argument parser whose help is the script's docstring, with `section.key=value` overrides."""
    command = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that win over the file")
    return command


def run_parser(doc: str) -> argparse.ArgumentParser:
    """The parser of a stage that goes on in an existing run folder."""
    command = parser(doc)
    command.add_argument("--run", type=Path, required=True, metavar="runs/NAME", help="the run folder made by 01")
    return command


def run_stage(stage: Callable[[argparse.Namespace], None], command: argparse.ArgumentParser) -> None:
    """Parse, run, and leave with 0, with 2 after one clear sentence, or with 130 when interrupted."""
    settings_first = sorted(sys.argv[1:], key=lambda word: word.startswith("-") or "=" not in word)
    arguments = command.parse_intermixed_args(settings_first)  # else `--folds 0 train.lr=1` takes a setting for a fold
    try:
        stage(arguments)
    except UserError as error:
        leave(f"error: {error}", 2)
    except KeyboardInterrupt:
        again = shlex.join(word for word in sys.argv if word != "--restart")
        leave(f"\nstopped; to go on, type: python {again}", 130)
    except RuntimeError as error:
        if "Connection closed by peer" not in str(error):
            raise
        leave("error: another process has ended; see what it said", 2)
    except MemoryError as error:
        leave(f"error: not enough memory: {str(error) or 'close other programs, or lower train.workers'}", 2)
    except OSError as error:
        if error.filename is None:
            raise
        leave(f"error: {error.filename} cannot be used: {error.strerror}", 2)


def leave(message: str, code: int) -> None:
    """Print to stderr and exit."""
    print(message, file=sys.stderr)
    sys.exit(code)


def closing(written: list[Path], next_command: str | None, seconds: float) -> None:
    """Print what a stage wrote and what to type next."""
    print(f"\nwrote     {', '.join(str(path) for path in written)}   ({seconds:.1f} s)")
    if next_command:
        print(f"next      {next_command}")
