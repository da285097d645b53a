"""EXIF orientation: turned as Pillow turns, and masks that belong to stored or shown pixels."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from lib.base.errors import UserError
from lib.checks.inspection import inspect_test
from lib.checks.orientation import orientation_line, turned_images
from lib.config.data_settings import DataSettings
from lib.data.competition import open_test, open_training
from lib.images.reading import image_size, read_image
from tests.images.test_reading import COLOUR, save

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


def test_orientations_are_those_that_pillow_finds_whatever_stands_before_them(tmp_path):
    """A profile of 6000 bytes puts the orientation beyond the first bytes that are looked at."""
    exif = Image.Exif()
    exif[274] = 6
    picture = Image.fromarray(COLOUR)
    for suffix in ("png", "jpg", "webp"):
        for profile in (b"", bytes(6000), b"\xff\xda" * 40, b"IDAT"):
            for name, kept in (("turned", exif), ("plain", Image.Exif())):
                options = {"icc_profile": profile} if profile else {}
                picture.save(tmp_path / f"{name}_{profile[:2].hex()}{len(profile)}.{suffix}", exif=kept, **options)
    save_with_padding(tmp_path / "turned_padded.jpg", tmp_path / "turned_0.jpg")
    for suffix, count in (("png", 8), ("jpg", 9), ("webp", 8)):
        settings = DataSettings(root=tmp_path, test_images=f"{{id}}.{suffix}", sample_submission=None)
        expected = {}
        for path in tmp_path.glob(f"*.{suffix}"):
            with Image.open(path) as opened:
                expected[path.stem] = opened.getexif().get(274, 1)
        assert len(expected) == count
        turned = turned_images(open_test(settings))
        assert turned == {name: orientation for name, orientation in expected.items() if orientation != 1}
        assert set(turned) == {name for name in expected if name.startswith("turned")}


def save_with_padding(path, source):
    """The JPEG with bytes of padding before its second segment."""
    content = source.read_bytes()
    length = int.from_bytes(content[4:6])
    path.write_bytes(content[: 4 + length] + b"\xff\xff" + content[4 + length :])


def test_images_without_an_orientation_are_not_spoken_of(tmp_path):
    settings = competition(tmp_path, 1, COLOUR.shape[:2])
    assert orientation_line(open_training(settings)) == ""
    assert "EXIF" not in inspect_test(settings)


@pytest.mark.parametrize("orientation", [0, 9])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_an_orientation_that_does_not_exist_is_none(tmp_path, suffix, orientation):
    if suffix == "tif":
        path = save(tmp_path / "a.tif", COLOUR, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    else:
        path = oriented(tmp_path / "a.png", orientation)
    settings = DataSettings(root=tmp_path, test_images=f"{{id}}.{suffix}", sample_submission=None)
    assert turned_images(open_test(settings)) == {}
    np.testing.assert_array_equal(read_image(path, as_shown=True), COLOUR)
