"""Interrupted trainings: whether they can continue, asked before new settings become those of the run."""

from collections.abc import Iterable

from lib.base.errors import UserError
from lib.run.record import differences
from lib.training.fold_job import FoldJob
from lib.training.start import without_epochs
from lib.training.state import RESTART, read_checkpoint


def require_continuable(jobs: Iterable[FoldJob]) -> None:
    """Raise UserError where a fold was begun with other inputs or has trained more epochs, or its state is damaged."""
    for job in jobs:
        if not job.folder.resume.is_file():
            continue
        content, epochs = read_checkpoint(job.folder.resume), job.settings.train.epochs
        if changed := differences(without_epochs(content["made_from"]), without_epochs(job.made_from)):
            raise UserError(
                f"{job.folder.root} was begun with other inputs ({'; '.join(changed[:3])}); undo that, or {RESTART}"
            )
        if len(content["history"]) > epochs:
            raise UserError(
                f"fold {job.fold} has trained {len(content['history'])} epochs already, more than train.epochs = "
                f"{epochs}; set that many or more, or {RESTART}"
            )
