"""The files of a fold: what each epoch writes, and what marks the fold as done."""

import shutil

import pandas as pd

from lib.base.files import sha256_of_file, write_json, write_text
from lib.config.schema import save_settings
from lib.model.network import save_weights
from lib.training.fold_job import FoldJob
from lib.training.state import TrainState


def write_epoch(job: FoldJob, state: TrainState) -> None:
    """Write what the epoch gave: the weights when they are the best so far, the history, the state to resume from.

    The state comes last: killed before it, the epoch is trained again and writes the same files again.
    """
    if state.last is state.best:
        save_weights(state.averaged, job.folder.weights)
    write_text(job.folder.history, pd.DataFrame(state.history).to_csv(index=False))
    state.save(job.folder.resume, job.made_from, job.precision)


def write_end(job: FoldJob, state: TrainState) -> None:
    """Write `metrics.json`, which marks the fold as done, and remove the state."""
    save_settings(job.settings, job.folder.config)
    write_json(job.folder.metrics, fold_metrics(job, state))
    shutil.rmtree(job.folder.resume.parent)


def fold_metrics(job: FoldJob, state: TrainState) -> dict:
    """What `metrics.json` says of a fold: the epoch that is kept, its validation score, and how it was made."""
    return {
        "fold": job.fold,
        job.score_name: state.best[job.score_name],
        "epoch": state.best["epoch"],
        "weights_source": state.weights_source,
        "precision": job.precision,
        "weights_sha256": sha256_of_file(job.folder.weights),
        "made_from": job.made_from,
    }


def describe_fold(metrics: dict, job: FoldJob) -> str:
    """A line about a fold that is done."""
    return (
        f"fold {job.fold}   {job.score_name} {metrics[job.score_name]:.4f} at epoch {metrics['epoch']} of "
        f"{job.settings.train.epochs}   encoder weights: {metrics['weights_source']}"
    )
