"""The cost of keeping the last epoch instead of the best one, and by how much the best epoch's score is inflated.

    python benchmarks/epoch_choice.py WORK [--config configs/NAME.yaml] [--seeds 0 1] [section.key=value ...]

`train.keep=best` chooses each fold's epoch on the images of which the out-of-fold score is; `last` does not. Both come
from the same trainings, which keep the weights of the last and of the best epoch. 03 to 05 then score each: out of fold
(nested), and on the test images, whose masks are in the data's solution.csv. Of data without one, a fold of a first
split is held out as test images.

A seed is that of the folds and of the training. Test maps average all folds' models while out-of-fold maps are one
model's, so nested and test score differ for both. The inflation is the gain of `best` over `last` out of fold, less
that on the test images. WORK keeps what is finished.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
from experiments import REPOSITORY, data_folder, markdown, parser, spread, write_held_out

from lib.base.cli import run_command
from lib.base.files import read_json, sha256_of_file, write_json
from lib.data.competition import open_training
from lib.folds.split import read_folds
from lib.run.folder import RunFolder, open_run
from lib.run.provenance import fold_inputs
from lib.run.record import sealed
from lib.tools.score import score_submission
from lib.training.fold_job import FoldJob, plan_fold
from lib.training.trainer import train_folds

KEPT = ("last", "best")
BEST = "best.safetensors"  # beside the last epoch's weights


def compare(arguments: argparse.Namespace) -> None:
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    source = data_folder(arguments)
    data = source if (source / "solution.csv").is_file() else hold_out_fold(source, work, arguments)
    rows = []
    for seed in arguments.seeds:
        path = work / f"result_{seed}.json"
        if not path.is_file():
            write_json(path, measure(seed, data, work, arguments))
        rows.append(read_json(path))
    print(markdown(by_seed(pd.DataFrame(rows, index=[str(seed) for seed in arguments.seeds])), "seed"))


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """The scores of each seed as text, then their means and standard deviations over the seeds."""
    for part in ("nested", "test"):
        rows[f"{part}, best − last"] = rows[f"{part}, best"] - rows[f"{part}, last"]
    for kept in KEPT:
        rows[f"nested − test, {kept}"] = rows[f"nested, {kept}"] - rows[f"test, {kept}"]
    table = rows.map("{:.4f}".format)
    table.loc["mean"] = [f"{column.mean():+.4f}" + spread(column.to_numpy()) for _, column in rows.items()]
    return table


def measure(seed: int, data: Path, work: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Train once, and score the last and the best epoch's weights."""
    runs = {kept: RunFolder(work / "runs" / f"{kept}_{seed}") for kept in KEPT}
    for kept, run in runs.items():
        seeds = [f"folds.seed={seed}", f"train.seed={seed}", f"train.keep={kept}"]
        words = [*arguments.overrides, f"data.root={data}", *seeds, f"name={run.root.name}"]
        type_in(work, "01_prepare_folds.py", "--config", str(arguments.config.resolve()), *words)
    train(runs["last"])
    take_best(*runs.values())
    result = {}
    for kept, run in runs.items():
        for stage in ("03_oof_threshold.py", "04_infer.py", "05_postprocess.py"):
            type_in(work, stage, "--run", str(run.root))
        result[f"nested, {kept}"] = read_json(run.threshold)["nested"]
        result[f"test, {kept}"] = score_submission(run.unprocessed, data / "solution.csv", open_run(run.root)[1]).score
    return result


def type_in(work: Path, script: str, *words: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, REPOSITORY / script, "--quiet", *words], cwd=work, env=environment, check=True)


def train(run: RunFolder) -> None:
    """Train the folds that are not done, and keep the best epoch's weights beside the last one's."""
    _, settings = open_run(run.root)
    data = open_training(settings.data)
    table = read_folds(run.folds, data, settings.folds.count)
    made_from = fold_inputs(run, settings)
    folds = [fold for fold in range(settings.folds.count) if not run.fold(fold).is_done]
    if folds:
        train_folds([plan_fold(fold, run, table, data, settings, made_from[fold], ()) for fold in folds], copy_if_best)


def copy_if_best(job: FoldJob, row: dict) -> None:
    scores = pd.read_csv(job.folder.history)[job.score_name]
    if scores.argmax() == len(scores) - 1:
        shutil.copyfile(job.folder.weights, job.folder.root / BEST)


def take_best(last: RunFolder, best: RunFolder) -> None:
    """Give a run with train.keep=best the best weights that the other run kept beside the last ones."""
    settings = open_run(best.root)[1]
    made_from = fold_inputs(best, settings)
    for fold in range(settings.folds.count):
        source, target = last.fold(fold), best.fold(fold)
        shutil.copytree(source.root, target.root, dirs_exist_ok=True)
        os.replace(target.root / BEST, target.weights)
        changed = {"made_from": made_from[fold], "weights_sha256": sha256_of_file(target.weights)}
        write_json(target.metrics, sealed(read_json(source.metrics) | changed))


def hold_out_fold(source: Path, work: Path, arguments: argparse.Namespace) -> Path:
    """Write the data with the first of five folds as its test side; images are links."""
    folder = work / "data"
    if folder.is_dir():
        return folder
    words = [*arguments.overrides, f"data.root={source}", "folds.count=5", "name=split"]
    type_in(work, "01_prepare_folds.py", "--config", str(arguments.config.resolve()), *words)
    table = pd.read_csv(work / "runs" / "split" / "folds.csv", dtype={"id": str}).set_index("id")
    masks = pd.read_csv(source / "train.csv", dtype=str, keep_default_na=False)
    write_held_out(source, folder, masks, masks.id.map(table.fold) == 0)
    return folder


if __name__ == "__main__":
    command = parser(__doc__)
    run_command(compare, command)
