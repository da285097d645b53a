"""The effect of hidden groups on the nested score, and of finding them, on data whose true groups are known.

    python benchmarks/hidden_groups.py WORK --config configs/blue_marble.yaml [--seeds 0 1 2] [section.key=value ...]

The group column is taken out of train.csv. For each seed a fifth of the groups is held out; the other images go
through 01 to 03 without groups (`none`), with those that 01 finds (`found`) and with the true ones (`true`). Each
fold's model then predicts the held-out images; like the nested score, theirs is of single models. A stopped command
continues when it is typed again.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from experiments import (
    Run,
    data_folder,
    finish,
    finished_variants,
    markdown,
    parser,
    result_folder,
    spread,
    write_held_out,
)

from lib.base.cli import run_command
from lib.base.files import read_json, write_json
from lib.base.progress import progress
from lib.masks.metrics import Metric, count_images, pooled
from lib.masks.rules import read_rules
from lib.run.folder import open_run

MODES = {
    "none": ("folds.hidden_groups=off",),
    "found": ("folds.hidden_groups=auto",),
    "true": ("data.group_csv=groups.csv", "data.group=group"),
}
HELD_OUT = 0.2  # of the groups


def hidden_groups(arguments) -> None:
    source, work = data_folder(arguments), arguments.work.resolve()
    config, runs = arguments.config.resolve(), []
    for seed in arguments.seeds:
        folder = hold_out_groups(source, seed, work / "data" / f"{source.name}_{seed}")
        settings = (*arguments.overrides, f"folds.seed={seed}", f"train.seed={seed}")
        runs += [Run(mode, seed, config, folder, (*settings, *MODES[mode])) for mode in arguments.only or MODES]
    finish(runs, work, arguments.parallel)
    for run in progress("held-out images", runs, unit="run"):
        score_held_out(run.name, work)
    print(markdown(table_of(finished_variants(runs, work), work), "groups"))


def hold_out_groups(source: Path, seed: int, folder: Path) -> Path:
    """Write the data (links) with a fifth of the groups as test images; groups.csv has those of the others."""
    if folder.is_dir():
        return folder
    table = pd.read_csv(source / "train.csv", dtype=str, keep_default_na=False)
    names = np.sort(table.group.unique())
    held_out = table.group.isin(np.random.default_rng(seed).choice(names, round(HELD_OUT * len(names)), replace=False))
    write_held_out(source, folder, table[["id", "rle"]], held_out)
    table.loc[~held_out, ["id", "group"]].to_csv(folder / "groups.csv", index=False)
    return folder


def score_held_out(name: str, work: Path) -> None:
    """Write the score of each fold's model on the held-out images, at the run's threshold, to held_out.json."""
    from lib.data.competition import open_training
    from lib.prediction.run_maps import build_predictor

    target = result_folder(name, work) / "held_out.json"
    if target.is_file():
        return
    run, settings = open_run(work / "runs" / name)
    images = settings.data.model_copy(update={"train_images": "test_images", "train_masks": "solution.csv"})
    data = open_training(images.model_copy(update={"group": None, "group_csv": None}))
    metric, rules, scores = Metric.of(settings.threshold), read_rules(run.threshold, settings.data.classes), []
    for fold in range(settings.folds.count):
        predictor = build_predictor(run, settings, data.classes, [fold])
        maps = ((id, found.maps, data.read_mask(id)) for id, found in predictor.predict(data, data.ids))
        counts = count_images(maps, data.classes)
        of_classes = []
        for index, class_name in enumerate(data.classes):
            column = rules[class_name].threshold - 1
            at_rule = (counts.tp[:, index, column], counts.fp[:, index, column], counts.fn[:, index, column])
            of_classes.append(float(pooled(*metric.terms(*at_rule))))
        scores.append(float(np.mean(of_classes)))
    write_json(target, {"folds": scores, "score": float(np.mean(scores))})


def table_of(variants: dict[str, list[str]], work: Path) -> pd.DataFrame:
    """For each way of grouping the means over seeds of the nested and the held-out score, and of their difference."""
    rows = {}
    for variant, names in variants.items():
        folders = [result_folder(name, work) for name in names]
        nested = np.array([read_json(folder / "result.json")["nested"] for folder in folders])
        held_out = np.array([read_json(folder / "held_out.json")["score"] for folder in folders])
        columns = {"nested": nested, "held out": held_out, "nested - held out": nested - held_out}
        rows[variant] = {"seeds": len(names)}
        rows[variant] |= {title: f"{values.mean():.4f}{spread(values)}" for title, values in columns.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


if __name__ == "__main__":
    run_command(hidden_groups, parser(__doc__))
