"""Score a submission where the solution is known, such as a held-out set of your own or a competition that has ended.

    python -m lib.tools.score runs/NAME/submission.csv data/NAME/solution.csv --config configs/NAME.yaml

The last column of the submission holds the run lengths, the others say which mask a row is about. The solution has
the same columns; it may have more. Several rows of one mask are its objects. The settings say how run lengths are
written (data.rle) and what is scored (threshold.metric, or objects.metric where submission.rows is instance); without
them it is Dice.
"""

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.base.cli import run_command
from lib.base.errors import UserError
from lib.config.load import load_settings
from lib.config.schema import RleSettings, Settings
from lib.data.images import MAX_PIXELS
from lib.data.tables import column, read_table
from lib.masks.metrics import Metric, count_mask, pooled
from lib.masks.objects import describe_score, match_objects, object_score
from lib.masks.rle import decode_labels, decode_union, parse_runs

Masks = dict[tuple[str, ...], list[str]]  # run lengths of each mask, by the values of the other columns


@dataclass(frozen=True)
class SubmissionScore:
    """The score, that of an all-empty submission, and the number of masks."""

    metric: str
    score: float
    all_empty: float
    masks: int

    def __str__(self) -> str:
        name = "Dice" if self.metric == "dice" else self.metric
        return f"{name} {self.score:.4f} over {self.masks} masks (an all-empty submission: {self.all_empty:.4f})"


def score_submission(submission: Path, solution: Path, settings: Settings) -> SubmissionScore:
    """Compare two tables of run lengths, mask by mask; for dice_global the pixels of all masks are pooled.

    Images are not opened: scores ask which pixels are common, and run lengths number them. Raises UserError when the
    tables are not about the same masks or hold something else than run lengths.
    """
    columns = list(read_table(submission, "the submission"))
    predicted, truth = _masks(submission, columns), _masks(solution, columns)
    if truth.keys() != predicted.keys():
        key = min(truth.keys() ^ predicted.keys())
        lacking, having = (submission, solution) if key in truth else (solution, submission)
        raise UserError(f"{lacking} has no row of the mask {', '.join(key)}, which {having} has")
    terms_of = _object_terms if settings.submission.rows == "instance" else _mask_terms
    terms, empty = [], []
    for key, texts in truth.items():
        try:
            terms.append(terms_of(predicted[key], texts, settings))
            empty.append(terms_of([], texts, settings))
        except UserError as error:
            raise UserError(f"{submission} or {solution}, mask of {', '.join(key)}: {error}") from None
    scores = [float(pooled(*np.array(pairs, float).T)) for pairs in (terms, empty)]
    return SubmissionScore(metric_name(settings), *scores, len(terms))


def metric_name(settings: Settings) -> str:
    """What the settings score a submission by."""
    if settings.submission.rows == "instance":
        return describe_score(settings.objects)
    return str(Metric.of(settings.threshold))


def _masks(path: Path, columns: list[str]) -> Masks:
    """Run lengths by mask. Raises UserError for a missing column and for a table without rows."""
    table = read_table(path, "the solution")
    *keys, texts = [column(table, name, path, "as in the submission") for name in columns]
    masks = defaultdict(list)
    for key, text in zip(zip(*keys, strict=True), texts, strict=True):
        masks[key].append(text)
    if not masks:
        raise UserError(f"{path} has no rows")
    return masks


def _mask_terms(predicted: list[str], truth: list[str], settings: Settings) -> tuple[float, float]:
    """Numerator and denominator (see Metric.terms) of two masks given by the run lengths of their objects."""
    line = _line(predicted + truth, settings.data.rle)
    first, second = (decode_union(texts, line, settings.data.rle) for texts in (predicted, truth))
    return Metric.of(settings.threshold).terms(*count_mask(first, second))


def _object_terms(predicted: list[str], truth: list[str], settings: Settings) -> tuple[float, float]:
    """The same of two sets of objects, which may not overlap within a set."""
    line = _line(predicted + truth, settings.data.rle)
    labels = [decode_labels(texts, line, settings.data.rle) for texts in (predicted, truth)]
    return object_score(match_objects(*labels), settings.objects), 1.0


def _line(texts: list[str], convention: RleSettings) -> tuple[int, int]:
    """The shape of an image with all pixels in one row, as far as any run reaches."""
    ends = [parse_runs(text, MAX_PIXELS, convention)[1].max(initial=0) for text in texts]
    return 1, int(max(ends))


def score(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.config) if arguments.config else Settings(name="default")
    print(score_submission(arguments.submission, arguments.solution, settings))


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("submission", type=Path)
    command.add_argument("solution", type=Path)
    command.add_argument("--config", type=Path, help="the settings of the competition")
    run_command(score, command)
