"""Check and measure every path that needs a GPU, in one command of under nine minutes.

    python benchmarks/gpu.py [--out gpu.md] [--small] [--only NAME ...]

First the checks, each of which passes or fails with a sentence:
  maps         float32 and fp16 maps of one trained network, against those of the CPU; bf16's for comparison
  resume       an fp16 training with its loss scaler, killed after an epoch and resumed, against one left alone
  memory       after each of two folds in a row, the GPU's memory is back where it was before the first
  nccl         one process under torchrun
  compile      train.compile, by the loss of the first epoch
  memory full  02 and 04 on a GPU that is made too small: a sentence, no traceback

Then the measurements, both sides of a row in turn:
  training     02 against the bare step and the loader alone
  prediction   04 against the bare passes
  settings     the bare step with one setting changed
  operations   those that take most of 02's epoch

--small is a dry run with tiny sizes on any device. What it prints of time means nothing. The exit code is 1 when a
check fails. Without --small and without a GPU nothing runs.
"""

import argparse
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
import yaml
from accelerate.state import AcceleratorState
from planted import planted_pair
from training_speed import Training, bare, clock, pipeline, quiet

from lib.base.cli import leave, plain_parser, run_command
from lib.base.errors import UserError
from lib.config.load import load_settings
from lib.config.schema import InferSettings
from lib.data.competition import open_training
from lib.folds.split import read_folds
from lib.model.device import best_device
from lib.model.network import load_weights
from lib.prediction.map_store import MapStore
from lib.prediction.predictor import Predictor, predict_to_store
from lib.run.folder import RunFolder, open_run
from lib.training.batches import batches
from lib.training.fold_job import FoldJob, plan_fold
from lib.training.trainer import train_folds

REPOSITORY = Path(__file__).resolve().parent.parent
ENCODERS = ("tf_efficientnet_lite0", "tf_efficientnet_b4", "convnext_tiny")
NEARLY = 0.02  # difference of a validation score that a repeated training may have on a GPU, or share of a loss
FEW = 0.001  # share of a map's pixels that may differ by more than a level of 255 in half precision
TOO_SMALL = 0.002  # share of the GPU's memory that is left for the tests of full memory


class Sizes(NamedTuple):
    """The amount of work."""

    images: int
    side: int
    crops: tuple[int, ...]
    encoders: tuple[str, ...]
    batch: int
    rounds: int
    steps: int


FULL = Sizes(128, 768, (256, 512), ENCODERS, 16, 2, 40)
SMALL = Sizes(9, 64, (32, 64), ("resnet10t",), 2, 1, 2)


class Check(NamedTuple):
    name: str
    passed: bool
    text: str


def main(arguments: argparse.Namespace) -> None:
    device = best_device()
    if device.type != "cuda" and not arguments.small:
        raise UserError("there is no GPU here; --small runs everything with tiny sizes on the CPU")
    sizes = SMALL if arguments.small else FULL
    dry = ", a dry run: no time means anything" if arguments.small else ""
    lines, checks = [f"{device_name(device)}, torch {torch.__version__}{dry}"], []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(write_competition(Path(folder), sizes))
        for name in arguments.only or [*CHECKS, *MEASUREMENTS]:
            if name in CHECKS:
                checks.append(outcome(name, sizes, device))
                continue
            for line in measured(name, sizes, device):
                print(line, flush=True)
                lines.append(line)
            lines.append("")
    results = [[name, "passed" if passed else "FAILED", text] for name, passed, text in checks]
    lines += table(["check", "result", "seen"], results)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if failed := [check.name for check in checks if not check.passed]:
        leave(f"failed: {', '.join(failed)}", 1)


def outcome(name: str, sizes: Sizes, device: torch.device) -> Check:
    """What a check finds; an error of any kind is a check that failed, so that the time on a GPU is not lost."""
    begun = time.monotonic()
    try:
        check = Check(name, *CHECKS[name](sizes, device))
    except Exception as error:
        traceback.print_exc()
        check = Check(name, False, f"{type(error).__name__}: {str(error)[:300]}")
    passed = "passed" if check.passed else "FAILED"
    print(f"{name}: {passed}: {check.text} ({time.monotonic() - begun:.0f} s)", flush=True)
    return check


def measured(name: str, sizes: Sizes, device: torch.device) -> Iterator[str]:
    """The lines of a table as they are measured; the last one may be the error that it ended with."""
    try:
        yield from table_lines(MEASUREMENTS[name](sizes, device))
    except Exception as error:
        traceback.print_exc()
        yield f"{name} ended with {type(error).__name__}: {error}"


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    return list(table_lines([header, *rows]))


def table_lines(rows: Iterable[list[str]]) -> Iterator[str]:
    """The lines of a Markdown table whose first row is the header."""
    for number, row in enumerate(rows):
        yield f"| {' | '.join(row)} |"
        if number == 0:
            yield f"| {' | '.join(['---'] * len(row))} |"


# Settings, data and runs


def write_competition(folder: Path, sizes: Sizes) -> Path:
    """RGB images as noisy as photos with masks and a settings file, and the run `gpu` that 01 makes of them."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / "data" / name).mkdir(parents=True)
    for number in range(sizes.images):
        probability_map, truth = planted_pair(random, sizes.side)
        noise = random.normal(0, 12, (sizes.side, sizes.side, 3))
        image = np.clip(0.6 * probability_map[..., None] + 40 + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"data/images/{number:03d}.png"), image)
        cv2.imwrite(str(folder / f"data/masks/{number:03d}.png"), 255 * truth)
    settings = {
        "data": {"train_images": "images", "train_masks": "masks", "test_images": "images", "sample_submission": None},
        "folds": {"count": 3, "near_duplicates": False, "hidden_groups": "off"},
        "model": {"encoder": sizes.encoders[0], "weights": "random"},
        "train": {"epochs": 3, "batch_size": sizes.batch, "crop_size": sizes.crops[0]},
    }
    os.chdir(folder)
    for name in ("gpu", "killed", "torchrun", "compiled", "full"):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        typed("01_prepare_folds.py", "--config", f"{name}.yaml")
    typed("02_train.py", "--run", "runs/gpu", "--folds", "0")
    return folder


def command(*words: str) -> list[str]:
    return [sys.executable, str(REPOSITORY / words[0]), *words[1:]]


def typed(*words: str) -> subprocess.CompletedProcess:
    """Run a script to its end. Raises UserError with what it said where it fails."""
    done = subprocess.run(command(*words), capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return done


def settings_of(name: str, *overrides: str):
    return load_settings(Path(f"{name}.yaml"), [f"name={name}", *overrides])


def planned(fold: int, folder: Path, *overrides: str) -> FoldJob:
    """The training of a fold of the run `gpu`, to be kept below `folder`."""
    settings = settings_of("gpu", *overrides)
    data = open_training(settings.data)
    table = read_folds(Path("runs/gpu/folds.csv"), data, settings.folds.count)
    return plan_fold(fold, RunFolder(folder), table, data, settings, {}, ())


def half_precision(device: torch.device) -> str:
    return "fp16" if device.type == "cuda" else "fp32"


# Checks


def maps(sizes: Sizes, device: torch.device) -> tuple[bool, str]:
    run, settings = open_run(Path("runs/gpu"))
    data = open_training(settings.data)
    batch = np.stack([data.read_image(image_id)[:256, :256] for image_id in data.ids[: sizes.batch]])

    def predicted(on: torch.device, precision: str) -> np.ndarray:
        network = load_weights(run.fold(0).weights, settings.model, 1, settings.data.network_channels)
        found = Predictor([network], InferSettings(), on, precision).predict_batch(batch).predictions()
        return np.stack([prediction.maps for prediction in found]).astype(int)

    expected, worst = predicted(torch.device("cpu"), "fp32"), {}
    for precision in ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16"):
        difference = np.abs(predicted(device, precision) - expected)
        worst[precision] = float((difference > 1).mean()), int(difference.max())
    text = "; ".join(
        f"{name}: {share:.4%} of pixels off by more than 1, at most {most}" for name, (share, most) in worst.items()
    )
    return worst["fp32"][0] < 1e-4 and worst[half_precision(device)][0] <= FEW, text


def resume(sizes: Sizes, device: torch.device) -> tuple[bool, str]:
    precision = f"train.precision={half_precision(device)}"
    typed("02_train.py", "--run", "runs/full", "--folds", "0", precision)
    words = ("02_train.py", "--run", "runs/killed", "--folds", "0", precision)
    process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = Path("runs/killed/fold_0/resume/state.pt")
    while not state.is_file() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    was_killed = state.is_file()
    typed(*words)
    same, difference = compared("full", "killed")
    text = f"{'killed after an epoch and resumed' if was_killed else 'ended before it was killed'}; {difference}"
    return was_killed and same, text


def compared(one: str, other: str) -> tuple[bool, str]:
    """Whether the trainings of fold 0 of two runs agree, and how far, by their weights and validation scores."""
    folds = [RunFolder(Path("runs") / name).fold(0) for name in (one, other)]
    if folds[0].weights.read_bytes() == folds[1].weights.read_bytes():
        return True, "the weights are the same to the byte"
    scores = [pd.read_csv(fold.history).val_dice.iloc[-1] for fold in folds]
    return abs(scores[0] - scores[1]) <= NEARLY, f"validation Dice {scores[0]:.4f} and {scores[1]:.4f}"


def memory(sizes: Sizes, device: torch.device) -> tuple[bool, str]:
    used = [allocated(device)]
    with tempfile.TemporaryDirectory() as folder, quiet():
        for fold in (0, 1):
            train_folds([planned(fold, Path(folder), "train.epochs=1")], after_epoch=lambda job, row: None)
            used.append(allocated(device))
    text = "before, after one fold, after two: " + ", ".join(f"{each:.1f} MB" for each in used)
    return max(used[1:]) - used[0] < 5, text


def allocated(device: torch.device) -> float:
    return torch.cuda.memory_allocated(device) / 1e6 if device.type == "cuda" else 0.0


def nccl(sizes: Sizes, device: torch.device) -> tuple[bool, str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1", "--"]
    words = [str(REPOSITORY / "02_train.py"), "--run", "runs/torchrun", "--folds", "0"]
    done = subprocess.run([*launcher, *words], capture_output=True, text=True)
    if done.returncode:
        return False, done.stderr.strip()[-300:].replace("\n", " ")
    return compared("gpu", "torchrun")


def compile_training(sizes: Sizes, device: torch.device) -> tuple[bool, str]:
    """By the loss of the first epoch: a few steps later rounding has led two trainings to different weights."""
    typed("02_train.py", "--run", "runs/compiled", "--folds", "0", "train.compile=true")
    losses = [pd.read_csv(RunFolder(Path("runs") / name).fold(0).history).loss[0] for name in ("gpu", "compiled")]
    return abs(
        losses[1] / losses[0] - 1
    ) <= NEARLY, f"loss of the first epoch {losses[0]:.5f}, compiled {losses[1]:.5f}"


def memory_full(sizes: Sizes, device: torch.device) -> tuple[bool, str]:
    if device.type != "cuda":
        return True, "not run: needs a GPU"
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(TOO_SMALL)
    sentences = []
    try:
        for attempt in (train_too_much, predict_too_much):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    attempt(Path(folder), device)
                    sentences.append("no error")
                except UserError as error:
                    sentences.append(str(error))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    return all("out of memory" in sentence for sentence in sentences), "; ".join(sentences)


def train_too_much(folder: Path, device: torch.device) -> None:
    with quiet():
        train_folds([planned(0, folder)], after_epoch=lambda job, row: None)


def predict_too_much(folder: Path, device: torch.device) -> None:
    run, settings = open_run(Path("runs/gpu"))
    network = load_weights(run.fold(0).weights, settings.model, 1, settings.data.network_channels)
    predictor = Predictor([network], InferSettings(), device, "fp32")
    predictor.predict_batch(np.zeros((4, 2048, 2048, 3), np.uint8))


# Measurements


def training_rates(sizes: Sizes, device: torch.device) -> Iterator[list[str]]:
    yield ["encoder", "crop", "02, img/s", "bare step", "loader alone", "02 / bare"]
    for encoder, crop in itertools.product(sizes.encoders, sizes.crops):
        with started(sizes, f"model.encoder={encoder}", f"train.crop_size={crop}") as training:
            kinds = {"02": pipeline(training), "bare step": bare(training), "loader": loader_alone(training)}
            medians = median_rates(training, kinds, sizes.rounds)
        ratio = medians["02"] / medians["bare step"]
        yield [encoder, str(crop), *(f"{rate:.0f}" for rate in medians.values()), f"{ratio:.2f}"]


def median_rates(
    training: Training, kinds: dict[str, Callable[[], tuple[float, float]]], rounds: int
) -> dict[str, float]:
    """Images per second of each kind of epoch, all in turn in each round."""
    images = len(training.loader) * training.job.plan.batch_size
    rates = {name: [] for name in kinds}
    for number in range(-1, rounds):
        for name, epoch in kinds.items():
            with quiet():
                begun, ended = epoch(), clock()
            if number >= 0:  # the first round warms up
                rates[name].append(images / (ended[0] - begun[0]))
    return {name: statistics.median(of_kind) for name, of_kind in rates.items()}


@contextmanager
def started(sizes: Sizes, *overrides: str) -> Iterator[Training]:
    """A training of fold 0 before its first step; its memory is freed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            job = planned(0, Path(folder), "train.crops_per_image=8", *overrides)
            training = Training.begin(job, sizes.steps)
        try:
            yield training
        finally:
            training.state.accelerator.free_memory()
            AcceleratorState._reset_state()  # which keeps one precision for the whole process


def loader_alone(training: Training) -> Callable[[], tuple[float, float]]:
    def epoch() -> tuple[float, float]:
        begun = clock()
        for _ in batches(training.loader, 0):
            pass
        return begun

    return epoch


def prediction_rates(sizes: Sizes, device: torch.device) -> Iterator[list[str]]:
    yield [f"prediction, {sizes.side} px, flips", "04, img/s", "bare passes", "04 / bare"]
    run, settings = open_run(Path("runs/gpu"))
    data = open_training(settings.data)
    ids = data.ids[: len(data.ids) // sizes.batch * sizes.batch]
    for precision in ("fp32", "bf16") if device.type == "cpu" else ("fp32", "bf16", "fp16"):
        network = load_weights(run.fold(0).weights, settings.model, 1, settings.data.network_channels)
        predictor = Predictor([network], InferSettings(batch_size=sizes.batch), device, precision)
        batch = np.stack([data.read_image(image_id) for image_id in ids[: sizes.batch]])
        seconds = {"04": [], "bare": []}
        for number in range(-1, sizes.rounds):
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                for _ in predict_to_store(predictor, data, ids, MapStore(Path(folder), ("mask",))):
                    pass
                ended = time.perf_counter()
            for _ in range(len(ids) // sizes.batch):
                predictor.predict_batch(batch)
            if number >= 0:
                seconds["04"].append(ended - begun)
                seconds["bare"].append(time.perf_counter() - ended)
        rates = [len(ids) / statistics.median(found) for found in seconds.values()]
        yield [precision, *(f"{rate:.1f}" for rate in rates), f"{rates[0] / rates[1]:.2f}"]


def gpu_settings(sizes: Sizes, device: torch.device) -> Iterator[list[str]]:
    """The bare step as it is, then with one setting changed."""
    yield ["the bare step", "encoder", "crop", "img/s"]
    smallest, largest = (sizes.encoders[0], sizes.crops[0]), (sizes.encoders[1 % len(sizes.encoders)], sizes.crops[-1])
    settings = {name: how for name, how in STEP_SETTINGS.items() if device.type == "cuda" or "fp16" not in name}
    for (encoder, crop), (name, (overrides, change)) in itertools.product((smallest, largest), settings.items()):
        of_encoder = (f"model.encoder={encoder}", f"train.crop_size={crop}")
        with started(sizes, *of_encoder, *overrides) as training, change(training):
            rate = median_rates(training, {"bare step": bare(training)}, sizes.rounds)["bare step"]
        yield [name, encoder, str(crop), f"{rate:.0f}"]


@contextmanager
def changed(owner: object, name: str, value: object) -> Iterator[None]:
    """One of torch's global settings, set back afterwards."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def contiguous(training: Training) -> AbstractContextManager:
    training.state.module.to(memory_format=torch.contiguous_format)
    return nullcontext()


def operations(sizes: Sizes, device: torch.device) -> Iterator[list[str]]:
    yield ["operation of 02's epoch", "share of the time", "calls"]
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with started(sizes) as training:
        epoch = pipeline(training)
        with quiet():
            epoch()
            with torch.profiler.profile(activities=activities) as profile:
                epoch()
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, key))
    total = sum(getattr(event, key) for event in events)
    for event in events[:10]:
        yield [event.key[:60].replace("|", "/"), f"{getattr(event, key) / total:.1%}", str(event.count)]


CHECKS = {
    "maps": maps,
    "resume": resume,
    "memory": memory,
    "nccl": nccl,
    "compile": compile_training,
    "memory_full": memory_full,
}
MEASUREMENTS = {
    "training": training_rates,
    "prediction": prediction_rates,
    "settings": gpu_settings,
    "operations": operations,
}
STEP_SETTINGS = {  # overrides, and what is changed besides
    "as it is": ((), lambda training: nullcontext()),
    "cudnn.benchmark": ((), lambda training: changed(torch.backends.cudnn, "benchmark", True)),
    "without channels_last": ((), contiguous),
    "train.precision=fp16": (("train.precision=fp16",), lambda training: nullcontext()),
    "train.precision=fp32": (("train.precision=fp32",), lambda training: nullcontext()),
    "fp32, TF32 matrix products": (
        ("train.precision=fp32",),
        lambda training: changed(torch.backends.cuda.matmul, "allow_tf32", True),
    ),
    "train.compile=true": (("train.compile=true",), lambda training: nullcontext()),
}


if __name__ == "__main__":
    options = plain_parser(__doc__)
    options.add_argument("--out", type=Path, metavar="FILE.md", help="also write the tables here")
    options.add_argument("--only", nargs="+", choices=[*CHECKS, *MEASUREMENTS], metavar="NAME", help="only these parts")
    options.add_argument("--small", action="store_true", help="a dry run on any device")
    run_command(main, options)
