"""The output of a stage: bars on a terminal, plain lines elsewhere; on request one line of JSON, or nothing."""

import argparse
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
import warnings
from pathlib import Path

import pytest

from lib.base.cli import StageSummary, parser, run_command
from lib.base.errors import UserError
from lib.base.progress import progress, skip
from tests import REPOSITORY

SUMMARY = StageSummary([Path("a b.csv"), Path("c.json")], "python next.py", 1.234, {"nested": 0.5})


def talkative(arguments: argparse.Namespace) -> StageSummary:
    print("a table")
    print("a remark", file=sys.stderr)
    warnings.warn("a warning", stacklevel=1)
    assert list(progress("counting", [1, 2, 3], 3)) == [1, 2, 3]
    return SUMMARY


def run(monkeypatch, *words: str, stage=talkative) -> None:
    monkeypatch.setattr(sys, "argv", ["stage.py", *words])
    run_command(stage, parser("A stage."))


def test_away_from_a_terminal_work_is_one_plain_line(monkeypatch, capsys):
    run(monkeypatch)
    said = capsys.readouterr()
    assert "counting: 3 images\n" in said.out and "\r" not in said.err
    assert said.out.endswith("wrote     a b.csv, c.json   (1.2 s)\nnext      python next.py\n")


def test_json_is_all_there_is(monkeypatch, capsys):
    run(monkeypatch, "--json")
    said = capsys.readouterr()
    expected = {"wrote": ["a b.csv", "c.json"], "next": "python next.py", "seconds": 1.23, "nested": 0.5}
    assert json.loads(said.out) == expected and said.out.count("\n") == 1
    assert said.err == ""


def test_quiet_is_quiet_but_for_errors(monkeypatch, capsys):
    def fails(arguments: argparse.Namespace) -> StageSummary:
        print("on the way")
        raise UserError("the disk is gone")

    run(monkeypatch, "--quiet")
    assert capsys.readouterr() == ("", "")
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--quiet", stage=fails)
    assert capsys.readouterr() == ("", "error: the disk is gone\n")


def on_terminal(code: str, columns: int = 80, rank: str = "0") -> str:
    """The output of a program on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environment = os.environ | {"RANK": rank}
    environment.pop("TQDM_DISABLE", None)
    done = subprocess.run([sys.executable, "-c", code], stderr=theirs, cwd=REPOSITORY, env=environment)
    os.write(theirs, b"end")
    said = ""
    while not said.endswith("end"):
        said += os.read(ours, 10_000).decode()
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0
    return said.removesuffix("end")


@pytest.mark.parametrize(("rank", "shown"), [("0", True), ("1", False)])
def test_on_a_terminal_the_first_process_shows_a_bar(rank, shown):
    code = "from lib.base.progress import progress; [None for _ in progress('counting', range(3), 3)]"
    said = on_terminal(code, rank=rank)
    assert ("counting: 100%" in said and "3/3" in said) == shown and (said == "") != shown


TRAINING = """
from lib.base.progress import TEXT_FIRST, progress
with progress("training", total=200, unit="step", bar_format=TEXT_FIRST) as bar:
    bar.update(100)
    bar.set_description_str("iou_sweep 0.8971  fold 4 epoch 29/30  loss -0.123 ")
"""


@pytest.mark.parametrize("columns", [80, 120])
def test_the_bar_of_a_training_fits_the_terminal_with_its_text_in_front(columns):
    said = on_terminal(TRAINING, columns)
    shown = [line for line in re.split(r"[\r\n]", said) if line.strip()][-1]
    assert shown.startswith("iou_sweep 0.8971  fold 4 epoch 29/30  loss -0.123  50%|")
    assert len(shown) <= columns and shown.endswith("left")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_time_left_counts_pauses_but_not_what_an_earlier_process_did(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    now = 0.0
    with progress("training", total=100, unit="step") as bar:
        bar._time = lambda: now
        bar.start_t = bar.last_print_t = now
        skip(bar, 40)
        for _ in range(10):
            now += 1
            bar.update()
        now += 10  # a validation
        values = bar.format_dict
        left = (values["total"] - values["n"]) * values["elapsed"] / (values["n"] - values["initial"])
        assert values["rate"] is None  # so tqdm reckons by the same mean
        assert left == 50 * 20 / 10
        assert f"<{bar.format_interval(left)}" in str(bar)


def test_nothing_to_do_is_not_announced(capsys):
    assert list(progress("counting", [], 0)) == []
    assert capsys.readouterr().out == ""
