"""Start of the five scripts: opens the run and checks its settings before anything slow is imported.

A stage is a function of (run, settings, arguments). Its imports are inside the function, so that `--help` and wrong
settings are answered in a tenth of a second, without loading torch.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lib.base.cli import StageSummary, parser, run_command
from lib.config.load import load_settings
from lib.run.folder import RunFolder, open_run

if TYPE_CHECKING:
    from lib.config.schema import Settings

Stage = Callable[[RunFolder, "Settings", argparse.Namespace], StageSummary | None]


def first_stage_parser(doc: str) -> argparse.ArgumentParser:
    """The parser of the stage that makes a run from a settings file."""
    command = parser(doc)
    command.add_argument("--config", type=Path, required=True, metavar="configs/NAME.yaml", help="the settings file")
    return command


def stage_parser(doc: str) -> argparse.ArgumentParser:
    """The parser of a stage that continues an existing run."""
    command = parser(doc)
    command.add_argument("--run", type=Path, required=True, metavar="runs/NAME", help="the run folder made by 01")
    return command


def run_stage(stage: Stage, command: argparse.ArgumentParser) -> None:
    """Run a stage on the run that the command line names; see `run_command` for exit codes."""
    run_command(lambda arguments: stage(*opened(arguments), arguments), command)


def opened(arguments: argparse.Namespace) -> tuple[RunFolder, "Settings"]:
    """The run and its settings. Raises UserError if the settings are wrong or the folder holds no run."""
    if "run" in arguments:
        return open_run(arguments.run, arguments.overrides)
    settings = load_settings(arguments.config, arguments.overrides)
    return RunFolder(Path("runs") / settings.name), settings
