"""Parts of the page that need the maps: errors by kind, and the test set against the training images."""

import numpy as np

from lib.report.charts import Axis, Chart, shares
from lib.report.measures import BORDER_NAMES, OofScores, OofStats, TestStats, largest_gap

CLOUD = 1500  # dots of a cloud, at most
FOUND = 0.5  # an object is found when this share of it is covered
COVERAGE_BINS = 20


def errors_part(scores: OofScores, stats: dict[str, OofStats]) -> dict:
    """Dice against coverage and object size, objects found by size, empties, wrong pixels by distance to the border."""
    objects = np.array([pair for image in stats.values() for pair in image.objects], float).reshape(-1, 2)
    border = sum(image.border for image in stats.values())
    rows = {image_id: row for row, image_id in enumerate(scores.ids)}
    sampled = [rows[image_id] for image_id in stats]
    sizes = np.array([image.object_area for image in stats.values()])
    charts = [
        _dice_chart(
            "Dice against coverage", "% of the image that is mask", 100 * scores.coverage, scores.dice, scores.positives
        ),
        _dice_chart(
            "Dice against object size",
            "mean size of the image's objects, px",
            sizes,
            scores.dice[sampled],
            scores.positives[sampled],
        ),
    ]
    charts += [_objects_chart(objects)] if len(objects) else []
    charts += [_border_chart(border)] if border.sum() else []
    return {
        "charts": charts,
        "empties": [_empties(scores, class_index) for class_index in range(len(scores.classes))],
        "sampled": len(stats),
        "images": len(scores.ids),
        "sentences": errors_in_words(scores, objects, border),
        "borderless": sum(image.borderless for image in stats.values()),
    }


def errors_in_words(scores: OofScores, objects: np.ndarray, border: np.ndarray) -> list[str]:
    """One sentence for each chart. `objects` is (objects, 2): area and share covered, as in `OofStats.objects`."""
    sentences = []
    if border.sum():
        near, missed = border[:, :2].sum() / border.sum(), border[1].sum() / border.sum()
        sentences.append(
            f"{near:.0%} of the wrong pixels lie within 2 px of a true border. "
            f"{missed:.0%} of all wrong pixels are misses, {1 - missed:.0%} false alarms."
        )
    if len(objects):
        limit = np.quantile(objects[:, 0], 0.25)
        small = objects[:, 0] <= limit
        found = [(part[:, 1] >= FOUND).mean() for part in (objects[small], objects[~small]) if len(part)]
        sentences.append(
            f"Of the smallest quarter of the objects (up to {limit:.0f} px) {found[0]:.0%} are found"
            + (f", of the larger ones {found[1]:.0%}." if len(found) > 1 else ".")
        )
    empty = scores.positives == 0
    if empty.any():
        called = int(((scores.predicted > 0) & empty).sum())
        sentences.append(
            f"A mask is predicted on {called} of {empty.sum()} empty images; "
            f"this costs {called / empty.size:.4f} of mean Dice."
            if called
            else f"No mask is predicted on any of the {empty.sum()} empty images."
        )
    return sentences


def _empties(scores: OofScores, class_index: int) -> dict:
    """The counts of empty images and images with a mask that the threshold rule recognises."""
    truth, predicted = scores.positives[:, class_index] > 0, scores.predicted[:, class_index] > 0
    return {
        "name": scores.classes[class_index],
        "empty_as_empty": int((~truth & ~predicted).sum()),
        "empty_as_full": int((~truth & predicted).sum()),
        "full_as_empty": int((truth & ~predicted).sum()),
        "full_as_full": int((truth & predicted).sum()),
    }


def _dice_chart(title: str, label: str, sizes: np.ndarray, dice: np.ndarray, positives: np.ndarray) -> Chart:
    """A cloud of images that are not empty, and the median Dice of eight equal parts of them by size."""
    full = (positives > 0).ravel()
    sizes, dice = sizes.ravel()[full], dice.ravel()[full]
    low = np.floor(10 * dice.min(initial=1)) / 10
    chart = Chart(title, Axis.around(label, sizes, log=True), Axis("Dice", max(low - 0.05, 0), 1.01))
    shown = np.linspace(0, len(sizes) - 1, min(len(sizes), CLOUD)).round().astype(int)
    chart.cloud(sizes[shown], dice[shown], "s0")
    parts = [part for part in np.array_split(np.argsort(sizes, kind="stable"), 8) if len(part)]
    chart.line([np.median(sizes[part]) for part in parts], [np.median(dice[part]) for part in parts], "s3", width=2.4)
    chart.legend = [("image", "dot", "s0"), ("median", "line", "s3")]
    return chart


def _objects_chart(objects: np.ndarray) -> Chart:
    """Share of the true objects that are found, by size."""
    powers = np.arange(np.floor(np.log2(objects[:, 0].min()) / 2), np.ceil(np.log2(objects[:, 0].max() + 1) / 2) + 1)
    edges = 4.0**powers
    number = np.histogram(objects[:, 0], edges)[0]
    hits = np.histogram(objects[objects[:, 1] >= FOUND, 0], edges)[0]
    found = 100 * hits / np.maximum(number, 1)
    chart = Chart(
        "Objects found, by size", Axis("size of the true object, px", edges[0], edges[-1], log=True), Axis("%", 0, 112)
    )
    chart.bars(edges, found, "s2")
    for left, right, share, count in zip(edges, edges[1:], found, number, strict=False):
        if count:
            chart.word(np.sqrt(left * right), share, f"{count:,}")
    chart.caption = "Found: at least half covered by the mask. Above each bar: the number of objects."
    return chart


def _border_chart(border: np.ndarray) -> Chart:
    """Wrong pixels by their distance to the true border, misses on top of false alarms."""
    percent = 100 * border / border.sum()
    x = Axis("distance to the true border, px", 0, len(BORDER_NAMES))
    chart = Chart("Where the wrong pixels are", x, Axis("% of the wrong pixels", 0, 1.12 * percent.sum(axis=0).max()))
    places = np.arange(len(BORDER_NAMES) + 1)
    chart.bars(places, percent.sum(axis=0), "miss")
    chart.bars(places, percent[0], "alarm")
    chart.x_names = BORDER_NAMES
    chart.legend = [("missed", "box", "miss"), ("false alarm", "box", "alarm")]
    return chart


def coverage_part(truth: np.ndarray, oof: np.ndarray, test: np.ndarray, classes: list[str], images: int) -> dict:
    """Coverage of the test masks against that of the training images; coverages (images, classes), 0 to 1."""
    parts = []
    for class_index, name in enumerate(classes):
        columns = truth[:, class_index], oof[:, class_index], test[:, class_index]
        labels = ("training, truth", "training, predicted out of fold", "test, predicted")
        rows = [
            {
                "masks": label,
                "mean": float(coverage.mean()),
                "median": float(np.median(coverage)),
                "empty": float((coverage == 0).mean()),
            }
            for label, coverage in zip(labels, columns, strict=True)
        ]
        parts.append({"name": name, "rows": rows, "verdict": shift_in_words(oof[:, class_index], test[:, class_index])})
    charts = [
        _test_coverage_chart(name, *(coverages[:, class_index] for coverages in (truth, oof, test)))
        for class_index, name in enumerate(classes)
    ]
    return {"classes": parts, "charts": charts, "sampled": len(test), "images": images}


def shift_in_words(oof: np.ndarray, test: np.ndarray) -> dict:
    """Say whether the test masks cover as much as the out-of-fold masks of the same models."""
    gap, chance = largest_gap(oof, test)
    means = f"{test.mean():.1%} of a test image is predicted as mask, {oof.mean():.1%} of a training image out of fold"
    measured = f"the two distributions are {100 * gap:.0f} points apart where they differ most"
    usual = f"chance alone rarely gives more than {100 * chance:.0f}"
    if gap <= chance:
        sentence = f"The predicted coverage shows no shift: {means}; {measured}, and {usual}. "
        caution = "Coverage does not say whether the masks are right: harder test images can still score lower."
        return {"shift": False, "text": sentence + caution}
    direction = "less" if test.mean() < oof.mean() else "more"
    return {
        "shift": True,
        "text": f"A shift: {direction} is predicted on the test images than the training images lead to expect. "
        f"{means[0].upper()}{means[1:]}; {measured}, and {usual} between independent images. The test images may "
        "be of another kind, and the out-of-fold score may not hold for them.",
    }


def _test_coverage_chart(name: str, truth: np.ndarray, oof: np.ndarray, test: np.ndarray) -> Chart:
    coverages = [100 * truth, 100 * oof, 100 * test]
    edges = np.linspace(0, max(float(coverage.max()) for coverage in coverages) or 1, COVERAGE_BINS + 1)
    in_bins = [shares(coverage, edges) for coverage in coverages]
    chart = Chart(
        f"Coverage of {name}",
        Axis("% of the image that is mask", 0, float(edges[-1])),
        Axis("% of the images", 0, 1.08 * float(np.max(in_bins))),
    )
    chart.bars(edges, in_bins[0], "soft")
    chart.steps(edges, in_bins[1], "s0")
    chart.steps(edges, in_bins[2], "s3")
    chart.legend = [
        ("training, truth", "box", "soft"),
        ("training, predicted out of fold", "line", "s0"),
        ("test, predicted", "line", "s3"),
    ]
    return chart


def certainty_chart(stats: dict[str, TestStats]) -> Chart | None:
    """Histogram of the certainty of the test masks; None where all are empty."""
    values = np.concatenate([image.certainty for image in stats.values()])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    edges = np.linspace(min(float(values.min()), 0.98), 1, COVERAGE_BINS + 1)
    in_bins = shares(values, edges)
    chart = Chart(
        "Certainty of the test masks",
        Axis("Dice that the map expects of its own mask", float(edges[0]), 1),
        Axis("% of the masks", 0, 1.08 * float(in_bins.max())),
    )
    chart.bars(edges, in_bins, "s4")
    chart.caption = "Dice if the truth were as probable as the map says. Overconfident models are not as good as this."
    return chart
