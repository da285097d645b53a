"""The notes on scores whose models know something of the images that are scored."""

from pathlib import Path

import pytest

from lib.base.files import write_json
from lib.config.check import save_settings
from lib.config.schema import Settings
from lib.run.folder import RunFolder
from lib.run.score_notes import notes_on_scores, reasons_for_optimism, warnings_of_unfinished


def run_of(folder: Path, **sections: dict) -> tuple[RunFolder, Settings]:
    """A run of two folds whose best epochs score .02 and .04 more than the last ones."""
    run, settings = RunFolder(folder), Settings(name="run", folds={"count": 2}, **sections)
    save_settings(settings, run.config)
    for fold, gain in enumerate((0.02, 0.04)):
        write_json(run.fold(fold).metrics, {"best": {"score": 0.8 + gain}, "last": {"score": 0.8}})
    return run, settings


def test_a_run_that_chooses_nothing_on_what_is_scored_is_not_optimistic(tmp_path):
    assert notes_on_scores(*run_of(tmp_path / "run")) == ""


def test_the_best_epoch_is_named_with_its_gain(tmp_path):
    (reason,) = reasons_for_optimism(*run_of(tmp_path / "run", train={"keep": "best"}))
    assert reason.startswith(f"{tmp_path / 'run'} keeps the best epoch") and "+0.0300 over the last epoch" in reason


def test_pseudo_labels_are_named_with_their_run(tmp_path):
    (reason,) = reasons_for_optimism(*run_of(tmp_path / "run", train={"pseudo_labels": "runs/other"}))
    assert "has learned from masks by runs/other" in reason


@pytest.mark.parametrize("by", ["weights", "ensemble"])
def test_runs_that_are_built_upon_count(tmp_path, by):
    run_of(tmp_path / "a", train={"keep": "best"})
    run_of(tmp_path / "b", model={"weights": str(tmp_path / "a")})
    if by == "weights":
        found = reasons_for_optimism(*run_of(tmp_path / "c", model={"weights": str(tmp_path / "b")}))
    else:
        found = reasons_for_optimism(
            *run_of(tmp_path / "c", ensemble={"members": [str(tmp_path / "a"), str(tmp_path / "b")]})
        )
    assert [reason.partition(" keeps")[0] for reason in found] == [str(tmp_path / "a")]


def test_runs_that_begin_with_each_other_are_named_once(tmp_path):
    """As when a run is trained again from one that was built upon it."""
    run_of(tmp_path / "a", train={"keep": "best"}, model={"weights": str(tmp_path / "b")})
    found = reasons_for_optimism(
        *run_of(tmp_path / "b", train={"keep": "best"}, model={"weights": str(tmp_path / "a")})
    )
    assert [reason.partition(" keeps")[0] for reason in found] == [str(tmp_path / "b"), str(tmp_path / "a")]


def test_unfinished_models_of_members_and_of_all_images_are_named(tmp_path):
    run, settings = run_of(tmp_path / "a", train={"all_images": True})
    stopped = {"finished": False, "epoch": 1, "epochs": 30}
    write_json(run.fold(1).metrics, stopped)
    assert warnings_of_unfinished(run, settings).count("\n") == 1  # whose model of all images is not there yet
    write_json(run.fold("all").metrics, stopped)
    run_of(tmp_path / "b")
    both = run_of(tmp_path / "both", ensemble={"members": [str(run.root), str(tmp_path / "b")]})
    for warned in (warnings_of_unfinished(run, settings), warnings_of_unfinished(*both)):
        lines = warned.splitlines()
        assert [line.partition(" is not")[0] for line in lines] == [
            f"warning   fold {k} of {run.root}" for k in (1, "all")
        ]
        assert all("of epoch 1 of 30" in line and f"--run {run.root} --folds" in line for line in lines)
