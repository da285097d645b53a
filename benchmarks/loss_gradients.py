"""The gradient of each loss term on the out-of-fold maps of a finished run.

    python benchmarks/loss_gradients.py runs/NAME

For each term alone: the size of its gradient by the logits (sum of absolute values over an image's pixels, mean over
images) as a multiple of bce's, and its shares within 3 px of the true border and on pixels that are wrong at
probability one half. Only the size relative to the other terms of a sum matters: AdamW rescales the whole.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.base.cli import plain_parser, run_command
from lib.config.training_settings import LossSettings
from lib.data.competition import open_training
from lib.folds.split import read_folds
from lib.prediction.map_store import MapStore, read_pairs
from lib.run.folder import open_run
from lib.training.losses import SegmentationLoss, signed_distances

TERMS = ("bce", "border_bce", "dice", "focal", "lovasz", "boundary")
NEAR = 3.0  # pixels
LEAST = 0.25 / 255  # probability that stands for the map values 0 and, from 1, 255


def measure(arguments: argparse.Namespace) -> None:
    run, settings = open_run(arguments.run)
    data = open_training(settings.data)
    ids = read_folds(run.folds, data, settings.folds.count).id
    pairs = read_pairs(MapStore(run.oof, tuple(data.classes)), data, ids, None)
    rows = [row for _, maps, truth in pairs for row in gradients(maps, truth)]
    table = pd.DataFrame(rows).groupby("term", sort=False).mean()
    table["size"] /= table["size"]["bce"]
    print(f"{len(ids)} images")
    print(table.to_string(float_format="%.3f"))


def gradients(maps: np.ndarray, truth: np.ndarray) -> list[dict]:
    """One row per term: size of its gradient, and its shares near the border and on wrong pixels.

    `maps` uint8 and `truth` uint8 0/1, both (height, width, classes).
    """
    distances = torch.from_numpy(signed_distances(truth))[None]
    truths = torch.from_numpy(truth).movedim(-1, 0)[None]
    probabilities = (torch.from_numpy(maps).movedim(-1, 0)[None].float() / 255).clamp(LEAST, 1 - LEAST)
    near = (distances.abs() * float(np.hypot(*truth.shape[:2])) <= NEAR) & (distances != 0)
    wrong = (probabilities >= 0.5) != truths.bool()
    rows = []
    for term in TERMS:
        logits = probabilities.logit().requires_grad_()
        loss = SegmentationLoss(LossSettings(terms=term, boundary_schedule="constant"))
        loss(logits, truths, distances, done_share=1.0)[0].backward()
        pull = logits.grad.abs()
        size = float(pull.sum())
        shares = {"near border": near, "on wrong": wrong}
        rows.append(
            {"term": term, "size": size}
            | {name: float(pull[chosen].sum()) / size if size else np.nan for name, chosen in shares.items()}
        )
    return rows


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME")
    run_command(measure, command)
