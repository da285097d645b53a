"""Slides by region: the pixels that reading the whole file gives, and whole files where regions cannot be had."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import lib.images.lazy_tif
from lib.base.errors import UserError
from lib.config.data_settings import DataSettings
from lib.config.schema import InferSettings
from lib.data.images import Images
from lib.data.unreadable import find_unreadable
from lib.images.gdal import read_raster
from lib.images.lazy_tif import open_slide
from lib.images.reading import MAX_PIXELS, read_image
from lib.prediction.predictor import Predictor
from lib.report.pictures import SIDE, shown_image
from tests.images.test_reading import COLOUR, COLOUR16, GRAY, GRAY16, save
from tests.prediction.test_sliding_window import untrained

pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
TILED = {"tile": (16, 16), "compression": "deflate"}


@pytest.mark.parametrize(
    ("array", "asked", "options"),
    [
        (COLOUR, {}, {"photometric": "rgb"}),
        (COLOUR, {}, {"photometric": "rgb", **TILED}),
        (COLOUR, {"channels": 1}, {"photometric": "rgb", "rowsperstrip": 3}),
        (COLOUR, {"channels": 1, "plane": 2}, {"photometric": "rgb", "bigtiff": True}),
        (np.moveaxis(COLOUR, 2, 0), {}, {"photometric": "rgb", "planarconfig": "separate", **TILED}),
        (np.dstack([COLOUR, GRAY]), {"channels": 4}, {"photometric": "rgb", "extrasamples": ["unspecified"], **TILED}),
        (np.dstack([COLOUR, GRAY]), {"channels": 4}, {"photometric": "rgb", "extrasamples": ["unassalpha"], **TILED}),
        (np.dstack([COLOUR16, COLOUR16]), {"channels": 6}, {"photometric": "rgb", **TILED}),
        (GRAY, {}, {"photometric": "minisblack", **TILED}),
        (GRAY16, {"channels": 1}, {"photometric": "minisblack", **TILED}),
        (COLOUR16, {"value_range": (100, 40_000)}, {"photometric": "rgb", **TILED}),
        (GRAY.astype(np.float32), {"value_range": (0, 300)}, {"photometric": "minisblack", **TILED}),
    ],
)
def test_regions_are_those_of_the_whole_image(tmp_path, array, asked, options):
    path = save(tmp_path / "a.tif", array, **options)
    asked = {"channels": 3, "value_range": None, "plane": None, "max_pixels": MAX_PIXELS} | asked
    slide, whole = open_slide(path, **asked), read_image(path, **asked)
    assert slide.shape == whole.shape
    for region in (np.s_[:, :], np.s_[3:17, 5:31], np.s_[15:17, 16:17], np.s_[0:20, 30:31]):
        np.testing.assert_array_equal(slide[region], whole[region])
        assert slide[region].dtype == np.uint8


def test_what_has_no_regions_is_left_to_be_decoded_whole(tmp_path, monkeypatch):
    def opened(path: Path, value_range=None):
        return open_slide(path, 3, value_range, None, MAX_PIXELS)

    tiled = save(tmp_path / "tiled.tif", COLOUR, photometric="rgb", **TILED)
    assert opened(tiled) is not None
    assert opened(tiled, "image") is None
    assert opened(save(tmp_path / "white.tif", GRAY, photometric="miniswhite")) is None
    assert opened(save(tmp_path / "pages.tif", np.moveaxis(COLOUR, 2, 0), photometric="minisblack")) is None
    assert opened(save(tmp_path / "a.png", COLOUR)) is None
    palette = np.zeros((3, 256), np.uint16)
    assert opened(save(tmp_path / "palette.tif", GRAY, photometric="palette", colormap=palette)) is None
    monkeypatch.setattr(lib.images.lazy_tif, "MAX_BLOCK_PIXELS", 600)
    assert opened(tiled) is not None
    assert opened(save(tmp_path / "strip.tif", COLOUR, photometric="rgb", rowsperstrip=20)) is None
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert opened(tiled) is None


def test_a_slide_that_is_too_large_is_an_error_with_its_name(tmp_path):
    path = save(tmp_path / "a.tif", COLOUR, photometric="rgb", rowsperstrip=2)
    with pytest.raises(UserError, match=r"a\.tif has 20 x 31 pixels, more than data\.max_pixels"):
        open_slide(path, 3, None, None, max_pixels=600)


@pytest.mark.parametrize("options", [{"rowsperstrip": 2}, TILED])
def test_a_slide_cut_anywhere_gives_its_pixels_or_is_refused_by_name(tmp_path, options):
    whole = save(tmp_path / "whole.tif", COLOUR, photometric="rgb", **options).read_bytes()
    path = tmp_path / "cut.tif"
    refused = 0
    for length in range(8, len(whole), 61):
        path.write_bytes(whole[:length])
        try:
            slide = open_slide(path, 3, None, None, MAX_PIXELS)
            assert slide is None or np.array_equal(slide[:, :], COLOUR)
        except UserError as error:
            assert "cut.tif" in str(error)
            refused += 1
    assert refused > 10


def test_a_damaged_tile_in_the_middle_of_a_slide_makes_it_unreadable(tmp_path):
    whole = save(tmp_path / "whole.tif", COLOUR, photometric="rgb", **TILED)
    content = bytearray(whole.read_bytes())
    with tifffile.TiffFile(whole) as file:
        start, length = file.pages[0].dataoffsets[-1], file.pages[0].databytecounts[-1]
    content[start : start + length] = bytes(length)
    (tmp_path / "hurt.tif").write_bytes(content)
    images = Images(DataSettings(root=tmp_path), {name: [str(tmp_path / f"{name}.tif")] for name in ("whole", "hurt")})
    assert images.open_image("hurt").shape == COLOUR.shape  # its header and first tiles are whole
    unreadable = find_unreadable(images)
    assert list(unreadable) == ["hurt"] and "hurt.tif" in unreadable["hurt"].problem


def test_a_slide_is_predicted_without_being_decoded_whole(tmp_path, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (300, 640, 3), dtype=np.uint8)
    path = save(tmp_path / "a.tif", image, photometric="rgb", tile=(64, 64))
    images = Images(DataSettings(root=tmp_path), {"a": [str(path)]})
    predictor = Predictor([untrained()], InferSettings(tta="none", window=256), torch.device("cpu"), "fp32")
    expected = predictor.predict_windows(image)
    monkeypatch.setattr(Images, "read_image", None)
    ((_, found),) = predictor.predict(images, ["a"])
    np.testing.assert_array_equal(found.maps, expected.maps)


def test_a_picture_of_a_slide_is_that_of_its_image(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (3 * SIDE, 2 * SIDE, 3), dtype=np.uint8)
    image[: SIDE * 2, :SIDE] //= 4
    path = save(tmp_path / "a.tif", image, photometric="rgb", tile=(64, 64))
    slide = open_slide(path, 3, None, None, MAX_PIXELS)
    difference = np.abs(shown_image(slide).astype(int) - shown_image(image))
    assert shown_image(slide).shape == (SIDE, 2 * SIDE // 3, 3)
    assert difference.max() <= 3  # of rounding, spread by the stretched contrast
    small = save(tmp_path / "small.tif", COLOUR, photometric="rgb", **TILED)
    assert np.array_equal(shown_image(open_slide(small, 3, None, None, MAX_PIXELS)), shown_image(COLOUR))


def test_threads_read_files_without_a_georeference_in_silence(tmp_path, recwarn):
    paths = [tmp_path / f"{number}.tif" for number in range(16)]
    for path in paths:
        tifffile.imwrite(path, np.zeros((6, 8, 8), np.uint16), photometric="minisblack", planarconfig="separate")
    with ThreadPoolExecutor(8) as threads:
        assert [pixels.shape for pixels in threads.map(read_raster, paths * 4)] == [(8, 8, 6)] * 64
    assert not recwarn.list
