"""The page of a comparison, `compare.html`: each run against the baseline, image by image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from lib.data.competition import TrainingData
from lib.masks.metrics import TITLES, planes
from lib.prediction.map_store import scored_truth
from lib.report.charts import Axis, Chart, series
from lib.report.galleries import Item, Place, changed_galleries, class_label, encode_pictures, mask_dice
from lib.report.page import write_page
from lib.report.pictures import TRUTH, errors_picture, mask_picture, shown_image


class ComparedRun(Protocol):
    """A finished run and its out-of-fold masks, uint8 0/1 (height, width, classes)."""

    name: str
    size: tuple[int, int] | None  # (height, width) at which it is scored

    def predict(self, image_id: str) -> np.ndarray: ...


def write_comparison(
    path: Path, content: dict, runs: Sequence[ComparedRun], scores: np.ndarray, data: TrainingData, table: pd.DataFrame
) -> None:
    """Write the page.

    `content` is that of compare.json; `scores` are (runs, images, classes, measures), Dice first. `runs`, the baseline
    first, and the images of `table` (id, fold) are in the same order.
    """
    parts, titles = [], TITLES | {"boundary_iou": "Boundary IoU"}
    for number, (challenger, measures) in enumerate(zip(runs[1:], content["against"].values(), strict=True), start=1):
        pair, dice = (runs[0], challenger), scores[[0, number], ..., 0]
        parts.append(
            {
                "key": f"run_{number}",
                "name": challenger.name,
                "measures": [{"name": titles.get(name, name), **values} for name, values in measures.items()],
                "charts": [_scatter(pair, dice), _gains(dice[1] - dice[0]), _folds(measures["dice"])],
                "galleries": changed_galleries(
                    dice[1] - dice[0],
                    table.id,
                    lambda place, pair=pair: paint(place, pair, data),
                    [
                        (f"run_{number}_better", "Rises most", "Dice rises most here."),
                        (f"run_{number}_worse", "Falls most", "Dice falls most here."),
                    ],
                ),
            }
        )
    write_page(
        path,
        "compare.html",
        title=f"{runs[0].name} compared",
        baseline=runs[0].name,
        parts=parts,
        images=content["images"],
        folds=sorted(set(table.fold)),
        refresh=False,
    )


def paint(place: Place, runs: Sequence[ComparedRun], data: TrainingData) -> Item:
    """The row of `compared_pictures`, with the masks' Dice above it."""
    pictures, scores = compared_pictures(place, runs, data)
    name = class_label(data.classes, data.classes[place.class_index])
    caption = "Dice " + " → ".join(f"{score:.3f}" for score in scores)
    return Item(place.id, name, caption, encode_pictures(pictures))


def compared_pictures(
    place: Place, runs: Sequence[ComparedRun], data: TrainingData
) -> tuple[list[tuple[str, np.ndarray]], list[float]]:
    """Image | truth | the mask of each run, as titled pictures, and the Dice of each mask."""
    shown = shown_image(data.open_image(place.id))
    truth = planes(scored_truth(data, place.id, runs[0].size))[place.class_index]
    masks = [planes(run.predict(place.id))[place.class_index] for run in runs]
    of_runs = [(run.name, errors_picture(shown, mask, truth)) for run, mask in zip(runs, masks, strict=True)]
    pictures = [("image", shown), ("truth", mask_picture(shown, truth, TRUTH)), *of_runs]
    return pictures, [mask_dice(mask, truth) for mask in masks]


def _scatter(runs: Sequence[ComparedRun], dice: np.ndarray) -> Chart:
    """Scatter plot of the Dice of two runs, a dot for each image and class."""
    low = np.floor(10 * dice.min()) / 10
    axes = [Axis(f"Dice of {run.name}", max(low - 0.02, 0), 1.01) for run in runs]
    chart = Chart("Image by image", *axes, caption="Above the line the second run is better.")
    chart.line([low, 1], [low, 1], "faint", "4 3")
    chart.cloud(dice[0].ravel(), dice[1].ravel(), "s0")
    return chart


def _gains(gains: np.ndarray) -> Chart:
    """The differences of Dice, smallest first."""
    ordered = np.sort(gains.ravel())
    chart = Chart(
        "Differences in order", Axis("% of the images", 0, 100), Axis.around("difference of Dice", [*ordered, 0])
    )
    chart.line([0, 100], [0, 0], "s3", "4 3")
    chart.line(np.linspace(0, 100, len(ordered)), ordered, "s0", width=2.4)
    return chart


def _folds(dice: dict) -> Chart:
    """The mean difference in each fold."""
    folds = list(dice["by_fold"].items())
    low, high = dice["interval"]
    values = [value for _, value in folds]
    y = Axis.around("difference of Dice", [*values, low, high, 0])
    chart = Chart("Fold by fold", Axis("fold", 0, len(folds)), y, x_names=[str(fold) for fold, _ in folds])
    chart.line([0, len(folds)], [0, 0], "s3", "4 3")
    chart.line([0, len(folds)], [dice["difference"]] * 2, "s0")
    for place, (fold, value) in enumerate(folds):
        chart.dot(place + 0.5, value, series(place)[0], f"fold {fold}: {value:+.4f}")
    chart.legend = [("mean of all images", "line", "s0")]
    return chart
