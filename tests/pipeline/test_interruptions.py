"""Killed at any moment and typed again, each stage ends with the files it would have written anyway."""

import functools
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.training.state import TrainState
from tests.stages import STAGES, Started, completed, final_files, kill_at_random, kill_at_rename, script, stage_words

KILLS = 2  # of each stage at random; benchmarks/kills.py does many more


@pytest.fixture
def other(finished, tmp_path) -> Path:
    """The same data and settings without a run."""
    shutil.copytree(finished[0] / "data", tmp_path / "data")
    shutil.copy(finished[0] / "blobs.yaml", tmp_path)
    return tmp_path


def test_stages_killed_at_random_moments_end_with_the_same_files(finished, other):
    folder, seconds = finished
    random = np.random.default_rng()  # other moments each time
    for stage in STAGES:
        moments = random.uniform(0, seconds[stage], KILLS)
        assert kill_at_random(other, stage, moments) <= KILLS
        ended = script(other, *stage_words(stage))
        assert ended.code == 0, (moments, ended.err)
    assert final_files(other) == final_files(folder)


def test_killed_where_each_file_is_put_in_place(finished, other):
    """Before one file, after the next: when a kill is most likely to leave what does not belong together."""
    for stage in (STAGES[0], STAGES[4]):
        if stage == STAGES[4]:
            shutil.copytree(finished[0] / "runs", other / "runs", dirs_exist_ok=True)
        for number in range(100):
            ended = script(
                other, *stage_words(stage), plant=functools.partial(kill_at_rename, number, bool(number % 2))
            )
            if ended.code == 0:
                break
            assert ended.code == -signal.SIGKILL, ended.err
        assert number > 1
    assert final_files(other) == final_files(finished[0])


def test_a_fold_killed_at_its_files_ends_the_same(finished, other):
    """Each process comes one file further than the one before, so every file of a fold is met at least once."""
    completed(other, *stage_words(STAGES[0]))
    typed = [*stage_words(STAGES[1]), "--folds", "0"]
    killed = 0
    for number in range(100):
        ended = script(other, *typed, plant=functools.partial(kill_at_rename, number, bool(number % 2)))
        if ended.code == 0:
            break
        killed += 1
        assert ended.code == -signal.SIGKILL, ended.err
    assert killed > 4
    prefix = "fold_0/"
    expected = {name: content for name, content in final_files(finished[0]).items() if name.startswith(prefix)}
    assert {name: content for name, content in final_files(other).items() if name.startswith(prefix)} == expected


def test_two_trainings_of_one_seed_are_equal_and_of_another_are_not(finished, other):
    completed(other, *stage_words(STAGES[0]))
    fold = other / "runs" / "blobs" / "fold_0"
    weights = []
    for overrides in (["train.workers=2"], ["train.seed=1", "--restart"]):
        completed(other, *stage_words(STAGES[1]), "--folds", "0", *overrides)
        weights.append((fold / "model.safetensors").read_bytes())
    first = (finished[0] / "runs" / "blobs" / "fold_0" / "model.safetensors").read_bytes()
    assert weights[0] == first
    assert weights[1] != first


def test_maps_that_are_there_are_not_predicted_again(finished, other):
    shutil.copytree(finished[0] / "runs", other / "runs")
    maps = sorted((other / "runs" / "blobs" / "oof").glob("*.png"))
    for path in maps[::3]:
        path.unlink()
    times = {path: path.stat().st_mtime_ns for path in maps if path.exists()}
    completed(other, *stage_words(STAGES[2]))
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert final_files(other) == final_files(finished[0])


def test_restart_begins_anew(finished, other):
    shutil.copytree(finished[0] / "runs", other / "runs")
    fold = other / "runs" / "blobs" / "fold_1"
    (fold / "model.safetensors").write_text("damaged")
    assert "fold_1/model.safetensors is not what training wrote" in script(other, *stage_words(STAGES[1])).err
    completed(other, *stage_words(STAGES[1]), "--restart", "--folds", "1")
    assert final_files(other) == final_files(finished[0])


def wait_in_epoch_2() -> None:
    from lib.training import trainer

    step = trainer.train_step

    def changed(job: object, state: TrainState, loss_of: object, batch: dict, number: int) -> dict:
        if (state.epoch, number) == (1, 0):
            Path("waiting").write_text("")
            while True:  # signal.pause() would miss a signal that comes just before it
                time.sleep(0.01)
        return step(job, state, loss_of, batch, number)

    trainer.train_step = changed


def test_ctrl_c_says_what_to_type_and_that_goes_on(finished, other):
    completed(other, *stage_words(STAGES[0]))
    typed = [*stage_words(STAGES[1]), "--folds", "0", "train.workers=1", "--restart"]
    started = Started(other, typed, wait_in_epoch_2)
    started.wait_for(other / "waiting")
    started.kill(signal.SIGINT)
    time.sleep(0.05)
    started.kill(signal.SIGINT)  # as impatient people type it
    ended = started.end()
    assert ended.code == 130
    assert "Traceback" not in ended.err and "Exception ignored" not in ended.err
    said = ended.err.splitlines()[-1].partition("to continue, type: python ")[2].split()
    assert [Path(said[0]).name, *said[1:]] == typed[:-1]  # with --restart it would begin anew
    ended = completed(other, *typed[:-1])
    assert "epoch 1/2" not in ended.out
    found, expected = (path / "runs" / "blobs" / "fold_0" for path in (other, finished[0]))
    assert (found / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    histories = [pd.read_csv(path / "history.csv").drop(columns="images_per_second") for path in (found, expected)]
    pd.testing.assert_frame_equal(*histories)


def test_restart_with_a_mistake_leaves_the_run_as_it_was(finished, other):
    shutil.copytree(finished[0] / "runs", other / "runs")
    before = {path: path.read_bytes() for path in (other / "runs").rglob("*") if path.is_file()}
    for mistake in ("model.encoder=resnet10", "model.weights=absent.pth", "train.tracker=mlflow"):
        ended = script(other, *stage_words(STAGES[1]), "--restart", mistake)
        assert ended.code == 2, ended.out
    assert {path: path.read_bytes() for path in (other / "runs").rglob("*") if path.is_file()} == before


def test_a_stopped_training_can_be_scored_and_is_marked(finished, other):
    completed(other, *stage_words(STAGES[0]))
    shutil.copytree(finished[0] / "runs/blobs/fold_1", other / "runs/blobs/fold_1")
    shutil.copytree(finished[0] / "runs/blobs/fold_2", other / "runs/blobs/fold_2")
    started = Started(other, [*stage_words(STAGES[1]), "--folds", "0"], wait_in_epoch_2)
    started.wait_for(other / "waiting")
    started.kill(signal.SIGINT)
    assert started.end().code == 130
    before = (other / "runs/blobs/config.yaml").read_bytes()
    refused = script(other, *stage_words(STAGES[1]), "--folds", "0", "train.lr=0.01")
    assert refused.code == 2 and "fold_0 was begun with other inputs (train.lr: 0.003 -> 0.01)" in refused.err
    assert (other / "runs/blobs/config.yaml").read_bytes() == before
    ended = completed(other, *stage_words(STAGES[2]))
    assert "fold 0 of runs/blobs is not trained to its end: its weights are of epoch 1 of 2" in ended.out
    completed(other, *stage_words(STAGES[1]))
    assert "not trained to its end" not in script(other, *stage_words(STAGES[2])).out
    assert final_files(other)["fold_0/model.safetensors"] == final_files(finished[0])["fold_0/model.safetensors"]
