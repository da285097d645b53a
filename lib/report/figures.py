"""PNG figures: the threshold curve, and masks before and after the morphology."""

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.base.files import write_bytes
from lib.data.competition import TrainingData
from lib.masks.metrics import THRESHOLDS, count_masks, dice
from lib.masks.rules import Rule
from lib.prediction.map_store import MapStore, masks_by, read_pairs
from lib.report.pictures import ERRORS_LEGEND, TRUTH, errors_picture, mask_picture, shown_image
from lib.tuning.morphology_search import PostprocessResult
from lib.tuning.threshold_result import ClassChoice, ThresholdResult

matplotlib.rcParams["text.parse_math"] = False  # `$` in an id or a class is no formula

# Okabe and Ito's colours, which colour-blind readers can tell apart
BLUE, ORANGE, RED = "#0072B2", "#E69F00", "#D55E00"
IMAGES_SHOWN = 4  # images that gain most, and as many that lose most


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi)
    write_bytes(path, picture.getvalue())


def plot_thresholds(result: ThresholdResult, path: Path) -> None:
    """Plot score against threshold, a panel for each class: all images, each fold (or part), the choice and plateau."""
    figure = Figure(figsize=(6.5 * len(result.classes), 4.5), layout="constrained")
    panels = figure.subplots(1, len(result.classes), squeeze=False)[0]
    for axes, (name, choice) in zip(panels, result.classes.items(), strict=True):
        _threshold_panel(axes, name, choice, str(result.metric), "fold" if result.parts_are_folds else "part")
    save_figure(figure, path)


def _threshold_panel(axes: Axes, name: str, choice: ClassChoice, metric: str, part: str) -> None:
    for number, curve in enumerate(choice.fold_curves.values()):
        axes.plot(THRESHOLDS, curve, color="0.75", linewidth=1, label=None if number else f"each {part}")
    axes.plot(THRESHOLDS, choice.curve, color=BLUE, linewidth=2, label="all images")
    if choice.rule.is_empty:
        axes.axhline(choice.in_sample, color=RED, linewidth=1.5, linestyle="--", label=f"chosen: {choice.rule}")
    else:
        axes.axvspan(*choice.plateau, color=ORANGE, alpha=0.25, linewidth=0, label="plateau")
        axes.axvline(choice.rule.threshold, color=RED, linewidth=1.5, label=f"chosen: {choice.rule.threshold}")
    axes.set(xlabel="threshold on the map, 1 to 255", ylabel=metric, xlim=(1, 255))
    axes.set_title(f"{name}: nested {choice.nested:.4f}, in-sample {choice.in_sample:.4f}")
    axes.legend(loc="lower center", fontsize="small")


def plot_before_after(
    result: PostprocessResult,
    before: dict[str, Rule],
    data: TrainingData,
    maps: MapStore,
    size: tuple[int, int] | None,
    path: Path,
) -> None:
    """Draw image | truth | threshold only | with morphology, for the out-of-fold images that gain most and lose most.

    Several classes are drawn as one. Where no step was adopted, the best one tried is shown and labelled so.
    """
    order = np.argsort(result.shown_gain, kind="stable")
    after = {name: outcome.shown for name, outcome in result.classes.items()}
    ids = dict.fromkeys(result.ids[np.concatenate((order[::-1][:IMAGES_SHOWN], order[:IMAGES_SHOWN]))].tolist())
    rows = []
    for image_id, probability_maps, truths in read_pairs(maps, data, ids, size):
        shown, truth = shown_image(data.open_image(image_id)), _union(truths)
        panels = [(image_id[:24], shown), ("truth", mask_picture(shown, truth, TRUTH))]
        for title, rules in (("threshold only", before), ("with morphology", after)):
            masks = masks_by(rules, probability_maps, maps, image_id)
            score = float(dice(*count_masks(masks, truths)).mean())
            panels.append((f"{title}: Dice {score:.3f}", errors_picture(shown, _union(masks), truth)))
        rows.append(panels)
    save_panels(rows, f"{_morphology_text(result)}\n{ERRORS_LEGEND}", path)


def save_panels(rows: list[list[tuple[str, np.ndarray]]], heading: str, path: Path) -> None:
    """Write rows of titled pictures, uint8 RGB, as one PNG under a heading."""
    height = 0.6 + 2.2 * max(len(rows), 1)  # inches
    figure = Figure(figsize=(9, height))
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.75 / height, wspace=0.03, hspace=0.15)
    figure.suptitle(heading, fontsize=9, y=1 - 0.1 / height)
    for row, panels in enumerate(rows):
        for column, (title, picture) in enumerate(panels):
            axes = figure.add_subplot(len(rows), len(panels), row * len(panels) + column + 1)
            axes.imshow(picture)
            axes.set_title(title, fontsize=8)
            axes.set_axis_off()
    save_figure(figure, path)


def _morphology_text(result: PostprocessResult) -> str:
    """The rule that is drawn for each class."""
    rules = (
        f"{name}: {outcome.shown}{'' if outcome.rule.steps else ' (the best tried, not adopted)'}"
        for name, outcome in result.classes.items()
    )
    return "morphology  " + "; ".join(rules)


def _union(masks: np.ndarray) -> np.ndarray:
    """Mask uint8 0/1 of the pixels that are of any class."""
    return (masks == 1).any(axis=-1).view(np.uint8)
