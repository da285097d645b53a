"""The training of one model per fold: the loop over epochs and batches, and the files that each epoch leaves.

train_folds      one fold after another, each freed before the next
train_fold       its epochs: train, validate, write
train_epoch      its batches
train_step       forward, loss, backward, update
"""

import gc
import time
from collections.abc import Callable, Iterator

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from lib.base.errors import UserError
from lib.base.progress import TEXT_FIRST, progress, skip
from lib.model.device import keep_freed_memory
from lib.training.batches import Batch, batches, build_loader
from lib.training.display import bar_text, describe_fold
from lib.training.fold_files import fold_metrics, write_end, write_epoch
from lib.training.fold_job import FoldJob
from lib.training.loader_wait import LoaderWait
from lib.training.losses import SegmentationLoss
from lib.training.schedule import averaging_decay, batches_per_update, ends_update, learning_rate
from lib.training.start import explained_errors, load_or_begin
from lib.training.state import TrainState, seed_all
from lib.training.tracking import tracked
from lib.training.validation import validate

BAR_SECONDS = 0.5  # reading the loss waits for the device, so the bar does it seldom

AfterEpoch = Callable[[FoldJob, dict], None]  # called with the epoch's row of the history once its files are written


def train_folds(jobs: list[FoldJob], after_epoch: AfterEpoch) -> None:
    """Train the folds one after another under one progress bar, each from where it stopped, as its folder says."""
    keep_freed_memory(jobs[0].device)
    require_shared_disk(jobs)
    wait = LoaderWait()
    with progress("training", total=sum(job.plan.steps for job in jobs), unit="step", bar_format=TEXT_FIRST) as bar:
        for job in jobs:
            accelerator = build_accelerator(job)
            with tracked(accelerator, job.settings, job.fold):
                metrics = train_fold(job, accelerator, after_epoch, bar, wait)
            accelerator.free_memory()  # or the fold's network and optimizer would stay beside the next one's
            gc.collect()  # free_memory collects before it lets go, and a network in half precision refers to itself
            if accelerator.is_main_process:
                bar.write(describe_fold(metrics, job))
    if accelerator.is_main_process and (line := wait.advice(jobs[0])):
        print(line)


def build_accelerator(job: FoldJob) -> Accelerator:
    """Accelerate for one fold, with a loss scaler of its own where fp16 needs one."""
    tracker = job.settings.train.tracker
    return Accelerator(
        cpu=job.device.type == "cpu",
        mixed_precision="no" if job.precision == "fp32" else job.precision,
        log_with=None if tracker == "none" else tracker,
        project_dir=job.run.root / "tracker",
    )


def train_fold(job: FoldJob, accelerator: Accelerator, after_epoch: AfterEpoch, bar: tqdm, wait: LoaderWait) -> dict:
    """Train the epochs that are left; what the fold's `metrics.json` then says.

    Raises UserError if the device's memory does not hold a batch, or if the loss is no longer a number.
    """
    with explained_errors(job):
        state = load_or_begin(job, accelerator)
        loss_of = SegmentationLoss.of(job.settings).to(job.device)
        loader = build_loader(job, loss_of.needs_distance)
        skip(bar, job.plan.first_step(state.epoch))
        epochs = job.settings.train.epochs
        stream = batches(loader, state.epoch) if state.epoch < epochs else None
        while state.epoch < epochs:
            row = train_epoch(job, state, loss_of, stream, bar, wait)
            if row["epoch"] < epochs:
                stream = batches(loader, row["epoch"])  # its processes make the first ones during the validation
            row[job.score_name], row["threshold"] = validate(state.averaged, job, accelerator)
            state.history.append(row)
            if accelerator.is_main_process:
                write_epoch(job, state)
            accelerator.log({name: value for name, value in row.items() if value is not None}, step=row["epoch"])
            after_epoch(job, row)
        if accelerator.is_main_process:
            write_end(job, state)
        accelerator.wait_for_everyone()
        return fold_metrics(job, state)


def train_epoch(
    job: FoldJob, state: TrainState, loss_of: SegmentationLoss, stream: Iterator[Batch], bar: tqdm, wait: LoaderWait
) -> dict:
    """Train on an epoch's batches; its row of the history, with the means of the loss and of its terms."""
    seed_all(job.settings.train.seed, job.seed, state.epoch, state.accelerator.process_index)
    state.train_mode(job.settings.train, state.epoch)
    sums: dict[str, torch.Tensor] = {}
    started = shown = time.monotonic()
    for number, batch in enumerate(wait.timed(stream)):
        for name, value in train_step(job, state, loss_of, batch, number).items():
            sums[name] = sums.get(name, 0) + value
        bar.update()
        if time.monotonic() - shown > BAR_SECONDS:
            shown = time.monotonic()
            require_number(sums["loss"], job, state)
            bar.set_description_str(bar_text(job, state.history, float(sums["loss"]) / (number + 1)))
    sums = {name: state.accelerator.reduce(value, "mean") for name, value in sums.items()}
    require_number(sums["loss"], job, state)
    length = job.plan.lengths[state.epoch]
    trained = length * job.plan.batch_size * state.accelerator.num_processes
    return {
        "epoch": state.epoch + 1,
        "lr": learning_rate(job.plan.first_step(state.epoch) + number, job.plan.steps, job.settings.train),
        "images_per_second": round(trained / (time.monotonic() - started), 2),
        **{name: float(value) / length for name, value in sums.items()},
    }


def train_step(
    job: FoldJob, state: TrainState, loss_of: SegmentationLoss, batch: Batch, number: int
) -> dict[str, torch.Tensor]:
    """Learn from batch `number` of the epoch; the loss and its terms, still on the device.

    The weights change after every train.accumulate batches.
    """
    train, length = job.settings.train, job.plan.lengths[state.epoch]
    step = job.plan.first_step(state.epoch) + number
    batch = {name: tensor.to(job.device, non_blocking=True) for name, tensor in batch.items()}
    state.set_learning_rate(learning_rate(step, job.plan.steps, train), train.freezes_encoder(state.epoch))
    output = state.network(batch["images"])
    loss, terms = loss_of(output, batch["masks"], batch.get("distances"), done_share=step / job.plan.steps)
    state.accelerator.backward(loss / batches_per_update(number, length, train.accumulate))
    if ends_update(number, length, train.accumulate):
        state.accelerator.clip_grad_norm_(state.parameters, train.clip_norm)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.update_average(averaging_decay(step, train.ema_decay))
    return {"loss": loss.detach()} | {f"loss_{name}": term for name, term in terms.items()}


def require_number(loss: torch.Tensor, job: FoldJob, state: TrainState) -> None:
    """Raise UserError if the loss has become infinite or NaN."""
    if not torch.isfinite(loss):
        kept = f"; the weights of epoch {state.epoch} stay in {job.folder.weights}" if state.history else ""
        raise UserError(
            f"the loss of fold {job.fold} is no longer a number in epoch {state.epoch + 1}{kept}; "
            "lower train.lr or train.clip_norm, or set train.precision=fp32"
        )


def require_shared_disk(jobs: list[FoldJob]) -> None:
    """Raise UserError if the processes see different files: each would begin at another epoch."""
    seen = gather_object([[job.folder.resume.is_file() for job in jobs]])
    if any(files != seen[0] for files in seen):
        raise UserError(
            f"the processes see different files in {jobs[0].run.root}; it must be on a disk that all machines share"
        )
