"""The leaderboard: which runs may be compared, in which order, and what it says of their settings."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lib.base.files import read_json, write_json
from lib.report.leaderboard import boards, measure_of, name_differences, read_entries, read_entry
from lib.run.folder import open_run
from lib.run.provenance import threshold_inputs
from lib.run.record import StageRecord
from lib.tools.leaderboard import leaderboard
from tests.report.test_report import FakeRun, Page


def change(run: Path, name: str, **settings: object) -> Path:
    """A copy of a finished run under another name, with settings `section__key` that no stage is made from."""
    copy = run.parent / name
    shutil.copytree(run, copy)
    content = yaml.safe_load((copy / "config.yaml").read_text()) | {"name": name}
    for dotted, value in settings.items():
        section, key = dotted.split("__")
        content[section][key] = value
    (copy / "config.yaml").write_text(yaml.safe_dump(content))
    return copy


def set_score(run: Path, nested: float) -> None:
    content = read_json(run / "postprocess.json")
    content["after"]["nested"] = nested
    write_json(run / "postprocess.json", content)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    run = FakeRun.finished(tmp_path_factory.mktemp("board"), training=18, test=6).run.root
    set_score(run, 0.5)
    set_score(change(run, "better", train__cache_mb=1), 0.7)
    set_score(change(run, "worse", train__workers=3), 0.2)
    shutil.rmtree(change(run, "begun") / "fold_1")
    other = change(run, "other")
    (other / "folds.csv").write_text((other / "folds.csv").read_text() + "\n")
    (run.parent / "unreadable").mkdir()
    (run.parent / "unreadable" / "config.yaml").write_text("nonsense: 1")
    return run.parent


def test_runs_on_the_same_folds_stand_in_the_order_of_their_scores(runs):
    entries, unreadable = read_entries(runs)
    same, apart = boards(entries)
    assert [entry.name for entry in same.entries] == ["better", "blobs", "worse", "begun"]
    assert [entry.name for entry in apart.entries] == ["other"]  # whose folds are others, so all of it is stale
    assert same.entries[-1].state == "next: 02_train.py" and same.entries[-1].score is None
    assert same.entries[0].differences == ["train.cache_mb=1"] and same.entries[1].differences == []
    assert same.entries[2].differences == ["train.workers=3"]
    assert len(unreadable) == 1 and "nonsense" in unreadable[0]


def test_scores_of_other_images_or_in_another_measure_stand_apart(runs, tmp_path):
    entries = [entry for entry in read_entries(runs)[0] if entry.name in ("blobs", "better", "worse")]
    assert [len(board.entries) for board in boards(entries)] == [3]
    for changes in ({"scored": "fold 0 of "}, {"settings": entries[0].settings | {"submission.size": [20, 40]}}):
        apart = boards([replace(entries[0], **changes), *entries[1:]])
        assert [len(board.entries) for board in apart] == [2, 1]
    assert "fold 0 of 3 folds" in boards([replace(entries[0], scored="fold 0 of ")])[0].title


def test_a_run_of_one_fold_is_named_so(runs, tmp_path):
    run, settings = open_run(Path(shutil.copytree(runs / "blobs", tmp_path / "one")))
    for fold in (1, 2):
        shutil.rmtree(run.fold(fold).root)
    StageRecord(run, "03_oof_threshold").write(threshold_inputs(run, settings))
    entry = read_entry(run, settings)
    assert entry.score is not None and entry.scored == "fold 0 of "


def test_a_score_that_is_optimistic_is_marked(runs, monkeypatch):
    monkeypatch.setattr(
        "lib.report.leaderboard.reasons_for_optimism", lambda run, settings: [run.root.name][: run.root.name == "blobs"]
    )
    states = {entry.name: entry.state for entry in read_entries(runs)[0]}
    assert states["blobs"] == "finished; its score is optimistic, as its report says"
    assert states["better"] == "finished" and states["begun"] == "next: 02_train.py"


def test_the_measure_names_all_that_makes_scores_differ():
    settings = {"threshold.metric": "f_beta", "threshold.beta": 2.0, "submission.rows": "semantic"}
    settings |= {"submission.size": None, "objects.metric": "f_beta", "objects.beta": 1.0}
    assert measure_of(settings, None) == "F-beta (2)"
    assert measure_of(settings | {"submission.size": [128, 800]}, None) == "F-beta (2) at 128 x 800"
    assert measure_of(settings | {"submission.rows": "instance"}, None) == "object F1"


def test_the_score_of_masks_is_not_ranked_among_those_of_objects(runs):
    """Which a run has whose rows are objects while 05 is not done."""
    entries = [entry for entry in read_entries(runs)[0] if entry.name in ("blobs", "better", "worse")]
    of_objects = [
        replace(
            entry, settings=entry.settings | {"submission.rows": "instance"}, score=replace(entry.score, metric=metric)
        )
        for entry, metric in zip(entries, ("object AP", "object AP", "Dice"), strict=True)
    ]
    finished, before_05 = boards(of_objects)
    assert finished.title.endswith("object AP") and [entry.name for entry in finished.entries] == ["better", "blobs"]
    assert before_05.title.endswith("Dice") and len(before_05.entries) == 1


def test_of_two_runs_the_one_without_the_default_is_named(runs):
    entries = [entry for entry in read_entries(runs)[0] if entry.name in ("blobs", "better")]
    name_differences(entries)
    assert {entry.name: entry.differences for entry in entries} == {"blobs": [], "better": ["train.cache_mb=1"]}


def test_of_an_ensemble_the_settings_of_training_are_not_named(runs):
    entries = [entry for entry in read_entries(runs)[0] if entry.name in ("blobs", "better", "worse")]
    ensemble = next(entry for entry in entries if entry.name == "worse")
    ensemble.settings |= {"ensemble.members": ["runs/a", "runs/b"], "model.encoder": "other", "threshold.beta": 3.0}
    name_differences(entries)
    assert ensemble.differences == ["ensemble.members=['runs/a', 'runs/b']", "threshold.beta=3.0"]
    name_differences([ensemble])


def test_the_command_prints_and_writes_the_page(runs, capsys, monkeypatch):
    with_all = "lib.report.leaderboard.note_of_all_images"
    monkeypatch.setattr(with_all, lambda run, settings: "a note" if run.root.name == "better" else "")
    arguments = type("Arguments", (), {"runs": runs})
    summary = leaderboard(arguments)
    out = capsys.readouterr().out
    assert out.count("of the model of all images") == 1
    assert "better  0.7000" in out and "train.workers=3" in out and "next: 02_train.py" in out
    page = Page((runs / "leaderboard.html").read_text())
    assert "0.7000" in page.text and "nonsense" in page.text
    assert {link["href"] for link in page.all("a")} >= {"better/report.html", "blobs/report.html"}
    board = json.loads(summary.to_json())["boards"][0]
    assert [run["name"] for run in board["runs"]] == ["better", "blobs", "worse", "begun"]
    assert board["runs"][0]["score"]["nested"] == 0.7 and board["runs"][-1]["score"] is None
