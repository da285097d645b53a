"""EXIF orientation: turned as Pillow turns, and masks that belong to stored or shown pixels."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from lib.base.errors import UserError
from lib.config.data_settings import DataSettings
from lib.data.competition import open_training
from lib.data.images import image_size, read_image
from lib.data.inspection import inspect_test
from lib.data.orientation import orientation_line
from tests.data.test_images import COLOUR, save

IDS = ("a", "b", "c")


def oriented(path, orientation, pixels=COLOUR):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def competition(folder, orientation, mask_shape, pixels=COLOUR, **said):
    for name in ("images", "masks"):
        (folder / name).mkdir()
    mask = np.zeros(mask_shape, np.uint8)
    mask[2:9, 3:7] = 255
    for number, image_id in enumerate(IDS):
        oriented(folder / f"images/{image_id}.png", orientation, np.roll(pixels, number, axis=0))
        save(folder / f"masks/{image_id}.png", mask)
    return DataSettings(
        root=folder, train_images="images", train_masks="masks", test_images="images", sample_submission=None, **said
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_shown_pixels_are_those_that_pillow_shows(tmp_path, suffix, orientation):
    if suffix == ".tif":
        pytest.importorskip("rasterio")
        tag = (274, "H", 1, orientation, True)
        path = save(tmp_path / "a.tif", COLOUR, photometric="rgb", extratags=[tag])
        picture = Image.fromarray(COLOUR)
        picture.getexif()[274] = orientation
        shown = np.array(ImageOps.exif_transpose(picture))
    else:
        path = oriented(tmp_path / f"a{suffix}", orientation)
        with Image.open(path) as picture:
            shown = np.array(ImageOps.exif_transpose(picture))
    image = read_image(path, as_shown=True)
    assert image.shape == shown.shape
    assert np.abs(image.astype(int) - shown).max() <= (0 if suffix in (".png", ".tif") else 6)  # two decoders
    assert image_size(path, as_shown=True) == shown.shape[:2]
    assert image_size(path) == read_image(path).shape[:2] == COLOUR.shape[:2]


def test_masks_of_the_stored_size_are_taken_and_said(tmp_path):
    training = open_training(competition(tmp_path, 6, COLOUR.shape[:2]))
    line = orientation_line(training)
    assert "3 of 3 training images have an EXIF orientation other than 1, and are read as stored" in line


def test_masks_of_the_shown_size_ask_for_the_setting_and_fit_with_it(tmp_path):
    settings = competition(tmp_path, 6, COLOUR.shape[1::-1])
    with pytest.raises(UserError, match=r"3 of 3 .* shown pixels: set data\.orientation=shown"):
        orientation_line(open_training(settings))
    training = open_training(settings.model_copy(update={"orientation": "shown"}))
    assert "read as shown (data.orientation)" in orientation_line(training)
    np.testing.assert_array_equal(training.read_image("a"), np.rot90(COLOUR, -1))
    assert training.read_mask("a").shape[:2] == training.image_size("a") == (31, 20)


@pytest.mark.parametrize(("orientation", "pixels"), [(3, COLOUR), (6, COLOUR[:, :20])])
def test_where_sizes_do_not_tell_the_setting_must_be_said(tmp_path, orientation, pixels):
    settings = competition(tmp_path, orientation, pixels.shape[:2], pixels)
    with pytest.raises(UserError, match=r"do not tell .* set data\.orientation to stored or shown"):
        orientation_line(open_training(settings))
    for said in ("stored", "shown"):
        assert f"read as {said}" in orientation_line(open_training(settings.model_copy(update={"orientation": said})))
    assert inspect_test(settings).startswith("warning   3 of 3 test images have an EXIF orientation")


def test_images_without_an_orientation_are_not_spoken_of(tmp_path):
    settings = competition(tmp_path, 1, COLOUR.shape[:2])
    assert orientation_line(open_training(settings)) == ""
    assert "EXIF" not in inspect_test(settings)
