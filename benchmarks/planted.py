"""Planted competitions for the benchmarks: true masks and imperfect probability maps of them, as files on disk."""

import os
from pathlib import Path

import cv2
import numpy as np

from lib.config.data_settings import DataSettings
from lib.prediction.map_store import MapStore

FOLDS = 5


def planted_pair(random: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A map uint8 and its truth uint8 0/1, both (side, side): blobs, false alarms and holes; every eighth is empty."""
    margin = _smooth(random, side, side / 16) - (9 if random.random() < 1 / 8 else 0.8)
    found = np.maximum(margin, -0.9) + 0.3 * _smooth(random, side, 3)
    return np.rint(255 / (1 + np.exp(-8 * found))).astype(np.uint8), (margin > 0).astype(np.uint8)


def _smooth(random: np.random.Generator, side: int, sigma: float) -> np.ndarray:
    """Smooth noise of standard deviation 1."""
    noise = cv2.GaussianBlur(random.standard_normal((side, side), np.float32), (0, 0), sigma)
    return noise / noise.std()


def plant(root: Path, count: int, side: int) -> tuple[DataSettings, MapStore]:
    """Write `count` masks and maps below `root`. The images, whose pixels nobody reads, are links to the masks."""
    random = np.random.default_rng(0)
    store = MapStore(root / "maps", ("mask",))
    for folder in ("masks", "images"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        probability_map, truth = planted_pair(random, side)
        cv2.imwrite(str(root / "masks" / f"{number:05d}.png"), 255 * truth)
        os.link(root / "masks" / f"{number:05d}.png", root / "images" / f"{number:05d}.png")
        store.write(f"{number:05d}", probability_map[..., None])
    files = {"train_images": "images", "train_masks": "masks", "test_images": "images"}
    return DataSettings(root=root, **files, sample_submission=None, channels=1), store
