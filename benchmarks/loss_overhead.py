"""The cost of the compound loss: a training step with dice + focal + boundary against one with plain BCE.

    python benchmarks/loss_overhead.py [--steps 20] [--size 128] [--batch 16]

The steps take turns on the same network and batch, so a busy machine slows all of them. `maps in the step` computes
the distance maps of the batch between two steps: their cost on a machine without spare cores. `maps ready` is the cost
that remains if the loader's workers keep up with an accelerator.
"""

import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from lib.base.cli import plain_parser
from lib.config.training_settings import LossSettings, ModelSettings
from lib.model.device import (
    autocast,
    best_device,
    compute_slow_gradients_in_float32,
    keep_freed_memory,
    resolve_precision,
)
from lib.model.network import build_untrained
from lib.training.losses import SegmentationLoss, signed_distances

cv2.setNumThreads(0)  # as in lib/training/batches.py
PLAIN, COMPOUND = "bce", "dice + focal + boundary"


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each loss")
    parser.add_argument("--size", type=int, default=128, help="side of a crop in pixels")
    parser.add_argument("--batch", type=int, default=16, help="crops a step")
    arguments = parser.parse_args()

    device = best_device()
    precision = resolve_precision("auto", device)
    keep_freed_memory(device)
    torch.manual_seed(0)
    network = build_untrained(ModelSettings(weights="random"), class_count=1).to(device)
    compute_slow_gradients_in_float32(network, device, precision)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    losses = {formula: SegmentationLoss(LossSettings(terms=formula)) for formula in (PLAIN, COMPOUND)}
    images = torch.randint(0, 256, (arguments.batch, 3, arguments.size, arguments.size), dtype=torch.uint8).to(device)
    masks = blobs(arguments.batch, arguments.size)
    truths = torch.from_numpy(masks.transpose(0, 3, 1, 2)).to(device)

    ready = distance_maps(masks).to(device)

    def step(formula: str, distances: Callable[[], torch.Tensor | None]) -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        with autocast(device, precision):
            logits = network(images)
        total, _ = losses[formula](logits, truths, distances(), done_share=0.5)
        total.backward()
        optimizer.step()
        total.item()  # waits for the device
        return time.perf_counter() - start

    kinds = {
        f"{PLAIN}": (PLAIN, lambda: None),
        f"{COMPOUND}, maps in the step": (COMPOUND, lambda: distance_maps(masks).to(device)),
        f"{COMPOUND}, maps ready": (COMPOUND, lambda: ready),
    }
    seconds = {name: [] for name in kinds}
    for number in range(-2, arguments.steps):
        for name in list(kinds)[:: -1 if number % 2 else 1]:
            spent = step(*kinds[name])
            if number >= 0:  # the first two rounds warm up
                seconds[name].append(spent)
    print(
        f"{device.type}, {precision}, {arguments.size} px, batch {arguments.batch}, median of {arguments.steps} steps"
    )
    for name, times in seconds.items():
        ratio = statistics.median(mine / plain for mine, plain in zip(times, seconds[PLAIN], strict=True))
        print(f"  {name:44s} {1000 * statistics.median(times):8.1f} ms   {ratio:.3f} of {PLAIN}")


def distance_maps(masks: np.ndarray) -> torch.Tensor:
    """The maps of a batch: uint8 (count, size, size, classes) -> float32 (count, classes, size, size)."""
    return torch.from_numpy(np.stack([signed_distances(mask) for mask in masks]))


def blobs(count: int, size: int) -> np.ndarray:
    """Random smooth masks, uint8 0/1, (count, size, size, 1), half of the pixels set."""
    noise = np.random.default_rng(0).standard_normal((count, size, size))
    return np.stack([cv2.GaussianBlur(field, (0, 0), size / 16) > 0 for field in noise]).astype(np.uint8)[..., None]


if __name__ == "__main__":
    main()
