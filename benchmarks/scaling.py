"""Time and memory of stages 01, 03, 04 and 05 against the number of images, each stage a process of its own.

    python benchmarks/scaling.py WORK [--images 1000 10000 50000] [--side 64] [--figure docs/scaling.png]

The images are planted below WORK, and so are all probability maps, as if networks had predicted them: 03 starts by
reading maps and masks, 04 finds all maps, 05 runs until the submission is written. There are as many test
images as training images. Memory is a stage's peak.
WORK/costs.csv keeps the results; numbers of images that it holds are not measured again.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import yaml
from measuring import run_measured
from planted import planted_pair

from lib.base.cli import plain_parser
from lib.base.files import write_json, write_text
from lib.data.competition import open_test
from lib.data.input_files import known_test_images, write_known
from lib.masks.rle import encode
from lib.prediction.map_store import MapStore
from lib.prediction.run_maps import open_oof_maps, open_test_maps
from lib.run.folder import RunFolder, open_run
from lib.run.provenance import test_inputs, threshold_inputs, training_inputs

ROOT = Path(__file__).resolve().parent.parent

STAGES = {"01": "01_prepare_folds", "03": "03_oof_threshold", "04": "04_infer", "05": "05_postprocess"}
NAME = "planted"


class Cost(NamedTuple):
    """The cost of a stage for a number of images."""

    images: int
    stage: str
    processor: float  # seconds, of the stage's process and its workers
    wall: float  # seconds
    megabytes: float  # peak of the largest process


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("work", type=Path, metavar="WORK", help="folder for the planted images, removed as it goes")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--side", type=int, default=64, help="side of an image in pixels")
    parser.add_argument("--figure", type=Path, help="where to draw seconds and memory against images")
    arguments = parser.parse_args()
    kept = arguments.work / "costs.csv"
    costs = read_costs(kept)
    print("| images | stage | processor s | wall s | processor s per 1000 | peak MB |\n|---|---|---|---|---|---|")
    for cost in costs:
        print_row(cost)
    for count in sorted(set(arguments.images) - {cost.images for cost in costs}):
        for cost in run_stages(arguments.work / str(count), count, arguments.side):
            print_row(cost)
            costs.append(cost)
        write_text(kept, "".join(",".join(map(str, cost)) + "\n" for cost in costs))
    if arguments.figure:
        draw(costs, arguments.side, arguments.figure)


def read_costs(path: Path) -> list[Cost]:
    """The measurements of an earlier call."""
    rows = [line.split(",") for line in path.read_text().split()] if path.is_file() else []
    return [Cost(int(images), stage, *map(float, numbers)) for images, stage, *numbers in rows]


def print_row(cost: Cost) -> None:
    """One row of the table."""
    print(
        f"| {cost.images:,} | {cost.stage} | {cost.processor:.1f} | {cost.wall:.1f} "
        f"| {1000 * cost.processor / cost.images:.2f} | {cost.megabytes:.0f} |",
        flush=True,
    )


def run_stages(folder: Path, count: int, side: int) -> Iterator[Cost]:
    """Yield the cost of each stage on `count` planted images; the folder is removed at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    run = RunFolder(folder / "runs" / NAME)
    plant(folder, run, count, side)
    for stage, script in STAGES.items():
        if stage == "03":
            plant_models(folder, run)
        target = ["--config", f"{NAME}.yaml"] if stage == "01" else ["--run", f"runs/{NAME}"]
        wall, processor, megabytes = run_measured([sys.executable, str(ROOT / f"{script}.py"), *target], folder)
        yield Cost(count, stage, processor, wall, megabytes)
    shutil.rmtree(folder)


def plant(folder: Path, run: RunFolder, count: int, side: int) -> None:
    """Write images with their masks and maps, and the settings; the test images and maps are the same files."""
    random = np.random.default_rng(0)
    (folder / "train_images").mkdir(parents=True)
    run.test.mkdir(parents=True)
    maps = planted_maps(folder)
    rows = ["id,rle\n"]
    for number in range(count):
        image_id = f"{number:06d}"
        probability_map, truth = planted_pair(random, side)
        image = cv2.add(probability_map // 2, random.integers(0, 64, truth.shape, np.uint8))
        cv2.imwrite(str(folder / "train_images" / f"{image_id}.png"), image)
        maps.write(image_id, probability_map[..., None])
        rows.append(f"{image_id},{encode(truth)}\n")
    write_text(folder / "train.csv", "".join(rows))
    data = {"root": str(folder.resolve()), "test_images": "train_images", "sample_submission": None}
    write_text(folder / f"{NAME}.yaml", yaml.safe_dump({"data": data}))


def plant_models(folder: Path, run: RunFolder) -> None:
    """Write the files of each trained fold, without a network, and mark the planted maps as made by these."""
    _, settings = open_run(run.root)
    for fold in range(settings.folds.count):
        write_text(run.fold(fold).weights, f"planted {fold}")
        write_json(run.fold(fold).metrics, {"made_from": training_inputs(run, settings)})
    data = open_test(settings.data)
    write_known(run.test_files, known_test_images(run, data))
    table = pd.read_csv(run.folds, dtype={"id": str})
    maps = planted_maps(folder)
    for store in (
        open_oof_maps(run, settings, table, threshold_inputs(run, settings)),
        open_test_maps(run, settings, data, test_inputs(run, settings)),
    ):
        for image_id in table.id:
            store.write(image_id, maps.read(image_id))


def planted_maps(folder: Path) -> MapStore:
    """The planted maps, marked as made by the planted models."""
    return MapStore(folder / "maps", ("mask",))


def draw(costs: list[Cost], side: int, path: Path) -> None:
    """Processor seconds and peak memory against images, beside proportional growth; all axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for stage in STAGES:
        own = [cost for cost in costs if cost.stage == stage]
        images = np.array([cost.images for cost in own])
        (line,) = left.loglog(images, [cost.processor for cost in own], "o-", label=stage)
        proportional = own[-1].processor * images / images[-1]
        left.loglog(images, proportional, ":", color=line.get_color(), label="proportional" if stage == "05" else None)
        right.loglog(images, [cost.megabytes for cost in own], "o-", label=stage)
    right.loglog(images, costs[0].megabytes * images / images[0], ":", color="0.6", label="proportional")
    for panel in (left, right):
        panel.xaxis.set_minor_formatter(NullFormatter())
    left.set(xlabel=f"images of {side} px", ylabel="processor seconds")
    right.set(xlabel=f"images of {side} px", ylabel="peak memory, MB", ylim=(50, 5000))
    left.legend()
    right.legend()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
