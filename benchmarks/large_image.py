"""Peak memory and seconds of 04 and 05 on one large test image, by windows, typed as a user types them.

    python benchmarks/large_image.py [--side 10000] [--suffix .png] [section.key=value ...]

A tiny network is trained for two epochs on small tiles of the same blobs (01 to 03). Of the morphology only removal and
filling are tried, which need the whole mask at once.
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import yaml
from measuring import run_measured

from lib.base.cli import plain_parser

REPOSITORY = Path(__file__).resolve().parent.parent

TILE, PATCH = 256, 2048
SETTINGS = {
    "data": {"root": "data", "train_masks": "train_masks", "sample_submission": None},
    "folds": {"count": 3, "near_duplicates": False},
    "model": {"encoder": "resnet10t", "weights": "random", "decoder_channels": [16, 8, 8, 8, 8]},
    "train": {"epochs": 2, "batch_size": 4, "lr": 0.003, "workers": 0},
    "infer": {"tta": "none"},
    "postprocess": {"steps": ["remove", "fill"], "areas": [64]},
}


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--side", type=int, default=10_000, help="of the test image in pixels")
    parser.add_argument("--suffix", choices=[".png", ".tif", ".npy"], default=".png", help="its format")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data", arguments.side, arguments.suffix)
        (folder / "large.yaml").write_text(yaml.safe_dump(SETTINGS))
        type_in(folder, "01_prepare_folds.py", "--config", "large.yaml", *arguments.overrides)
        for stage in ("02_train.py", "03_oof_threshold.py", "04_infer.py", "05_postprocess.py"):
            seconds, megabytes = type_in(folder, stage, "--run", "runs/large")
            if stage[1] in "45":
                print(f"{stage:18} {arguments.side} px: {megabytes:6.0f} MB at most, {seconds:6.1f} s", flush=True)


def write_data(root: Path, side: int, suffix: str) -> None:
    """Blobs on a textured ground: tiles with masks, and one test image that repeats a patch of them."""
    image, mask = blobs(PATCH)
    for part in ("train_images", "train_masks", "test_images"):
        (root / part).mkdir(parents=True)
    for number, (top, left) in enumerate((y, x) for y in range(0, 1024, TILE) for x in range(0, 1024, TILE)):
        window = np.s_[top : top + TILE, left : left + TILE]
        cv2.imwrite(str(root / "train_images" / f"{number:02d}.png"), image[window])
        cv2.imwrite(str(root / "train_masks" / f"{number:02d}.png"), 255 * mask[window])
    times = -(-side // PATCH)
    whole = np.tile(image, (times, times, 1))[:side, :side]
    if suffix == ".npy":
        np.save(root / "test_images" / "large.npy", whole)
    else:
        cv2.imwrite(str(root / "test_images" / f"large{suffix}"), whole)


def blobs(side: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (side, side, 3) and its mask uint8 0/1."""
    random = np.random.default_rng(0)
    coarse, fine = (cv2.GaussianBlur(random.standard_normal((side, side)), (0, 0), sigma) for sigma in (12, 2))
    mask = (coarse > coarse.std()).astype(np.uint8)
    gray = 110 + 60 * mask + 30 * fine / fine.std() + random.normal(0, 6, mask.shape)
    return np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, axis=2), mask


def type_in(folder: Path, script: str, *words: str) -> tuple[float, float]:
    """Run a script of the repository; its wall seconds and peak megabytes."""
    command = [sys.executable, str(REPOSITORY / script), *words]
    seconds, _, megabytes = run_measured(command, folder, PYTHONPATH=str(REPOSITORY))
    return seconds, megabytes


if __name__ == "__main__":
    main()
