"""The part of the page on presence: how well it tells which images hold a class, and what the gate does."""

import numpy as np

from lib.base.files import read_json
from lib.masks.metrics import Counts
from lib.report.charts import Axis, Chart, shares
from lib.run.folder import RunFolder

PRESENCE_BINS = 20


def presence_part(run: RunFolder) -> dict | None:
    """A row and a chart for each class; None where presence is not predicted."""
    counts, rows = Counts.load(run.oof_counts), []
    if counts.presence is None:
        return None
    choices = read_json(run.threshold)["classes"]
    for class_index, name in enumerate(counts.classes.tolist()):
        presence, is_there = counts.presence[:, class_index], counts.positives[:, class_index] > 0
        required = choices[name]["rule"].get("presence")
        shut = presence < (required or 0)
        rows.append(
            {
                "name": name,
                **choices[name]["presence"],
                "required": required,
                "shut": [(int((shut & kind).sum()), int(kind.sum())) for kind in (~is_there, is_there)],
                "chart": _chart(name if len(choices) > 1 else "", presence / 255, is_there, required),
            }
        )
    return {"rows": rows, "charts": [row["chart"] for row in rows]}


def _chart(name: str, presence: np.ndarray, is_there: np.ndarray, required: int | None) -> Chart:
    """Histograms of presence, 0 to 1, of the images without the class and of those with it."""
    edges = np.linspace(0, 1, PRESENCE_BINS + 1)
    without, with_it = shares(presence[~is_there], edges), shares(presence[is_there], edges)
    chart = Chart(
        "Presence, out of fold" + (f": {name}" if name else ""),
        Axis("probability that the image holds the class", 0, 1),
        Axis("% of the images", 0, 1.08 * max(without.max(), with_it.max())),
    )
    chart.bars(edges, without, "soft")
    chart.steps(edges, with_it, "s0")
    chart.legend = [("without the class", "box", "soft"), ("with it", "line", "s0")]
    if required is not None:
        chart.upright(required / 255, "s3")
        chart.legend.append((f"asked for: {required / 255:.2f}", "line", "s3"))
    return chart
