"""Seconds of 01 on planted images, against decoding them once on all cores.

    python benchmarks/checking_speed.py [--images 10000] [--side 256]

01 decodes, checks sizes and masks, hashes pixels, compares all images for near duplicates and splits them into folds.
"""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml
from measuring import print_ratios, timed
from planted import planted_pair

from lib.base.cli import plain_parser
from lib.base.prefetch import THREADS
from lib.masks.rle import encode

SCRIPT = Path(__file__).resolve().parent.parent / "01_prepare_folds.py"


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256, help="side of an image in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_images(folder, arguments.images, arguments.side)
        seconds = {"01": [], "decoding": []}
        for number in range(-1, arguments.rounds):
            checking, decoding = timed(run_stage_01, folder)[0], timed(decode, paths)[0]
            if number >= 0:  # the first round fills the disk's cache
                seconds["01"].append(checking)
                seconds["decoding"].append(decoding)
    print(
        f"checking {arguments.images} gray images of {arguments.side} x {arguments.side} px as RGB, {THREADS} threads"
    )
    print_ratios(seconds, "s", [("01", "decoding")])


def write_images(folder: Path, count: int, side: int) -> list[Path]:
    """Noisy images of planted masks, train.csv and the settings."""
    random = np.random.default_rng(0)
    (folder / "train_images").mkdir()
    rows, paths = [], []
    for number in range(count):
        image, truth = planted_pair(random, side)
        image = cv2.add(image // 2, random.integers(0, 64, image.shape, np.uint8))
        paths.append(folder / "train_images" / f"{number:06d}.png")
        cv2.imwrite(str(paths[-1]), image)
        rows.append((f"{number:06d}", encode(truth)))
    pd.DataFrame(rows, columns=["id", "rle"]).to_csv(folder / "train.csv", index=False)
    data = {"root": str(folder), "test_images": None, "sample_submission": None}
    (folder / "planted.yaml").write_text(yaml.safe_dump({"data": data}))
    return paths


def run_stage_01(folder: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--config", "planted.yaml"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def decode(paths: list[Path]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda path: cv2.imread(str(path), cv2.IMREAD_COLOR), paths):
            pass


if __name__ == "__main__":
    main()
