"""Baselines for a run's out-of-fold score: the same folds and the same nested threshold, without a network.

    python benchmarks/baselines.py runs/blue_marble

dark             a pixel's probability is its darkness
random forest    per pixel, from the gray value, blurs, edges and local contrast within some 50 pixels
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from tqdm import tqdm

from lib.base.cli import plain_parser, run_command
from lib.data.competition import TrainingData, open_training
from lib.folds.split import read_folds
from lib.masks.metrics import count_images
from lib.prediction.map_store import to_map
from lib.run.folder import open_run
from lib.tuning.thresholds import choose_thresholds

BLURS = (1, 2, 4, 8, 16)  # standard deviations in pixels
PIXELS_PER_IMAGE = 500


def measure(arguments: argparse.Namespace) -> None:
    run, settings = open_run(arguments.run)
    data = open_training(settings.data)
    table = read_folds(run.folds, data, settings.folds.count)
    for name, predict in (("dark", dark_maps), ("random forest", forest_maps)):
        maps = ((image_id, made, data.read_mask(image_id)) for image_id, made in predict(data, table))
        counts = count_images(tqdm(maps, total=len(table), desc=name, unit="image", disable=None), data.classes)
        result = choose_thresholds(counts, table.fold.to_numpy(), settings.threshold, table.group.to_numpy())
        print(f"{name}: {result}")


def dark_maps(data: TrainingData, table: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    for image_id in table.id:
        yield image_id, 255 - gray(data, image_id)[:, :, None].astype(np.uint8)


def forest_maps(data: TrainingData, table: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Maps of each fold's images by a forest grown on pixels of the other folds'."""
    for fold in sorted(table.fold.unique()):
        forest = grown_forest(data, table.id[table.fold != fold])
        for image_id in table.id[table.fold == fold]:
            image = gray(data, image_id)
            probability = forest.predict_proba(features(image).reshape(image.size, -1))[:, 1]
            yield image_id, to_map(probability.reshape(*image.shape, 1))


def grown_forest(data: TrainingData, ids: pd.Series) -> RandomForestClassifier:
    random = np.random.default_rng(0)
    inputs, truths = [], []
    for image_id in ids:
        image = gray(data, image_id)
        chosen = random.choice(image.size, PIXELS_PER_IMAGE, replace=False)
        inputs.append(features(image).reshape(image.size, -1)[chosen])
        truths.append(data.read_mask(image_id)[:, :, 0].ravel()[chosen])
    forest = RandomForestClassifier(100, min_samples_leaf=20, n_jobs=-1, random_state=0)
    return forest.fit(np.concatenate(inputs), np.concatenate(truths))


def gray(data: TrainingData, image_id: str) -> np.ndarray:
    return data.read_image(image_id).mean(axis=2).astype(np.float32)


def features(image: np.ndarray) -> np.ndarray:
    """(height, width, features) float32: the value, and blur, contrast and edges at every scale."""
    planes = [image]
    for sigma in BLURS:
        blurred = blur(image, sigma)
        contrast = np.sqrt(np.maximum(blur(image * image, sigma) - blurred * blurred, 0))
        edges = np.hypot(cv2.Sobel(blurred, cv2.CV_32F, 1, 0), cv2.Sobel(blurred, cv2.CV_32F, 0, 1))
        planes += [blurred, contrast, edges]
    return np.stack(planes, axis=-1)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME", help="a run that 01_prepare_folds.py made")
    run_command(measure, command)
