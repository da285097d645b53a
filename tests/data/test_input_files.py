"""Replaced training images, masks and test images are noticed; a copy with the same content is not."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lib.base.errors import UserError
from lib.base.files import read_json
from lib.checks.inspection import inspect_all
from lib.config.data_settings import DataSettings, NeighbourSettings
from lib.config.schema import Settings
from lib.data import input_files
from lib.data.competition import open_test, open_training
from lib.data.input_files import (
    known_test_images,
    note_training_files,
    open_unchanged_training,
    present_state,
    read_known,
    training_sources,
    write_known,
)
from lib.prediction.run_maps import open_test_maps, own_missing
from lib.run.folder import RunFolder
from lib.run.provenance import training_content, training_inputs


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.folds.write_text("id,fold\n")
    return folder


@pytest.fixture
def settings(competition) -> Settings:
    return Settings(name="run", data=DataSettings(root=competition))


def mask_files(competition: Path) -> DataSettings:
    """The same images with masks of two classes as files."""
    for name in ("a", "b"):
        for image in (competition / "train_images").iterdir():
            path = competition / "masks" / name / image.name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), 255 * (cv2.imread(str(image), 0) > 128).astype(np.uint8))
    return DataSettings(root=competition, train_masks="masks/{class}/{id}.png", classes=["a", "b"])


def replace(path: Path) -> None:
    """The same name, size in pixels and time, other content."""
    times = path.stat()
    cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))


def test_a_replaced_training_image_is_refused_by_name(run, settings, competition):
    note_training_files(run, open_training(settings.data), {})
    assert open_unchanged_training(run, settings).ids
    replace(competition / "train_images" / "train_003.png")
    with pytest.raises(UserError, match=r"'image train_003' of the training data changed.* run 01 again"):
        open_unchanged_training(run, settings)


def test_settings_that_leave_out_an_image_for_once_do_not_make_it_new(run, settings):
    note_training_files(run, open_training(settings.data), {})
    noted = run.training_files.read_text()
    without = settings.model_copy(update={"data": settings.data.model_copy(update={"exclude": ["train_003"]})})
    assert len(open_unchanged_training(run, without).ids) == len(open_unchanged_training(run, settings).ids) - 1
    assert run.training_files.read_text() == noted


def test_settings_that_add_notes_for_once_leave_the_content_as_it_was(run, settings, competition):
    """What depends on a setting alone, as the order of neighbours, is forgotten when the setting is undone."""
    note_training_files(run, open_training(settings.data), {})
    content = training_content(run)
    in_order = settings.data.model_copy(
        update={"train_images": "train_images/train_{id}.png", "image_id": "train_{id}"}
        | {"neighbours": NeighbourSettings(order="id")}
    )
    open_unchanged_training(run, settings.model_copy(update={"data": in_order}))
    assert training_content(run) != content
    replace(competition / "train_images" / "train_003.png")
    with pytest.raises(UserError, match="'image train_003' of the training data changed"):
        open_unchanged_training(run, settings)
    replace(competition / "train_images" / "train_003.png")
    open_unchanged_training(run, settings)
    assert training_content(run) == content


def test_a_replaced_run_length_is_refused_by_name(run, settings, competition):
    note_training_files(run, open_training(settings.data), {})
    table = pd.read_csv(competition / "train.csv", keep_default_na=False)
    table.loc[table.id == "train_005", "rle"] = "1 7"
    table.to_csv(competition / "train.csv", index=False)
    with pytest.raises(UserError, match=r"'mask train_005' of the training data changed"):
        open_unchanged_training(run, settings)


def test_a_replaced_mask_file_and_masks_of_exchanged_classes_are_refused(run, competition):
    settings = Settings(name="run", data=mask_files(competition))
    note_training_files(run, open_training(settings.data), {})
    path = competition / "masks" / "b" / "train_002.png"
    replace(path)
    with pytest.raises(UserError, match="'mask train_002' of the training data changed"):
        open_unchanged_training(run, settings)
    path.write_bytes((competition / "masks" / "a" / "train_002.png").read_bytes())
    os.replace(competition / "masks" / "a" / "train_001.png", competition / "keep.png")
    replace(path)
    os.replace(competition / "keep.png", competition / "masks" / "a" / "train_001.png")
    with pytest.raises(UserError, match="mask train_002"):
        open_unchanged_training(run, settings)


def test_a_copy_elsewhere_is_read_once_and_then_known(run, settings, competition, tmp_path, monkeypatch):
    note_training_files(run, open_training(settings.data), {})
    content = read_json(run.training_files)["content"]
    copy = shutil.copytree(competition, tmp_path / "copy", copy_function=shutil.copy)  # new times
    moved = settings.model_copy(update={"data": settings.data.model_copy(update={"root": copy})})
    read, digest = [], input_files.ContentSource.digest
    monkeypatch.setattr(input_files.ContentSource, "digest", lambda source: read.append(source) or digest(source))
    open_unchanged_training(run, moved)
    assert len(read) == 48  # 24 images and their masks
    open_unchanged_training(run, moved)
    assert len(read) == 48
    assert read_json(run.training_files)["content"] == content
    assert training_inputs(run, moved) == training_inputs(run, settings)


def test_in_a_read_only_folder_a_copy_is_read_each_time(run, settings, competition, tmp_path, monkeypatch):
    note_training_files(run, open_training(settings.data), {})
    shutil.copytree(competition, tmp_path / "copy", copy_function=shutil.copy)  # new times
    copied = settings.model_copy(update={"data": settings.data.model_copy(update={"root": tmp_path / "copy"})})

    def refused(path: Path, text: str) -> None:
        raise UserError(f"{path} cannot be written")

    monkeypatch.setattr(input_files, "write_text", refused)
    assert open_unchanged_training(run, copied).ids == open_training(settings.data).ids
    run.training_files.unlink()  # notes by which no change could be noticed later are not done without
    with pytest.raises(UserError, match="training_files.json cannot be written"):
        open_unchanged_training(run, copied)


@pytest.mark.parametrize("masks", ["table", "files"])
def test_what_the_check_of_01_notes_is_what_reading_anew_finds(run, settings, competition, masks):
    data = open_training(settings.data if masks == "table" else mask_files(competition))
    noted = inspect_all(data).noted
    assert len(noted) == (24 if masks == "table" else 48)
    note_training_files(run, data, noted)
    assert read_known(run.training_files) == present_state(training_sources(data), {})[0]


def test_content_counts_for_training(run, settings, competition):
    note_training_files(run, open_training(settings.data), {})
    before = training_inputs(run, settings)
    replace(competition / "train_images" / "train_003.png")
    note_training_files(run, open_training(settings.data), {})  # as 01 does
    assert training_inputs(run, settings) != before


@pytest.mark.parametrize("damage", ["absent", "cut", "edited"])
def test_notes_that_are_absent_or_damaged_are_made_anew(run, settings, damage):
    note_training_files(run, open_training(settings.data), {})
    content = run.training_files.read_text()
    if damage == "absent":
        run.training_files.unlink()
    else:
        run.training_files.write_text(content[:400] if damage == "cut" else content.replace("a", "b"))
    open_unchanged_training(run, settings)
    assert run.training_files.read_text() == content


def test_maps_of_replaced_test_images_or_of_other_models_count_as_absent(run, settings, competition):
    data = open_test(settings.data)
    write_known(run.test_files, known_test_images(run, data))
    store = open_test_maps(run, settings, data, {"maps": "models"})
    for image_id in data.ids:
        store.write(image_id, np.zeros((2, 2, 1), np.uint8))
    store.require(data.ids)
    replace(competition / "test_images" / "test_002.png")
    store = open_test_maps(run, settings, data, {"maps": "models"})
    assert own_missing(store, data.ids) == ["test_002"]
    with pytest.raises(UserError, match=r"maps of 'test_002' in .*test are absent.* 04_infer\.py --run"):
        store.require(data.ids)
    assert own_missing(open_test_maps(run, settings, data, {"maps": "others"}), data.ids) == data.ids
    assert len(list(run.test.glob("*.png"))) == len(data.ids)  # they stay until there are others


def test_what_is_known_of_test_images_saves_reading_them(run, settings, monkeypatch):
    data = open_test(settings.data)
    known = known_test_images(run, data)
    write_known(run.test_files, known)
    monkeypatch.setattr(input_files.ContentSource, "digest", lambda source: pytest.fail("read again"))
    assert known_test_images(run, data) == known
