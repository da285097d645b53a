"""Images per second of 02's training, against the bare step it cannot beat and the loops that people write.

    python benchmarks/training_speed.py runs/blue_marble [--rounds 3] [--steps 10]

pipeline   one epoch of fold 0 as 02 trains it: reading, augmentation, losses, averaged weights, progress bar
bare       forward, binary cross-entropy, backward and optimizer step on one batch that lies in memory
notebook   the loop of smp's example notebooks: the same images and augmentation through a plain DataLoader, Dice loss,
           Adam; the same encoder, decoder, batch size and precision
lightning  the same as a LightningModule under a Trainer
fastai     the same under a Learner

Each round runs all in turn, for as many steps as the fold's epoch has or as --steps says. Rates are by wall time, and
by the processor time of the process and its loader's workers, which other programs on the machine disturb less. The
other loops' images come without the distances that the pipeline's loss needs; what starts a Trainer is not counted.
"""

import argparse
import copy
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import other_loops
import psutil
from measuring import print_ratios
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from lib.base.cli import plain_parser, run_command
from lib.data.competition import open_training
from lib.folds.split import read_folds
from lib.model.device import keep_freed_memory
from lib.run.folder import RunFolder, open_run
from lib.training.batches import batches, build_loader
from lib.training.fold_job import FoldJob, plan_fold
from lib.training.loader_wait import LoaderWait
from lib.training.losses import SegmentationLoss
from lib.training.start import load_or_begin
from lib.training.state import TrainState
from lib.training.trainer import build_accelerator, train_epoch


def measure(arguments: argparse.Namespace) -> None:
    run, settings = open_run(arguments.run)
    data = open_training(settings.data)
    table = read_folds(run.folds, data, settings.folds.count)
    with tempfile.TemporaryDirectory() as folder:
        training = Training.begin(plan_fold(0, RunFolder(Path(folder)), table, data, settings, {}, ()), arguments.steps)
        images = len(training.loader) * training.loader.batch_size
        kinds = {"pipeline": pipeline(training), "bare": bare(training)} | others(training)
        wall, processor = ({name: [] for name in kinds} for _ in range(2))
        for number in range(-1, arguments.rounds):
            for name, epoch in kinds.items():
                with quiet():
                    begun = epoch()
                    ended = clock()
                if number >= 0:  # the first round warms up
                    wall[name].append(images / (ended[0] - begun[0]))
                    processor[name].append(images / (ended[1] - begun[1]))
    job = training.job
    print(
        f"training, {job.device.type}, {job.precision}, crops of {job.crop[0]} x {job.crop[1]}, "
        f"batch {job.plan.batch_size}"
    )
    ratios = [("pipeline", name) for name in kinds if name != "pipeline"]
    print("wall time")
    print_ratios(wall, "img/s", ratios)
    print("processor time")
    print_ratios(processor, "img/s", ratios)


@dataclass(frozen=True)
class Training:
    """A fold's training before its first step."""

    job: FoldJob
    state: TrainState
    loss_of: SegmentationLoss
    loader: DataLoader

    @classmethod
    def begin(cls, job: FoldJob, steps: int | None) -> "Training":
        """Epochs have at most so many steps, of images drawn at random."""
        keep_freed_memory(job.device)
        crops = len(job.images.empty_turns)
        if steps is not None and steps < job.plan.lengths[0]:
            epochs, left_out = len(job.plan.lengths), crops - steps * job.plan.batch_size
            plan = replace(job.plan, lengths=[steps] * epochs, left_out=[left_out] * epochs)
            pools = [replace(pool, is_empty=np.ones(len(pool.ids), bool)) for pool in job.images.pools]
            images = replace(job.images, pools=pools)
            job = replace(job, plan=plan, images=images)
        loss_of = SegmentationLoss(job.settings.loss).to(job.device)
        state = load_or_begin(job, build_accelerator(job))
        return cls(job, state, loss_of, build_loader(job, loss_of.needs_distance))


def clock() -> tuple[float, float]:
    """Seconds of wall time, and of processor time of this process and its children, dead or alive."""
    process = psutil.Process()
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return time.perf_counter(), sum(one.user + one.system + one.children_user + one.children_system for one in times)


@contextmanager
def quiet() -> Iterator[None]:
    """Progress bars and warnings are made, and written nowhere."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def others(training: Training) -> dict[str, other_loops.Epoch]:
    """The loops of other libraries, as far as these are installed; a line names those that are not."""
    job, dataset = training.job, copy.copy(training.loader.dataset)
    dataset.with_distances = False
    found, absent = {}, []
    for build in (other_loops.notebook, other_loops.lightning, other_loops.fastai):
        loader = other_loops.TimedLoader(
            dataset, training.loader.batch_size, len(training.loader), training.loader.num_workers, clock
        )
        try:
            found[build.__name__] = build(job.settings.model, loader, job.device, job.precision)
        except ImportError:
            absent.append(build.__name__)
    if absent:
        print(f"not measured: {', '.join(absent)}; pip install -e '.[benchmarks]'")
    return found


def pipeline(training: Training) -> other_loops.Epoch:
    def epoch() -> tuple[float, float]:
        begun = clock()
        with tqdm(total=len(training.loader)) as bar:
            stream = batches(training.loader, training.state.epoch)
            train_epoch(training.job, training.state, training.loss_of, stream, bar, LoaderWait())
        return begun

    return epoch


def bare(training: Training) -> other_loops.Epoch:
    state = training.state
    batch = {name: tensor.to(training.job.device) for name, tensor in next(batches(training.loader, 0)).items()}
    truths = batch["masks"].float()

    def epoch() -> tuple[float, float]:
        begun = clock()
        state.network.train()
        for _ in range(len(training.loader)):
            loss = functional.binary_cross_entropy_with_logits(state.network(batch["images"]).float(), truths)
            state.accelerator.backward(loss)
            state.optimizer.step()
            state.optimizer.zero_grad()
        loss.item()  # waits for the device
        return begun

    return epoch


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME", help="a run that 01_prepare_folds.py made")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--steps", type=int, metavar="N", help="steps of each side in a round (default: an epoch)")
    run_command(measure, command)
