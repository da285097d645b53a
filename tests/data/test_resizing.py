"""data.resize: the sizes, pixels and masks that the network sees, and maps that come back at the images' own size."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lib.base.errors import UserError
from lib.checks.inspection import inspect_all
from lib.config.data_settings import DataSettings
from lib.config.resize_settings import ResizeSettings
from lib.config.schema import InferSettings
from lib.data.competition import open_test, open_training
from lib.data.images import Images
from lib.data.network_input import as_network_sees
from lib.data.resizing import ResizedImages, network_size
from lib.images.lazy_tif import ResizedSlide
from lib.masks.metrics import IGNORED
from lib.masks.resize import resized, resized_mask
from lib.masks.rle import encode
from lib.prediction.predictor import Predictor, predict_own_size
from tests.images.test_reading import save
from tests.prediction.test_sliding_window import untrained

RANDOM = np.random.default_rng(0)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, channels), dtype=np.uint8)


def magnified(array: np.ndarray, factor: int) -> np.ndarray:
    """Every pixel `factor` x `factor` times."""
    return np.kron(array, np.ones((factor, factor, 1), np.uint8))


def written(path: Path, array: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(path, array, **options)


def images_of(folder: Path, array: np.ndarray, resize: dict, suffix: str = ".png", **options) -> Images:
    path = written(folder / f"a{suffix}", array, **options)
    return Images(DataSettings(root=folder, channels=array.shape[2], resize=resize), {"a": [str(path)]})


@pytest.mark.parametrize(
    ("resize", "size", "value", "seen"),
    [
        ({}, (1400, 2100), None, (1400, 2100)),
        ({"factor": 0.25}, (1400, 2100), None, (350, 525)),
        ({"factor": 2}, (101, 50), None, (202, 100)),
        ({"factor": 0.01}, (30, 2000), None, (1, 20)),
        ({"longest_side": 1024}, (4096, 1000), None, (1024, 250)),
        ({"longest_side": 1024}, (500, 512), None, (1000, 1024)),
        ({"size": [320, 480]}, (1280, 1918), None, (320, 480)),
        ({"column": "pixel_size", "to": 0.8}, (3000, 2000), 0.4, (1500, 1000)),
        ({"column": "pixel_size", "to": 0.4}, (100, 200), 0.5, (125, 250)),
    ],
)
def test_sizes_worked_out_by_hand(resize, size, value, seen):
    assert network_size(ResizeSettings(**resize), size, value) == seen


@pytest.mark.parametrize(
    "resize",
    [
        0.25,
        {"factor": 0.5, "longest_side": 512},
        {"factor": 0},
        {"factor": 17},
        {"column": "pixel_size"},
        {"to": 0.4},
        {"size": [320]},
        {"longest_side": 0},
    ],
)
def test_what_is_not_one_way_to_resize_is_refused(resize):
    with pytest.raises(ValidationError):
        DataSettings(resize=resize)
    assert not DataSettings(resize=None).resize.is_set


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_a_magnified_image_reduced_is_the_image(tmp_path, channels):
    small = noise(21, 30, channels)
    images = images_of(tmp_path, magnified(small, 3), {"factor": 1 / 3}, ".npy")
    seen = as_network_sees(images)
    assert seen.image_size("a") == (21, 30)
    np.testing.assert_array_equal(seen.read_image("a"), small)
    np.testing.assert_array_equal(seen.open_image("a")[3:9, 5:20], small[3:9, 5:20])


def test_without_the_setting_images_are_as_they_are(tmp_path):
    images = images_of(tmp_path, noise(8, 9), {})
    assert as_network_sees(images) is images


def interpolated(line: np.ndarray, length: int) -> np.ndarray:
    """Linearly between the centres of the pixels, beyond the first and last of which their values go on."""
    return np.interp((np.arange(length) + 0.5) * len(line) / length - 0.5, np.arange(len(line)), line)


@pytest.mark.parametrize(("size", "seen"), [((40, 60), (10, 20)), ((40, 60), (80, 20)), ((7, 5), (7, 20))])
def test_axes_that_shrink_are_averaged_and_those_that_grow_are_interpolated(size, seen):
    array = noise(*size)
    exact = array.astype(np.float64)
    for axis, length in enumerate(seen):
        if length < size[axis]:  # a whole number of times
            shape = list(exact.shape)
            shape[axis : axis + 1] = [length, size[axis] // length]
            exact = exact.reshape(shape).mean(axis=axis + 1)
    for axis, length in enumerate(seen):
        if length > size[axis]:
            exact = np.apply_along_axis(interpolated, axis, exact, length)
    assert np.abs(resized(array, seen) - exact).max() <= 1.01


@hypothesis_settings(max_examples=40)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_a_mask_pixel_is_mask_where_half_of_what_it_stands_for_is(height, width, factor, seed):
    random = np.random.default_rng(seed)
    mask = random.choice([0, 1, IGNORED], (height * factor, width * factor, 2), p=[0.4, 0.4, 0.2]).astype(np.uint8)
    blocks = mask.reshape(height, factor, width, factor, 2)
    expected = np.where((blocks == 1).mean(axis=(1, 3)) >= 0.5, 1, 0)
    expected[(blocks == IGNORED).mean(axis=(1, 3)) >= 0.5] = IGNORED
    np.testing.assert_array_equal(resized_mask(mask, (height, width)), expected)


def test_masks_of_images_on_disk(tmp_path):
    mask = (noise(20, 32, 1)[..., 0] > 200).astype(np.uint8)
    written(tmp_path / "train_images" / "a.png", magnified(noise(20, 32), 2))
    (tmp_path / "train.csv").write_text(f"id,rle\na,{encode(magnified(mask[..., None], 2)[..., 0])}\n")
    data = open_training(DataSettings(root=tmp_path, resize={"factor": 0.5}))
    np.testing.assert_array_equal(ResizedImages(data).read_mask("a")[..., 0], mask)


@pytest.mark.parametrize("seen", [(101, 150), (202, 301), (50, 200), (806, 1202), (150, 700)])
def test_regions_of_a_resized_slide_are_those_of_the_whole(tmp_path, seen):
    pytest.importorskip("rasterio")
    array = cv2.resize(noise(60, 80), (601, 403), interpolation=cv2.INTER_CUBIC)
    images = images_of(tmp_path, array, {"size": seen}, ".tif", photometric="rgb", tile=(64, 64))
    slide = as_network_sees(images).open_image("a")
    assert isinstance(slide, ResizedSlide) and slide.shape == (*seen, 3)
    whole = as_network_sees(images).read_image("a")
    assert np.abs(whole.astype(int) - resized(array, seen)).max() <= (1 if max(seen) < 403 else 8)
    for region in (np.s_[0:25, 0:60], np.s_[13:47, 11:140], np.s_[45 : seen[0], 100 : seen[1]]):
        np.testing.assert_array_equal(slide[region], whole[region])


@pytest.mark.parametrize("channels", [3, 4])
def test_what_is_transparent_is_resized_as_what_is_not(tmp_path, channels):
    pytest.importorskip("rasterio")
    array = cv2.resize(noise(20, 30, 4), (160, 128))
    array[..., 3] = np.where(np.arange(160) < 70, 0, 255)
    images = images_of(tmp_path, array, {"factor": 0.25}, ".tif", photometric="rgb", extrasamples=[2], tile=(16, 16))
    images = Images(images.settings.model_copy(update={"channels": channels}), images.files)
    np.testing.assert_array_equal(as_network_sees(images).read_image("a"), resized(array, (32, 40))[..., :channels])


@hypothesis_settings(max_examples=20)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.one_of(
        st.builds(lambda factor: {"factor": factor}, st.floats(0.05, 3)),
        st.builds(lambda side: {"longest_side": side}, st.integers(1, 150)),
        st.builds(lambda *size: {"size": size}, st.integers(1, 70), st.integers(1, 270)),
    ),
)
def test_every_map_has_the_size_of_its_image(tmp_path_factory, size, resize):
    images = images_of(tmp_path_factory.mktemp("images"), noise(*size), resize)
    predictor = Predictor([NETWORK], InferSettings(window=256, margin=0, tta="none"), torch.device("cpu"), "fp32")
    ((_, seen),) = predictor.predict(as_network_sees(images), ["a"])
    ((_, found),) = predict_own_size(predictor, images, ["a"])
    assert seen.maps.shape[:2] == network_size(images.settings.resize, size)
    assert found.maps.shape == (*size, 1) and found.maps.dtype == np.uint8
    if np.all(np.array(seen.maps.shape[:2]) < size):
        expected = cv2.resize(seen.maps, size[::-1], interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(found.maps[..., 0], expected)


NETWORK = untrained()


def columns(folder: Path, train: str, test: str) -> DataSettings:
    for part, names in (("train", "ab"), ("test", "xy")):
        for name in names:
            written(folder / f"{part}_images" / f"{name}.png", noise(20, 30))
    (folder / "train.csv").write_text(train)
    (folder / "test.csv").write_text(test)
    resize = {"column": "pixel_size", "to": 0.4}
    return DataSettings(root=folder, sample_submission=None, resize=resize, resize_test_csv="test.csv")


def test_a_factor_for_each_image_from_a_column(tmp_path):
    settings = columns(tmp_path, "id,rle,pixel_size\na,,0.4\nb,,.2\n", "id,pixel_size\ny,0.8\nx,0.6\nz,1\n")
    training, test = as_network_sees(open_training(settings)), as_network_sees(open_test(settings))
    assert [training.image_size(name) for name in "ab"] == [(20, 30), (10, 15)]
    assert [test.image_size(name) for name in "xy"] == [(30, 45), (40, 60)]
    (tmp_path / "sizes.csv").write_text("image,pixel_size\na.png,4e-1\nb,0.80\n")
    training = as_network_sees(open_training(settings.model_copy(update={"resize_csv": "sizes.csv"})))
    assert [training.image_size(name) for name in "ab"] == [(20, 30), (40, 60)]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("id,rle\na,\nb,\n", "id,pixel_size\n", "train.csv has no column 'pixel_size'"),
        ("id,rle,pixel_size\na,,0.4\nb,,\n", "id,pixel_size\n", "has no pixel_size for 'b'"),
        (
            "id,rle,pixel_size\na,,0.4\nb,,wide\n",
            "id,pixel_size\n",
            "pixel_size of 'b' is 'wide', not a number above 0",
        ),
        ("id,rle,pixel_size\na,,0.4\nb,,-1\n", "id\n", "pixel_size of 'b' is '-1', not a number above 0"),
        ("id,rle,pixel_size\na,,400\nb,,400\n", "id,pixel_size\n", "enlarged 1000 times.*are the units"),
        ("id,rle,pixel_size\na,,1\nb,,1\n", "id,pixel_size\nx,1\n", "test.csv has no pixel_size for 'y'"),
    ],
)
def test_what_is_wrong_with_a_column_is_said(tmp_path, train, test, message):
    settings = columns(tmp_path, train, test)
    with pytest.raises(UserError, match=message):
        open_training(settings)
        open_test(settings)


def test_without_a_place_of_the_column_the_setting_is_named(tmp_path):
    settings = columns(tmp_path, "id,rle,pixel_size\na,,1\nb,,1\n", "id,pixel_size\n")
    with pytest.raises(UserError, match="set data.resize_test_csv"):
        open_test(settings.model_copy(update={"resize_test_csv": None}))
    with pytest.raises(UserError, match="set data.resize_csv"):
        for name in "ab":
            written(tmp_path / "masks" / f"{name}.png", noise(20, 30, 1)[..., 0] // 255)
        open_training(settings.model_copy(update={"train_masks": "masks"}))


def test_01_says_what_the_network_sees_and_which_masks_are_too_thin(tmp_path):
    masks = {"a": np.zeros((8, 12), np.uint8), "b": np.zeros((4, 4), np.uint8), "c": np.zeros((4, 4), np.uint8)}
    masks["a"][3, :] = 1  # a line of one pixel
    masks["b"][:2, :2] = 1
    for name, mask in masks.items():
        written(tmp_path / "train_images" / f"{name}.png", noise(*mask.shape))
    rows = [f"{name},{encode(mask)}" for name, mask in masks.items()]
    (tmp_path / "train.csv").write_text("\n".join(["id,rle", *rows]))

    def notes(**resize) -> list[str]:
        return inspect_all(open_training(DataSettings(root=tmp_path, resize=resize))).notes

    assert notes() == []
    assert notes(factor=0.5) == ["checked   the network sees images of 2 x 2 to 4 x 6 (data.resize)"]
    (note,) = notes(factor=0.25)
    assert "images of 1 x 1 to 2 x 3 (data.resize); 2 of 2 masks are too thin" in note and note.endswith("'a', 'b'")
