"""A closed pipe and a full disk under the output end nothing; control characters do not reach the terminal."""

import os
import subprocess
import sys

import pytest

from lib.base.streams import printable
from tests import REPOSITORY

STAGE = """
import sys, time
from pathlib import Path
from lib.base.cli import StageSummary, parser, run_command
from lib.base.progress import progress

def stage(arguments):
    for number in progress("working", range(3000), 3000):
        print("line", number, "x" * 50)
        print("problem", number, file=sys.stderr)
    Path(sys.argv.pop()).write_text("done")
    return StageSummary([Path("a")], "python next.py", 1.0)

run_command(stage, parser("A stage."))
"""


def start(path, **streams) -> subprocess.Popen:
    command = [sys.executable, "-c", STAGE, str(path)]
    return subprocess.Popen(command, cwd=REPOSITORY, **streams)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_pipe_that_is_closed_ends_nothing(tmp_path, name):
    process = start(tmp_path / "done", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    getattr(process, name).read(10)
    getattr(process, name).close()
    other = getattr(process, "stderr" if name == "stdout" else "stdout").read()
    assert process.wait() == 0 and b"Traceback" not in other and b"Exception ignored" not in other
    assert (tmp_path / "done").read_text() == "done"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_the_output_ends_nothing(tmp_path):
    with open("/dev/full", "w") as full:
        process = start(tmp_path / "done", stdout=full, stderr=subprocess.PIPE)
        err = process.stderr.read()
    assert process.wait() == 0 and b"Traceback" not in err and b"Exception ignored" not in err
    assert (tmp_path / "done").read_text() == "done"


def test_what_is_printed_cannot_control_the_terminal():
    """Groups and other texts of tables may hold anything."""
    words = """from lib.base.streams import survive_lost_streams
survive_lost_streams()
print("the largest group is 'a\\x1b]0;title\\x07\\rb'", end="\\n\\n")"""
    done = subprocess.run([sys.executable, "-c", words], cwd=REPOSITORY, capture_output=True)
    assert done.stdout == b"the largest group is 'a\\x1b]0;title\\x07\\rb'\n\n", done.stderr


def test_control_characters_are_written_out():
    assert printable("'a\x1b[2Jb\x07'\n\tgrün 圖 \x9b1m") == "'a\\x1b[2Jb\\x07'\n\tgrün 圖 \\x9b1m"
