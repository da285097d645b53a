"""What the compound loss costs: a training step with dice + focal + boundary against one with plain BCE.

    python benchmarks/loss_overhead.py [--steps 20] [--size 128] [--batch 16]

Both steps run in turn, on the same network and batch, so a busy machine slows both. The distance maps of the whole
batch are computed in the step itself, which is the worst case: in training the loader's workers do it.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import segmentation_models_pytorch as smp  # noqa: E402
import torch  # noqa: E402

from lib.config import LossSettings  # noqa: E402
from lib.losses import SegmentationLoss, signed_distances  # noqa: E402

PLAIN, COMPOUND = "bce", "dice + focal + boundary"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each loss")
    parser.add_argument("--size", type=int, default=128, help="side of a crop in pixels")
    parser.add_argument("--batch", type=int, default=16, help="crops a step")
    arguments = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = smp.Unet("tu-tf_efficientnet_lite0", encoder_weights=None).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses = {formula: SegmentationLoss(LossSettings(terms=formula)) for formula in (PLAIN, COMPOUND)}
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=device)
    masks = blobs(arguments.batch, arguments.size)
    truths = torch.from_numpy(masks.transpose(0, 3, 1, 2)).to(device)

    def step(formula: str) -> float:
        start = time.perf_counter()
        loss, distances = losses[formula], None
        if loss.needs_distance:
            distances = torch.from_numpy(np.stack([signed_distances(mask) for mask in masks])).to(device)
        optimizer.zero_grad()
        total, _ = loss(model(images), truths, distances, progress=0.5)
        total.backward()
        optimizer.step()
        total.item()  # waits for the device
        return time.perf_counter() - start

    for formula in losses:
        step(formula), step(formula)
    seconds = {formula: [] for formula in losses}
    for number in range(arguments.steps):
        for formula in sorted(losses, reverse=number % 2):
            seconds[formula].append(step(formula))
    medians = {formula: statistics.median(times) for formula, times in seconds.items()}
    for formula, median in medians.items():
        print(f"{formula:24s} {1000 * median:8.1f} ms a step")
    start = time.perf_counter()
    for mask in masks:
        signed_distances(mask)
    print(f"{'  of it, distance maps':24s} {1000 * (time.perf_counter() - start):8.1f} ms")
    print(f"ratio {medians[COMPOUND] / medians[PLAIN]:.3f} on {device}, {arguments.size} px, batch {arguments.batch}")


def blobs(count: int, size: int) -> np.ndarray:
    """Random smooth masks, uint8 0/1, (count, size, size, 1), half of the pixels set."""
    noise = np.random.default_rng(0).standard_normal((count, size, size))
    return np.stack([cv2.GaussianBlur(field, (0, 0), size / 16) > 0 for field in noise]).astype(np.uint8)[..., None]


if __name__ == "__main__":
    main()
