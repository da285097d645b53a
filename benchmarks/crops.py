"""Milliseconds of one core for each training crop, with and without decoded images in memory (train.cache_mb).

    python benchmarks/crops.py [--sides 256 1024 4096]

Images are noise, smoothed, as PNG; masks are PNG too. Crops are of 256 pixels without augmentation.
"""

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from lib.base.cli import plain_parser
from lib.config.schema import Settings
from lib.data.competition import open_training
from lib.training.batches import CropDataset
from lib.training.fold_images import FoldImages, Pool

IMAGES = 4


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024, 4096], help="of the images, in pixels")
    print("side   decoded each time   kept in memory   (ms a crop)")
    for side in parser.parse_args().sides:
        with tempfile.TemporaryDirectory() as folder:
            plant(Path(folder), side)
            each_time, kept = (milliseconds(Path(folder), megabytes) for megabytes in (0, 1000))
        print(f"{side:5} {each_time:18.1f} {kept:16.1f}", flush=True)


def plant(root: Path, side: int) -> None:
    random = np.random.default_rng(0)
    for part in ("train_images", "train_masks"):
        (root / part).mkdir()
    for number in range(IMAGES):
        smooth = cv2.GaussianBlur(random.standard_normal((side, side, 3), np.float32), (0, 0), 3)
        image = np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)
        cv2.imwrite(str(root / "train_images" / f"{number}.png"), image)
        cv2.imwrite(str(root / "train_masks" / f"{number}.png"), 255 * (image[..., 0] > 150).astype(np.uint8))


def milliseconds(root: Path, megabytes: int) -> float:
    """Of this thread, per crop, once each image has been read."""
    settings = Settings.model_validate(
        {
            "name": "crops",
            "data": {"root": root, "train_masks": "train_masks"},
            "augment": {"preset": "none"},
            "train": {"cache_mb": megabytes},
        }
    )
    data = open_training(settings.data)
    pool = Pool(data.ids, np.zeros(len(data.ids), bool), len(data.ids))
    dataset = CropDataset(FoldImages(data, [pool], data, [], []), settings, (256, 256), with_distances=False)
    for index in range(IMAGES):
        dataset[(0, index)]
    started, crops = time.thread_time(), 0
    while time.thread_time() - started < 1 or crops < 2 * IMAGES:
        dataset[(1, crops % IMAGES)]
        crops += 1
    return (time.thread_time() - started) / crops * 1e3


if __name__ == "__main__":
    main()
