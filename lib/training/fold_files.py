"""The files of a fold: those each epoch writes, and those that mark the fold as done."""

import shutil

import pandas as pd

from lib.base.files import sha256_of_file, write_json
from lib.config.check import save_settings
from lib.data.tables import write_table
from lib.model.network import save_weights
from lib.run.record import history_digest, sealed
from lib.training.fold_job import FoldJob
from lib.training.state import TrainState


def write_epoch(job: FoldJob, state: TrainState) -> None:
    """Write the results of an epoch: weights (see train.keep), history, metrics and the state to resume from.

    A training stopped after its first epoch leaves usable weights. The state is written last: if the process is killed
    before that, the epoch is trained again and writes the same files again.
    """
    if kept_epoch(job, state) is state.last:
        save_weights(state.averaged, job.folder.weights)
    write_table(job.folder.history, pd.DataFrame(state.history))
    save_settings(job.settings, job.folder.config)
    write_json(job.folder.metrics, sealed(fold_metrics(job, state)))
    state.save(job.folder.resume, job.made_from, job.precision)


def write_end(job: FoldJob, state: TrainState) -> None:
    """Mark the fold as done in its metrics, and remove the state to resume from."""
    write_json(job.folder.metrics, sealed(fold_metrics(job, state)))
    shutil.rmtree(job.folder.resume.parent)


def kept_epoch(job: FoldJob, state: TrainState) -> dict:
    """The row of the history whose weights are kept so far (train.keep); the last one if no image is left out."""
    is_best_kept = job.settings.train.keep == "best" and job.images.validation
    return state.best if is_best_kept else state.last


def fold_metrics(job: FoldJob, state: TrainState) -> dict:
    """The content of `metrics.json`: the epoch kept, its validation score, and the inputs of the training.

    The last and the best epoch are listed too: their difference is how much the best score overstates, since it was
    chosen on the images it is measured on.
    """

    def summary(row: dict) -> dict:
        return {"epoch": row["epoch"], "score": row[job.score_name], "threshold": row["threshold"]}

    kept = kept_epoch(job, state)
    return {
        "fold": job.fold,
        job.score_name: kept[job.score_name],
        "epoch": kept["epoch"],
        "keep": job.settings.train.keep,
        "epochs": job.settings.train.epochs,
        "finished": state.epoch == job.settings.train.epochs,
        "last": summary(state.last),
        "best": summary(state.best) if job.images.validation else None,
        "weights_source": state.weights_source,
        "precision": job.precision,
        "weights_sha256": sha256_of_file(job.folder.weights),
        "history_sha256": history_digest(job.folder.history),
        "made_from": job.made_from,
    }
