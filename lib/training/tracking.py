"""Experiment trackers (train.tracker): each epoch's numbers, sent on through accelerate; one tracker run a fold."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from accelerate import Accelerator

from lib.base.errors import UserError
from lib.config.schema import Settings


def require_tracker(tracker: str) -> None:
    """Raise UserError where the tracker's package is not installed; accelerate alone would go on without a word."""
    if tracker != "none" and find_spec(tracker) is None:
        raise UserError(
            f"train.tracker={tracker} needs the package {tracker}; pip install {tracker}, or set it to none"
        )


@contextmanager
def tracked(accelerator: Accelerator, settings: Settings, fold: int) -> Iterator[None]:
    """While a fold trains, `accelerator.log` reaches the tracker.

    TensorBoard's files are below the accelerator's logging folder, in fold_K; for wandb and mlflow the run's name is
    the project, and the fold the run.
    """
    tracker, name = settings.train.tracker, f"fold_{fold}"
    if tracker == "none":
        yield
        return
    names = {"wandb": {"name": name}, "mlflow": {"run_name": name}}
    project = name if tracker == "tensorboard" else settings.name
    accelerator.init_trackers(project, flat(settings.model_dump(mode="json")), init_kwargs=names)
    try:
        yield
    finally:
        for started in accelerator.trackers:
            started.finish()
        accelerator.trackers.clear()


def flat(content: dict, prefix: str = "") -> dict[str, str]:
    """Nested settings as text by dotted key, which every tracker takes."""
    found = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found
