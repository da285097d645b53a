"""The words of lib.tools.apply: what --images stands for, and what is refused before anything is written."""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.base.cli import parser, run_command
from lib.base.errors import UserError
from lib.config.check import check_settings
from lib.config.load import with_overrides
from lib.data.competition import open_test
from lib.tools.apply import apply, overrides_of, positive
from tests.stages import script


@pytest.mark.parametrize("words", ["photos", "photos/*.png", "photos/{id}.png", "{folder}/{id}.png", "photos/🐈"])
def test_images_need_no_sample_and_are_named_as_they_are(tmp_path, monkeypatch, words):
    """Whatever the run's own test images are called and wherever its sample lies."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ("photos/🐈" if "🐈" in words else "photos")
    folder.mkdir(parents=True)
    for name in ("b=1", "a"):
        cv2.imwrite(f"{folder}/{name}.png", np.zeros((4, 5, 3), np.uint8))
    data = {"root": "gone", "test_images": "test/{case}.tif", "image_id": "{case}", "test_id": "t_{case}"}
    settings = check_settings(with_overrides({"name": "x", "data": data}, overrides_of(words)), Path("x.yaml"))
    assert open_test(settings.data).ids == ["a", "b=1"] and settings.submission.format == "png"


@pytest.mark.parametrize(
    ("pattern", "ids"), [("day_*.png", ["day_1", "day_x"]), ("*_1.png", ["day_1", "n_1"]), ("?_*.png", ["1"])]
)
def test_masks_keep_the_whole_name_of_an_image(tmp_path, pattern, ids):
    """Where more than a * stands for it, {id} is the part of the first * alone."""
    for name in ("day_1", "day_x", "n_1"):
        cv2.imwrite(f"{tmp_path}/{name}.png", np.zeros((4, 5, 3), np.uint8))
    settings = check_settings(with_overrides({"name": "x"}, overrides_of(f"{tmp_path}/{pattern}")), Path("x.yaml"))
    assert open_test(settings.data).ids == ids


def test_one_image_is_no_folder(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match=r"a\.png is a file; give its folder, or a pattern such as .*/\*"):
        overrides_of(str(tmp_path / "a.png"))


def test_what_predicts_is_not_written_to(tmp_path):
    (tmp_path / "submission.csv").write_text("the run's own")
    words = argparse.Namespace(source=tmp_path, out=tmp_path / "x" / "..", images=None, overrides=[])
    with pytest.raises(UserError, match="choose a folder of its own"):
        apply(words)
    assert [path.name for path in tmp_path.iterdir()] == ["submission.csv"]


@pytest.mark.parametrize("text", ["0", "-1", "nan"])
def test_no_time_at_all_is_refused(text):
    assert positive("8.5") == 8.5
    with pytest.raises(argparse.ArgumentTypeError, match="is not above 0"):
        positive(text)


@pytest.mark.parametrize("images", ["flight/day=3/*.tif", "day=3"])
def test_a_path_with_an_equals_sign_is_no_setting(monkeypatch, images):
    command, seen = parser("help"), []
    command.add_argument("--images")
    command.add_argument("--folds", nargs="+")
    words = ["x", "--images", images, "data.root=a/b=c", "--quiet", "--folds", "0", "train.lr=1"]
    monkeypatch.setattr("sys.argv", words)
    run_command(seen.append, command)
    assert (seen[0].images, seen[0].folds, seen[0].overrides) == (images, ["0"], ["data.root=a/b=c", "train.lr=1"])


def test_photos_that_use_little_of_16_bits_and_what_is_not_read_are_warned_of(user):
    (user / "photos" / "older").mkdir(parents=True)
    (user / "photos" / "notes.txt").touch()
    cv2.imwrite(str(user / "photos" / "dark.png"), np.arange(48 * 64, dtype=np.uint16).reshape(48, 64))
    words = ["-m", "lib.tools.apply", "runs/blobs", "--images", "photos", "--out"]
    ended = script(user, *words, "dark")
    assert ended.code == 0 and "use 4.7%; data.value_range=[0, 3071] covers all" in ended.out, ended.err
    assert "1 folder" in ended.out and "1 .txt file" in ended.out and "in photos are not read" in ended.out
    ended = script(user, *words, "light", "data.value_range=[0, 3071]")
    assert ended.code == 0 and "value_range" not in ended.out, ended.err
