"""What to know of the scores of a run: why they are too high, and which models are not trained to their end."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lib.base.files import read_json
from lib.config.schema import Settings
from lib.run.folder import RunFolder, open_run, starting_run
from lib.run.members import runs_with_models
from lib.run.provenance import models_to_average


def notes_on_scores(run: RunFolder, settings: Settings) -> str:
    """A line for each reason, of an ensemble for each member, and the `note_of_all_images`; or an empty text."""
    reasons = "".join(f"note      {reason}\n" for reason in reasons_for_optimism(run, settings))
    return reasons + note_of_all_images(run, settings)


def note_of_all_images(run: RunFolder, settings: Settings) -> str:
    """A line where the test maps are also of models that no score is of, else an empty text."""
    runs = runs_with_models(run, settings)
    roots = [str(each.root) for each, its_settings in runs if its_settings.train.all_images]
    if not roots:
        return ""
    return (
        f"note      test images are also predicted by the model of all images of {', '.join(roots)} "
        "(train.all_images); scores are of the folds' models alone\n"
    )


def warnings_of_unfinished(run: RunFolder, settings: Settings) -> str:
    """A line for each model whose training was stopped: its weights are from an early epoch, at a high learning rate.

    Of an ensemble, those of its members.
    """
    lines = ""
    for each, its_settings in runs_with_models(run, settings):
        for fold in models_to_average(each, its_settings):
            path = each.fold(fold).metrics
            metrics = read_json(path) if path.is_file() else {}  # 03 does without the model of all images
            if not metrics.get("finished", True):
                lines += (
                    f"warning   fold {fold} of {each.root} is not trained to its end: its weights are of epoch "
                    f"{metrics['epoch']} of {metrics['epochs']}; {each.command('02_train', '--folds', fold)} "
                    "continues it\n"
                )
    return lines


def reasons_for_optimism(run: RunFolder, settings: Settings) -> list[str]:
    """The reasons why nested scores are optimistic; also those of runs whose weights the models began with."""
    runs = runs_with_models(run, settings)
    return list(dict.fromkeys(reason for each in runs for reason in _reasons(*each)))


def _reasons(run: RunFolder, settings: Settings, later: frozenset[Path] = frozenset()) -> Iterator[str]:
    """The reasons of a run and of those it began with; `later` are the resolved folders of the runs built upon it."""
    if settings.train.keep == "best":
        yield (
            f"{run.root} keeps the best epoch of each fold, chosen on the images that are scored: on average "
            f"{_gain_of_best_epochs(run, settings):+.4f} over the last epoch (train.keep=best)"
        )
    if settings.train.pseudo_labels:
        yield (
            f"{run.root} has learned from masks by {settings.train.pseudo_labels}, whose models have trained on the "
            "images that are scored, so scores may be optimistic (train.pseudo_labels)"
        )
    first, later = starting_run(settings.model.weights), later | {run.root.resolve()}
    if first and first.config.is_file() and first.root.resolve() not in later:
        yield from _reasons(*open_run(first.root), later)


def _gain_of_best_epochs(run: RunFolder, settings: Settings) -> float:
    """The mean over the trained folds of the best epoch's score minus the last one's; 0 if none is trained."""
    metrics = [run.fold(fold).metrics for fold in range(settings.folds.count)]
    contents = [read_json(path) for path in metrics if path.is_file()]
    gains = [of_fold["best"]["score"] - of_fold["last"]["score"] for of_fold in contents if "best" in of_fold]
    return float(np.mean(gains)) if gains else 0.0
