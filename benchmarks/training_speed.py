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
from pathlib import Path

import numpy as np
import other_loops
import psutil
from accelerate import Accelerator
from ratios import print_ratios
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from lib.base.cli import run_command
from lib.data.competition import open_training
from lib.data.folds import read_folds
from lib.model.device import best_device, keep_freed_memory, resolve_precision
from lib.run.folder import FoldFolder, open_run
from lib.training.trainer import FoldTraining


def measure(arguments: argparse.Namespace) -> None:
    run, settings = open_run(arguments.run)
    data = open_training(settings.data)
    table = read_folds(run.folds, data, settings.folds.count)
    device = best_device()
    keep_freed_memory(device)
    precision = resolve_precision(settings.train.precision, device)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no" if precision == "fp32" else precision)
    with tempfile.TemporaryDirectory() as folder:
        training = FoldTraining(
            0, FoldFolder(Path(folder)), table, data, settings, {}, accelerator, precision, lambda fold, row: None
        )
        training.build()
        limit(training.loader, arguments.steps)
        images = len(training.loader) * training.loader.batch_size
        kinds = {"pipeline": pipeline(training), "bare": bare(training)} | others(training, precision)
        wall, processor = ({name: [] for name in kinds} for _ in range(2))
        for number in range(-1, arguments.rounds):
            for name, epoch in kinds.items():
                with quiet():
                    begun = epoch()
                    ended = clock()
                if number >= 0:  # the first round warms up
                    wall[name].append(images / (ended[0] - begun[0]))
                    processor[name].append(images / (ended[1] - begun[1]))
    crop = training.loader.dataset.crop
    print(f"training, {device.type}, {precision}, crops of {crop[0]} x {crop[1]}, batch {training.loader.batch_size}")
    ratios = [("pipeline", name) for name in kinds if name != "pipeline"]
    print("wall time")
    print_ratios(wall, "img/s", ratios)
    print("processor time")
    print_ratios(processor, "img/s", ratios)


def clock() -> tuple[float, float]:
    """Seconds of wall time, and of processor time of this process and its children, dead or alive."""
    process = psutil.Process()
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return time.perf_counter(), sum(one.user + one.system + one.children_user + one.children_system for one in times)


def limit(loader: DataLoader, steps: int | None) -> None:
    """Let an epoch have at most so many steps, of images drawn at random."""
    sampler = loader.sampler
    if steps is not None and steps < len(loader):
        sampler.empty, sampler.left_out = np.arange(sampler.length), [sampler.length - steps * loader.batch_size]
        sampler.epoch = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Progress bars and warnings are made, and written nowhere."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def others(training: FoldTraining, precision: str) -> dict[str, other_loops.Epoch]:
    """The loops of other libraries, as far as these are installed; a line names those that are not."""
    dataset = copy.copy(training.loader.dataset)
    dataset.with_distances = False
    found, absent = {}, []
    for build in (other_loops.notebook, other_loops.lightning, other_loops.fastai):
        loader = other_loops.TimedLoader(
            dataset, training.loader.batch_size, len(training.loader), training.loader.num_workers, clock
        )
        try:
            found[build.__name__] = build(training.settings.model, loader, training.accelerator.device, precision)
        except ImportError:
            absent.append(build.__name__)
    if absent:
        print(f"not measured: {', '.join(absent)}; pip install -e '.[benchmarks]'")
    return found


def pipeline(training: FoldTraining) -> other_loops.Epoch:
    def epoch() -> tuple[float, float]:
        begun = clock()
        with tqdm(total=len(training.loader)) as bar:
            training.train_epoch(bar)
        return begun

    return epoch


def bare(training: FoldTraining) -> other_loops.Epoch:
    training.loader.sampler.epoch = 0
    batch = {name: tensor.to(training.accelerator.device) for name, tensor in next(iter(training.loader)).items()}
    truths = batch["masks"].float()

    def epoch() -> tuple[float, float]:
        begun = clock()
        training.network.train()
        for _ in range(len(training.loader)):
            loss = functional.binary_cross_entropy_with_logits(training.network(batch["images"]).float(), truths)
            training.accelerator.backward(loss)
            training.optimizer.step()
            training.optimizer.zero_grad()
        loss.item()  # waits for the device
        return begun

    return epoch


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("run", type=Path, metavar="runs/NAME", help="a run that 01_prepare_folds.py made")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--steps", type=int, metavar="N", help="steps of each side in a round (default: an epoch)")
    run_command(measure, command)
