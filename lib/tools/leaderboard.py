"""All runs in one table: nested score with interval, gap, time, and the settings in which they differ.

    python -m lib.tools.leaderboard [runs]

Prints the table and writes runs/leaderboard.html. Runs are compared only with runs on the same folds.
"""

import argparse
from pathlib import Path

from lib.base.cli import run_command
from lib.base.errors import UserError


def leaderboard(arguments: argparse.Namespace) -> None:
    from lib.report.leaderboard import boards, read_entries, write_leaderboard

    if not arguments.runs.is_dir():
        raise UserError(f"{arguments.runs} is not a folder; name the folder that holds the runs")
    entries, unreadable = read_entries(arguments.runs)
    if not entries and not unreadable:
        raise UserError(f"{arguments.runs} holds no run; make one with 01_prepare_folds.py")
    all_boards = boards(entries)
    for board in all_boards:
        width = max(len(entry.name) for entry in board.entries)
        print(f"\n{board.title}")
        for entry in board.entries:
            result = f"{entry.score}  {entry.seconds / 60:.1f} min" if entry.score else "no score yet"
            print(f"  {entry.name.ljust(width)}  {result}  {'' if entry.state == 'finished' else entry.state}".rstrip())
            for difference in entry.differences:
                print(f"  {' ' * width}    {difference}")
    for sentence in unreadable:
        print(f"\nwarning   {sentence}")
    path = arguments.runs / "leaderboard.html"
    write_leaderboard(path, all_boards, unreadable)
    print(f"\nwrote     {path}")


if __name__ == "__main__":
    command = argparse.ArgumentParser(
        prog="python -m lib.tools.leaderboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("runs", type=Path, nargs="?", default=Path("runs"), help="the folder of the runs")
    run_command(leaderboard, command)
