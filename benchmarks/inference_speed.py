"""Images per second of 04, all folds and flips, against the bare forward passes of the same networks.

    python benchmarks/inference_speed.py runs/blue_marble [--rounds 3] [--images 64]

pipeline   read the training images, predict with all folds and views, write the maps
bare       the same forward passes on a batch that lies in memory
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import print_ratios

from lib.base.cli import plain_parser, run_command
from lib.data.competition import open_training
from lib.prediction.map_store import MapStore
from lib.prediction.predictor import predict_to_store
from lib.prediction.run_maps import build_predictor
from lib.run.folder import open_run


def measure(arguments: argparse.Namespace) -> None:
    run, settings = open_run(arguments.run)
    data = open_training(settings.data)
    predictor = build_predictor(run, settings, data.classes, range(settings.folds.count))
    size = data.image_size(data.ids[0])
    ids = [image_id for image_id in data.ids if data.image_size(image_id) == size]
    batch = np.stack([data.read_image(image_id) for image_id in ids[: settings.infer.batch_size]])
    batches = min(len(ids), max(arguments.images, len(batch))) // len(batch)
    ids = ids[: batches * len(batch)]
    speeds = {"pipeline": [], "bare": []}
    for number in range(-1, arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            for _ in predict_to_store(predictor, data, ids, MapStore(Path(folder), tuple(data.classes))):
                pass
            pipeline = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(batches):
            predictor.predict_batch(batch)
        bare = time.perf_counter() - started
        if number >= 0:  # the first round warms up
            speeds["pipeline"].append(len(ids) / pipeline)
            speeds["bare"].append(len(ids) / bare)
    views = f"{len(predictor.networks)} folds, tta {settings.infer.tta}"
    print(
        f"inference, {predictor.device}, {predictor.precision}, {size[0]} x {size[1]} px, {views}, batch {len(batch)}"
    )
    print_ratios(speeds, "img/s", [("pipeline", "bare")])


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME", help="a run that 02_train.py finished")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--images", type=int, default=64, help="of one size, in each round; whole batches")
    run_command(measure, command)
