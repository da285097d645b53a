"""The extra cost of lib.tools.apply over 04 (naming maps by content, working in parts), in turns on the same images.

    PYTHONPATH=. python benchmarks/apply_overhead.py runs/NAME [--images 300] [--size 256] [--folds 0] [--turns 3]

One view and few folds are the hardest case: the cheaper a map, the larger the share of all other work.
"""

import argparse
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from measuring import timed

from lib.base.cli import plain_parser
from lib.data.competition import open_test
from lib.deploy.apply import predict_images
from lib.deploy.finished import open_finished
from lib.prediction.map_store import MapStore
from lib.prediction.predictor import predict_to_store
from lib.prediction.run_maps import build_predictor


def write_images(folder: Path, count: int, size: int) -> None:
    """PNG files of smooth noise, as large on disk as photos."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        image = cv2.GaussianBlur(random.integers(0, 256, (size, size, 3), np.uint8), (0, 0), 1)
        cv2.imwrite(str(folder / f"{number:05d}.png"), image)


def main(arguments: argparse.Namespace) -> None:
    with TemporaryDirectory() as name:
        root = Path(name)
        write_images(root / "images", arguments.images, arguments.size)
        places = [f"data.root={root}", "data.test_images=images", "data.sample_submission=null", "infer.tta=none"]
        finished = open_finished(arguments.run, places, arguments.folds)
        data, (member,) = open_test(finished.settings.data), finished.members

        def as_04(folder: Path) -> None:
            predictor = build_predictor(member.run, member.settings, data.classes, member.folds)
            list(predict_to_store(predictor, data, data.ids, MapStore(folder, tuple(data.classes))))

        def as_apply(folder: Path) -> None:
            predict_images(finished, data, folder, None, time.monotonic())

        as_04(root / "warm")
        seconds = {as_04: [], as_apply: []}
        for turn in range(arguments.turns):
            for method in seconds:
                seconds[method].append(timed(method, root / f"{method.__name__}{turn}"))
    plain, applied = ([median(column) for column in zip(*taken, strict=True)] for taken in seconds.values())
    print(f"{arguments.images} images of {arguments.size} px, {len(member.folds)} model(s), one view")
    for method, (wall, processor) in zip(seconds, (plain, applied), strict=True):
        print(f"{method.__name__:10}{wall:8.1f} s wall{processor:8.1f} s processor")
    print(f"ratio {applied[0] / plain[0]:.3f} wall, {applied[1] / plain[1]:.3f} processor")


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path)
    command.add_argument("--images", type=int, default=300)
    command.add_argument("--size", type=int, default=256)
    command.add_argument("--folds", type=int, nargs="+", default=[0])
    command.add_argument("--turns", type=int, default=3)
    main(command.parse_args())
