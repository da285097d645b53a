"""Inputs that have changed or lie in other runs: what is refused, and what to do about it."""

from pathlib import Path

import pytest

from lib.base.errors import UserError
from lib.base.files import write_json, write_text
from lib.config.check import save_settings
from lib.config.schema import Settings
from lib.run import provenance
from lib.run.folder import RunFolder
from lib.run.provenance import pseudo_inputs, require_fold


@pytest.fixture(autouse=True)
def finished(monkeypatch):
    """All runs have gone through 04."""
    for name in ("require_maps", "require_thresholds"):
        monkeypatch.setattr(provenance, name, lambda run, settings: {"of": run.root.name})


def run_of(folder: Path, **sections: dict) -> RunFolder:
    save_settings(Settings(name="run", **sections), RunFolder(folder).config)
    return RunFolder(folder)


def test_a_run_cannot_learn_from_masks_by_its_own_models(tmp_path, monkeypatch):
    """Training would make the masks stale, and with them the models: each stage would refuse the run ever after."""
    monkeypatch.chdir(tmp_path)
    run, other = run_of(Path("a")), run_of(Path("b"))
    later = run_of(Path("c"), train={"pseudo_labels": "a"})
    both = run_of(Path("both"), ensemble={"members": ["a", "b"]})
    of_later = run_of(Path("of_later"), ensemble={"members": ["b", "c"]})
    from_it = run_of(Path("from_it"), model={"weights": "a"})
    for source in (run, both, of_later, from_it):
        with pytest.raises(UserError, match=rf"train\.pseudo_labels={source.root} has its masks by models of a itself"):
            pseudo_inputs(run, source.root)
    with pytest.raises(UserError, match="a has its masks by models of .*/a itself"):
        pseudo_inputs(RunFolder(tmp_path / "a"), Path("a"))
    digests = {
        pseudo_inputs(run, other.root),
        pseudo_inputs(later, run.root),
        pseudo_inputs(run_of(Path("d")), both.root),
    }
    assert len(digests) == 3


def test_runs_that_learn_from_each_other_are_named_instead_of_followed_for_ever(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    run, _ = run_of(a, train={"pseudo_labels": str(b)}), run_of(b, ensemble={"members": [str(a), str(tmp_path / "c")]})
    with pytest.raises(UserError, match="itself; let another run learn from them"):
        pseudo_inputs(run, b)


def test_a_change_that_a_fold_does_not_know_is_to_be_undone_or_trained_with(tmp_path):
    run = run_of(tmp_path / "a")
    write_text(run.fold(0).weights, "weights")
    write_json(run.fold(0).metrics, {"fold": 0, "made_from": {"folds.csv": "as they were"}})
    with pytest.raises(UserError, match=r"folds\.csv: as they were -> edited\); undo the change, or run 02_train\.py"):
        require_fold(run, 0, {"folds.csv": "edited"})


def test_a_run_that_is_gone_is_not_to_be_made_anew(tmp_path):
    with pytest.raises(UserError, match=r"train\.pseudo_labels: .*gone does not exist in .*; put the run back"):
        pseudo_inputs(run_of(tmp_path / "a"), tmp_path / "gone")
