"""The demo: writes its data, runs the five stages and scores the submission. `make demo` runs it too.

    python -m lib.tools.demo

writes   data/blue_marble/ unless it is there, and runs/blue_marble/
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from lib.base.cli import leave, plain_parser, run_command
from lib.run.folder import SCRIPTS

REPOSITORY = Path(__file__).resolve().parents[2]
DATA, RUN = "data/blue_marble", "runs/blue_marble"


def demo_commands() -> list[list[str]]:
    """The commands to type, without `python`."""
    write = [] if Path(DATA).is_dir() else [["-m", "lib.tools.blue_marble", DATA]]
    scripts = [str(REPOSITORY / f"{script}.py") for script in SCRIPTS]
    first = [scripts[0], "--config", str(REPOSITORY / "configs" / "blue_marble.yaml")]
    stages = [[script, "--run", RUN] for script in scripts[1:]]
    return [*write, first, *stages, ["-m", "lib.tools.summary", RUN, "--solution", f"{DATA}/solution.csv"]]


def demo(arguments: argparse.Namespace) -> None:
    for command in demo_commands():
        print(f"\n$ python {shlex.join(command)}", flush=True)
        if code := subprocess.run([sys.executable, *command]).returncode:
            leave("error: the demo stops here; the command above says why", code)


if __name__ == "__main__":
    run_command(demo, plain_parser(__doc__))
