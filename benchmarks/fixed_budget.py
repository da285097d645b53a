"""Out-of-fold Dice that 02 and the recipe of smp's example notebooks reach in the same processor time of one thread.

    python benchmarks/fixed_budget.py WORK [--folds 0 1 2] [--seeds 0] [section.key=value ...]

02 trains each fold by its own code. The processor seconds that this takes, with its validations, are the budget of
the recipes on the same fold; wall time would change with what else the machine does.

02                02 at the run's settings, with the weights of its best epoch
02, last epoch    the same training; 02 chooses the epoch on the images that are scored here, this row does not
notebook          whole images (of one size), flips, Dice loss, Adam of a constant rate, no validation, last weights;
                  the same network with the same ImageNet weights, batch size and precision

All are scored on the fold's images, in one view, at .5 and at the threshold tuned on the other folds. WORK keeps what
is finished.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import segmentation_models_pytorch as smp
import torch
from accelerate import Accelerator
from experiments import REPOSITORY, data_folder, markdown
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lib.cli import run_stage
from lib.config import Settings
from lib.data import TrainingData, open_training
from lib.dataset import Batch, to_tensor
from lib.device import autocast, keep_freed_memory, resolve_precision
from lib.files import read_json, write_json
from lib.folds import read_folds
from lib.metrics import Counts, count_images
from lib.models import SegmentationNet, build_pretrained, load_weights
from lib.prediction import Predictor
from lib.run import FoldFolder, RunFolder, open_run
from lib.thresholds import HALF, choose_thresholds
from lib.training import FoldTraining, seed_all

RATES = {"notebook": 2e-4, "notebook, rate 0.001": 1e-3}  # the first is the notebooks' own
KINDS = ["02", "02, last epoch", *RATES]
CPU = torch.device("cpu")


def compare(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    keep_freed_memory(CPU)  # for all trainings
    run = prepare(arguments)
    scores = []
    for seed in arguments.seeds:
        for fold in arguments.folds:
            measure_fold(run, fold, seed, arguments.overrides)
        scores += [score(run, kind, seed, arguments) for kind in KINDS]
    print(markdown(pd.DataFrame(scores).set_index("training"), "training"))


def prepare(arguments: argparse.Namespace) -> RunFolder:
    """A run folder in WORK with the folds of 01."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    words = [*arguments.overrides, f"data.root={data_folder(arguments)}", "name=fixed_budget", "train.workers=0"]
    command = [sys.executable, REPOSITORY / "01_prepare_folds.py", "--quiet", "--config", arguments.config.resolve()]
    subprocess.run([*command, *words], cwd=arguments.work, check=True)
    return RunFolder(arguments.work / "runs" / "fixed_budget")


def measure_fold(run: RunFolder, fold: int, seed: int, overrides: list[str]) -> None:
    """Train one fold in all ways that are not done, and keep the pixel counts of its images."""
    _, settings = open_run(run.root, [*overrides, f"train.seed={seed}"])
    data = open_training(settings.data)
    table = read_folds(run.folds, data, settings.folds.count)
    precision = resolve_precision(settings.train.precision, CPU)
    view = settings.infer.model_copy(update={"tta": "none"})
    ids = table.id[table.fold == fold].tolist()

    def keep(kind: str, network: SegmentationNet, seconds: float, images: int) -> None:
        maps = Predictor([network], view, CPU, precision).predict(data, ids)
        counts = count_images(((name, found, data.read_mask(name)) for name, found in maps), data.classes)
        counts.save(counts_file(run, kind, seed, fold))
        write_json(counts_file(run, kind, seed, fold).with_suffix(".json"), {"seconds": seconds, "images": images})

    if not counts_file(run, KINDS[1], seed, fold).is_file():
        accelerator = Accelerator(cpu=True, mixed_precision="no" if precision == "fp32" else precision)
        folder = FoldFolder(run.root / f"seed_{seed}_fold_{fold}")
        training = FoldTraining(fold, folder, table, data, settings, {}, accelerator, precision, lambda fold, row: None)
        folder.remove()  # half a training has spent half the budget
        started = time.process_time()
        training.run(tqdm(disable=True))
        seconds, images = time.process_time() - started, training.steps * training.loader.batch_size
        best = load_weights(folder.weights, settings.model, len(data.classes), settings.data.channels)
        keep(KINDS[0], best, seconds, images)
        keep(KINDS[1], training.average.module, seconds, images)
    budget = read_json(counts_file(run, KINDS[0], seed, fold).with_suffix(".json"))["seconds"]
    images = Flipped(data, table.id[table.fold != fold].tolist())
    for kind, rate in RATES.items():
        if not counts_file(run, kind, seed, fold).is_file():
            seed_all(seed, fold)
            keep(kind, *train_recipe(images, settings, rate, precision, budget))


def counts_file(run: RunFolder, kind: str, seed: int, fold: int) -> Path:
    folder = run.root / f"seed_{seed}_fold_{fold}"
    folder.mkdir(exist_ok=True)
    return folder / f"{kind.replace(', ', '_').replace(' ', '_')}.npz"


class Flipped(Dataset):
    """Whole training images with their masks, flipped at random along both axes."""

    def __init__(self, data: TrainingData, ids: list[str]) -> None:
        self.data, self.ids = data, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Batch:
        both = self.data.read_image(self.ids[index]), self.data.read_mask(self.ids[index])
        axes = [axis for axis in (0, 1) if torch.rand(()) < 0.5]
        return dict(zip(("images", "masks"), (to_tensor(np.flip(array, axes)) for array in both), strict=True))


def train_recipe(
    images: Flipped, settings: Settings, rate: float, precision: str, budget: float
) -> tuple[SegmentationNet, float, int]:
    """The notebooks' training until the budget of processor seconds is spent; the network, seconds, images seen."""
    started = time.process_time()
    classes = len(images.data.classes)
    network = build_pretrained(settings.model, classes, settings.data.channels).network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    loss_of = smp.losses.DiceLoss("binary" if classes == 1 else "multilabel")
    loader = DataLoader(images, settings.train.batch_size, shuffle=True, drop_last=True)
    seen = 0
    for batch in endless(loader):
        with autocast(CPU, precision):
            loss = loss_of(network(batch["images"]), batch["masks"].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(batch["images"])
        seconds = time.process_time() - started
        if seconds >= budget:
            return network, seconds, seen


def endless(loader: DataLoader) -> Iterator[Batch]:
    """The batches of one epoch after another."""
    while True:
        yield from loader


def score(run: RunFolder, kind: str, seed: int, arguments: argparse.Namespace) -> dict[str, object]:
    """One row of the table: the scores of a training over all folds, and of each fold at .5."""
    _, settings = open_run(run.root, arguments.overrides)
    files = [counts_file(run, kind, seed, fold) for fold in arguments.folds]
    parts, spent = [Counts.load(file) for file in files], [read_json(file.with_suffix(".json")) for file in files]
    counts = joined(parts)
    table = read_folds(run.folds, open_training(settings.data), settings.folds.count).set_index("id").loc[counts.ids]
    chosen = choose_thresholds(counts, table.fold.to_numpy(), settings.threshold, table.group.to_numpy())
    at = np.s_[..., HALF - 1]
    halves = [chosen.metric.score(part.tp[at], part.fp[at], part.fn[at]).mean() for part in parts]
    return {
        "training": kind,
        "seed": seed,
        "seconds per fold": f"{np.mean([one['seconds'] for one in spent]):.0f}",
        "images seen": f"{np.mean([one['images'] for one in spent]):.0f}",
        f"{chosen.metric} at .5": f"{chosen.mean('at_half'):.4f}",
        "each fold": ", ".join(f"{half:.4f}" for half in halves),
        "tuned threshold": f"{chosen.mean('nested'):.4f}",
    }


def joined(parts: list[Counts]) -> Counts:
    """The counts of several folds' images as one."""
    columns = {name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])}
    return Counts(**columns | {"classes": parts[0].classes})


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("work", type=Path, help="the folder that results are in; made if absent")
    command.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of all trainings")
    command.add_argument("--config", type=Path, default=REPOSITORY / "configs" / "blue_marble.yaml")
    command.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2], metavar="K", help="two or more")
    command.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N")
    run_stage(compare, command)
