"""Text printed during training: in front of the progress bar, and a line for each epoch. Both fit 80 columns."""

from lib.training.fold_job import FoldJob


def bar_text(job: FoldJob, history: list[dict], loss: float) -> str:
    """The last validation score, the current epoch and its mean loss so far."""
    score = f"{job.metric.name} {history[-1][job.score_name]:.4f}  " if history else ""
    return f"{score}fold {job.fold} epoch {len(history) + 1}/{job.settings.train.epochs}  loss {loss:.3f} "


def epoch_line(job: FoldJob, row: dict) -> str:
    """One epoch of the history: score, loss, last learning rate, speed."""
    return (
        f"fold {job.fold} epoch {row['epoch']}/{job.settings.train.epochs}  {job.metric.name} {row[job.score_name]:.4f}"
        f"  loss {row['loss']:.4f}  lr {row['lr']:.1e}  {row['images_per_second']:.1f} img/s"
    )
