"""One picture has the same pixels by every route, and a file is called damaged only when it is."""

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from lib.base.errors import UserError
from lib.images.reading import image_size, read_image
from tests.images.test_reading import COLOUR, GRAY, GRAY16, MASK

SMOOTH = cv2.resize(COLOUR, (124, 80), interpolation=cv2.INTER_CUBIC)

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")


@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("stored", [MASK, GRAY, GRAY16], ids=["1 bit", "8 bits", "16 bits"])
def test_tif_pixels_depend_on_photometric_and_not_on_compression(tmp_path, stored, photometric, compression):
    path = tmp_path / "a.tif"
    if compression is None:
        tifffile.imwrite(path, stored, photometric=photometric)
    else:
        rasterio = pytest.importorskip("rasterio")
        profile = {"driver": "GTiff", "height": 20, "width": 31, "count": 1, "photometric": photometric}
        depth = {"dtype": "uint8", "nbits": 1} if stored.dtype == bool else {"dtype": stored.dtype}
        with rasterio.open(path, "w", **profile, **depth, compress=compression) as file:
            file.write(stored.astype(depth["dtype"]), 1)
    largest = 1 if stored.dtype == bool else np.iinfo(stored.dtype).max
    shown = np.rint(stored / largest * 255).astype(np.uint8)
    expected = 255 - shown if photometric == "miniswhite" else shown
    np.testing.assert_array_equal(read_image(path, 1)[:, :, 0], expected)


def test_overviews_and_internal_masks_are_no_pages_of_their_own(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path, pixels = tmp_path / "a.tif", np.kron(COLOUR, np.ones((8, 8, 1), np.uint8))
    profile = {"driver": "GTiff", "height": 160, "width": 248, "count": 3, "dtype": "uint8", "tiled": True}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile, blockxsize=64, blockysize=64, photometric="RGB") as file,
    ):
        file.write(np.moveaxis(pixels, 2, 0))
        file.write_mask(np.kron(MASK, np.ones((8, 8))).astype(bool))
        file.build_overviews([2, 4])
    assert len(tifffile.TiffFile(path).pages) > 1
    assert image_size(path) == (160, 248)
    np.testing.assert_array_equal(read_image(path), pixels)


def test_data_after_the_end_of_a_jpeg_are_not_its_damage(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(SMOOTH).save(path)
    whole, before = path.read_bytes(), read_image(path)
    path.write_bytes(whole + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 40)
    np.testing.assert_array_equal(read_image(path), before)
    for cut in (len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"a\.jpg"):
            read_image(path)


@pytest.mark.parametrize("suffix", [".webp", ".jp2"])
def test_webp_and_jp2_are_read_whole_and_refused_cut_short(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(SMOOTH).save(path, **({"lossless": True} if suffix == ".webp" else {"irreversible": False}))
    np.testing.assert_array_equal(read_image(path), SMOOTH)
    content = path.read_bytes()
    for share in (0.3, 0.6, 0.9, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=rf"a\{suffix}"):
            read_image(path)
