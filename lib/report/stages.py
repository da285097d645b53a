"""Parts of the page that are made from tables: folds, training, ensemble, threshold, morphology."""

from pathlib import Path

import numpy as np
import pandas as pd

from lib.base.files import read_json
from lib.config.schema import Settings
from lib.data.tables import read_table
from lib.folds.external import describe_table
from lib.folds.split import are_empty, coverage_columns, coverage_columns_of, describe_groups, stored_folds
from lib.masks.metrics import Metric
from lib.masks.rules import NO_MASK
from lib.report.charts import SMALL_HEIGHT, SMALL_WIDTH, Axis, Chart, series, shares
from lib.run.folder import FoldFolder, RunFolder
from lib.run.record import history_digest

BINS = 12  # of the histograms
LISTED = 12  # rows of a list at most; the table on disk has all
CLASSES = 6  # with histograms, at most


def folds_part(run: RunFolder, classes: list[str]) -> dict:
    """Table of the folds, coverage histograms, duplicates and groups."""
    table = stored_folds(run.folds)
    columns = coverage_columns(classes)
    table["is_empty"] = are_empty(table[columns])
    rows = [_fold_row(str(fold), part, columns) for fold, part in table.groupby("fold")]
    sizes = table.groupby(["height", "width"]).size().sort_values(ascending=False)
    groups = table.group.value_counts()
    duplicates, external = read_text_table(run.duplicates), read_text_table(run.external)
    return {
        "images": len(table),
        "empty": int(table.is_empty.sum()),
        "rows": [*rows, _fold_row("all", table, columns)],
        "classes": classes,
        "charts": [
            _coverage_chart(table, fold, name, column)
            for name, column in list(zip(classes, columns, strict=True))[:CLASSES]
            for fold in sorted(table.fold.unique())
        ],
        "legend": [("this fold", "box", "s0"), ("all images", "line", "s3")],
        "sizes": [(height, width, count) for (height, width), count in sizes.head(5).items()],
        "more_sizes": max(len(sizes) - 5, 0),
        "about_groups": describe_groups(table).split("\n"),
        "groups": list(groups[groups > 1].head(LISTED).items()),
        "duplicates": None if duplicates is None else duplicates.head(LISTED).to_dict("records"),
        "duplicate_kinds": {} if duplicates is None else duplicates.kind.value_counts().to_dict(),
        "external": None if external is None else describe_table(external),
    }


def read_text_table(path: Path) -> pd.DataFrame | None:
    """A csv file as text, exactly as written; None if it does not exist."""
    return pd.DataFrame(read_table(path, "written by 01_prepare_folds.py")) if path.is_file() else None


def _fold_row(name: str, part: pd.DataFrame, columns: list[str]) -> dict:
    return {
        "fold": name,
        "images": len(part),
        "empty": int(part.is_empty.sum()),
        "groups": part.group.nunique(),
        "coverage": [float(mean) for mean in part[columns].mean()],
    }


def _coverage_chart(table: pd.DataFrame, fold: int, name: str, column: str) -> Chart:
    """Histogram of the coverage of one fold, with that of all images as a line; both in % of images."""
    values = 100 * table[column].to_numpy()
    edges = np.linspace(0, max(float(values.max()), 1e-3), BINS + 1)
    of_all = shares(values, edges)
    of_folds = {other: shares(values[(table.fold == other).to_numpy()], edges) for other in table.fold.unique()}
    y = Axis("% of images", 0, 1.08 * float(np.max([of_all, *of_folds.values()])))
    title = f"Fold {fold}" if len(coverage_columns_of(table)) == 1 else f"Fold {fold}, {name}"
    chart = Chart(title, Axis(f"% {name}", 0, edges[-1]), y, width=SMALL_WIDTH, height=SMALL_HEIGHT)
    chart.bars(edges, of_folds[fold], "s0")
    chart.steps(edges, of_all, "s3", width=1.5)
    return chart


def training_part(run: RunFolder, settings: Settings) -> dict | None:
    """Curves of score, loss, loss terms and learning rate of every fold that has begun; None before the first."""
    folds = [fold for fold in range(settings.folds.count) if _has_history(run.fold(fold))]
    histories = {fold: pd.read_csv(run.fold(fold).history) for fold in folds}
    if not histories:
        return None
    metric = Metric.of(settings.threshold)
    score = next(name for name in next(iter(histories.values())) if name.startswith("val_"))
    if score != metric.column:  # trained when threshold.metric was another
        metric = Metric(score.removeprefix("val_"), metric.beta)
    rows = [_training_row(run, fold, history, score) for fold, history in histories.items()]
    names = {score: f"Validation {metric}", "loss": "Training loss"}
    names |= {
        name: f"Loss term: {name.removeprefix('loss_')}"
        for name in next(iter(histories.values()))
        if name.startswith("loss_")
    }
    charts = [_training_chart(histories, name, title, settings) for name, title in names.items()]
    if "loss_boundary" in names and any(
        (history[["loss", "loss_boundary"]] < 0).any(axis=None) for history in histories.values()
    ):
        charts[1].caption = "The boundary term is negative for a good mask, so the loss may fall below 0."
    charts.append(_training_chart(histories, "lr", "Learning rate", settings))
    _mark_best(charts[0], histories, score)
    return {
        "rows": rows,
        "charts": charts,
        "legend": [(f"fold {fold}", "line", *series(fold)) for fold in histories],
        "epochs": settings.train.epochs,
        "all_images": settings.train.all_images,
        "score": str(metric),
        "training": sum(not row["done"] for row in rows) + settings.folds.count - len(rows),
        "early": [row["fold"] for row in rows if row["done"] and row["best"] == settings.train.epochs],
    }


def _training_row(run: RunFolder, fold: int, history: pd.DataFrame, score: str) -> dict:
    """A fold's row of the table: epochs, scores, speed; `score` is the column of the validation score."""
    best, last = history.loc[history[score].idxmax()], history.iloc[-1]
    metrics = read_json(run.fold(fold).metrics) if run.fold(fold).metrics.is_file() else {}
    return {
        "fold": fold,
        "epochs": len(history),
        "done": metrics.get("finished", bool(metrics)),
        "best": int(best.epoch),
        "last_score": float(last[score]),
        "score": float(best[score]),
        "threshold": int(best.threshold),
        "speed": float(history.images_per_second.median()),
        "weights": metrics.get("weights_source", ""),
        "precision": metrics.get("precision", ""),
    }


def _has_history(folder: FoldFolder) -> bool:
    """Whether history.csv is there, and is the one that training wrote beside metrics.json."""
    if not folder.history.is_file():
        return False
    metrics = read_json(folder.metrics) if folder.metrics.is_file() else {}
    return metrics.get("history_sha256") in (None, history_digest(folder.history))


def _training_chart(histories: dict[int, pd.DataFrame], name: str, title: str, settings: Settings) -> Chart:
    values = np.concatenate([history[name].to_numpy(float) for history in histories.values()])
    chart = Chart(title, Axis("epoch", 1, max(settings.train.epochs, 2)), Axis.around("", values))
    for fold, history in histories.items():
        chart.line(history.epoch, history[name], *series(fold))
        if len(history) == 1:
            chart.dot(1, float(history[name].iloc[0]), series(fold)[0], f"fold {fold}: {history[name].iloc[0]:.4f}")
    return chart


def _mark_best(chart: Chart, histories: dict[int, pd.DataFrame], score: str) -> None:
    for fold, history in histories.items():
        best = history.loc[history[score].idxmax()]
        text = f"fold {fold}: {best[score]:.4f} at epoch {best.epoch:.0f}"
        chart.dot(float(best.epoch), float(best[score]), series(fold)[0], text)
    chart.caption = "The dot is the best epoch; the last one's weights are kept, unless train.keep is best."


def ensemble_part(run: RunFolder) -> dict:
    """Each member's weight, its own score, and its contribution to the ensemble."""
    content = read_json(run.ensemble)
    rows = [
        {
            "name": name,
            "weight": weight,
            "alone": content["alone"][name],
            "adds": content["nested"] - content["without"][name],
        }
        for name, weight in content["weights"].items()
    ]
    return {"metric": content["metric"], "nested": content["nested"], "rows": rows}


def threshold_part(run: RunFolder) -> dict:
    """Score against threshold of each class, the rule chosen, and the rules chosen without each fold."""
    content = read_json(run.threshold)
    curves = pd.read_csv(run.threshold.with_suffix(".csv"), dtype={"class": str}, keep_default_na=False)
    metric = str(Metric(**content["metric"]))
    rows = [{"name": name, **choice} for name, choice in content["classes"].items()]
    charts = [_threshold_chart(row, curves[curves["class"] == row["name"]], metric, len(rows)) for row in rows]
    return {"rows": rows, "charts": charts}


def _threshold_chart(row: dict, curves: pd.DataFrame, metric: str, classes: int) -> Chart:
    parts = [name for name in curves if name.startswith(("fold_", "part_"))]  # parts where there are too few folds
    scores = curves[["score", *parts]].to_numpy()
    high = float(np.nanmax(scores))
    low = max(float(np.nanmin(scores)), high - 3 * max(high - float(np.nanmedian(scores)), 0.01))
    probability = curves.threshold / 255
    title = f"{metric} against threshold" + (f": {row['name']}" if classes > 1 else "")
    threshold, is_empty = row["rule"]["threshold"], row["rule"]["threshold"] == NO_MASK
    y = Axis.around(metric, [low, high, *([row["all_empty"]] if is_empty else [])])
    chart = Chart(title, Axis("probability from which a pixel is mask", 0, 1), y)
    chart.legend = [("all images", "line", "s0"), (f"each {parts[0].partition('_')[0]}", "line", "faint")]
    if not is_empty:
        chart.band(row["plateau"][0] / 255, row["plateau"][1] / 255, "s1")
    for name in parts:
        chart.line(probability, curves[name], "faint", width=1.1)
    chart.line(probability, curves.score, "s0", width=2.6)
    if is_empty:
        chart.line([0, 1], [row["all_empty"]] * 2, "s3", "4 3")
        chart.legend.append(("chosen: no mask at all", "line", "s3", "4 3"))
        chart.caption = "No threshold scores as well as leaving every mask empty."
        return chart
    chart.upright(threshold / 255, "s3")
    at_chosen = float(curves.score.iloc[threshold - 1])
    chart.dot(threshold / 255, at_chosen, "s3", f"{threshold} of 255: {at_chosen:.4f}")
    chart.legend += [(f"chosen: {threshold / 255:.2f}", "line", "s3"), ("plateau", "box", "s1")]
    chart.caption = "Any threshold of the plateau does as well, as far as these images can tell."
    return chart


def morphology_part(run: RunFolder) -> dict:
    """For each class the steps tried, their gain on folds that took no part in the choice, and the rule adopted."""
    classes = read_json(run.postprocess)["classes"]
    rows = [{"name": name, **outcome} for name, outcome in classes.items()]
    charts = [_tried_chart(row, len(rows)) for row in rows if len(row["tried"]) > 1]
    return {"rows": rows, "charts": charts}


def _tried_chart(row: dict, classes: int) -> Chart:
    """Nested gain of the best families of steps, plus and minus two standard errors."""
    tried = [family for family in row["tried"] if family["steps"]][:LISTED]
    gains = [(family["nested_gain"], 2 * family["standard_error"]) for family in tried]
    ends = [(gain - error, gain + error) for gain, error in gains]
    title = "Gain of the steps tried" + (f": {row['name']}" if classes > 1 else "")
    x = Axis.around("gain on folds left out", [0, *np.ravel(ends)])
    names = [", ".join(family["steps"]) for family in tried]
    chart = Chart(title, x, Axis("", 0, len(tried)), height=50 + 20 * len(tried), y_names=names[::-1])
    chart.upright(0, "s3", "4 3")
    for place, (family, (low, high)) in enumerate(zip(tried[::-1], ends[::-1], strict=True)):
        chart.line([low, high], [place + 0.5] * 2, "s0", width=2)
        chart.dot(family["nested_gain"], place + 0.5, "s0", f"{family['rule']}: {family['nested_gain']:+.4f}")
    chart.caption = "Dots: mean gain over the threshold alone; lines: two standard errors. Right of 0 is better."
    return chart
