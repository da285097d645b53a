"""Experiment trackers (train.tracker): logs each epoch through accelerate, one tracker run for each fold."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from accelerate import Accelerator

from lib.base.errors import UserError
from lib.config.check import dotted
from lib.config.schema import Settings
from lib.run.folder import Fold


def require_tracker(tracker: str) -> None:
    """Raise UserError if the tracker's package is not installed, which accelerate would ignore silently."""
    if tracker != "none" and find_spec(tracker) is None:
        raise UserError(
            f"train.tracker={tracker} needs the package {tracker}; pip install {tracker}, or set train.tracker=none"
        )


@contextmanager
def tracked(accelerator: Accelerator, settings: Settings, fold: Fold) -> Iterator[None]:
    """Connect `accelerator.log` to the tracker while a fold trains.

    TensorBoard writes to fold_K below the accelerator's logging folder; in wandb and mlflow the project is the run's
    name, and the run is the fold.
    """
    tracker, name = settings.train.tracker, f"fold_{fold}"
    if tracker == "none":
        yield
        return
    names = {"wandb": {"name": name}, "mlflow": {"run_name": name}}
    project = name if tracker == "tensorboard" else settings.name
    values = {key: str(value) for key, value in dotted(settings.model_dump(mode="json")).items()}  # text suits all
    accelerator.init_trackers(project, values, init_kwargs=names)
    try:
        yield
    finally:
        for started in accelerator.trackers:
            started.finish()
        accelerator.trackers.clear()
