"""Each setting of the model counts for the stages that it should, or stands in the list of those that count nowhere."""

import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

from lib.base.errors import UserError
from lib.base.files import write_json, write_text
from lib.config.schema import Settings
from lib.prediction.run_maps import open_oof_maps
from lib.run import provenance
from lib.run.folder import RunFolder
from lib.run.record import differences, require_same
from lib.run.settings_by_stage import FIRST_STAGE, MAPS, NO_STAGE, SUBMISSION, THRESHOLDS, TRAINING, first_stage

FOLDS = "id,fold\na,0\nb,1\n"
SECTIONS = {name: field.annotation for name, field in Settings.model_fields.items() if name != "name"}
EVERY_SETTING = [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunFolder:
    """A run whose two folds are trained, whatever the settings: only what the later stages add is looked at."""
    run = RunFolder(tmp_path)
    write_text(run.folds, FOLDS)
    monkeypatch.setattr(provenance, "require_trained", lambda run, settings: {"fold_0": "w0", "fold_1": "w1"})
    monkeypatch.setattr(provenance, "pseudo_inputs", lambda run, root: "the other run's maps")
    monkeypatch.setattr(provenance, "external_inputs", lambda run, settings: "the external images")
    return run


def changed(settings: Settings, section: str, key: str) -> Settings:
    """The settings with another value of one, which need not be a valid one."""
    part = getattr(settings, section)
    value = Path("another value") if isinstance(getattr(part, key), Path) else "another value"
    part = part.model_copy(update={key: value})
    return settings.model_copy(update={section: part})


def stages_that_notice(run: RunFolder, before: Settings, after: Settings) -> set[str]:
    """The stages whose fingerprints differ, every stage having those of the stages before it in its own."""
    functions = {
        "training": provenance.training_inputs,
        "maps": provenance.map_inputs,
        "thresholds": provenance.threshold_inputs,
        "submission": provenance.submission_inputs,
    }
    with warnings.catch_warnings(action="ignore"):  # pydantic's, on the value that is none
        return {stage for stage, made_from in functions.items() if made_from(run, before) != made_from(run, after)}


def test_the_sections_are_models():
    """So that the walk below meets every setting."""
    assert all(issubclass(model, BaseModel) for model in SECTIONS.values())
    assert len(EVERY_SETTING) > 90


@pytest.mark.parametrize(("section", "key"), EVERY_SETTING)
def test_every_setting_counts_from_its_stage_on_or_is_listed_as_counting_nowhere(run, section, key):
    if f"{section}.{key}" in ("augment.preset", "ensemble.members"):  # looked at below
        return
    before = Settings(name="run")
    noticed = stages_that_notice(run, before, changed(before, section, key))
    first = first_stage(section, key)
    if first is None:
        assert section in NO_STAGE or f"{section}.{key}" in NO_STAGE
        assert noticed == ({"training"} if key in ("pseudo_labels", "external") else set())  # by the content of files
    elif first == "training":
        assert noticed == {"training"}  # from where require_trained refuses it at each later stage
    else:
        stages = (TRAINING, MAPS, THRESHOLDS, SUBMISSION)
        assert noticed == set(stages[stages.index(first) :])


def test_of_a_preset_the_strengths_count(run):
    light, heavy = (Settings(name="run", augment={"preset": preset}) for preset in ("light", "heavy"))
    assert stages_that_notice(run, light, heavy) == {"training"}
    written_out = Settings(name="run", augment={"preset": "none", "horizontal_flip": 0.5, "vertical_flip": 0.5})
    assert stages_that_notice(run, light, written_out) == set()


def test_of_an_ensemble_the_weights_and_the_members_maps_count_and_not_their_places(run, monkeypatch):
    members = {}
    for name in ("lib.run.members.open_members", "lib.run.provenance.open_members"):
        monkeypatch.setattr(name, lambda settings: members[str(settings.ensemble.members[0])])

    def ensemble(place: str, infer: dict, **others: object) -> Settings:
        members[place] = [(run, Settings(name="member", folds={"count": 2}, infer=infer))] * 2
        return Settings(name="run", folds={"count": 2}, ensemble={"members": [place, "b"]} | others)

    before = ensemble("a", {})
    later = {"maps", "thresholds", "submission"}
    assert stages_that_notice(run, before, ensemble("elsewhere/a", {})) == set()
    assert stages_that_notice(run, before, ensemble("c", {"tta": "d4"})) == later
    assert stages_that_notice(run, before, ensemble("a", {}, weights="search")) == later


def test_the_metric_counts_for_a_training_whose_best_epoch_is_kept(run):
    last, best = (Settings(name="run", train={"keep": keep}) for keep in ("last", "best"))
    assert "training" not in stages_that_notice(run, last, changed(last, "threshold", "metric"))
    assert "training" in stages_that_notice(run, best, changed(best, "threshold", "metric"))


def test_what_is_listed_exists():
    names = {f"{section}.{key}" for section, key in EVERY_SETTING} | SECTIONS.keys() | {"name"}
    assert set(NO_STAGE) | set(FIRST_STAGE) <= names
    assert all(NO_STAGE.values())


def test_settings_that_made_silent_trouble_count():
    for name in (
        "data.class_column",
        "data.id_column",
        "data.image_id",
        "data.rle",
        "train.precision",
        "train.compile",
    ):
        assert first_stage(*name.split(".")) == "training"
    for name in ("infer.margin", "infer.window", "infer.average"):
        assert first_stage(*name.split(".")) == "maps"


def test_a_setting_unknown_to_an_earlier_version_had_its_default():
    now = {"training_files": "x", "train": {"lr": 0.1, "accumulate": 1}, "model": {"dropout": 0.0}}
    then = {"training_files": "x", "train": {"lr": 0.1}, "model": {"dropout": 0.0}}
    assert differences(then, now) == []
    now["train"]["accumulate"] = 4
    assert differences(then, now) == ["train.accumulate: 1 -> 4"]


def test_a_setting_within_a_setting_has_its_default_too():
    then = {"training_files": "x", "data": {"rle": {"order": "row"}}}
    now = {
        "training_files": "x",
        "data": {"rle": Settings(name="a").data.rle.model_dump(mode="json") | {"order": "row"}},
    }
    assert differences(then, now) == []
    now["data"]["rle"]["base"] = 0
    assert differences(then, now) == ["data.rle.base: 1 -> 0"]


def test_a_section_that_is_gone_is_not_told_in_full():
    source = {"weight": 0.5, **Settings(name="a").data.model_dump(mode="json")}
    (line,) = differences({"training_files": "x", "external": {"1": source}}, {"training_files": "x", "external": None})
    assert line.startswith("external: {'1': {'weight': 0.5") and line.endswith("... -> None") and len(line) < 70


def test_a_setting_that_no_longer_counts_is_not_compared():
    assert differences({"training_files": "x", "data": {"train_masks": "a.csv"}}, {"training_files": "x"}) == []


def test_a_run_made_before_files_were_noted_goes_on(tmp_path):
    then = {"folds.csv": "f", "data": {"channels": 3}, "train": {"epochs": 2}}
    now = {"folds.csv": "f", "training_files": "x", "fold": 1, "data": {"channels": 3, "id_column": "Image"}}
    write_json(tmp_path / "metrics.json", {"made_from": then})
    require_same(tmp_path / "metrics.json", now | {"train": Settings(name="a").train.model_dump() | {"epochs": 2}}, "")


def test_images_and_masks_count_for_maps_and_thresholds_where_the_weights_stay_equal(run):
    """As where only an image that the trained fold leaves out was replaced."""
    settings, table = Settings(name="run", folds={"count": 2}), pd.DataFrame({"id": ["a", "b"], "fold": [0, 1]})
    write_json(run.training_files, {"content": "as they were"})
    before = provenance.threshold_inputs(run, settings)
    open_oof_maps(run, settings, table, before).write("a", np.zeros((4, 5, 1), np.uint8))
    assert open_oof_maps(run, settings, table, before).has("a")
    write_json(run.training_files, {"content": "replaced"})
    after = provenance.threshold_inputs(run, settings)
    assert [line.partition(":")[0] for line in differences(before, after)] == ["training_files"]
    assert not open_oof_maps(run, settings, table, after).has("a")
    del before["training_files"]  # by a version that did not name them
    assert differences(before, after) == []


@pytest.mark.parametrize(
    ("sections", "refused"),
    [
        ({}, None),
        ({"folds": {"count": 2}}, None),  # has to fit folds.csv, which may be edited by hand
        ({"folds": {"seed": 3}}, "folds.seed: 0 -> 3 would change nothing"),
        ({"folds": {"near_duplicates": False}}, "folds.near_duplicates: True -> False"),
        ({"data": {"group": "patient"}}, "data.group: None -> patient"),
    ],
)
def test_settings_of_the_folds_cannot_become_the_runs_once_these_are_made(run, sections, refused):
    before = Settings(name="run").model_dump(mode="json", include={"data", "folds"})
    del before["folds"]["hidden_groups"]  # by a version that did not have it
    write_json(run.record("01_prepare_folds"), {"made_from": before})
    with pytest.raises(UserError, match=refused) if refused else nullcontext():
        provenance.fold_inputs(run, Settings(name="run", **sections))


def test_of_a_run_to_start_from_the_fold_of_the_same_number_counts(run, tmp_path):
    other = RunFolder(tmp_path / "other")
    for fold in range(2):
        write_text(other.fold(fold).weights, f"weights {fold}")
    settings = Settings(name="run", model={"weights": str(other.root)})
    before = provenance.fold_inputs(run, settings)
    write_text(other.fold(1).weights, "exchanged")
    after = provenance.fold_inputs(run, settings)
    assert after[0] == before[0]
    assert [line.partition(":")[0] for line in differences(before[1], after[1])] == ["weights_file"]


def test_a_file_of_weights_counts_by_its_content_and_not_once_it_is_gone(run, tmp_path):
    file, metrics = tmp_path / "encoder.safetensors", tmp_path / "metrics.json"
    settings = Settings(name="run", model={"weights": str(file)})
    write_text(file, "weights")
    write_json(metrics, {"made_from": provenance.fold_inputs(run, settings)[0]})
    require_same(metrics, provenance.fold_inputs(run, settings)[0], "train again")
    write_text(file, "exchanged")
    with pytest.raises(UserError, match=r"other inputs \(weights_file: .* -> .*\); train again"):
        require_same(metrics, provenance.fold_inputs(run, settings)[0], "train again")
    file.unlink()
    require_same(metrics, provenance.fold_inputs(run, settings)[0], "train again")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,fold\na,0.0\nb,1\n", "line 2: '0.0' is no fold"),
        ("id,fold\na,0\nb,\n", "line 3: '' is no fold"),
        ("id,fold\na\n", "line 2: 'None' is no fold"),
        ("id;fold\na;0\nb;1\n", "has no column 'fold'; its columns must be separated by commas"),
    ],
)
def test_folds_that_an_edit_has_spoilt_are_named(run, text, problem):
    write_text(run.folds, text)
    with pytest.raises(UserError, match=rf"{run.folds}.*{problem}"):
        provenance.fold_inputs(run, Settings(name="run", folds={"count": 2}))
