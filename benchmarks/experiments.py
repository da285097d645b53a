"""Helpers of the experiments: runs by the commands a user types, stored results, tables of paired differences.

A run is a settings file and overrides. Its stages are processes of their own, its results a small folder:

    WORK/runs/NAME/      the run folder, with models and maps
    WORK/logs/NAME.txt   what the stages printed
    WORK/results/NAME/   result.json, images.csv (nested scores of every image), oof_counts.npz

A run that has a result is not repeated, and an interrupted one resumes where it stopped. Tables are made from the
results alone.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from lib.base.cli import plain_parser, take_overrides
from lib.base.errors import UserError
from lib.base.files import read_json, write_json, write_text
from lib.config.load import load_settings
from lib.data.competition import open_training
from lib.folds.split import read_folds
from lib.masks.metrics import Metric
from lib.run.folder import open_run
from lib.tools.compare import MEASURES, describe_difference, finished_run, score_images, score_table
from lib.tools.score import score_submission

REPOSITORY = Path(__file__).resolve().parent.parent

MEASURE_NAMES = {"dice": "Dice", "iou": "IoU", "boundary_iou": "boundary IoU"}
REPEATS = 2000  # of the bootstrap


class Run(NamedTuple):
    """One run of the scripts. Results of the same `variant` and other seeds are averaged in a table."""

    variant: str
    seed: int
    config: Path
    data: Path  # absolute, in place of data.root
    overrides: tuple[str, ...] = ()
    test: bool = False  # 04 and 05 too, and the score of their submissions
    models_of: str | None = None  # the name of a run on the same folds whose models are used instead of training

    @property
    def name(self) -> str:
        return f"{self.config.stem}-{self.variant}-{self.seed}"


def parser(doc: str) -> argparse.ArgumentParser:
    """The arguments common to all experiments."""
    command = plain_parser(doc)
    command.add_argument("work", type=Path, help="the folder that runs and results are in; made if absent")
    take_overrides(command, "section.key=value", "settings of all runs")
    command.add_argument("--config", type=Path, default=REPOSITORY / "configs" / "blue_marble.yaml")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    command.add_argument("--only", nargs="+", metavar="VARIANT", help="only these rows of the table")
    command.add_argument("--parallel", type=int, default=1, metavar="N", help="runs at a time")
    return command


def data_folder(arguments: argparse.Namespace) -> Path:
    """The data's folder, by the settings file and the overrides; a relative one starts where the command is typed."""
    return load_settings(arguments.config, arguments.overrides).data.root.resolve()


def chosen(variants: dict[str, object], only: list[str] | None) -> list[str]:
    """The variants named, or all. Raises UserError for one that does not exist."""
    if unknown := set(only or []) - set(variants):
        raise UserError(f"--only {min(unknown)}: the variants are {', '.join(variants)}")
    return [name for name in variants if not only or name in only]


def runs_of(arguments: argparse.Namespace, variants: dict[str, tuple[str, ...]]) -> list[Run]:
    """A run for each seed and each chosen variant; `variants` holds the settings of each beyond the common ones."""
    config, data = arguments.config.resolve(), data_folder(arguments)
    return [
        Run(variant, seed, config, data, (*arguments.overrides, *variants[variant], f"train.seed={seed}"))
        for seed in arguments.seeds
        for variant in chosen(variants, arguments.only)
    ]


def finish(runs: list[Run], work: Path, parallel: int) -> None:
    """Run whatever has no result yet. Raises UserError for failed runs, once the others are done."""
    work = work.resolve()
    failed = []
    waiting = [run for run in runs if not is_finished(run, work)]
    with ThreadPoolExecutor(parallel) as pool, tqdm(total=len(waiting), unit="run") as bar:
        for run, worked in zip(waiting, pool.map(lambda run: execute(run, work), waiting), strict=True):
            failed += [] if worked else [run.name]
            bar.update()
    if failed:
        raise UserError(f"{len(failed)} of {len(waiting)} runs failed; see {work / 'logs' / failed[0]}.txt")


def is_finished(run: Run, work: Path) -> bool:
    """Whether the result is there. Raises UserError when it is that of other settings."""
    path = result_folder(run.name, work) / "result.json"
    if not path.is_file():
        return False
    if read_json(path)["overrides"] != list(run.overrides):
        raise UserError(f"{path} is of other settings; remove its folder or name another work folder")
    return True


def execute(run: Run, work: Path) -> bool:
    """Run the stages of one run and keep its results; False if one failed."""
    root, log = work / "runs" / run.name, work / "logs" / f"{run.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    overrides = (*run.overrides, f"data.root={run.data}", f"name={run.name}")
    with log.open("w") as output:

        def type_in(script: str, *arguments: str) -> bool:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *python_path()])}
            command = [sys.executable, REPOSITORY / script, *arguments]
            return subprocess.run(command, cwd=work, env=environment, stdout=output, stderr=output).returncode == 0

        worked = type_in("01_prepare_folds.py", "--config", str(run.config), *overrides)
        if worked and run.models_of:
            copy_models(work / "runs" / run.models_of, root)
        stages = ["02_train.py", "03_oof_threshold.py", *(["04_infer.py", "05_postprocess.py"] if run.test else [])]
        return worked and all(type_in(stage, "--run", str(root)) for stage in stages) and keep(run, root, work)


def python_path() -> list[str]:
    """The folders that PYTHONPATH names already."""
    return [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


def write_held_out(source: Path, folder: Path, table: pd.DataFrame, held_out: pd.Series) -> None:
    """Write a data set of links to the images of another one; the rows `held_out` (bool) of its table are test images.

    train.csv has all columns of the table, sample_submission.csv and solution.csv have id and rle.
    """
    for part, chosen in (("train", ~held_out), ("test", held_out)):
        (folder / f"{part}_images").mkdir(parents=True)
        for image_id in table.id[chosen].unique():
            (image,) = source.glob(f"*_images/{image_id}.*")
            (folder / f"{part}_images" / image.name).symlink_to(image.resolve())
    table[~held_out].to_csv(folder / "train.csv", index=False)
    test = table.loc[held_out, ["id", "rle"]]
    test.assign(rle="").to_csv(folder / "sample_submission.csv", index=False)
    test.to_csv(folder / "solution.csv", index=False)


def copy_models(source: Path, target: Path) -> None:
    """Take over the trained folds of another run; the stages refuse them if settings or folds differ."""
    for fold in source.glob("fold_*"):
        shutil.copytree(fold, target / fold.name, dirs_exist_ok=True)


def keep(run: Run, root: Path, work: Path) -> bool:
    """Write the results of a finished run: the scores of every image first, result.json last."""
    opened, settings = open_run(root)
    data = open_training(settings.data)
    table = read_folds(opened.folds, data, settings.folds.count)
    finished = [finished_run(opened, settings, table)]
    folder = result_folder(run.name, work)
    scores = score_table(finished, score_images(finished, data, table, Metric()), data, table)
    write_text(folder / "images.csv", scores.to_csv(index=False, float_format="%.6f"))
    shutil.copyfile(opened.oof_counts, folder / "oof_counts.npz")
    result = read_json(opened.threshold) | {"overrides": list(run.overrides), "seconds": seconds(root)}
    if run.test:
        solution = run.data / "solution.csv"
        result["postprocess"] = read_json(opened.postprocess)
        for name, path in (("test_before", opened.unprocessed), ("test_after", opened.submission)):
            result[name] = score_submission(path, solution, settings).score
    write_json(folder / "result.json", result)
    return True


def seconds(root: Path) -> dict[str, float]:
    """Seconds of each stage that was typed."""
    return {path.name[:2]: read_json(path)["seconds"] for path in sorted(root.glob("0?_*.json"))}


def result_folder(name: str, work: Path) -> Path:
    return work / "results" / name


def read_scores(names: Iterable[str], work: Path) -> tuple[np.ndarray, pd.DataFrame]:
    """Scores (runs, images, classes, measures) of runs on the same images, and the table of the images.

    The folds are those of the first run. Raises UserError when the images differ.
    """
    tables = [pd.read_csv(result_folder(name, work) / "images.csv", dtype={"id": str, "group": str}) for name in names]
    first = tables[0]
    if any(not table[["id", "class"]].equals(first[["id", "class"]]) for table in tables):
        raise UserError(f"the results of {', '.join(names)} are not of the same images")
    classes = first["class"].nunique()
    scores = np.stack([table[list(MEASURES)].to_numpy() for table in tables])
    shape = (len(tables), classes, len(first) // classes, len(MEASURES))  # score_table has one class after another
    return np.moveaxis(scores.reshape(shape), 1, 2), first.iloc[: shape[2]][["id", "fold", "group"]]


def comparison(variants: dict[str, list[str]], work: Path) -> pd.DataFrame:
    """The table of an experiment: one row per variant, given the names of its runs; the first is the baseline.

    Scores are means over images and seeds, ± is the standard deviation over the seeds of a run's score. Differences
    are paired by image, each image's score being its mean over the seeds; their 95 % interval draws groups of images,
    so it covers the chance in the images, not that in the seeds.
    """
    rows, baseline = {}, None
    for variant, names in variants.items():
        scores, images = read_scores(names, work)
        mean = scores.mean(axis=0)
        baseline = mean if baseline is None else baseline
        found, by_run = describe_difference(baseline, mean, images, REPEATS), scores.mean(axis=(1, 2))
        row = {"seeds": len(names)}
        for number, measure in enumerate(MEASURES):
            row[MEASURE_NAMES[measure]] = f"{by_run[:, number].mean():.4f}" + spread(by_run[:, number])
        for measure in ("dice", "boundary_iou"):
            low, high = found[measure]["interval"]
            row[f"difference in {MEASURE_NAMES[measure]}"] = (
                "baseline" if mean is baseline else f"{found[measure]['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
            )
        rows[variant] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def spread(values: np.ndarray) -> str:
    """' ± ' and the standard deviation, where there are several values."""
    return f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""


def markdown(table: pd.DataFrame, corner: str = "") -> str:
    """A table of strings as Markdown, its index as first column."""
    lines = [[corner, *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[name, *map(str, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def finished_variants(runs: list[Run], work: Path) -> dict[str, list[str]]:
    """The names of the finished runs of each variant, in the order of the runs."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if is_finished(run, work):
            found.setdefault(run.variant, []).append(run.name)
    return found
