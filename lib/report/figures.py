"""Pictures: the threshold curve, and masks before and after the morphology."""

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.base.files import write_bytes
from lib.data.competition import TrainingData
from lib.masks.metrics import IGNORED, THRESHOLDS, count_masks, dice
from lib.masks.rules import Rule, apply_rules
from lib.prediction.map_store import MapStore, read_pairs
from lib.tuning.morphology_search import PostprocessResult
from lib.tuning.thresholds import ClassChoice, ThresholdResult

matplotlib.rcParams["text.parse_math"] = False  # `$` in an id or a class is no formula

# Okabe and Ito's colours, told apart by colour-blind readers
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SHOWN = 4  # images that gain most, and as many that lose most


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a figure as PNG, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi)
    write_bytes(path, picture.getvalue())


def plot_thresholds(result: ThresholdResult, path: Path) -> None:
    """Score against threshold, one panel a class: all images, each fold behind, the chosen threshold and plateau."""
    figure = Figure(figsize=(6.5 * len(result.classes), 4.5), layout="constrained")
    panels = figure.subplots(1, len(result.classes), squeeze=False)[0]
    for axes, (name, choice) in zip(panels, result.classes.items(), strict=True):
        _threshold_panel(axes, name, choice, str(result.metric))
    save_figure(figure, path)


def _threshold_panel(axes: Axes, name: str, choice: ClassChoice, metric: str) -> None:
    for fold, curve in choice.fold_curves.items():
        axes.plot(THRESHOLDS, curve, color="0.75", linewidth=1, label="one fold" if fold == 0 else None)
    axes.plot(THRESHOLDS, choice.curve, color=BLUE, linewidth=2, label="all images")
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
    """Image | truth | unprocessed | processed, for the out-of-fold images that gain most and lose most.

    Where no step was adopted, the best that was tried is shown, and said to be no more than that.
    """
    order = np.argsort(result.shown_gain, kind="stable")
    shown = {name: outcome.shown for name, outcome in result.classes.items()}
    rows = dict.fromkeys(result.ids[np.concatenate((order[::-1][:SHOWN], order[:SHOWN]))].tolist())
    figure = Figure(figsize=(11, 2.9 * len(rows)), layout="constrained")
    pairs = read_pairs(maps, data, rows, size)
    for panels, pair in zip(figure.subplots(len(rows), 4, squeeze=False), pairs, strict=True):
        image_id, probability_maps, truth = pair
        is_ignored = truth == IGNORED
        truth = np.where(is_ignored, 0, truth)
        image = data.read_image(image_id)
        panels[0].imshow(image[..., 0] if image.shape[2] not in (3, 4) else image, cmap="gray")
        panels[0].set_title(image_id[:24], fontsize="small")
        panels[1].imshow(_union(truth), cmap="gray", vmin=0, vmax=1)
        panels[1].set_title("truth", fontsize="small")
        for axes, title, rules in zip(panels[2:], ("unprocessed", "processed"), (before, shown), strict=True):
            masks = np.where(is_ignored, 0, apply_rules(rules, probability_maps))
            axes.imshow(_errors(_union(masks), _union(truth)))
            axes.set_title(f"{title}: Dice {_mean_dice(masks, truth):.3f}", fontsize="small")
        for axes in panels:
            axes.set_axis_off()
    figure.suptitle(f"{_processing(result)}\nright in white, missed in blue, false alarms in orange", fontsize="small")
    save_figure(figure, path)


def _processing(result: PostprocessResult) -> str:
    """What the processed masks went through, each class in turn."""
    words = (
        f"{name}: {outcome.shown}{'' if outcome.rule.steps else ' (the best tried, not adopted)'}"
        for name, outcome in result.classes.items()
    )
    return "processed by " + "; ".join(words)


def _union(masks: np.ndarray) -> np.ndarray:
    return masks.any(axis=-1)


def _errors(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """RGB picture: white where both are mask, blue where only the truth is, orange where only the prediction is."""
    picture = np.zeros((*mask.shape, 3))
    picture[mask & truth] = 1
    picture[~mask & truth] = [0.0, 0.45, 0.70]
    picture[mask & ~truth] = [0.84, 0.37, 0.0]
    return picture


def _mean_dice(masks: np.ndarray, truth: np.ndarray) -> float:
    return float(dice(*count_masks(masks, truth)).mean())
