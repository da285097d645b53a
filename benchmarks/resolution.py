"""The cost of a 4000 x 4000 image at a quarter of its size and of a 1000 x 1000 image: 02 and 04, in one process.

    python benchmarks/resolution.py [--images 8] [--epochs 4] [--side 4000] [--factor 0.25] [--cache-mb 0]

Both sides learn from the same pixels: the large images are the small ones enlarged. 02: seconds per epoch, training and
validation, of a tiny network, so that reading shows; the first epoch reads every image at full size, the others the
kept copies (train.cache_mb=0 keeps nothing in memory, the worst case). Of these, the work of a loader process in
milliseconds per crop. 04: seconds per image, with writing, and the peak memory in a process of its own, without that of
the libraries and the network; the map of the large image has 16 times as many pixels. Linux only.
"""

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from large_image import blobs

from lib.base.cli import plain_parser
from lib.checks.inspection import inspect_all
from lib.config.check import check_settings
from lib.config.schema import Settings
from lib.data.competition import open_test, open_training
from lib.folds.split import image_table
from lib.prediction.map_store import MapStore
from lib.prediction.predictor import predict_to_store
from lib.prediction.run_maps import build_predictor
from lib.run.folder import RunFolder
from lib.training.batches import build_dataset
from lib.training.fold_job import FoldJob, plan_fold
from lib.training.trainer import train_folds


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--images", type=int, default=8, help="half of them are validated on")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--side", type=int, default=4000, help="of the large images, in pixels")
    parser.add_argument("--factor", type=float, default=0.25)
    parser.add_argument("--cache-mb", type=int, default=0, help="train.cache_mb")
    arguments = parser.parse_args()
    small = round(arguments.factor * arguments.side)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plant(root, small, arguments.side, arguments.images)
        sides = {
            f"{small} px": settings_of(root / "small", arguments, {}),
            f"{arguments.side} px at {arguments.factor}": settings_of(
                root / "large", arguments, {"factor": arguments.factor}
            ),
        }
        jobs = {name: job_of(settings, root / f"run {name}") for name, settings in sides.items()}
        epochs = {name: epoch_seconds(job) for name, job in jobs.items()}
        crops = {name: crop_milliseconds(job) for name, job in jobs.items()}
        columns = {
            "02, first epoch (s)": [seconds[0] for seconds in epochs.values()],
            "02, another epoch (s, median)": [statistics.median(seconds[1:]) for seconds in epochs.values()],
            "02, crop of a kept image (ms of a core)": list(crops.values()),
        }
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
            runs = [pool.submit(predicted, settings, root / f"run {name}") for name, settings in sides.items()]
            seconds, megabytes = zip(*(run.result() for run in runs), strict=True)
        columns |= {"04, an image (s)": seconds, "04, most memory beside libraries (MB)": megabytes}
    print(f"{'':40}" + "".join(f"{name:>20}" for name in sides) + f"{'ratio':>8}")
    for name, (one, other) in columns.items():
        print(f"{name:40}{one:20.2f}{other:20.2f}{other / one:8.2f}")


def plant(root: Path, small: int, large: int, count: int) -> None:
    """The same images and masks in two sizes, as PNG."""
    image, mask = blobs(small)
    for number in range(count):
        turned = np.roll(np.rot90(np.dstack([image, 255 * mask]), number), 37 * number, axis=0)
        for name, side in (("small", small), ("large", large)):
            array = cv2.resize(turned, (side, side), interpolation=cv2.INTER_NEAREST)
            for part, content in (
                ("train_images", array[..., :3]),
                ("train_masks", array[..., 3]),
                ("test_images", array[..., :3]),
            ):
                (root / name / part).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / name / part / f"{number}.png"), content)


def settings_of(root: Path, arguments: argparse.Namespace, resize: dict) -> Settings:
    content = {
        "name": "resolution",
        "data": {"root": str(root), "train_masks": "train_masks", "sample_submission": None, "resize": resize},
        "folds": {"count": 2},
        "model": {"encoder": "resnet10t", "weights": "random", "decoder_channels": [16, 8, 8, 8, 8]},
        "train": {"epochs": arguments.epochs, "batch_size": 4, "workers": 0, "cache_mb": arguments.cache_mb},
        "infer": {"tta": "none", "batch_size": 1},
    }
    return check_settings(content, root)


def epoch_seconds(job: FoldJob) -> list[float]:
    """Seconds of each epoch of one fold, from its first batch to the end of its validation and files."""
    ends = [time.perf_counter()]

    def note(job: FoldJob, row: dict) -> None:
        ends.append(time.perf_counter())

    train_folds([job], after_epoch=note)
    return np.diff(ends).tolist()


def crop_milliseconds(job: FoldJob) -> float:
    """Of this thread, for each crop, once every image has been read; the least of some rounds."""
    dataset, rounds = build_dataset(job, with_distances=False), []
    for epoch in range(5):
        started = time.thread_time()
        for index in range(len(dataset)):
            dataset[(epoch, index)]
        rounds.append((time.thread_time() - started) / len(dataset) * 1e3)
    return min(rounds)


def job_of(settings: Settings, folder: Path) -> FoldJob:
    data = open_training(settings.data)
    images = image_table(inspect_all(data).facts, None, data.classes)
    table = images.assign(fold=np.arange(len(images)) % 2, group=images.id)
    return plan_fold(0, RunFolder(folder), table, data, settings, {}, ())


def predicted(settings: Settings, folder: Path) -> tuple[float, float]:
    """Seconds an image of predicting and writing all test images, and megabytes that this took."""
    predictor, data = build_predictor(RunFolder(folder), settings, settings.data.classes, [0]), open_test(settings.data)
    before, started = peak(), time.perf_counter()
    list(predict_to_store(predictor, data, data.ids, MapStore(folder / "test", tuple(data.classes))))
    return (time.perf_counter() - started) / len(data.ids), peak() - before


def peak() -> float:
    """Peak megabytes of this process. Not from getrusage, whose peak a new process inherits from its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
