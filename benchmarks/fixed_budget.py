"""Out-of-fold Dice that 02, the recipe of smp's example notebooks and nnU-Net reach in the same processor time.

    python benchmarks/fixed_budget.py WORK [--folds 0 1 2] [--seeds 0] [section.key=value ...]

02 trains each fold by its own code on one thread. The processor seconds that this takes, with its validations, are
the budget of the others on the same fold; wall time would change with what else the machine does.

02                02 at the run's settings, with the weights of its last epoch
notebook          whole images, flips, Dice loss, Adam of a constant rate, no validation, last weights; the same network
                  with the same ImageNet weights, batch size and precision. Images of several sizes are resized to
                  squares of train.crop_size, and their probabilities back
nnU-Net           its 2-D configuration from random weights, see nnunet_fold.py; same precision, no validation,
                  last weights (pip install nnunetv2==2.8.1, in an environment of its own: that brings an older timm)

All are scored on the fold's images, in one view, at .5 and at the threshold (or triplet) tuned on the other folds. WORK
keeps what is finished.
"""

import argparse
import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import segmentation_models_pytorch as smp
import torch
from experiments import REPOSITORY, data_folder, markdown
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lib.base.cli import plain_parser, run_command, take_overrides
from lib.base.files import read_json, write_json
from lib.config.schema import Settings
from lib.data.competition import TrainingData, open_training
from lib.folds.split import read_folds
from lib.masks.metrics import Counts, Metric, count_images
from lib.masks.statistics import Gain, group_numbers
from lib.model.device import autocast, keep_freed_memory, resolve_precision
from lib.model.network import SegmentationNet, build_pretrained, load_weights
from lib.prediction.map_store import to_map
from lib.prediction.predictor import Predictor
from lib.run.folder import RunFolder, open_run
from lib.training.batches import Batch, to_tensor
from lib.training.fold_job import plan_fold
from lib.training.loader_wait import LoaderWait
from lib.training.state import seed_all
from lib.training.trainer import build_accelerator, train_fold
from lib.tuning.thresholds import HALF, choose_thresholds

RATES = {"notebook": 2e-4, "notebook, rate 0.001": 1e-3}  # the first is the notebooks' own
KINDS = ["02", *RATES]
NNUNET = "nnU-Net"
CPU = torch.device("cpu")


def compare(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    keep_freed_memory(CPU)  # for all trainings
    run = prepare(arguments)
    kinds = [*KINDS, NNUNET] if can_run_nnunet(run, arguments.overrides) else KINDS
    scores = []
    for seed in arguments.seeds:
        for fold in arguments.folds:
            measure_fold(run, fold, seed, arguments.overrides, kinds)
        scores += rows(run, kinds, seed, arguments)
    print(markdown(pd.DataFrame(scores).set_index("training"), "training"))


def prepare(arguments: argparse.Namespace) -> RunFolder:
    """A run folder in WORK with the folds of 01."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    words = [*arguments.overrides, f"data.root={data_folder(arguments)}", "name=fixed_budget", "train.workers=0"]
    command = [sys.executable, REPOSITORY / "01_prepare_folds.py", "--quiet", "--config", arguments.config.resolve()]
    subprocess.run([*command, *words], cwd=arguments.work, check=True)
    return RunFolder(arguments.work / "runs" / "fixed_budget")


def can_run_nnunet(run: RunFolder, overrides: list[str]) -> bool:
    """Whether nnU-Net is installed and the data is of one class; a line says if not."""
    if importlib.util.find_spec("nnunetv2") is None:
        print(f"not measured: {NNUNET}; pip install nnunetv2==2.8.1, in an environment of its own")
        return False
    if len(open_run(run.root, overrides)[1].data.classes) > 1:
        print(f"not measured: {NNUNET}, on data of several classes")
        return False
    return True


@dataclass(frozen=True)
class Task:
    """One fold and seed: what its trainings read, and the pixel counts that are kept of them."""

    run: RunFolder
    fold: int
    seed: int
    settings: Settings
    data: TrainingData
    table: pd.DataFrame
    precision: str

    @property
    def ids(self) -> list[str]:
        """The images that are scored; the trainings have the others."""
        return self.table.id[self.table.fold == self.fold].tolist()

    @property
    def budget(self) -> float:
        """The processor seconds of 02."""
        return read_json(self.counts(KINDS[0]).with_suffix(".json"))["seconds"]

    def counts(self, kind: str) -> Path:
        return counts_file(self.run, kind, self.seed, self.fold)

    def predictor(self, network: SegmentationNet) -> Predictor:
        """The network's probabilities in one view."""
        view = self.settings.infer.model_copy(update={"tta": "none"})
        return Predictor([network], view, CPU, self.precision)

    def keep(self, kind: str, maps: Iterable[tuple[str, np.ndarray]], seconds: float, images: int) -> None:
        """Write what a training took and, last, the counts of its maps."""
        counts = count_images(((name, found, self.data.read_mask(name)) for name, found in maps), self.data.classes)
        write_json(self.counts(kind).with_suffix(".json"), {"seconds": seconds, "images": images})
        counts.save(self.counts(kind))


def measure_fold(run: RunFolder, fold: int, seed: int, overrides: list[str], kinds: list[str]) -> None:
    """Train one fold in all ways that are not done, and keep the pixel counts of its images."""
    _, settings = open_run(run.root, [*overrides, f"train.seed={seed}"])
    data = open_training(settings.data)
    table = read_folds(run.folds, data, settings.folds.count)
    task = Task(run, fold, seed, settings, data, table, resolve_precision(settings.train.precision, CPU))
    if not task.counts(KINDS[0]).is_file():
        measure_02(task)
    for kind in RATES:
        if not task.counts(kind).is_file():
            measure_recipe(task, kind)
    if NNUNET in kinds and not task.counts(NNUNET).is_file():
        measure_nnunet(task)


def measure_02(task: Task) -> None:
    job = plan_fold(task.fold, task.run, task.table, task.data, task.settings, {}, ())
    job = replace(job, run=RunFolder(run_folder(task.run, task.seed, task.fold)), device=CPU)  # where seeds are apart
    shutil.rmtree(job.folder.resume.parent, ignore_errors=True)  # half a training has spent half the budget
    started = time.process_time()
    train_fold(job, build_accelerator(job), lambda job, row: None, tqdm(disable=True), LoaderWait())
    seconds, images = time.process_time() - started, job.plan.steps * job.plan.batch_size
    settings = task.settings
    network = load_weights(job.folder.weights, settings.model, len(task.data.classes), settings.data.network_channels)
    task.keep(KINDS[0], maps_of(task, task.predictor(network)), seconds, images)


def measure_recipe(task: Task, kind: str) -> None:
    has_one_size = len(task.table[["height", "width"]].drop_duplicates()) == 1
    size = None if has_one_size else task.settings.train.crop_size
    images = Flipped(task.data, task.table.id[task.table.fold != task.fold].tolist(), size)
    seed_all(task.seed, task.fold)
    network, seconds, seen = train_recipe(images, task.settings, RATES[kind], task.precision, task.budget)
    predictor = task.predictor(network)
    maps = maps_of(task, predictor) if size is None else resized(predictor, task, size)
    task.keep(kind, maps, seconds, seen)


def measure_nnunet(task: Task) -> None:
    import nnunet_fold  # here, as it is of packages that need not be installed

    made = nnunet_fold.prepare(task.run.root / "nnunet", task.data, task.table)
    seed_all(task.seed, task.fold)
    trainer = nnunet_fold.build_trainer(made, task.fold, task.precision)
    seconds, seen = nnunet_fold.train(trainer, task.budget)
    task.keep(NNUNET, nnunet_fold.predict(trainer, task.ids), seconds, seen)


def counts_file(run: RunFolder, kind: str, seed: int, fold: int) -> Path:
    return run_folder(run, seed, fold) / f"{kind.replace(', ', '_').replace(' ', '_')}.npz"


def run_folder(run: RunFolder, seed: int, fold: int) -> Path:
    folder = run.root / f"seed_{seed}_fold_{fold}"
    folder.mkdir(exist_ok=True)
    return folder


class Flipped(Dataset):
    """Whole training images with their masks, flipped at random along both axes; squares of `size`, if it is given."""

    def __init__(self, data: TrainingData, ids: list[str], size: int | None) -> None:
        self.data, self.ids, self.size = data, ids, size

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Batch:
        both = self.data.read_image(self.ids[index]), self.data.read_mask(self.ids[index])
        if self.size is not None:
            shape = (self.size, self.size)
            both = resize(both[0], shape, "bilinear"), resize(both[1], shape, "nearest-exact")
        axes = [axis for axis in (0, 1) if torch.rand(()) < 0.5]
        return dict(zip(("images", "masks"), (to_tensor(np.flip(array, axes)) for array in both), strict=True))


def maps_of(task: Task, predictor: Predictor) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (id, uint8 map) of the images that are scored."""
    return ((image_id, prediction.maps) for image_id, prediction in predictor.predict(task.data, task.ids))


def resize(array: np.ndarray, shape: tuple[int, int], mode: str) -> np.ndarray:
    """(H, W, channels) array at another height and width, as Pillow resizes it in the notebooks."""
    found = functional.interpolate(to_tensor(array)[None], shape, mode=mode, antialias=mode == "bilinear")
    return found[0].permute(1, 2, 0).numpy()


def resized(predictor: Predictor, task: Task, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (id, uint8 map) of images that the network is shown as squares, at the images' own sizes."""
    for image_id in task.ids:
        square = resize(task.data.read_image(image_id), (size, size), "bilinear")
        probabilities = predictor.predict_batch(square[None]).pixels[0].cpu().numpy()
        yield image_id, to_map(resize(probabilities, task.data.image_size(image_id), "bilinear"))


def train_recipe(
    images: Flipped, settings: Settings, rate: float, precision: str, budget: float
) -> tuple[SegmentationNet, float, int]:
    """The notebooks' training until the budget of processor seconds is spent; the network, seconds, images seen."""
    started = time.process_time()
    classes = len(images.data.classes)
    network = build_pretrained(settings.model, classes, settings.data.network_channels).network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    loss_of = smp.losses.DiceLoss("binary" if classes == 1 else "multilabel")
    loader = DataLoader(images, settings.train.batch_size, shuffle=True, drop_last=True)
    seen = 0
    for batch in endless(loader):
        with autocast(CPU, precision):
            loss = loss_of(network(batch["images"]).float(), batch["masks"].float())
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


def rows(run: RunFolder, kinds: list[str], seed: int, arguments: argparse.Namespace) -> list[dict[str, object]]:
    """The rows of a seed: the scores of each training over all folds, of each fold at .5, and the nested gain over 02.

    The gain is paired by image, its standard error clustered by group; for several classes it is that of the first.
    """
    _, settings = open_run(run.root, arguments.overrides)
    table = read_folds(run.folds, open_training(settings.data), settings.folds.count)
    table = table[table.fold.isin(arguments.folds)]
    folds, groups = table.fold.to_numpy(), group_numbers(table.group.to_numpy())
    made, baseline = [], None
    for kind in kinds:
        files = [counts_file(run, kind, seed, fold) for fold in arguments.folds]
        counts = counts_in_order([Counts.load(file) for file in files], table.id)
        chosen = choose_thresholds(counts, folds, settings.threshold, groups)
        nested = next(iter(chosen.classes.values())).nested_terms
        baseline = nested if baseline is None else baseline
        halves = [at_half(counts, folds == fold, chosen.metric) for fold in arguments.folds]
        spent = [read_json(file.with_suffix(".json")) for file in files]
        made.append(
            {
                "training": kind,
                "seed": seed,
                "seconds per fold": f"{np.mean([one['seconds'] for one in spent]):.0f}",
                "images seen": f"{np.mean([one['images'] for one in spent]):.0f}",
                f"{chosen.metric} at .5": f"{chosen.mean('at_half'):.4f}",
                "each fold": ", ".join(f"{half:.4f}" for half in halves),
                "tuned on other folds": f"{chosen.mean('nested'):.4f}",
                "over 02": str(Gain.between(baseline, nested, groups)),
            }
        )
    return made


def at_half(counts: Counts, images: np.ndarray, metric: Metric) -> float:
    """The mean score over the classes of some images (bool), at p >= .5."""
    at = np.s_[images, :, HALF - 1]
    return metric.score(counts.tp[at], counts.fp[at], counts.fn[at]).mean()


def counts_in_order(parts: list[Counts], ids: pd.Series) -> Counts:
    """The counts of several folds' images as one, in the order of `ids`; a Predictor yields images by their sizes.

    Without presence, which the other loops do not predict.
    """
    at = {image_id: row for row, image_id in enumerate(np.concatenate([part.ids for part in parts]).tolist())}
    order = [at[image_id] for image_id in ids]
    names = vars(parts[0]).keys() - {"classes", "presence"}
    joined = {name: np.concatenate([vars(part)[name] for part in parts])[order] for name in names}
    return replace(parts[0], presence=None, **joined)


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("work", type=Path, help="the folder that results are in; made if absent")
    take_overrides(command, "section.key=value", "settings of all trainings")
    command.add_argument("--config", type=Path, default=REPOSITORY / "configs" / "blue_marble.yaml")
    command.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2], metavar="K", help="two or more")
    command.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N")
    run_command(compare, command)
