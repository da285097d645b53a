"""README's picture: out-of-fold masks of a finished run, the images chosen by a rule and not by hand.

    python benchmarks/readme_picture.py runs/blue_marble --out docs/demo.png

The images that are not empty are sorted by Dice. Shown are those a tenth, a quarter and half of the way down from the
best, and one failure, a twentieth of the way up from the worst.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.base.cli import plain_parser, run_command
from lib.data.competition import open_training
from lib.masks.metrics import Counts
from lib.masks.rules import apply_rules, read_rules
from lib.prediction.map_store import MapStore, read_pairs
from lib.report.figures import save_figure
from lib.report.measures import OofScores
from lib.report.pictures import TRUTH, errors_picture, mask_picture, shown_image
from lib.run.folder import open_run

PLACES = {"good (90th percentile)": 0.9, "75th percentile": 0.75, "median": 0.5, "failure (5th percentile)": 0.05}


def draw(arguments: argparse.Namespace) -> None:
    run, settings = open_run(arguments.run)
    data, rules = open_training(settings.data), read_rules(run.threshold, settings.data.classes)
    scores = OofScores.of(Counts.load(run.oof_counts), rules)
    filled = scores.positives[:, 0] > 0
    ranked = pd.Series(scores.dice[filled, 0], np.array(scores.ids)[filled]).sort_values(kind="stable")
    figure = Figure(figsize=(10, 7.7), layout="constrained")
    panels = figure.subplots(3, len(PLACES))
    for column, (title, place) in zip(panels.T, PLACES.items(), strict=True):
        image_id = ranked.index[round(place * (len(ranked) - 1))]
        _, maps, truth = next(read_pairs(MapStore(run.oof, tuple(data.classes)), data, [image_id], None))
        shown, truth = shown_image(data.open_image(image_id)), np.ascontiguousarray(truth[..., 0])
        mask = np.ascontiguousarray(apply_rules(rules, maps)[..., 0])
        pictures = (shown, mask_picture(shown, truth, TRUTH), errors_picture(shown, mask, truth))
        for axes, picture in zip(column, pictures, strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        column[0].set_title(f"{title}\nDice {ranked[image_id]:.3f}", fontsize=12)
    for axes, name in zip(panels[:, 0], ("image", "truth", "prediction, errors in colour"), strict=True):
        axes.set_ylabel(name, fontsize=12)
    save_figure(figure, arguments.out, dpi=90)


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME")
    command.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    run_command(draw, command)
