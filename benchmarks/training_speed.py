"""Images per second of 02's training, against the bare step it cannot beat and the loop that people write.

    python benchmarks/training_speed.py runs/blue_marble [--rounds 3]

pipeline   one epoch of fold 0 as 02 trains it: reading, augmentation, losses, averaged weights, progress bar
bare       forward, binary cross-entropy, backward and optimizer step on one batch that lies in memory
notebook   the loop of smp's example notebooks: the same images and augmentation through a plain DataLoader, Dice loss,
           Adam; the same encoder, decoder, batch size and precision

Each round runs all three, in turn, for as many steps as the fold's epoch has.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import segmentation_models_pytorch as smp  # noqa: E402
import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from ratios import print_ratios  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from tqdm import tqdm  # noqa: E402

from lib.cli import run_stage  # noqa: E402
from lib.data import open_training  # noqa: E402
from lib.device import autocast, best_device, resolve_precision  # noqa: E402
from lib.folds import read_folds  # noqa: E402
from lib.run import FoldFolder, open_run  # noqa: E402
from lib.training import FoldTraining  # noqa: E402


def measure(arguments: argparse.Namespace) -> None:
    run, settings = open_run(arguments.run)
    data = open_training(settings.data)
    table = read_folds(run.folds, data, settings.folds.count)
    device = best_device()
    precision = resolve_precision(settings.train.precision, device)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no" if precision == "fp32" else precision)
    with tempfile.TemporaryDirectory() as folder:
        training = FoldTraining(
            0, FoldFolder(Path(folder)), table, data, settings, {}, accelerator, precision, lambda fold, row: None
        )
        training.build()
        images = len(training.loader) * training.loader.batch_size
        kinds = {
            "pipeline": lambda: training.train_epoch(tqdm(disable=True)),
            "bare": bare(training),
            "notebook": notebook(training, precision),
        }
        speeds = {name: [] for name in kinds}
        for number in range(-1, arguments.rounds):
            for name, epoch in kinds.items():
                started = time.perf_counter()
                epoch()
                if number >= 0:  # the first round warms up
                    speeds[name].append(images / (time.perf_counter() - started))
    crop = training.loader.dataset.crop
    print(f"training, {device.type}, {precision}, crops of {crop[0]} x {crop[1]}, batch {training.loader.batch_size}")
    print_ratios(speeds, "img/s", [("pipeline", "bare"), ("pipeline", "notebook")])


def bare(training: FoldTraining) -> Callable[[], None]:
    training.loader.sampler.epoch = 0
    batch = {name: tensor.to(training.accelerator.device) for name, tensor in next(iter(training.loader)).items()}
    truths = batch["masks"].float()

    def epoch() -> None:
        training.network.train()
        for _ in range(len(training.loader)):
            loss = functional.binary_cross_entropy_with_logits(training.network(batch["images"]).float(), truths)
            training.accelerator.backward(loss)
            training.optimizer.step()
            training.optimizer.zero_grad()
        loss.item()  # waits for the device

    return epoch


def notebook(training: FoldTraining, precision: str) -> Callable[[], None]:
    device, model_settings = training.accelerator.device, training.settings.model
    channels = model_settings.decoder_channels
    network = smp.Unet(
        f"tu-{model_settings.encoder}",
        encoder_weights=None,
        **({"decoder_channels": channels} if channels else {}),
    ).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    loss_of = smp.losses.DiceLoss("binary")
    dataset = training.loader.dataset
    keys = [(0, index) for index in range(len(dataset))]
    workers = training.settings.train.workers
    loader = DataLoader(dataset, training.loader.batch_size, sampler=keys, drop_last=True, num_workers=workers)

    def epoch() -> None:
        network.train()
        for batch in loader:
            images = batch["images"].to(device).float() / 255
            with autocast(device, precision):
                loss = loss_of(network(images), batch["masks"].to(device).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()

    return epoch


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("run", type=Path, metavar="runs/NAME", help="a run that 01_prepare_folds.py made")
    command.add_argument("--rounds", type=int, default=3)
    run_stage(measure, command)
