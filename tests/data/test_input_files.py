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
from lib.config.data_settings import DataSettings
from lib.config.schema import Settings
from lib.data import input_files
from lib.data.competition import open_test, open_training
from lib.data.input_files import (
    compare_test_images,
    note_training_files,
    open_predicted_test,
    open_unchanged_training,
    write_known,
)
from lib.run.folder import RunFolder
from lib.run.provenance import training_inputs


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
    note_training_files(run, open_training(settings.data))
    assert open_unchanged_training(run, settings).ids
    replace(competition / "train_images" / "train_003.png")
    with pytest.raises(UserError, match=r"'image train_003' of the training data changed.* run 01 again"):
        open_unchanged_training(run, settings)


def test_a_replaced_run_length_is_refused_by_name(run, settings, competition):
    note_training_files(run, open_training(settings.data))
    table = pd.read_csv(competition / "train.csv", keep_default_na=False)
    table.loc[table.id == "train_005", "rle"] = "1 7"
    table.to_csv(competition / "train.csv", index=False)
    with pytest.raises(UserError, match=r"'mask train_005' of the training data changed"):
        open_unchanged_training(run, settings)


def test_a_replaced_mask_file_and_masks_of_exchanged_classes_are_refused(run, competition):
    settings = Settings(name="run", data=mask_files(competition))
    note_training_files(run, open_training(settings.data))
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
    note_training_files(run, open_training(settings.data))
    content = read_json(run.training_files)["content"]
    copy = shutil.copytree(competition, tmp_path / "copy", copy_function=shutil.copy)  # new times
    moved = settings.model_copy(update={"data": settings.data.model_copy(update={"root": copy})})
    read, digest = [], input_files.Source.digest
    monkeypatch.setattr(input_files.Source, "digest", lambda source: read.append(source) or digest(source))
    open_unchanged_training(run, moved)
    assert len(read) == 48  # 24 images and their masks
    open_unchanged_training(run, moved)
    assert len(read) == 48
    assert read_json(run.training_files)["content"] == content
    assert training_inputs(run, moved) == training_inputs(run, settings)


def test_content_counts_for_training(run, settings, competition):
    note_training_files(run, open_training(settings.data))
    before = training_inputs(run, settings)
    replace(competition / "train_images" / "train_003.png")
    note_training_files(run, open_training(settings.data))  # as 01 does
    assert training_inputs(run, settings) != before


@pytest.mark.parametrize("damage", ["absent", "cut", "edited"])
def test_notes_that_are_absent_or_damaged_are_made_anew(run, settings, damage):
    note_training_files(run, open_training(settings.data))
    content = run.training_files.read_text()
    if damage == "absent":
        run.training_files.unlink()
    else:
        run.training_files.write_text(content[:400] if damage == "cut" else content.replace("a", "b"))
    open_unchanged_training(run, settings)
    assert run.training_files.read_text() == content


def test_only_replaced_test_images_are_to_be_predicted_again(run, settings, competition):
    data = open_test(settings.data)
    known, changed = compare_test_images(run, data)
    assert changed == set(data.ids)
    write_known(run.test_files, known)
    assert compare_test_images(run, data) == (known, set())
    replace(competition / "test_images" / "test_002.png")
    assert compare_test_images(run, data)[1] == {"test_002"}
    with pytest.raises(UserError, match=r"test images 'test_002' are not those .* 04_infer\.py --run"):
        open_predicted_test(run, settings)
