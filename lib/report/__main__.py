"""Make the page of a run again.

python -m lib.report runs/NAME
"""

import argparse
from pathlib import Path

from lib.base.cli import plain_parser, run_command


def report(arguments: argparse.Namespace) -> None:
    from lib.report.page import write_report
    from lib.run.folder import open_run

    run, settings = open_run(arguments.run)
    write_report(run, settings)
    print(f"wrote     {run.report}")


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME")
    run_command(report, command)
