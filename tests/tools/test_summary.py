"""The scores of a run, printed: only those of the present settings."""

from argparse import Namespace
from pathlib import Path

import pytest

from lib.base.errors import UserError
from lib.base.files import read_json
from lib.deploy.finished import open_finished
from lib.tools.summary import summarise
from tests.stages import STAGES, completed, stage_words


def test_a_setting_of_05_changed_afterwards_makes_its_scores_old(user, monkeypatch, capsys):
    monkeypatch.chdir(user)
    arguments = Namespace(run=Path("runs/blobs"), solution=None)
    summarise(arguments)
    assert "Dice, nested" in capsys.readouterr().out
    config = Path("runs/blobs/config.yaml")
    config.write_text(config.read_text().replace("areas:\n  - 16\n", "areas:\n  - 17\n"))
    with pytest.raises(UserError, match=rf"postprocess.areas: .*17.*; run {STAGES[4]}.py --run runs/blobs"):
        summarise(arguments)


def test_a_submission_that_05_did_not_write_is_not_scored(user, monkeypatch, capsys):
    monkeypatch.chdir(user)
    arguments = Namespace(run=Path("runs/blobs"), solution=Path("data/blobs/solution.csv"))
    summarise(arguments)
    assert "test, submission.csv" in capsys.readouterr().out
    submission = Path("runs/blobs/submission.csv")
    written = submission.read_text()
    submission.write_text(Path("data/blobs/solution.csv").read_text())
    with pytest.raises(UserError, match=r"submission.csv is not what the last 05_postprocess.py wrote"):
        summarise(arguments)
    submission.write_text(written)
    summarise(arguments)


def test_of_objects_their_own_score_comes_first(user, monkeypatch, capsys):
    completed(user, *stage_words(STAGES[4]), "submission.rows=instance")
    monkeypatch.chdir(user)
    summarise(Namespace(run=Path("runs/blobs"), solution=None))
    out, objects = capsys.readouterr().out, read_json(Path("runs/blobs/objects.json"))
    assert f"object AP, nested      {objects['nested']:.4f}" in out and f" {objects['in_sample']:.4f} (gap" in out
    assert 0 < out.index("object AP, nested") < out.index("Dice, nested")


def test_rules_of_objects_go_with_a_submission_of_masks(user, monkeypatch):
    """They may be of older models, and apply, which can be asked for objects, would take them."""
    monkeypatch.chdir(user)
    Path("runs/blobs/objects.json").write_text("{}")
    completed(user, *stage_words(STAGES[4]))
    with pytest.raises(UserError, match="objects.json does not exist; 05_postprocess.py with submission.rows=instance"):
        open_finished(Path("runs/blobs"), ["submission.rows=instance"])
