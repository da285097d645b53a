import runpy
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lib.base.errors import UserError
from lib.config.data_settings import DataSettings, RleSettings
from lib.config.schema import ObjectSettings, Settings, SubmissionSettings, ThresholdSettings
from lib.masks.rle import encode
from lib.tools.score import score_submission

STANDARD = Settings(name="x")


def write(path: Path, rows: list[tuple], columns: tuple = ("id", "rle")) -> Path:
    pd.DataFrame(rows, columns=list(columns)).to_csv(path, index=False)
    return path


def test_dice_by_hand(tmp_path):
    truth = write(tmp_path / "solution.csv", [("a", "1 4"), ("b", ""), ("c", ""), ("d", "10 2")])
    predicted = write(tmp_path / "submission.csv", [("d", ""), ("c", "5 1"), ("b", ""), ("a", "3 4 9 2")])
    score = score_submission(predicted, truth, STANDARD)
    assert score.score == pytest.approx((2 * 2 / (4 + 6) + 1 + 0 + 0) / 4)
    assert score.all_empty == 0.5 and score.masks == 4


@pytest.mark.parametrize("convention", [RleSettings(), RleSettings(order="row", base=0, starts="relative", empty="-1")])
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
    assert score_submission(*paths, Settings(name="x", data=DataSettings(rle=convention))).score == pytest.approx(
        expected.mean()
    )


def test_classes_objects_and_further_columns(tmp_path):
    truth = write(
        tmp_path / "solution.csv",
        [("public", "a", "1", "1 2"), ("private", "a", "1", "7 2"), ("public", "a", "2", "1 1")],
        ("usage", "image", "class", "rle"),
    )
    columns = ("image", "class", "rle")
    predicted = write(tmp_path / "submission.csv", [("a", "2", "1 1"), ("a", "1", "2 1"), ("a", "1", "7 1")], columns)
    score = score_submission(predicted, truth, STANDARD)
    assert score.masks == 2 and score.score == pytest.approx((2 * 2 / (4 + 2) + 1) / 2)


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


def test_the_metric_is_that_of_the_settings(tmp_path):
    truth = write(tmp_path / "solution.csv", [("a", "1 4"), ("b", "1 10")])
    predicted = write(tmp_path / "submission.csv", [("a", "1 2"), ("b", "1 10")])
    titles = {"dice_global": "Dice of all pixels ", "iou": "IoU ", "iou_sweep": "IoU sweep "}
    for metric, expected in (("dice_global", 24 / 26), ("iou", 0.75), ("iou_sweep", 0.5)):
        settings = Settings(name="x", threshold=ThresholdSettings(metric=metric))
        score = score_submission(predicted, truth, settings)
        assert score.score == pytest.approx(expected) and str(score).startswith(titles[metric]) and score.all_empty == 0


@pytest.mark.parametrize(("metric", "expected"), [("ap", (0.5 * 1 / 3 + 1) / 2), ("f_beta", (0.5 * 5 / 10 + 1) / 2)])
def test_objects_are_scored_as_objects(tmp_path, metric, expected):
    """Of two ships one is found with IoU .75, which exceeds five of ten limits; a false alarm; an empty image."""
    settings = Settings(name="x", submission=SubmissionSettings(rows="instance"), objects=ObjectSettings(metric=metric))
    truth = write(tmp_path / "solution.csv", [("a", "1 4"), ("a", "10 4"), ("b", "")])
    predicted = write(tmp_path / "submission.csv", [("a", "1 3"), ("a", "20 4"), ("b", "")])
    score = score_submission(predicted, truth, settings)
    assert score.score == pytest.approx(expected) and score.all_empty == 0.5 and score.masks == 2
    overlapping = write(tmp_path / "submission.csv", [("a", "1 3"), ("a", "3 4"), ("b", "")])
    with pytest.raises(UserError, match="mask of a: objects 1 and 2 overlap"):
        score_submission(overlapping, truth, settings)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # runpy's, of what pytest has imported
def test_settings_after_the_files_count(tmp_path, monkeypatch, capsys):
    truth = write(tmp_path / "solution.csv", [("a", "1 4"), ("b", "5 2")])
    predicted = write(tmp_path / "submission.csv", [("a", "3 4"), ("b", "5 2")])
    words = ["score", str(predicted), str(truth)]
    for given, shown in ((["threshold.metric=iou"], "IoU 0.6667"), ([], "Dice 0.7500")):
        monkeypatch.setattr(sys, "argv", [*words, *given])
        runpy.run_module("lib.tools.score", run_name="__main__")
        assert shown in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", words[:2])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("lib.tools.score", run_name="__main__")
    assert capsys.readouterr().err.endswith("the following arguments are required: solution\n")
    monkeypatch.setattr(sys, "argv", ["summary", "runs/x", "threshold.metric=iou"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("lib.tools.summary", run_name="__main__")
    assert "no settings can be given here: threshold.metric=iou" in capsys.readouterr().err


def test_objects_as_lists_in_a_row(tmp_path):
    """As Recod.ai's: one of two forgeries is found with IoU .75, beside a false alarm; an authentic image is right."""
    rle = RleSettings(empty="authentic")
    settings = Settings(name="x", data=DataSettings(rle=rle), submission=SubmissionSettings(rows="instance"))
    truth = write(tmp_path / "solution.csv", [("a", "[1, 4];[10, 2, 20, 2]"), ("b", "authentic")])
    predicted = write(tmp_path / "submission.csv", [("b", "authentic"), ("a", "[1, 3];[30, 1]")])
    assert score_submission(predicted, truth, settings).score == pytest.approx((0.5 * 1 / 3 + 1) / 2)
    as_masks = settings.model_copy(update={"submission": SubmissionSettings()})
    assert score_submission(predicted, truth, as_masks).score == pytest.approx((2 * 3 / (8 + 4) + 1) / 2)
    overlapping = write(tmp_path / "submission.csv", [("b", "authentic"), ("a", "[1, 3];[3, 1]")])
    with pytest.raises(UserError, match="mask of a: objects 1 and 2 overlap"):
        score_submission(overlapping, truth, settings)


@pytest.mark.parametrize("columns", [("id", "class", "rle"), ("id_class", "rle")])
def test_the_score_is_the_mean_over_the_classes(tmp_path, columns):
    """Pixels of one class are not pooled with those of another: (2 * 2 / 6 + 2 * 10 / 20) / 2, not 24 / 26."""
    settings = Settings(
        name="x", data=DataSettings(classes=["x", "y"]), threshold=ThresholdSettings(metric="dice_global")
    )
    keys = [("a", "x"), ("a", "y")] if len(columns) == 3 else [("a_x",), ("a_y",)]
    truth = write(tmp_path / "solution.csv", [(*keys[0], "1 4"), (*keys[1], "1 10")], columns)
    predicted = write(tmp_path / "submission.csv", [(*keys[0], "1 2"), (*keys[1], "1 10")], columns)
    assert score_submission(predicted, truth, settings).score == pytest.approx((4 / 6 + 1) / 2)


def test_each_class_may_have_a_column(tmp_path):
    settings = Settings(name="x", data=DataSettings(classes=["road", "car"]))
    truth = write(tmp_path / "solution.csv", [("a", "1 4", ""), ("b", "5 2", "9 1")], ("id", "rle_road", "rle_car"))
    predicted = write(tmp_path / "submission.csv", [("b", "", "5 2"), ("a", "", "3 4")], ("id", "rle_car", "rle_road"))
    score = score_submission(predicted, truth, settings)
    assert score.masks == 4 and score.score == pytest.approx(((2 * 2 / (4 + 4) + 1) / 2 + (1 + 0) / 2) / 2)


def write_picture(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


LEFT, RIGHT, NOTHING = (np.repeat([row], 3, axis=0).astype(np.uint8) for row in ([1, 1, 0, 0], [0, 0, 1, 1], [0] * 4))
HALF = np.repeat([[1, 0, 0, 0]], 3, axis=0).astype(np.uint8)  # of LEFT


@pytest.mark.parametrize("zipped", [False, True])
def test_mask_files_by_hand(tmp_path, zipped):
    """One class: 255 in the submission, and whatever the training masks hold in the solution."""
    for name, mask, truth in (("a", HALF, LEFT), ("b", NOTHING, NOTHING), ("c", RIGHT, LEFT)):
        write_picture(tmp_path / "masks" / f"{name}_mask.png", 255 * mask)
        write_picture(tmp_path / "truth" / f"{name}_mask.tif", truth)
    submission = tmp_path / "masks"
    if zipped:
        submission = Path(shutil.make_archive(str(tmp_path / "submission"), "zip", submission))
    score = score_submission(submission, tmp_path / "truth", STANDARD)
    assert score.score == pytest.approx((2 * 3 / (3 + 6) + 1 + 0) / 3)
    assert score.all_empty == pytest.approx(1 / 3) and score.masks == 3
    (tmp_path / "truth" / "c_mask.tif").unlink()
    with pytest.raises(UserError, match="truth has no mask file 'c_mask', which .* has"):
        score_submission(submission, tmp_path / "truth", STANDARD)
    write_picture(tmp_path / "truth" / "c_mask.png", NOTHING[:2])
    with pytest.raises(UserError, match=r"'c_mask' is \(3, 4\), but \(2, 4\) in .*truth"):
        score_submission(submission, tmp_path / "truth", STANDARD)


def test_mask_files_of_several_classes(tmp_path):
    """As numbers, as colours where the training masks have colours, and as a file for each class."""
    masks, truth = (HALF, RIGHT), (LEFT, RIGHT)
    expected = pytest.approx((2 * 3 / (3 + 6) + 1) / 2)
    data = {"classes": {"road": ["#ff0000"], "car": ["#0000ff"]}}
    colours = Settings(name="x", data=data)
    for folder, planes in (("masks", masks), ("truth", truth)):
        picture = np.stack([255 * planes[1], NOTHING, 255 * planes[0]], axis=2)  # B, G, R
        write_picture(tmp_path / "colours" / folder / "a.png", picture)
        write_picture(tmp_path / "numbers" / folder / "a.png", planes[0] + 2 * planes[1])
        for name, plane in zip(("road", "car"), planes, strict=True):
            write_picture(tmp_path / "files" / folder / name / "a.png", 255 * plane)
    numbers = Settings(name="x", data={"classes": {"road": 1, "car": 2}})
    files = Settings(name="x", data={"classes": ["road", "car"], "train_masks": "masks/{class}/{id}.png"})
    for name, settings in (("colours", colours), ("numbers", numbers), ("files", files)):
        score = score_submission(tmp_path / name / "masks", tmp_path / name / "truth", settings)
        assert score.score == expected and score.masks == 2, name


def test_files_of_objects(tmp_path):
    """Two objects that touch are two in the numbers, and one component in a solution of masks."""
    instance = SubmissionSettings(rows="instance")
    write_picture(tmp_path / "masks" / "a.png", (LEFT + 2 * RIGHT).astype(np.uint16))
    write_picture(tmp_path / "truth" / "a.png", 7 * LEFT + 9 * RIGHT)
    numbered = Settings(name="x", data=DataSettings(instances=True), submission=instance)
    assert score_submission(tmp_path / "masks", tmp_path / "truth", numbered).score == 1
    drawn = Settings(name="x", submission=instance)
    assert score_submission(tmp_path / "masks", tmp_path / "truth", drawn).score == 0


def test_coco_has_its_own_evaluation(tmp_path):
    with pytest.raises(UserError, match="COCOeval"):
        score_submission(tmp_path / "submission.json", tmp_path / "solution.json", STANDARD)
