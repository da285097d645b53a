"""All runs in one table: nested score with interval, gap, time, and the settings in which they differ.

    python -m lib.tools.leaderboard [runs]

Prints the table and writes runs/leaderboard.html. Runs are compared only with runs on the same folds.
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lib.base.cli import StageSummary, plain_parser, run_command
from lib.base.errors import UserError

if TYPE_CHECKING:
    from lib.report.leaderboard import Board


def leaderboard(arguments: argparse.Namespace) -> StageSummary:
    from lib.report.leaderboard import boards, read_entries
    from lib.report.page import write_page

    started = time.monotonic()
    if not arguments.runs.is_dir():
        raise UserError(f"{arguments.runs} is not a folder; name the folder that holds the runs")
    entries, unreadable = read_entries(arguments.runs)
    if not entries and not unreadable:
        raise UserError(f"{arguments.runs} holds no run; make one with 01_prepare_folds.py")
    all_boards = boards(entries)
    print("\n".join([*map(board_as_text, all_boards), *(f"\nwarning   {sentence}" for sentence in unreadable)]))
    path = arguments.runs / "leaderboard.html"
    write_page(path, "leaderboard.html", title="Leaderboard", boards=all_boards, unreadable=unreadable, refresh=False)
    results = {"boards": [board_as_dict(board) for board in all_boards], "unreadable": unreadable}
    return StageSummary([path], f"look at {path}", time.monotonic() - started, results)


def board_as_text(board: "Board") -> str:
    """The runs of a board, best first, each with the settings in which it differs below it."""
    width, lines = max(len(entry.name) for entry in board.entries), [f"\n{board.title}"]
    for entry in board.entries:
        result = f"{entry.score}  {entry.seconds / 60:.1f} min" if entry.score else "no score yet"
        state = "" if entry.state == "finished" else entry.state
        lines.append(f"  {entry.name.ljust(width)}  {result}  {state}".rstrip())
        lines += [f"  {' ' * width}    {difference}" for difference in entry.differences]
    return "\n".join(lines)


def board_as_dict(board: "Board") -> dict:
    names = ("name", "state", "seconds", "differences")
    runs = [
        {name: getattr(entry, name) for name in names} | {"score": entry.score and asdict(entry.score)}
        for entry in board.entries
    ]
    return {"title": board.title, "runs": runs}


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("runs", type=Path, nargs="?", default=Path("runs"), help="the folder of the runs")
    command.add_argument("--json", action="store_true", help="print the boards as one line of JSON")
    run_command(leaderboard, command)
