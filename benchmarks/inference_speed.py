"""Images per second of 04, all folds and flips, against the bare forward passes of the same networks.

    python benchmarks/inference_speed.py runs/blue_marble [--rounds 3] [--images 64]

pipeline   read the training images, predict with all folds and views, write the maps
bare       the same forward passes on a batch that lies in memory
unfolded   these passes of the networks as they were trained, their batch norms not folded into the convolutions
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from measuring import print_ratios

from lib.base.cli import plain_parser, run_command
from lib.data.competition import open_training
from lib.model.network import load_weights
from lib.prediction.map_store import MapStore
from lib.prediction.predictor import Predictor, predict_to_store
from lib.prediction.run_maps import build_predictor
from lib.run.folder import open_run


def measure(arguments: argparse.Namespace) -> None:
    run, settings = open_run(arguments.run)
    data = open_training(settings.data)
    folds = range(settings.folds.count)
    predictor = build_predictor(run, settings, data.classes, folds)
    as_trained = (
        load_weights(run.fold(fold).weights, settings.model, len(data.classes), settings.data.network_channels)
        for fold in folds
    )
    unfolded = Predictor(list(as_trained), settings.infer, predictor.device, predictor.precision)
    size = data.image_size(data.ids[0])
    ids = [image_id for image_id in data.ids if data.image_size(image_id) == size]
    batch = np.stack([data.read_image(image_id) for image_id in ids[: settings.infer.batch_size]])
    batches = min(len(ids), max(arguments.images, len(batch))) // len(batch)
    ids = ids[: batches * len(batch)]

    def pipeline() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for _ in predict_to_store(predictor, data, ids, MapStore(Path(folder), tuple(data.classes))):
                pass

    def passes(of: Predictor) -> None:
        for _ in range(batches):
            of.predict_batch(batch)

    sides = {"pipeline": pipeline, "bare": partial(passes, predictor), "unfolded": partial(passes, unfolded)}
    speeds = {name: [] for name in sides}
    for number in range(-1, arguments.rounds):
        for name, predict in sides.items():
            started = time.perf_counter()
            predict()
            if number >= 0:  # the first round warms up
                speeds[name].append(len(ids) / (time.perf_counter() - started))
    views = f"{len(predictor.networks)} folds, tta {settings.infer.tta}"
    print(
        f"inference, {predictor.device}, {predictor.precision}, {size[0]} x {size[1]} px, {views}, batch {len(batch)}"
    )
    print_ratios(speeds, "img/s", [("pipeline", "bare"), ("pipeline", "unfolded")])


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME", help="a run that 02_train.py finished")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--images", type=int, default=64, help="of one size, in each round; whole batches")
    run_command(measure, command)
