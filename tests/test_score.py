from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.config import RleSettings
from lib.errors import UserError
from lib.rle import encode
from lib.score import score_submission

STANDARD = RleSettings()


def write(path: Path, rows: list[tuple], columns: tuple = ("id", "rle")) -> Path:
    pd.DataFrame(rows, columns=list(columns)).to_csv(path, index=False)
    return path


def test_dice_by_hand(tmp_path):
    truth = write(tmp_path / "solution.csv", [("a", "1 4"), ("b", ""), ("c", ""), ("d", "10 2")])
    predicted = write(tmp_path / "submission.csv", [("d", ""), ("c", "5 1"), ("b", ""), ("a", "3 4 9 2")])
    score = score_submission(predicted, truth, STANDARD)
    assert score.dice == pytest.approx((2 * 2 / (4 + 6) + 1 + 0 + 0) / 4)
    assert score.all_empty == 0.5 and score.masks == 4


@pytest.mark.parametrize("convention", [STANDARD, RleSettings(order="row", base=0, starts="relative", empty="-1")])
def test_equals_dice_of_the_arrays(tmp_path, convention):
    rng = np.random.default_rng(0)
    masks = rng.random((2, 20, 13, 17)) < rng.choice([0, 0.1, 0.6], (2, 20, 1, 1))
    paths = [
        write(tmp_path / name, [(f"{i}", encode(mask, convention)) for i, mask in enumerate(part)])
        for name, part in zip(("submission.csv", "solution.csv"), masks, strict=True)
    ]
    predicted, truth = masks
    total = predicted.sum((1, 2)) + truth.sum((1, 2))
    expected = np.where(total == 0, 1, 2 * (predicted & truth).sum((1, 2)) / np.maximum(total, 1))
    assert score_submission(*paths, convention).dice == pytest.approx(expected.mean())


def test_classes_objects_and_further_columns(tmp_path):
    truth = write(
        tmp_path / "solution.csv",
        [("public", "a", "1", "1 2"), ("private", "a", "1", "7 2"), ("public", "a", "2", "1 1")],
        ("usage", "image", "class", "rle"),
    )
    columns = ("image", "class", "rle")
    predicted = write(tmp_path / "submission.csv", [("a", "2", "1 1"), ("a", "1", "2 1"), ("a", "1", "7 1")], columns)
    score = score_submission(predicted, truth, STANDARD)
    assert score.masks == 2 and score.dice == pytest.approx((2 * 2 / (4 + 2) + 1) / 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "1 4")], "submission.csv has no row of the mask b"),
        ([("a", "1 4"), ("b", ""), ("c", "")], "solution.csv has no row of the mask c"),
        ([("a", "1 4 5"), ("b", "")], "mask of a: .*3 numbers"),
        ([], "has no rows"),
    ],
)
def test_bad_submissions(tmp_path, rows, message):
    truth = write(tmp_path / "solution.csv", [("a", "1 4"), ("b", "")])
    with pytest.raises(UserError, match=message):
        score_submission(write(tmp_path / "submission.csv", rows), truth, STANDARD)


def test_solution_without_the_columns(tmp_path):
    truth = write(tmp_path / "solution.csv", [("a", "1 4")], ("id", "mask"))
    with pytest.raises(UserError, match="no column 'rle'"):
        score_submission(write(tmp_path / "submission.csv", [("a", "")]), truth, STANDARD)
