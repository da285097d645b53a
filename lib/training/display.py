"""Text printed during training: in front of the progress bar, and a line for each epoch and each fold."""

from lib.training.fold_job import FoldJob


def bar_text(job: FoldJob, history: list[dict], loss: float) -> str:
    """The last validation score, the current epoch and its mean loss so far."""
    score = f"{job.metric.name} {score_text(history[-1][job.score_name])}  " if history else ""
    return f"{score}fold {job.fold} epoch {len(history) + 1}/{job.settings.train.epochs}  loss {loss:.3f} "


def epoch_line(job: FoldJob, row: dict) -> str:
    """One epoch of the history: score, loss, last learning rate, speed."""
    done, score = f"{row['epoch']}/{job.settings.train.epochs}", score_text(row[job.score_name])
    return (
        f"fold {job.fold} epoch {done}  {job.metric.name} {score}  loss {row['loss']:.4f}  lr {row['lr']:.1e}"
        f"  {row['images_per_second']:.1f} img/s"
    )


def describe_fold(metrics: dict, job: FoldJob) -> str:
    return (
        f"fold {job.fold}   {job.score_name} {score_text(metrics[job.score_name])} at epoch {metrics['epoch']} of "
        f"{job.settings.train.epochs}   encoder weights: {metrics['weights_source']}"
    )


def score_text(score: float | None) -> str:
    """A validation score; the model of all images has none."""
    return "not measured" if score is None else f"{score:.4f}"
