"""Compare finished runs on the same folds, image by image: is one better, by how much, and on which images?

    python -m lib.tools.compare runs/A runs/B [runs/C ...] [--out FOLDER]

The first run is the baseline; each other run is compared with it on the out-of-fold maps, every image at the rule
(threshold, and gate if any) that its run tuned on the other folds.

reads    runs/*/folds.csv, oof/, oof_counts.npz and the training images and masks
writes   compare.json (differences with 95 % intervals), compare.csv (the scores of every image),
         compare_B.png (the images that differ most), compare.html (all of it to look at); into the baseline's
         folder unless --out says another
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from lib.base.cli import run_command
from lib.base.errors import UserError
from lib.base.files import atomic_path, sha256_of_file, write_json, write_text
from lib.base.prefetch import THREADS, prefetched
from lib.config.schema import Settings
from lib.data.competition import TrainingData, open_training
from lib.data.folds import read_folds
from lib.masks.metrics import Counts, dice, iou
from lib.masks.rules import Rule
from lib.masks.statistics import bootstrap_interval
from lib.prediction.map_store import MapStore
from lib.report.comparison import write_comparison
from lib.run.folder import RunFolder, open_run
from lib.run.provenance import require_thresholds
from lib.tuning.thresholds import choose_thresholds

MEASURES = ("dice", "iou", "boundary_iou")
BAND = 0.02  # width of a border band as a share of the diagonal, as in the paper
SHOWN = 4  # images in the picture for either direction
SHOWN_PIXELS = 320  # longest side of an image in the picture
HIT, FALSE_ALARM, MISSED = (255, 255, 255), (213, 94, 0), (0, 114, 178)  # told apart by the colour-blind too


class FinishedRun(NamedTuple):
    """A run whose out-of-fold maps are scored; `rules[fold]` are the rules of the classes tuned without that fold."""

    name: str
    maps: MapStore
    rules: dict[int, list[Rule]]

    def predict(self, image_id: str, fold: int) -> np.ndarray:
        """Out-of-fold mask of an image, uint8 0/1 (height, width, classes)."""
        maps = np.moveaxis(self.maps.read(image_id), -1, 0)
        return np.stack([rule.apply(plane) for rule, plane in zip(self.rules[fold], maps, strict=True)], axis=-1)


def compare(arguments: argparse.Namespace) -> None:
    opened = [open_run(root) for root in arguments.runs]
    digest = require_comparable([run for run, _ in opened])
    baseline, settings = opened[0]
    data = open_training(settings.data)
    table = read_folds(baseline.folds, data, settings.folds.count)
    runs = [finished_run(run, settings, data, table) for run, settings in opened]
    scores = score_images(runs, data, table)
    out = arguments.out or baseline.root

    content = {"baseline": runs[0].name, "folds.csv": digest, "images": len(table), "against": {}}
    print(f"{len(table)} images in {table.group.nunique()} groups and {settings.folds.count} folds")
    for challenger, scored in zip(runs[1:], scores[1:], strict=True):
        differences = describe(scores[0], scored, table, settings.threshold.bootstrap)
        content["against"][challenger.name] = differences
        print(f"\n{challenger.name} against {runs[0].name}\n{as_text(differences)}")
        draw(out / f"compare_{challenger.name}.png", [runs[0], challenger], np.stack([scores[0], scored]), data, table)
    write_json(out / "compare.json", content)
    write_text(out / "compare.csv", score_table(runs, scores, data, table).to_csv(index=False, float_format="%.6f"))
    write_comparison(out / "compare.html", content, runs, scores, data, table)
    print(f"\nwrote     {out}/compare.html, compare.json, compare.csv, compare_*.png")


def require_comparable(runs: list[RunFolder]) -> str:
    """The fingerprint of the runs' folds. Raises UserError unless all share it and have names of their own."""
    if len(runs) < 2:
        raise UserError("name at least two run folders to compare")
    names = [run.root.resolve().name for run in runs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two of the runs are called {twice.pop()}; name different runs, or rename a run's folder")
    for run in runs:
        if not run.folds.is_file():
            raise UserError(f"{run.folds} does not exist; run 01_prepare_folds.py")
        if sha256_of_file(run.folds) != sha256_of_file(runs[0].folds):
            raise UserError(
                f"{run.folds} differs from {runs[0].folds}: images would be scored by models that saw other images; "
                "train one of the runs on the folds of the other"
            )
    return sha256_of_file(runs[0].folds)


def finished_run(run: RunFolder, settings: Settings, data: TrainingData, table: pd.DataFrame) -> FinishedRun:
    """A run with the rules tuned without each fold. Raises UserError unless 03 is done and its inputs are unchanged."""
    counts = Counts.load(run.oof_counts)
    require_thresholds(run, settings)
    if counts.ids.tolist() != table.id.tolist():
        remedy = f"run {run.command('03_oof_threshold')}"
        raise UserError(f"{run.oof_counts} does not hold the images of {run.folds}; {remedy}")
    result = choose_thresholds(counts, table.fold.to_numpy(), settings.threshold, table.group.to_numpy())
    rules = {fold: [choice.fold_rules[fold] for choice in result.classes.values()] for fold in table.fold.unique()}
    return FinishedRun(run.root.resolve().name, MapStore(run.oof, tuple(data.classes)), rules)


def score_images(runs: list[FinishedRun], data: TrainingData, table: pd.DataFrame) -> np.ndarray:
    """Scores float64 (runs, images, classes, measures), images in the order of the table; few are held at a time."""

    def score(row: tuple[str, int]) -> np.ndarray:
        truth = data.read_mask(row[0])
        return np.stack([mask_scores(run.predict(*row), truth) for run in runs])

    rows = list(zip(table.id, table.fold, strict=True))
    return np.stack([scores for _, scores in prefetched(score, rows, ahead=2 * THREADS)], axis=1)


def mask_scores(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The measures of each class, float64 (classes, measures), of masks uint8 0/1 (height, width, classes).

    boundary_iou is the IoU of the two border bands (Cheng et al., "Boundary IoU", CVPR 2021, arXiv 2103.16562); all
    three follow the empty rule of lib/masks/metrics.py.
    """
    whole, band = confusion(mask, truth), confusion(border_band(mask), border_band(truth))
    return np.stack([dice(*whole), iou(*whole), iou(*band)], axis=-1)


def border_band(mask: np.ndarray) -> np.ndarray:
    """The mask's pixels within 2 % of the diagonal (at least 1 px) of a pixel outside it, in the chessboard distance.

    Beyond the edge of the image everything is outside. uint8 0/1, (height, width, classes).
    """
    width = max(1, round(BAND * float(np.hypot(*mask.shape[:2]))))
    square = np.ones((3, 3), np.uint8)
    inner = cv2.erode(mask, square, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask - inner.reshape(mask.shape)


def confusion(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, false positives and false negatives of each class, int64 (classes,)."""
    tp = np.count_nonzero(mask & truth, axis=(0, 1))
    return tp, np.count_nonzero(mask, axis=(0, 1)) - tp, np.count_nonzero(truth, axis=(0, 1)) - tp


def describe(baseline: np.ndarray, challenger: np.ndarray, table: pd.DataFrame, repeats: int) -> dict:
    """What the scores of two runs, (images, classes, measures), say about their difference, challenger - baseline.

    Scores are means over classes, then over images; the 95 % interval is a bootstrap of the paired differences that
    draws whole groups; an image counts as better or worse whatever the size of its difference.
    """
    content = {}
    for number, measure in enumerate(MEASURES):
        before, after = baseline[..., number].mean(axis=1), challenger[..., number].mean(axis=1)
        difference = after - before
        ones = np.ones((len(table), 1))
        interval = bootstrap_interval(difference[:, None], ones, table.group.to_numpy(), repeats)
        content[measure] = {
            "baseline": float(before.mean()),
            "challenger": float(after.mean()),
            "difference": float(difference.mean()),
            "interval": list(interval),
            "better": int((difference > 0).sum()),
            "worse": int((difference < 0).sum()),
            "by_fold": {int(fold): float(difference[table.fold == fold].mean()) for fold in sorted(set(table.fold))},
        }
    return content


def as_text(differences: dict) -> str:
    """What `describe` found as a table, one line per measure."""
    lines = {
        measure: {
            "baseline": f"{found['baseline']:.4f}",
            "challenger": f"{found['challenger']:.4f}",
            "difference": f"{found['difference']:+.4f}",
            "95 % interval": "[{:+.4f}, {:+.4f}]".format(*found["interval"]),
            "better": found["better"],
            "worse": found["worse"],
            **{f"fold {fold}": f"{difference:+.4f}" for fold, difference in found["by_fold"].items()},
        }
        for measure, found in differences.items()
    }
    return pd.DataFrame.from_dict(lines, orient="index").to_string()


def score_table(runs: list[FinishedRun], scores: np.ndarray, data: TrainingData, table: pd.DataFrame) -> pd.DataFrame:
    """One row per run, class and image: id, fold, group, run, class and the measures."""
    images = table[["id", "fold", "group"]]
    parts = [
        images.assign(run=run.name, **{"class": name}).join(pd.DataFrame(scored[:, index], columns=MEASURES))
        for run, scored in zip(runs, scores, strict=True)
        for index, name in enumerate(data.classes)
    ]
    return pd.concat(parts, ignore_index=True)


def draw(path: Path, runs: list[FinishedRun], scores: np.ndarray, data: TrainingData, table: pd.DataFrame) -> None:
    """Draw image | truth | one run | the other, for the images where Dice rises or falls most."""
    from matplotlib.figure import Figure

    shown = most_different((scores[1] - scores[0])[..., 0])
    figure = Figure(figsize=(9, 0.5 + 2.3 * len(shown)), layout="constrained")
    figure.suptitle("Dice rises most, then falls most.  white: hit   orange: false alarm   blue: missed", fontsize=9)
    for row, (image, layer) in enumerate(shown):
        image_id, truth = table.id[image], data.read_mask(table.id[image])[..., layer]
        masks = [run.predict(image_id, table.fold[image])[..., layer] for run in runs]
        panels = {
            f"{image_id}  {data.classes[layer]}": displayable(data.read_image(image_id)),
            "truth": overlay(truth, truth),
        }
        for run, mask, dice_score in zip(runs, masks, scores[:, image, layer, 0], strict=True):
            panels[f"{run.name}  {dice_score:.3f}"] = overlay(mask, truth)
        for column, (title, panel) in enumerate(panels.items()):
            axes = figure.add_subplot(len(shown), len(panels), row * len(panels) + column + 1)
            axes.imshow(shrunk(panel), cmap="gray", vmin=0, vmax=255)
            axes.set_title(title, fontsize=8)
            axes.axis("off")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def most_different(difference: np.ndarray) -> list[tuple[int, int]]:
    """(image, class) of the largest rises, then of the largest falls; differences of 0 are left out."""
    order = np.argsort(-difference, axis=None, kind="stable")
    ranked = [tuple(map(int, np.unravel_index(index, difference.shape))) for index in order]
    rises = [place for place in ranked[:SHOWN] if difference[place] > 0]
    return rises + [place for place in ranked[::-1][:SHOWN] if difference[place] < 0]


def overlay(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """RGB picture of where a mask is right and wrong."""
    colours = np.array([(0, 0, 0), MISSED, FALSE_ALARM, HIT], np.uint8)
    return colours[2 * mask + truth]


def displayable(image: np.ndarray) -> np.ndarray:
    """An image's first three channels, or its first one where there are fewer."""
    return image[..., :3] if image.shape[2] >= 3 else image[..., 0]


def shrunk(picture: np.ndarray) -> np.ndarray:
    """The picture with its longest side at most SHOWN_PIXELS, so that large images do not pile up in the figure."""
    factor = min(1.0, SHOWN_PIXELS / max(picture.shape[:2]))
    return picture if factor == 1 else cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    command = argparse.ArgumentParser(
        prog="python -m lib.tools.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("runs", type=Path, nargs="+", metavar="runs/NAME", help="finished runs, the baseline first")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: the baseline's folder)")
    run_command(compare, command)
