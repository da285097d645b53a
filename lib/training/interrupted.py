"""Interrupted trainings: their states, and whether they can continue; 02 asks before new settings become the run's."""

from collections.abc import Iterable

from lib.base.errors import UserError
from lib.run.record import differences
from lib.training.fold_job import FoldJob
from lib.training.state import RESTART, read_checkpoint


def read_interrupted(job: FoldJob) -> dict | None:
    """The state that an interrupted training of the fold left, see `read_checkpoint`; None if there is none.

    Raises UserError where it was begun with other inputs or has trained more epochs, or the file is damaged. Another
    train.epochs is taken: the learning rate then follows the new schedule from the next epoch on.
    """
    if not job.folder.resume.is_file():
        return None
    content, epochs = read_checkpoint(job.folder.resume), job.settings.train.epochs
    if changed := differences(_without_epochs(content["made_from"]), _without_epochs(job.made_from)):
        raise UserError(
            f"{job.folder.root} was begun with other inputs ({'; '.join(changed[:3])}); undo that, or {RESTART}"
        )
    if (trained := len(content["history"])) > epochs:
        raise UserError(
            f"fold {job.fold} has trained {trained} epochs already, more than train.epochs = {epochs}; "
            f"set {trained} or more, or {RESTART}"
        )
    return content


def require_continuable(jobs: Iterable[FoldJob]) -> None:
    """Raise UserError where `read_interrupted` does for one of the folds; one state is in memory at a time."""
    for job in jobs:
        read_interrupted(job)


def _without_epochs(made_from: dict) -> dict:
    train = {key: value for key, value in made_from.get("train", {}).items() if key != "epochs"}
    return made_from | {"train": train}
