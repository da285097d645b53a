"""Score a submission where the solution is known, such as a held-out set of your own or a competition that has ended.

    python -m lib.score runs/NAME/submission.csv data/NAME/solution.csv --config configs/NAME.yaml

The last column of the submission holds the run lengths, the others say which mask a row is about. The solution has
the same columns; it may have more. Several rows of one mask are its objects.
"""

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.cli import run_stage
from lib.config import RleSettings, load_settings
from lib.errors import UserError
from lib.images import MAX_PIXELS
from lib.metrics import dice
from lib.rle import decode_union, parse_runs
from lib.tables import column, read_table

Masks = dict[tuple[str, ...], list[str]]  # run lengths of each mask, by the values of the other columns


@dataclass(frozen=True)
class SubmissionScore:
    """Mean Dice over the masks, that of an all-empty submission, and the number of masks."""

    dice: float
    all_empty: float
    masks: int

    def __str__(self) -> str:
        return f"Dice {self.dice:.4f} over {self.masks} masks (an all-empty submission: {self.all_empty:.4f})"


def score_submission(submission: Path, solution: Path, convention: RleSettings) -> SubmissionScore:
    """Compare two tables of run lengths, mask by mask.

    Images are not opened: Dice asks which pixels are common, and run lengths number them. Raises UserError when the
    tables are not about the same masks or hold something else than run lengths.
    """
    columns = list(read_table(submission, "the submission"))
    predicted, truth = _masks(submission, columns), _masks(solution, columns)
    if truth.keys() != predicted.keys():
        key = min(truth.keys() ^ predicted.keys())
        lacking, having = (submission, solution) if key in truth else (solution, submission)
        raise UserError(f"{lacking} has no row of the mask {', '.join(key)}, which {having} has")
    scores, empty = [], []
    for key, texts in truth.items():
        try:
            scores.append(_dice(predicted[key], texts, convention))
            empty.append(_dice([], texts, convention))
        except UserError as error:
            raise UserError(f"{submission} or {solution}, mask of {', '.join(key)}: {error}") from None
    return SubmissionScore(float(np.mean(scores)), float(np.mean(empty)), len(scores))


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


def _dice(predicted: list[str], truth: list[str], convention: RleSettings) -> float:
    """Dice of two masks given by the run lengths of their objects."""
    ends = [parse_runs(text, MAX_PIXELS, convention)[1].max(initial=0) for text in predicted + truth]
    line = (1, int(max(ends)))  # all pixels in one row, as far as any run reaches
    first, second = decode_union(predicted, line, convention), decode_union(truth, line, convention)
    both = np.count_nonzero(first & second)
    return float(dice(both, np.count_nonzero(first) - both, np.count_nonzero(second) - both))


def score(arguments: argparse.Namespace) -> None:
    convention = load_settings(arguments.config).data.rle if arguments.config else RleSettings()
    print(score_submission(arguments.submission, arguments.solution, convention))


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("submission", type=Path)
    command.add_argument("solution", type=Path)
    command.add_argument("--config", type=Path, help="settings that say how run lengths are written (data.rle)")
    run_stage(score, command)
