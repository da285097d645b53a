"""Training on resized images: that of the small images, and each image is decoded at its own size only once."""

import importlib
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lib.config.data_settings import DataSettings
from lib.data import resizing
from lib.data.competition import open_training
from lib.masks import rle
from lib.run.folder import RunFolder
from lib.training import kept_images
from lib.training.fold_job import largest_crop
from lib.training.kept_images import KeptImages, kept_folder, remove_kept, seen_in_training
from tests.conftest import write_competition
from tests.training.jobs import jobs_of, settings_of, table_of, train

HALF = {"data": {"resize": {"factor": 0.5}}}


@pytest.fixture(autouse=True)
def nothing_decided_yet():
    kept_images.has_room.cache_clear()


@pytest.fixture
def small(tmp_path) -> Path:
    return write_competition(tmp_path / "small", training=8, test=1)


@pytest.fixture
def doubled(small) -> Path:
    """The same competition at twice the size: every pixel of images and masks four times."""
    root = small.with_name("doubled")
    shutil.copytree(small, root)
    for path in root.rglob("*.png"):
        cv2.imwrite(str(path), np.kron(cv2.imread(str(path), 0), np.ones((2, 2), np.uint8)))
    table = pd.read_csv(root / "train.csv", keep_default_na=False)
    masks = [rle.decode(text, (48, 64)) for text in table.rle]
    table["rle"] = [rle.encode(np.kron(mask, np.ones((2, 2), np.uint8))) for mask in masks]
    table.to_csv(root / "train.csv", index=False)
    return root


def test_training_at_half_the_size_is_that_of_images_of_half_the_size(small, doubled, tmp_path):
    runs = [
        train(settings_of(small, crops_per_image=2), tmp_path / "of_small"),
        train(settings_of(doubled, HALF, crops_per_image=2), tmp_path / "of_half"),
    ]
    one, other = (pd.read_csv(run.fold(0).history).drop(columns="images_per_second") for run in runs)
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert runs[0].fold(0).weights.read_bytes() == runs[1].fold(0).weights.read_bytes()


def test_each_image_is_decoded_at_its_own_size_once(doubled, tmp_path, monkeypatch):
    read = []
    decode = resizing.resized
    monkeypatch.setattr(resizing, "resized", lambda array, size: read.append(array.shape) or decode(array, size))
    train(settings_of(doubled, HALF, cache_mb=0), tmp_path, folds=(0, 1))
    assert len(read) == 8 and set(read) == {(96, 128, 3)}


def kept(settings, run: RunFolder, made_from: dict | None = None) -> KeptImages:
    return seen_in_training(open_training(settings.data), kept_folder(run, made_from or {}) / "training")


def test_what_is_kept_is_what_is_read_and_what_is_damaged_is_made_anew(doubled, tmp_path):
    settings, run = settings_of(doubled, HALF), RunFolder(tmp_path)
    images = kept(settings, run)
    name = images.images.images.ids[0]
    image, mask = images.read_image(name), images.read_mask(name)
    files = sorted(path for path in run.resized.rglob("*") if path.is_file())
    assert [path.parent.name for path in files] == ["image", "mask"]
    whole = [path.read_bytes() for path in files]
    files[0].write_bytes(whole[0][:-40])
    files[1].write_bytes(whole[0])
    np.testing.assert_array_equal(images.read_image(name), image)
    np.testing.assert_array_equal(images.read_mask(name), mask)
    assert [path.read_bytes() for path in files] == whole
    shutil.rmtree(doubled)
    np.testing.assert_array_equal(images.read_image(name), image)
    np.testing.assert_array_equal(images.read_mask(name), mask)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_and_classes_is_kept(tmp_path, channels):
    array = np.random.default_rng(0).integers(0, 256, (9, 14, channels), dtype=np.uint8)
    images = KeptImages(resizing.ResizedImages(open_like(channels, array)), tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(images.read_image("a"), array)
        np.testing.assert_array_equal(images.read_mask("a"), array)


def open_like(channels: int, array: np.ndarray):
    """Images in memory, whose masks are the same arrays."""

    class InMemory:
        settings = DataSettings(channels=channels, classes=[str(number) for number in range(channels)])
        classes, resize_values = settings.classes, {}

        def image_size(self, image_id):
            return array.shape[:2]

        def open_image(self, image_id):
            return array

        def read_mask(self, image_id):
            return array

    return InMemory()


def test_other_content_or_settings_are_kept_elsewhere(tmp_path):
    made_from = {"training_files": "a", "data": {"resize": {"factor": 0.5}}, "train": {"lr": 1}, "fold": 0}
    folder = kept_folder(RunFolder(tmp_path), made_from)
    same = made_from | {"train": {"lr": 2}, "fold": 1}
    assert kept_folder(RunFolder(tmp_path), same) == folder
    for other in ({"training_files": "b"}, {"data": {"resize": {"factor": 0.25}}}, {"pseudo_labels": "c"}, {"new": 1}):
        assert kept_folder(RunFolder(tmp_path), made_from | other) != folder


def test_nothing_is_kept_without_room_and_that_is_said(doubled, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 850_000, 150_000))
    run = train(settings_of(doubled, HALF, epochs=1), tmp_path, folds=(0, 1))
    assert not run.resized.exists()
    told = [line for line in capsys.readouterr().out.splitlines() if "resized images" in line]
    assert len(told) == 1 and "none are kept" in told[0]
    assert 8 * 48 * 64 * 4 == 98_304  # and at most 75,000 may be taken


def test_what_is_kept_goes_once_every_fold_is_trained(doubled, tmp_path):
    settings = settings_of(doubled, HALF, epochs=1, all_images=True)
    folds = importlib.import_module("02_train").chosen_folds(None, settings)
    run = train(settings, tmp_path, folds=(0, 1))
    remove_kept(run, folds)
    assert any(run.resized.rglob("*.png"))
    train(settings, tmp_path, folds=("all",))
    remove_kept(run, folds)
    assert not run.resized.exists()


def test_nothing_is_kept_of_images_that_are_not_resized(small, tmp_path):
    run = train(settings_of(small, epochs=1), tmp_path)
    assert not run.resized.exists()


def test_a_crop_is_no_larger_than_what_the_network_sees(doubled, tmp_path):
    settings = settings_of(doubled, {"data": {"resize": {"longest_side": 50}}}, crop_size=256)
    data, table = open_training(settings.data), table_of(settings)
    assert largest_crop(table, data, 256) == (38, 50)  # of 96 x 128
    assert largest_crop(table, data, 40) == (38, 40)
    (job,) = jobs_of(settings, tmp_path)
    assert job.crop == (38, 50)
    assert job.images.validated.image_size("train_000") == (38, 50)
