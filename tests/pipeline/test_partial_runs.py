"""Runs that are not whole: one fold of two, no test images; then both folds, and test images that come later."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lib.masks.rle import decode
from tests.conftest import HEIGHT, WIDTH, write_competition
from tests.pipeline.test_corruption import SMALL
from tests.stages import Ended, completed, script, stage_words


def typed(folder: Path, number: str, *words: str) -> Ended:
    stages = {"01": "01_prepare_folds", "02": "02_train", "03": "03_oof_threshold"}
    stages |= {"04": "04_infer", "05": "05_postprocess"}
    return script(folder, *stage_words(stages[number]), *words)


def done(folder: Path, number: str, *words: str) -> str:
    ended = typed(folder, number, *words)
    assert ended.code == 0, ended.err
    return ended.out


@pytest.fixture(scope="module")
def one_fold(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A run of two folds without test images, of which one is trained, after 05; and what the stages printed."""
    folder = tmp_path_factory.mktemp("user")
    write_competition(folder / "data" / "blobs", training=12, test=3)
    (folder / "data" / "blobs" / "test_images").rename(folder / "hidden")
    (folder / "blobs.yaml").write_text(SMALL.replace("count: 3", "count: 2"))
    printed = {"01": done(folder, "01", "data.test_images=null"), "02": done(folder, "02", "--folds", "0")}
    return folder, printed | {number: done(folder, number) for number in ("03", "05")}


def score_by_hand(run: Path, table: pd.DataFrame, truths: pd.DataFrame, threshold: int) -> float:
    """Mean Dice of the maps on disk."""
    scores = []
    for image_id in table.id:
        mask = cv2.imread(str(run / "oof" / f"{image_id}.png"), cv2.IMREAD_UNCHANGED) >= threshold
        truth = decode(truths.rle[image_id], (HEIGHT, WIDTH)) > 0
        size = mask.sum() + truth.sum()
        scores.append(2 * (mask & truth).sum() / size if size else 1.0)
    return float(np.mean(scores))


def test_one_fold_has_a_score_of_the_images_it_leaves_out(one_fold):
    folder, printed = one_fold
    run = folder / "runs" / "blobs"
    assert "trained   fold 0 of 2; the score is of the images that these leave out" in printed["03"]
    table = pd.read_csv(run / "folds.csv")
    table = table[table.fold == 0]
    assert {path.stem for path in (run / "oof").glob("*.png")} == set(table.id)
    content = json.loads((run / "threshold.json").read_text())
    truths = pd.read_csv(folder / "data" / "blobs" / "train.csv", keep_default_na=False).set_index("id")
    by_hand = score_by_hand(run, table, truths, content["classes"]["blob"]["rule"]["threshold"])
    assert content["in_sample"] == pytest.approx(by_hand, abs=1e-9)


def test_without_test_images_05_chooses_morphology_and_ends_with_the_score(one_fold):
    folder, printed = one_fold
    run = folder / "runs" / "blobs"
    assert "next      python 05_postprocess.py" in printed["03"]
    assert "no test images (data.test_images), so there is nothing to submit" in printed["05"]
    assert "look at runs/blobs/report.html" in printed["05"]
    assert "after" in json.loads((run / "postprocess.json").read_text())
    assert not (run / "submission.csv").exists() and not (run / "test").exists()
    refused = typed(folder, "04")
    assert refused.code == 2 and "data.test_images is not set" in refused.err and refused.err.count("\n") == 1


def test_the_other_fold_and_test_images_may_come_later(one_fold, tmp_path):
    folder = Path(shutil.copytree(one_fold[0], tmp_path / "user"))
    shutil.copytree(folder / "hidden", folder / "data" / "blobs" / "test_images")
    assert "each the average of 1 of 2 models" in done(folder, "04", "data.test_images=test_images")
    done(folder, "05")
    of_one = (folder / "runs" / "blobs" / "submission.csv").read_text()
    completed(folder, "-m", "lib.tools.summary", "runs/blobs")
    assert "fold 0 is done" in done(folder, "02")
    summary = script(folder, "-m", "lib.tools.summary", "runs/blobs")  # of scores that are one fold's
    assert summary.code == 2 and "03_oof_threshold.py" in summary.err and "nested" not in summary.out
    for number, remedy in ("05", "03_oof_threshold.py"), ("03", ""), ("05", "04_infer.py"), ("04", ""), ("05", ""):
        ended = typed(folder, number)
        assert ended.code == (2 if remedy else 0) and remedy in ended.err, ended.err
    assert (folder / "runs" / "blobs" / "submission.csv").read_text() != of_one
    table = pd.read_csv(folder / "runs" / "blobs" / "postprocess.csv")
    assert len(table) == 12  # both folds take part in the choice of the morphology
