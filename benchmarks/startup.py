"""Processor seconds of `--help` and a settings error of every stage, against a bare `import argparse, yaml`.

python benchmarks/startup.py [--rounds 7]
"""

import resource
import subprocess
import sys
from pathlib import Path

from measuring import print_ratios

from lib.base.cli import plain_parser

REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    commands = {"bare": ["-c", "import argparse, yaml"]}
    for script in sorted(REPOSITORY.glob("0*.py")):
        commands[f"{script.name[:2]} --help"] = [str(script), "--help"]
        source = ["--config", "no/such.yaml"] if script.name.startswith("01") else ["--run", "no/such"]
        commands[f"{script.name[:2]} error"] = [str(script), *source]
    config = str(REPOSITORY / "configs" / "blue_marble.yaml")
    commands["01 setting"] = [str(REPOSITORY / "01_prepare_folds.py"), "--config", config, "train.epoch=3"]
    commands["pydantic"] = ["-c", "import argparse, yaml, pydantic\nclass Settings(pydantic.BaseModel): pass"]
    seconds = {name: [] for name in commands}
    for number in range(-1, arguments.rounds):
        for name, command in commands.items():
            started = processor_seconds()
            subprocess.run([sys.executable, *command], capture_output=True)
            if number >= 0:  # the first round fills the disk's cache
                seconds[name].append(processor_seconds() - started)
    print("start-up")
    print_ratios(seconds, "s", [(name, "bare") for name in commands if name != "bare"])


def processor_seconds() -> float:
    """What all programs that this process has started and waited for took of the processor."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
