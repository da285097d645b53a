"""Train one model per fold on the images of the other folds.

reads    runs/NAME/config.yaml, runs/NAME/folds.csv and the training images and masks
writes   runs/NAME/fold_K/: model.safetensors (averaged weights of the last epoch, or of the best: train.keep),
         history.csv, metrics.json; with train.all_images the same in fold_all/, of a model that leaves no image out
next     python 03_oof_threshold.py --run runs/NAME

A finished fold is skipped; an interrupted one resumes where it stopped. --restart trains from the beginning; the files
of a fold stay until its first new epoch is written. 03 can use the weights of a training that was stopped.
"""

import argparse
import shlex

from lib.base.cli import StageSummary
from lib.base.errors import UserError
from lib.run.stage import run_stage, stage_parser


def train(run, settings, arguments: argparse.Namespace) -> StageSummary | None:
    from lib.base.distributed import is_first, wait_for_all
    from lib.data.input_files import open_unchanged_training
    from lib.folds.external import open_external
    from lib.folds.split import read_folds
    from lib.report.page import refresh_report
    from lib.run.lock import lock_run
    from lib.run.provenance import fold_inputs, training_inputs
    from lib.run.record import StageRecord
    from lib.submission.outputs import require_format
    from lib.training.kept_images import remove_kept

    require_format(settings)
    record = StageRecord(run, "02_train")
    if settings.ensemble.members:
        print(f"an ensemble has nothing to train; its members are {', '.join(map(str, settings.ensemble.members))}")
        return StageSummary([], f"python {run.command('03_oof_threshold')}", 0)
    folds = chosen_folds(arguments.folds, settings)
    lock_run(run, folds)
    data = open_unchanged_training(run, settings)
    table = read_folds(run.folds, data, settings.folds.count)
    external = open_external(run, settings, table)
    made_from, of_all_folds = fold_inputs(run, settings), training_inputs(run, settings)
    waiting = [fold for fold in folds if arguments.restart or not is_done(run, fold, made_from[fold])]
    if waiting:
        from lib.training.fold_job import plan_fold  # torch, which takes seconds to load
        from lib.training.interrupted import require_continuable
        from lib.training.start import try_out
        from lib.training.trainer import train_folds

        jobs = [plan_fold(fold, run, table, data, settings, made_from[fold], external) for fold in waiting]
        if not arguments.restart:
            require_continuable(jobs)
        try_out(jobs)
    wait_for_all()
    record.begin(settings)
    if arguments.restart and is_first():
        for fold in folds:
            run.fold(fold).begin_anew()
    wait_for_all()
    if waiting:
        train_folds(jobs, after_epoch=show_epoch)
    if not is_first():
        return None
    remove_kept(run, chosen_folds(None, settings))
    seconds = record.write(of_all_folds)
    if waiting:
        refresh_report(run, settings)
    return StageSummary([run.fold(fold).root for fold in waiting], f"python {run.command('03_oof_threshold')}", seconds)


def is_done(run, fold: int | str, made_from: dict) -> bool:
    """Whether a fold's training has ended. Raises UserError where it was made from other inputs than now."""
    from lib.base.distributed import is_first
    from lib.base.files import read_json
    from lib.run.provenance import require_fold

    if not run.fold(fold).is_done:
        return False
    before = read_json(run.fold(fold).metrics).get("made_from", {}).get("train", {}).get("epochs")
    now = made_from["train"]["epochs"]
    if before not in (None, now):
        raise UserError(
            f"fold {fold} is done (train.epochs: {before} -> {now}) and its learning rate has fallen to zero, so it "
            f"cannot continue; add --restart --folds {fold} to train it again, or let a new run start from its weights "
            f"({shlex.quote(f'model.weights={run.root}')})"
        )
    require_fold(run, fold, made_from)
    if is_first():
        print(f"fold {fold} is done; --restart --folds {fold} trains it again")
    return True


def show_epoch(job, row: dict) -> None:
    """Print the epoch's score, and draw the report anew."""
    from lib.base.distributed import is_first
    from lib.base.progress import print_above
    from lib.report.page import refresh_report
    from lib.training.display import epoch_line

    if not is_first():
        return
    print_above(epoch_line(job, row))
    refresh_report(job.run, job.settings)


def chosen_folds(words: list[str] | None, settings) -> list[int | str]:
    """The folds named on the command line, or all that the settings ask for. Raises UserError for one that is none."""
    from lib.run.folder import ALL

    count = settings.folds.count
    known = {str(fold): fold for fold in (*range(count), *([ALL] if settings.train.all_images else []))}
    if wrong := [word for word in words or [] if word not in known]:
        hint = "" if settings.train.all_images else ", and all with train.all_images=true"
        raise UserError(f"--folds {wrong[0]}: the run has folds 0 to {count - 1}{hint}")
    return [fold for word, fold in known.items() if not words or word in words]


if __name__ == "__main__":
    command = stage_parser(__doc__)
    command.add_argument("--folds", nargs="+", metavar="K", help="only these folds (default: all)")
    command.add_argument(
        "--restart", action="store_true", help="train the folds anew; what they have stays until the first epoch"
    )
    run_stage(train, command)
