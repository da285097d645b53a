"""How a fold's training begins: from the encoder's weights, or where an interrupted one stopped."""

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator

from lib.base.errors import UserError
from lib.model.device import is_out_of_memory
from lib.model.network import build_pretrained, start_at_shares
from lib.run.record import differences
from lib.training.fold_job import FoldJob
from lib.training.state import RESTART, TrainState, begin_state, read_checkpoint, seed_all


def load_or_begin(job: FoldJob, accelerator: Accelerator) -> TrainState:
    """The state of an interrupted training, or of one that begins.

    Raises UserError where the interrupted one is of other folds or settings, or its file is damaged.
    """
    seed_all(job.settings.train.seed, job.fold)
    built = build_pretrained(job.settings.model, len(job.data.classes), job.settings.data.channels)
    start_at_shares(built.network, job.images.class_shares)
    state = begin_state(built.network, built.weights_source, job, accelerator)
    if job.folder.resume.is_file():
        content = read_checkpoint(job.folder.resume)
        if changed := differences(content["made_from"], job.made_from):
            raise UserError(f"{job.folder.root} was begun with other inputs ({'; '.join(changed[:3])}); {RESTART}")
        state.load(job.folder.resume, content)
    return state


@contextmanager
def explained_memory_errors(job: FoldJob) -> Iterator[None]:
    """Raise a UserError in place of torch's error where the device's memory is too small."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory in fold {job.fold} with batches of {job.plan.batch_size} crops of "
            f"{job.crop[0]} x {job.crop[1]} pixels; lower train.batch_size or train.crop_size, or choose a smaller "
            "model.encoder"
        ) from None
