"""Score a submission against a known solution, such as a held-out set or that of a finished competition.

    python -m lib.tools.score runs/NAME/submission.csv data/NAME/solution.csv --config configs/NAME.yaml
    python -m lib.tools.score predictions/masks data/NAME/true_masks --config configs/NAME.yaml

Both are tables of run lengths, or folders or zips of mask files of the same names. The last column of a table holds
the run lengths, the others identify the mask; or each class has a column of its run lengths. The solution has the
columns of the submission and may have more. Several rows of one mask are its objects, and so are several lists in a
row, as in [12, 3];[40, 5]. The settings name the convention of the run lengths (data.rle), the values of mask files
(submission.pixels; data.masks for the solution) and the metric (threshold.metric, or objects.metric if submission.rows
is instance); the default is Dice.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.base.cli import plain_parser, run_command, take_overrides
from lib.base.errors import UserError
from lib.config.check import check_settings
from lib.config.load import load_settings, with_overrides
from lib.config.schema import Settings
from lib.data.rle_table import class_columns, row_keys, sample_columns
from lib.data.tables import Table, column, read_table
from lib.images.reading import MAX_PIXELS
from lib.masks.metrics import Metric, pooled
from lib.masks.objects import describe_score, score_terms
from lib.masks.rle import OBJECTS, decode_labels, decode_union, parse_runs
from lib.tools.score_files import Terms, is_of_files, terms_of_files

RleTexts = dict[tuple[str, ...], list[str]]  # run lengths of each mask, by the values of the other columns


@dataclass(frozen=True)
class SubmissionScore:
    """The score, that of an all-empty submission, and the number of masks."""

    metric: str
    score: float
    all_empty: float
    masks: int

    def __str__(self) -> str:
        return f"{self.metric} {self.score:.4f} over {self.masks} masks (an all-empty submission: {self.all_empty:.4f})"


def score_submission(submission: Path, solution: Path, settings: Settings) -> SubmissionScore:
    """Score one table of run lengths, or folder or zip of mask files, against another, mask by mask.

    For dice_global the pixels of a class are pooled. Raises UserError if the two do not hold the same masks, or hold
    anything else.
    """
    if submission.suffix.lower() == ".json":
        raise UserError(
            f"{submission} is not a table; COCO's own evaluation, pycocotools' COCOeval, scores its results"
        )
    terms = defaultdict(list)  # by class: of each mask, and of an empty one
    terms_of = terms_of_files if is_of_files(submission) else _terms_of_tables
    for class_index, of_mask in terms_of(submission, solution, settings):
        terms[class_index].append(of_mask)
    of_classes = [pooled(*np.moveaxis(np.array(masks, float), 2, 0)) for masks in terms.values()]
    score, all_empty = np.mean(of_classes, axis=0)
    has_objects = settings.submission.rows == "instance"
    metric = describe_score(settings.objects) if has_objects else str(Metric.of(settings.threshold))
    return SubmissionScore(metric, float(score), float(all_empty), sum(map(len, terms.values())))


def _terms_of_tables(submission: Path, solution: Path, settings: Settings) -> Iterator[Terms]:
    """Score each mask of a table against another; run lengths alone give the pixels that two masks share."""
    rows, known = read_table(submission, "the submission"), read_table(solution, "the solution")
    if names := class_columns(rows, sample_columns(settings.data, list(rows)), settings.data.classes):
        beside = [name for name in rows if name not in names]
        rows, known = (_row_per_class(*of, names, beside, settings) for of in ((rows, submission), (known, solution)))
    predicted, truth = _texts_by_mask(rows, submission, list(rows)), _texts_by_mask(known, solution, list(rows))
    if truth.keys() != predicted.keys():
        key = min(truth.keys() ^ predicted.keys())
        lacking, having = (submission, solution) if key in truth else (solution, submission)
        raise UserError(f"{lacking} has no row of the mask {', '.join(key)}, which {having} has")
    class_of = _class_of_masks(submission, rows, settings)
    for key, texts in truth.items():
        try:
            yield class_of[key], [_terms(masks, texts, settings) for masks in (predicted[key], [])]
        except UserError as error:
            raise UserError(f"{submission} or {solution}, mask of {', '.join(key)}: {error}") from None


def _class_of_masks(path: Path, rows: Table, settings: Settings) -> dict[tuple[str, ...], int]:
    """The class of each mask of a submission: scores are means over the classes, as in every stage."""
    *names, _ = rows
    keys = zip(*(rows[name] for name in names), strict=True)
    if len(settings.data.classes) == 1:
        return dict.fromkeys(keys, 0)
    columns = sample_columns(settings.data, list(rows))
    if "class" in rows and columns.class_name is None:  # the column that submissions without a sample have
        columns = columns._replace(class_name="class")
    class_indices = (class_index for _, class_index in row_keys(rows, path, columns, settings.data.classes))
    return dict(zip(keys, class_indices, strict=True))


def _row_per_class(table: Table, path: Path, names: list[str], beside: list[str], settings: Settings) -> Table:
    """A table with a row for each class, from one with the columns `names` of each class's run lengths."""
    texts = zip(*(column(table, name, path, "as in the submission") for name in names), strict=True)
    others = {name: column(table, name, path, "as in the submission") for name in beside}
    return {
        **{name: [value for value in values for _ in names] for name, values in others.items()},
        "class": settings.data.classes * len(table[names[0]]),
        "rle": [text for of_image in texts for text in of_image],
    }


def _texts_by_mask(table: Table, path: Path, columns: list[str]) -> RleTexts:
    """Run lengths by mask. Raises UserError for a missing column and for a table without rows."""
    *keys, texts = [column(table, name, path, "as in the submission") for name in columns]
    masks = defaultdict(list)
    for key, text in zip(zip(*keys, strict=True), texts, strict=True):
        masks[key] += text.split(OBJECTS)
    if not masks:
        raise UserError(f"{path} has no rows")
    return masks


def _terms(predicted: list[str], truth: list[str], settings: Settings) -> tuple[float, float]:
    """Numerator and denominator of the score of a mask, from the run lengths of its objects.

    With submission.rows=instance the objects of one mask must not overlap. The table does not tell the image's size, so
    the masks are decoded as a single row of pixels, up to the end of the last run.
    """
    rle = settings.data.rle
    last = max(parse_runs(text, MAX_PIXELS, rle)[1].max(initial=0) for text in predicted + truth)
    decode = decode_labels if settings.submission.rows == "instance" else decode_union
    return score_terms(*(decode(texts, (1, int(last)), rle) for texts in (predicted, truth)), settings)


def score(arguments: argparse.Namespace) -> None:
    if arguments.config:
        settings = load_settings(arguments.config, arguments.overrides)
    else:
        settings = check_settings(with_overrides({"name": "default"}, arguments.overrides), Path("the command line"))
    print(score_submission(arguments.submission, arguments.solution, settings))


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("submission", type=Path)
    command.add_argument("solution", type=Path)
    take_overrides(command, "section.key=value", "settings that win over the file")
    command.add_argument("--config", type=Path, help="the settings of the competition")
    run_command(score, command)
