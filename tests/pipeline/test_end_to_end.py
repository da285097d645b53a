"""The five scripts as a user types them, one process each, on a small competition; then all of it once more."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from tests import REPOSITORY
from tests.by_hand import dice_by_hand
from tests.conftest import HEIGHT, WIDTH, write_competition
from tests.stages import STAGES, completed, stage_words

FOLDS = 3


def type_in(*command: str, cwd: Path) -> str:
    """Run a script of the repository and return what it printed."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, REPOSITORY / command[0], *command[1:]],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def next_command(printed: str) -> list[str]:
    return re.search(r"^next +python (.+)$", printed, re.MULTILINE)[1].split()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The folder after all five stages, each started by what the one before said to type, and what they printed."""
    folder = tmp_path_factory.mktemp("user")
    write_competition(folder / "data" / "blobs")
    settings = {
        "data": {"root": "data/blobs", "classes": ["blob"]},
        "folds": {"count": FOLDS},
        "model": {"encoder": "test_resnet", "weights": "random", "decoder_channels": [16, 8, 8, 8, 8]},
        "train": {"epochs": 4, "batch_size": 4, "lr": 0.003, "workers": 0},
        "infer": {"tta": "none"},
    }
    (folder / "blobs.yaml").write_text(yaml.safe_dump(settings))
    printed = {"01": type_in("01_prepare_folds.py", "--config", "blobs.yaml", cwd=folder)}
    for stage, before in (("02", "01"), ("03", "02"), ("04", "03"), ("05", "04")):
        printed[stage] = type_in(*next_command(printed[before]), cwd=folder)
    return folder, printed


@pytest.fixture
def run(finished) -> Path:
    return finished[0] / "runs" / "blobs"


@pytest.fixture
def data(finished) -> Path:
    return finished[0] / "data" / "blobs"


def decode_by_hand(text: str) -> np.ndarray:
    """A column-major, 1-based run-length mask, written as plainly as can be."""
    numbers = [int(number) for number in text.split()]
    pixels = np.zeros(HEIGHT * WIDTH, bool)
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        pixels[start - 1 : start - 1 + length] = True
    return pixels.reshape(WIDTH, HEIGHT).T


def read_truths(path: Path) -> dict[str, np.ndarray]:
    table = pd.read_csv(path, keep_default_na=False)
    return {row.id: decode_by_hand(row.rle) for row in table.itertuples()}


def test_every_image_has_one_fold_and_one_map_of_its_size(run, data):
    folds = pd.read_csv(run / "folds.csv")
    ids = sorted(path.stem for path in (data / "train_images").iterdir())
    assert sorted(folds.id) == ids
    assert sorted(path.stem for path in (run / "oof").glob("*.png")) == ids
    for image_id in ids:
        assert cv2.imread(str(run / "oof" / f"{image_id}.png"), cv2.IMREAD_UNCHANGED).shape == (HEIGHT, WIDTH)
    assert (run / "test" / "test_000.png").is_file()


def test_the_told_scores_are_those_of_the_maps_on_disk(run, data):
    told = json.loads((run / "threshold.json").read_text())
    truths = read_truths(data / "train.csv")
    folds = pd.read_csv(run / "folds.csv").set_index("id").fold
    maps = {image_id: cv2.imread(str(run / "oof" / f"{image_id}.png"), cv2.IMREAD_UNCHANGED) for image_id in truths}
    choice = told["classes"]["blob"]
    in_sample = [dice_by_hand(maps[i] >= choice["rule"]["threshold"], truth) for i, truth in truths.items()]
    assert told["in_sample"] == pytest.approx(np.mean(in_sample), abs=1e-9)
    without = {int(fold): int(name.removeprefix("t=")) for fold, name in choice["without_fold"].items()}
    nested = [dice_by_hand(maps[i] >= without[folds[i]], truth) for i, truth in truths.items()]
    assert told["nested"] == pytest.approx(np.mean(nested), abs=1e-9)
    empty = np.mean([not truth.any() for truth in truths.values()])
    assert told["all_empty"] == pytest.approx(empty)


def test_the_submission_is_the_samples_rows_and_scores_well(run, data):
    sample = pd.read_csv(data / "sample_submission.csv")
    submission = pd.read_csv(run / "submission.csv", keep_default_na=False)
    assert list(submission.columns) == list(sample.columns)
    assert list(submission.id) == list(sample.id)
    truths, masks = read_truths(data / "solution.csv"), read_truths(run / "submission.csv")
    score = np.mean([dice_by_hand(masks[i], truth) for i, truth in truths.items()])
    assert score > 0.7  # blobs are easy; an untrained network reaches 0.2
    said = type_in("lib/tools/score.py", str(run / "submission.csv"), str(data / "solution.csv"), cwd=REPOSITORY)
    assert f"Dice {score:.4f}" in said


def test_unprocessed_masks_are_the_test_maps_at_the_threshold(run):
    threshold = json.loads((run / "threshold.json").read_text())["classes"]["blob"]["rule"]["threshold"]
    for image_id, mask in read_truths(run / "submission_unprocessed.csv").items():
        probability_map = cv2.imread(str(run / "test" / f"{image_id}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, probability_map >= threshold)


def test_typed_again_nothing_is_computed_twice_and_nothing_changes(finished, run):
    folder, printed = finished
    kept = [*run.glob("fold_*/model.safetensors"), *run.glob("oof/*.png"), *run.glob("test/*.png")]
    times = [path.stat().st_mtime_ns for path in kept]
    contents = {name: (run / name).read_bytes() for name in ("folds.csv", "threshold.json", "submission.csv")}
    for words in (stage_words(STAGES[0]), *(next_command(printed[before]) for before in ("01", "02", "03", "04"))):
        completed(folder, *words)
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert {name: (run / name).read_bytes() for name in contents} == contents


def test_02_with_nothing_to_do_loads_no_torch_and_draws_no_report(finished, run):
    drawn = run.joinpath("report.html").stat().st_mtime_ns
    command = [sys.executable, "-X", "importtime", REPOSITORY / "02_train.py", "--run", "runs/blobs"]
    done = subprocess.run(command, cwd=finished[0], capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and "pandas" in imported and "torch" not in imported
    assert run.joinpath("report.html").stat().st_mtime_ns == drawn


def test_help_says_what_is_read_written_and_typed_next():
    for path in sorted(REPOSITORY.glob("0*.py")):
        said = type_in(path.name, "--help", cwd=REPOSITORY)
        assert all(word in said for word in ("reads ", "writes ", "next ", "section.key=value"))
