"""Values that stand for no data: read as 0, and no part of any range."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from lib.base.errors import UserError
from lib.config.check import check_settings
from lib.config.data_settings import DataSettings
from lib.data.competition import open_training
from lib.data.value_range import value_range_line
from lib.images.reading import read_image
from tests.images.test_reading import save

LOWEST = -3.4028234663852886e38  # of float32, which GDAL writes for no data


def plane(dtype: str, nodata: float) -> tuple[np.ndarray, np.ndarray]:
    """Values 10 to 109 of which some are no data, and which."""
    values = np.arange(10, 110, dtype=dtype).reshape(10, 10)
    missing = np.random.default_rng(0).random(values.shape) < 0.3
    values[missing] = nodata
    return values, missing


@pytest.mark.parametrize(
    ("suffix", "dtype", "nodata"),
    [
        (".npy", "float32", float("nan")),
        (".npy", "float64", -9999),
        (".tif", "float32", LOWEST),
        (".tif", "int16", -32768),
        (".png", "uint16", 65535),
        (".png", "uint8", 255),
        (".npy", "uint8", 0),
    ],
)
@pytest.mark.parametrize("value_range", [(10, 109), "image"])
def test_they_become_0_and_the_others_are_scaled_as_without_them(tmp_path, suffix, dtype, nodata, value_range):
    values, missing = plane(dtype, nodata)
    path = save(tmp_path / f"a{suffix}", values)
    asked = "nan" if nodata != nodata else nodata
    image = read_image(path, 1, value_range, nodata=[12345.5, asked])[..., 0]
    assert not image[missing].any()
    known = np.arange(10, 110, dtype=float).reshape(10, 10)[~missing]
    low, high = (10, 109) if value_range != "image" else (known.min(), known.max())
    np.testing.assert_array_equal(image[~missing], np.rint((known - low) * 255 / (high - low)))


def test_eight_bits_stay_as_they_are_but_for_no_data(tmp_path):
    values, missing = plane("uint8", 255)
    image = read_image(save(tmp_path / "a.png", values), 1, nodata=[255])[..., 0]
    np.testing.assert_array_equal(image, np.where(missing, 0, values))


def test_where_0_is_white_no_data_is_0_all_the_same(tmp_path):
    values, missing = plane("uint8", 7)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    image = read_image(tmp_path / "a.tif", 1, nodata=[7])[..., 0]
    np.testing.assert_array_equal(image, np.where(missing, 0, 255 - values))


def test_an_image_without_any_data_is_0(tmp_path):
    path = save(tmp_path / "a.npy", np.full((6, 6), np.nan, np.float32))
    assert not read_image(path, 1, "image", nodata=["nan"]).any()


def test_what_is_not_finite_is_refused_unless_it_is_named(tmp_path):
    values, _ = plane("float32", float("nan"))
    path = save(tmp_path / "a.npy", values)
    with pytest.raises(UserError, match="not finite; set data.nodata=nan if NaN stands for no data"):
        read_image(path, 1, (0, 1), nodata=[-9999])
    values[0, 0] = np.inf
    with pytest.raises(UserError, match="not finite$"):
        read_image(save(path, values), 1, (0, 1), nodata=["nan"])


@pytest.mark.parametrize(
    ("written", "read"),
    [("-9999", (-9999,)), (".nan", ("nan",)), ("nan", ("nan",)), ("[-9999, .nan, 0]", (-9999, "nan", 0)), ("null", ())],
)
def test_one_value_or_several_and_nan_in_words_or_as_yaml_writes_it(written, read):
    content = yaml.safe_load(f"{{name: a, data: {{nodata: {written}}}}}")
    settings = check_settings(content, Path("a.yaml"))
    assert settings.data.nodata == read
    again = yaml.safe_load(yaml.safe_dump(settings.model_dump(mode="json")))
    assert check_settings(again, Path("a.yaml")) == settings
    with pytest.raises(UserError, match=r"data\.nodata"):
        check_settings({"name": "a", "data": {"nodata": "none"}}, Path("a.yaml"))


def test_training_images_are_read_and_their_range_is_found_without_it(tmp_path):
    values, missing = plane("float32", -9999)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", np.tile(values, (40, 40)), tile=(128, 128))
    save(tmp_path / "masks" / "a.png", np.eye(400, dtype=np.uint8))
    settings = {"root": tmp_path, "train_images": "images", "train_masks": "masks", "channels": 1}
    settings |= {"value_range": (10, 109), "nodata": -9999}
    data = open_training(DataSettings(**settings))
    line = value_range_line(data)
    assert line.startswith("checked ") and f"values from {values[~missing].min():g} to {values.max():g}" in line
    assert f"{missing.mean():.1%} of them no data" in line
    expected = np.tile(np.where(missing, 0, np.rint((values - 10) * 255 / 99)), (40, 40))
    np.testing.assert_array_equal(data.read_image("a")[..., 0], expected)
    np.testing.assert_array_equal(np.asarray(data.open_image("a")[100:200, 30:90])[..., 0], expected[100:200, 30:90])
    without = open_training(DataSettings(**settings | {"nodata": ()}))
    assert "values are clipped" in value_range_line(without)
