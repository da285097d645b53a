"""The effect of the number of images on a tuned score: thresholds tuned on a few images, scored on all others.

    python benchmarks/rehearsal.py runs/NAME [--draws 100]

Out-of-fold maps are predictions for images that their model did not see. So any part of them can stand for a small
training set, and the rest for its test set. Cells (groups) are drawn at random until they have enough images; the
threshold is tuned on those, as 03 does it, and scored on the others. The counts of 03 suffice: no map is read.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lib.base.cli import plain_parser, run_command
from lib.config.schema import ThresholdSettings
from lib.data.competition import open_training
from lib.folds.split import read_folds
from lib.masks.metrics import Counts, pooled
from lib.masks.statistics import group_numbers
from lib.run.folder import open_run
from lib.tuning.score_table import ScoreTable
from lib.tuning.threshold_result import ThresholdResult
from lib.tuning.thresholds import choose_thresholds, terms_of

SIZES = (20, 40, 80, 160)  # images to tune on


def rehearse(arguments: argparse.Namespace) -> None:
    run, settings = open_run(arguments.run)
    table = read_folds(run.folds, open_training(settings.data), settings.folds.count)
    thresholds = settings.threshold.model_copy(update={"bootstrap": 100})  # its interval is not used
    print(by_size(draw_all(Counts.load(run.oof_counts), table, thresholds, arguments.draws)).to_string())


def draw_all(
    counts: Counts, table: pd.DataFrame, settings: ThresholdSettings, repeats: int, seed: int = 0
) -> pd.DataFrame:
    """One row per draw: images, in_sample and nested (what a run would claim), left_out (what it would really reach).

    `table` has the columns fold and group, in the order of `counts.ids`. A draw without two folds to tune on, or
    without images to score on, is left out.
    """
    folds, groups = table.fold.to_numpy(), group_numbers(table.group.to_numpy())
    rng, rows = np.random.default_rng(seed), []
    for size in SIZES:
        for _ in range(repeats):
            drawn = drawn_groups(groups, size, rng)
            if len(np.unique(folds[drawn])) > 1 and not drawn.all():
                result = choose_thresholds(of_images(counts, drawn), folds[drawn], settings, groups[drawn])
                claims = {claim: result.mean(claim) for claim in ("in_sample", "nested")}
                rows.append({"images": size, **claims, "left_out": score_at(of_images(counts, ~drawn), result)})
    return pd.DataFrame(rows)


def drawn_groups(groups: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """The images (bool) of as many groups, in random order, as it takes to have `size` images."""
    order = rng.permutation(groups.max() + 1)
    reached = np.cumsum(np.bincount(groups)[order])
    return np.isin(groups, order[: np.searchsorted(reached, size) + 1])


def of_images(counts: Counts, chosen: np.ndarray) -> Counts:
    """The counts of some images, a bool array."""
    per_image = ("ids", "tp", "fp", "positives", "pixels")
    return replace(counts, **{name: getattr(counts, name)[chosen] for name in per_image})


def score_at(counts: Counts, result: ThresholdResult) -> float:
    """Mean score over the classes of other images at the thresholds that were chosen."""
    images = np.arange(len(counts.ids))
    tables = [ScoreTable.of_class(counts, index, result.metric, images) for index in range(len(counts.classes))]
    rules = [choice.rule for choice in result.classes.values()]
    return float(np.mean([pooled(*terms_of(*each)) for each in zip(rules, tables, strict=True)]))


def by_size(draws: pd.DataFrame) -> pd.DataFrame:
    """Means over the draws, as text: both claims less the score on the images left out, and the size of the errors."""
    rows = {}
    for size, drawn in draws.groupby("images"):
        errors = {"in-sample": drawn.in_sample - drawn.left_out, "nested": drawn.nested - drawn.left_out}
        row = {"draws": str(len(drawn)), "gap": f"{(drawn.in_sample - drawn.nested).mean():+.4f}"}
        row |= {f"{name} - left out": f"{error.mean():+.4f}" for name, error in errors.items()}
        row |= {f"absolute, {name}": f"{error.abs().mean():.4f}" for name, error in errors.items()}
        rows[f"{size} images"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME")
    command.add_argument("--draws", type=int, default=100, metavar="N", help="per number of images")
    run_command(rehearse, command)
