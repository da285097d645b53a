"""Compare finished runs on the same folds, image by image: is one better, by how much, and on which images?

    python -m lib.tools.compare runs/A runs/B [runs/C ...] [--out FOLDER]

The first run is the baseline; each other run is compared with it on the out-of-fold maps, every image at the rule
(threshold, and gate if any) that its run tuned on the other folds, at the size that is submitted. So the scores are the
nested ones of 03_oof_threshold.py.

reads    runs/*/folds.csv, oof/, oof_counts.npz and the training images and masks
writes   compare.json (differences with 95 % intervals), compare.csv (the scores of every image),
         compare_B.png (the images that differ most) and compare.html (all of it as a page), into --out or the
         folder of the baseline
"""

import argparse
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from lib.base.cli import plain_parser, run_command
from lib.base.errors import UserError
from lib.base.files import sha256_of_file, write_json
from lib.base.prefetch import THREADS, prefetched
from lib.config.schema import Settings
from lib.data.competition import TrainingData
from lib.data.input_files import open_unchanged_training
from lib.data.tables import write_table
from lib.folds.split import read_trained
from lib.masks.metrics import Counts, Metric, count_masks, dice, iou, known_only
from lib.masks.rules import Rule
from lib.masks.statistics import bootstrap_interval, influence
from lib.prediction.map_store import MapStore, scored_masks, scored_truth
from lib.prediction.run_maps import open_oof_maps
from lib.report.comparison import compared_pictures, write_comparison
from lib.report.galleries import Place, most_changed
from lib.report.pictures import ERRORS_LEGEND
from lib.run.folder import RunFolder, open_run
from lib.run.provenance import require_thresholds, trained_folds
from lib.run.score_notes import notes_on_scores
from lib.tuning.blind_maps import BlindMaps, blind_maps_of
from lib.tuning.thresholds import choose_thresholds

MEASURES = ("dice", "iou", "boundary_iou")
BAND = 0.02  # width of a border band as a share of the diagonal, as in the paper
EACH_WAY = 4  # images in the picture, of those that rise and of those that fall


class ScoredRun(NamedTuple):
    """A run whose out-of-fold masks are scored; `rules[image_id]` are the classes' rules, tuned without its fold."""

    name: str
    maps: MapStore
    rules: dict[str, dict[str, Rule]]
    metric: Metric
    terms: dict[str, np.ndarray]  # of each image as 03 counted them, (2, classes); see `Metric.terms`
    size: tuple[int, int] | None = None  # submission.size

    @classmethod
    def of_counts(
        cls, maps: MapStore, settings: Settings, counts: Counts, table: pd.DataFrame, blind: Sequence[BlindMaps] = ()
    ) -> "ScoredRun":
        """The run of these maps with the rules that 03 tunes on the counts; `table` has the columns fold and group."""
        result = choose_thresholds(counts, table.fold.to_numpy(), settings.threshold, table.group.to_numpy(), blind)
        ids = counts.ids.tolist()
        rules = dict(zip(ids, result.rules_of_images(), strict=True))
        terms = np.stack([choice.nested_terms for choice in result.classes.values()], axis=-1)
        terms = dict(zip(ids, np.moveaxis(terms, 1, 0), strict=True))
        return cls(maps.folder.parent.resolve().name, maps, rules, result.metric, terms, settings.submission.size)

    def predict(self, image_id: str) -> np.ndarray:
        """Out-of-fold masks of an image, uint8 0/1 (height, width, classes)."""
        return scored_masks(self.maps, image_id, self.rules[image_id], self.size)

    def require_same_truth(self, image_id: str, counts: np.ndarray) -> None:
        """Raise UserError where the counts (3, classes) against the baseline's truth are not those of the run's own."""
        if not np.allclose(self.metric.terms(*counts), self.terms[image_id]):
            raise UserError(
                f"the true mask of '{image_id}' in {self.name} is not that of the baseline, so their scores cannot be "
                "compared: one of them reads its masks with other settings of data, or from other files"
            )


def compare(arguments: argparse.Namespace) -> None:
    opened = [open_run(root) for root in arguments.runs]
    digest = require_comparable(opened)
    baseline, settings = opened[0]
    data, metric = open_unchanged_training(baseline, settings), Metric.of(settings.threshold)
    table = read_trained(baseline, settings, data)
    runs = [finished_run(run, settings, data, table) for run, settings in opened]
    scores = score_images(runs, data, table, metric)
    out = arguments.out or baseline.root

    content = {"baseline": runs[0].name, "folds.csv": digest, "images": len(table), "against": {}}
    print(f"{len(table)} images in {table.group.nunique()} groups and {table.fold.nunique()} folds")
    for challenger, scored in zip(runs[1:], scores[1:], strict=True):
        differences = describe_difference(scores[0], scored, table, settings.threshold.bootstrap, measures_of(metric))
        content["against"][challenger.name] = differences
        print(f"\n{challenger.name} against {runs[0].name}\n{differences_as_text(differences)}")
        pair, dice_scores = [runs[0], challenger], np.stack([scores[0], scored])[..., 0]
        draw_differences(out / f"compare_{challenger.name}.png", pair, dice_scores, data, table)
    print("", *(notes_on_scores(run, settings) for run, settings in opened), sep="\n", end="")
    write_json(out / "compare.json", content)
    write_table(out / "compare.csv", score_table(runs, scores, data, table, measures_of(metric)), "%.6f")
    write_comparison(out / "compare.html", content, runs, scores, data, table)
    print(f"\nwrote     {out}/compare.html, compare.json, compare.csv, compare_*.png")


def require_comparable(opened: list[tuple[RunFolder, Settings]]) -> str:
    """The fingerprint of the runs' folds. Raises UserError unless all share folds and size, and differ in name."""
    if len(opened) < 2:
        raise UserError("name at least two run folders to compare")
    names = [run.root.resolve().name for run, _ in opened]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two of the runs are called {twice.pop()}; name different runs, or rename a run's folder")
    first, first_settings = opened[0]
    for run, settings in opened:
        if not run.folds.is_file():
            raise UserError(f"{run.folds} does not exist; run 01_prepare_folds.py")
        if sha256_of_file(run.folds) != sha256_of_file(first.folds):
            raise UserError(
                f"{run.folds} differs from {first.folds}: images would be scored by models that saw other images; "
                "train one of the runs on the folds of the other"
            )
        if settings.submission.size != first_settings.submission.size:
            raise UserError(
                f"{run.root} is scored at another submission.size than {first.root} ({settings.submission.size} and "
                f"{first_settings.submission.size}), so their scores cannot be compared; give both the same and run 03"
            )
        require_same_models(first, trained_folds(first, first_settings), run, trained_folds(run, settings))
    return sha256_of_file(first.folds)


def require_same_models(first: RunFolder, of_first: list[int], run: RunFolder, of_run: list[int]) -> None:
    """Raise UserError unless both runs have models of the same folds, so that the same images are scored."""
    if of_first == of_run:
        return
    behind, missing = run, sorted(set(of_first) - set(of_run))
    if not missing:
        behind, missing = first, sorted(set(of_run) - set(of_first))
    raise UserError(
        f"{first.root} has models of fold {', '.join(map(str, of_first))}, {run.root} of fold "
        f"{', '.join(map(str, of_run))}, so their scores are of other images; run "
        f"{behind.command('02_train', '--folds', *missing)}, and then 03"
    )


def finished_run(run: RunFolder, settings: Settings, data: TrainingData, table: pd.DataFrame) -> ScoredRun:
    """A run with the rules tuned without each fold. Raises UserError unless 03 is done and its inputs are unchanged."""
    counts = Counts.load(run.oof_counts)
    made_from = require_thresholds(run, settings)
    if counts.ids.tolist() != table.id.tolist():
        remedy = f"run {run.command('03_oof_threshold')}"
        raise UserError(f"{run.oof_counts} does not hold the images of the folds trained; {remedy}")
    blind = blind_maps_of(run, settings, data, table)
    return ScoredRun.of_counts(open_oof_maps(run, settings, table, made_from), settings, counts, table, blind)


def measures_of(metric: Metric) -> tuple[str, ...]:
    """The measures compared: MEASURES, and the run's metric if it is not among them."""
    return MEASURES if metric.name in MEASURES else (*MEASURES, str(metric))


def score_images(runs: list[ScoredRun], data: TrainingData, table: pd.DataFrame, metric: Metric) -> np.ndarray:
    """Scores float64 (runs, images, classes, measures), images in the order of the table; few are held at a time.

    For a metric that pools pixels, the value of an image is its `influence`, whose mean is the score.
    """

    def score(image_id: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
        truth = scored_truth(data, image_id, runs[0].size)
        masks = [run.predict(image_id) for run in runs]
        counts = [count_masks(mask, truth) for mask in masks]
        for run, of_run in zip(runs, counts, strict=True):
            run.require_same_truth(image_id, of_run)
        return [mask_scores(mask, truth) for mask in masks], [np.stack(metric.terms(*of_run)) for of_run in counts]

    scored = [pair for _, pair in prefetched(score, table.id, ahead=2 * THREADS)]
    scores, terms = (np.stack(each, axis=1) for each in zip(*scored, strict=True))
    if metric.name in MEASURES:
        return scores
    values = [influence(of_run[:, 0], of_run[:, 1]) if metric.pools else of_run[:, 0] for of_run in terms]
    return np.concatenate([scores, np.stack(values)[..., None]], axis=3)


def mask_scores(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The measures of each class, float64 (classes, measures), of masks uint8 0/1 (height, width, classes).

    boundary_iou is the IoU of the two border bands (Cheng et al., "Boundary IoU", CVPR 2021, arXiv 2103.16562); all
    three follow the empty rule of lib/masks/metrics.py.
    """
    mask, truth = known_only(mask, truth)
    whole, band = count_masks(mask, truth), count_masks(border_band(mask), border_band(truth))
    return np.stack([dice(*whole), iou(*whole), iou(*band)], axis=-1)


def border_band(mask: np.ndarray) -> np.ndarray:
    """The mask's pixels within 2 % of the diagonal (at least 1 px) of a pixel outside it, in the chessboard distance.

    Everything beyond the edge of the image is outside. uint8 0/1, (height, width, classes).
    """
    width = max(1, round(BAND * float(np.hypot(*mask.shape[:2]))))
    square = np.ones((3, 3), np.uint8)
    inner = cv2.erode(mask, square, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask - inner.reshape(mask.shape)


def describe_difference(
    baseline: np.ndarray, challenger: np.ndarray, table: pd.DataFrame, repeats: int, measures: Sequence[str] = MEASURES
) -> dict:
    """Difference of two runs, challenger - baseline, from their scores (images, classes, measures).

    Scores are means over classes, then over images; the 95 % interval is a bootstrap of the paired differences that
    draws whole groups; an image counts as better or worse however small its difference is.
    """
    content = {}
    for number, measure in enumerate(measures):
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


def differences_as_text(differences: dict) -> str:
    """The result of `describe_difference` as a table, one line per measure."""
    lines = {
        measure: {
            "baseline": f"{values['baseline']:.4f}",
            "challenger": f"{values['challenger']:.4f}",
            "difference": f"{values['difference']:+.4f}",
            "95 % interval": "[{:+.4f}, {:+.4f}]".format(*values["interval"]),
            "better": values["better"],
            "worse": values["worse"],
            **{f"fold {fold}": f"{difference:+.4f}" for fold, difference in values["by_fold"].items()},
        }
        for measure, values in differences.items()
    }
    return pd.DataFrame.from_dict(lines, orient="index").to_string()


def score_table(
    runs: list[ScoredRun],
    scores: np.ndarray,
    data: TrainingData,
    table: pd.DataFrame,
    measures: Sequence[str] = MEASURES,
) -> pd.DataFrame:
    """One row per run, class and image: id, fold, group, run, class and the measures."""
    images = table[["id", "fold", "group"]]
    parts = [
        images.assign(run=run.name, **{"class": name}).join(pd.DataFrame(scored[:, class_index], columns=measures))
        for run, scored in zip(runs, scores, strict=True)
        for class_index, name in enumerate(data.classes)
    ]
    return pd.concat(parts, ignore_index=True)


def draw_differences(
    path: Path, runs: list[ScoredRun], dice_scores: np.ndarray, data: TrainingData, table: pd.DataFrame
) -> None:
    """Draw image | truth | one run | the other, for the images whose Dice, (2, images, classes), differs most."""
    from lib.report.figures import save_panels  # matplotlib, which takes a while to load

    rows = []
    for image, class_index in chain(*most_changed(dice_scores[1] - dice_scores[0], EACH_WAY)):
        place = Place(table.id[image], class_index)
        pictures, scores = compared_pictures(place, runs, data)
        of_runs = [f"{run.name}  {score:.3f}" for run, score in zip(runs, scores, strict=True)]
        titles = f"{place.id}  {data.classes[class_index]}", "truth", *of_runs
        rows.append([(title, picture) for title, (_, picture) in zip(titles, pictures, strict=True)])
    save_panels(rows, f"Dice rises most, then falls most.  {ERRORS_LEGEND}", path)


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("runs", type=Path, nargs="+", metavar="runs/NAME", help="finished runs, the baseline first")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: the baseline's folder)")
    run_command(compare, command)
