"""Reading images: every format against what was written, and every broken file refused by name."""

import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lib.base.errors import UserError
from lib.config.mask_settings import MaskSettings
from lib.data.images import read_plane
from lib.images.mask_values import class_masks, read_mask_pixels
from lib.images.reading import MAX_PIXELS, image_size, read_image
from tests.competitions import write_dicom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (20, 31, 3), dtype=np.uint8)
GRAY = COLOUR[:, :, 0]
GRAY16 = RANDOM.integers(0, 65536, (20, 31), dtype=np.uint16)
COLOUR16 = RANDOM.integers(0, 65536, (20, 31, 3), dtype=np.uint16)
MASK = GRAY > 128


def read_mask_image(path: Path, max_pixels: int = MAX_PIXELS, **said: object) -> np.ndarray:
    """The mask of a file of one class by the settings data.masks."""
    settings = MaskSettings(**said)
    return class_masks(read_mask_pixels(path, settings, max_pixels), settings, ["mask"])[0]


def save(path: Path, array: np.ndarray, **options) -> Path:
    """Write with a library that the reader does not use for it, where there is one."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif" and (array.dtype != np.uint8 or options):
        tifffile.imwrite(path, array, **options)
    elif array.dtype == np.uint16:
        cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)
    else:
        Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_colour_comes_as_rgb(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", COLOUR)
    np.testing.assert_array_equal(read_image(path), COLOUR)
    assert image_size(path) == (20, 31)


def test_jpg_is_decoded_as_pillow_does_and_not_turned_by_exif(tmp_path):
    turned = Image.Exif()
    turned[0x112] = 6
    smooth = cv2.GaussianBlur(COLOUR, (0, 0), 3)
    for options in ({}, {"progressive": True}, {"exif": turned}):
        path = save(tmp_path / "a.jpg", smooth, quality=95, **options)
        with Image.open(path) as image:
            expected = np.array(image).astype(int)
        assert np.abs(read_image(path) - expected).max() <= 2  # decoders may round differently
        assert image_size(path) == (20, 31)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".npy"])
def test_gray_is_repeated_or_kept_as_one_channel(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", np.full((5, 7), 77, np.uint8))
    np.testing.assert_array_equal(read_image(path), np.full((5, 7, 3), 77))
    np.testing.assert_array_equal(read_image(path, channels=1), np.full((5, 7, 1), 77))
    assert image_size(path) == (5, 7)


def test_alpha_is_dropped(tmp_path):
    transparent = np.dstack([COLOUR, 255 - GRAY])
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", transparent)), COLOUR)
    gray_alpha = np.dstack([GRAY, 255 - GRAY])
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.png", gray_alpha)), np.dstack([GRAY] * 3))
    np.testing.assert_array_equal(read_image(tmp_path / "b.png", channels=1)[:, :, 0], GRAY)


def test_colour_becomes_luma_where_one_channel_is_asked(tmp_path):
    path = save(tmp_path / "a.png", COLOUR)
    with Image.open(path) as image:
        luma = np.array(image.convert("L")).astype(int)
    assert np.abs(read_image(path, channels=1)[:, :, 0] - luma).max() <= 1


def test_a_plane_may_be_saved_as_gray_in_three_channels_but_not_in_colour(tmp_path):
    gray = save(tmp_path / "a.png", np.dstack([GRAY] * 3))
    np.testing.assert_array_equal(read_plane(gray), GRAY[:, :, None])
    bands = save(tmp_path / "b.npy", COLOUR)
    with pytest.raises(UserError, match="b.npy has 3 different planes.*set data.plane"):
        read_plane(bands)
    np.testing.assert_array_equal(read_plane(bands, plane=1), COLOUR[:, :, 1:2])
    with pytest.raises(UserError, match="c.npy has 2 different planes"):
        read_plane(save(tmp_path / "c.npy", COLOUR[:, :, :2]))
    with_alpha = save(tmp_path / "d.png", np.dstack([GRAY] * 3 + [255 - GRAY]))
    np.testing.assert_array_equal(read_plane(with_alpha), GRAY[:, :, None])


def test_palettes_are_resolved(tmp_path):
    image = Image.fromarray(COLOUR).quantize(16)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=3)
    for name in ("a.png", "b.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name), np.array(image.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_16_bits_are_divided_by_257(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", GRAY16)
    np.testing.assert_array_equal(read_image(path, channels=1)[:, :, 0], np.rint(GRAY16 / 257))
    path = save(tmp_path / f"b{suffix}", COLOUR16)
    np.testing.assert_array_equal(read_image(path), np.rint(COLOUR16 / 257))


def test_value_range_is_mapped_and_clipped(tmp_path):
    values = np.array([[-5.0, 0.0, 50.0], [100.0, 101.0, 25.0]] * 2)
    path = save(tmp_path / "a.npy", values)
    by_range = [[0, 0, 128], [255, 255, 64]] * 2
    np.testing.assert_array_equal(read_image(path, 1, value_range=(0, 100))[:, :, 0], by_range)
    least_to_largest = np.rint((values + 5) / 106 * 255)
    np.testing.assert_array_equal(read_image(path, 1, value_range="image")[:, :, 0], least_to_largest)
    constant = save(tmp_path / "b.npy", np.full((4, 5), 3.5))
    assert not read_image(constant, value_range="image").any()
    eight_bit = save(tmp_path / "c.png", np.array([[0, 10, 20]], np.uint8))
    np.testing.assert_array_equal(read_image(eight_bit, 1, value_range=(0, 20))[:, :, 0], [[0, 128, 255]])


def test_floats_without_a_range_are_refused(tmp_path):
    for name, values in (("a.npy", np.ones((4, 5))), ("b.tif", np.ones((4, 5), np.float32))):
        path = save(tmp_path / name, values)
        with pytest.raises(UserError, match=f"{name} holds float.* set data.value_range"):
            read_image(path)
    holes = save(tmp_path / "c.npy", np.array([[1.0, np.nan]]))
    with pytest.raises(UserError, match="c.npy holds values that are not finite"):
        read_image(holes, value_range=(0, 1))


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_planes_stand_first_or_last(tmp_path, axes):
    stack = RANDOM.random((9, 10, 8))
    path = save(tmp_path / "a.npy", stack.transpose(axes))
    for plane in (0, 4, 7):
        np.testing.assert_array_equal(
            read_image(path, 1, value_range=(0, 1), plane=plane)[:, :, 0],
            np.rint(stack[:, :, plane].astype(np.float32) * 255),
        )
    assert image_size(path) == (9, 10)
    with pytest.raises(UserError, match="8 planes"):
        read_image(path, value_range=(0, 1), plane=8)
    with pytest.raises(UserError, match="8 channels, but data.channels is 3"):
        read_image(path, value_range=(0, 1))


def test_planes_of_an_npy_are_never_taken_for_alpha_or_colour(tmp_path):
    four = save(tmp_path / "four.npy", np.dstack([COLOUR, GRAY]))
    three = save(tmp_path / "three.npy", COLOUR)
    for path, channels in ((four, 3), (four, 1), (three, 1), (three, 4)):
        with pytest.raises(UserError, match=f"{path.name} has . channels, but data.channels is {channels}"):
            read_image(path, channels)
    np.testing.assert_array_equal(read_image(four, 4), np.dstack([COLOUR, GRAY]))


def test_pages_and_frames_are_never_taken_for_alpha_or_colour(tmp_path):
    for count, channels in ((3, 1), (4, 1), (4, 3)):
        pages = np.stack([GRAY + number for number in range(count)])
        tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
        write_dicom(
            tmp_path / "frames.dcm", pages.reshape(-1, GRAY.shape[1]), NumberOfFrames=str(count), Rows=len(GRAY)
        )
        for name in ("pages.tif", "frames.dcm"):
            with pytest.raises(UserError, match=f"{name} has {count} channels, but data.channels is {channels}"):
                read_image(tmp_path / name, channels)
            np.testing.assert_array_equal(read_image(tmp_path / name, count), np.moveaxis(pages, 0, 2))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "deflate"},
        {"tile": (16, 16)},
        {"tile": (32, 32), "compression": "deflate"},
        {"bigtiff": True},
        {"rowsperstrip": 3},
    ],
)
def test_tiff_layouts(tmp_path, options):
    path = save(tmp_path / "a.tif", COLOUR, photometric="rgb", **options)
    np.testing.assert_array_equal(read_image(path), COLOUR)


def test_tiff_planes_of_any_axis_order(tmp_path):
    planes = np.moveaxis(COLOUR, 2, 0)
    separate = save(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    pages = save(tmp_path / "b.tif", planes, photometric="minisblack")
    five_axes = save(tmp_path / "c.tif", planes[None, None], photometric="rgb", planarconfig="separate")
    for path in (separate, pages, five_axes):
        np.testing.assert_array_equal(read_image(path), COLOUR)
        assert image_size(path) == (20, 31)
    np.testing.assert_array_equal(read_image(pages, 1, plane=2), COLOUR[:, :, 2:])


def test_colours_are_not_multiplied_by_the_alpha_beside_them(tmp_path):
    both = np.dstack([COLOUR, GRAY // 2])
    path = save(tmp_path / "a.tif", both, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_image(path, 4), both)
    np.testing.assert_array_equal(read_image(path, 3), COLOUR)


LAYOUTS = [  # that OpenCV or Pillow refuses, or gives other pixels of
    (np.moveaxis(COLOUR16, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    (np.moveaxis(COLOUR.astype(np.float32), 2, 0), {"photometric": "minisblack", "planarconfig": "separate"}),
    (COLOUR, {"photometric": "minisblack", "planarconfig": "contig"}),
    (COLOUR[..., :2], {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unspecified"]}),
    (np.dstack([COLOUR, COLOUR]), {"photometric": "rgb"}),
    (np.dstack([COLOUR16] * 4), {"photometric": "minisblack", "planarconfig": "contig"}),
]


@pytest.mark.parametrize(("array", "options"), LAYOUTS)
def test_tiff_layouts_that_take_gdal(tmp_path, monkeypatch, array, options):
    path = save(tmp_path / "a.tif", array, **options)
    planes = np.moveaxis(array, 0, 2) if options.get("planarconfig") == "separate" else array
    expected = np.rint(planes / 257) if planes.dtype == np.uint16 else planes
    range_of_floats = (0, 255) if planes.dtype == np.float32 else None
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "rasterio", None)
        with pytest.raises(UserError, match=r"a\.tif.* need.* one more package: pip install rasterio"):
            read_image(path, planes.shape[2], range_of_floats)
    pytest.importorskip("rasterio")
    np.testing.assert_array_equal(read_image(path, planes.shape[2], range_of_floats), expected)
    assert image_size(path) == (20, 31)
    with pytest.raises(UserError, match=r"more than data\.max_pixels"):
        read_image(path, planes.shape[2], range_of_floats, max_pixels=600)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"a\.tif is cut short or damaged|a\.tif is not an image"):
        read_image(path, planes.shape[2], range_of_floats)


def test_a_broken_tiff_asks_for_no_package_that_is_there(tmp_path):
    pytest.importorskip("rasterio")
    path = tmp_path / "pip.tif"
    path.write_bytes(b"II*\0")
    with pytest.raises(UserError, match=r"pip\.tif is not an image of a known kind, or it is cut short$"):
        read_image(path)


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_tiff_pixels_come_as_stored_whatever_the_orientation(tmp_path, orientation):
    pytest.importorskip("rasterio")
    tag = (274, "H", 1, orientation, True)
    path = save(tmp_path / "a.tif", COLOUR, photometric="rgb", extratags=[tag])
    np.testing.assert_array_equal(read_image(path), COLOUR)
    assert image_size(path) == (20, 31)


@pytest.mark.parametrize("values", [1, 255])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tif", ".npy"])
def test_masks_of_any_nonzero_value(tmp_path, suffix, values):
    path = save(tmp_path / f"a{suffix}", (MASK * values).astype(np.uint8))
    mask = read_mask_image(path)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("bits.png", MASK),
        ("bool.npy", MASK),
        ("extra_axis.npy", MASK[:, :, None].astype(np.int64)),
        ("float.npy", MASK * 0.2),
        ("16.png", MASK.astype(np.uint16)),
        ("16.tif", (MASK * 65535).astype(np.uint16)),
        ("int32.tif", MASK.astype(np.int32)),
        ("float.tif", MASK.astype(np.float32)),
        ("rgb.png", np.dstack([MASK * 9] * 3).astype(np.uint8)),
        ("alpha.png", np.dstack([MASK * 9, MASK * 9, MASK * 9, MASK * 0 + 255]).astype(np.uint8)),
        ("gray_alpha.png", np.dstack([MASK * 9, MASK * 0 + 255]).astype(np.uint8)),
    ],
)
def test_masks_of_any_type(tmp_path, name, array):
    np.testing.assert_array_equal(read_mask_image(save(tmp_path / name, array)), MASK)


def test_palette_gif_mask(tmp_path):
    image = Image.fromarray(MASK.astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(tmp_path / "a.gif")
    np.testing.assert_array_equal(read_mask_image(tmp_path / "a.gif"), MASK)


def test_jpg_masks_are_cut_where_the_settings_say(tmp_path):
    blocks = np.kron(MASK[:8, :8], np.ones((16, 16), bool))
    path = save(tmp_path / "a.jpg", (blocks * 255).astype(np.uint8), quality=60)
    np.testing.assert_array_equal(read_mask_image(path, above=127), blocks)


def test_the_content_decides_not_the_suffix(tmp_path):
    blocks = np.kron(MASK[:8, :8], np.ones((16, 16), bool))
    jpeg = save(tmp_path / "a.jpg", (blocks * 255).astype(np.uint8), quality=60)
    disguised = tmp_path / "a.png"
    disguised.write_bytes(jpeg.read_bytes())
    np.testing.assert_array_equal(read_mask_image(disguised, above=127), blocks)
    disguised.write_bytes(jpeg.read_bytes()[:-2])
    with pytest.raises(UserError, match="a.png is cut short"):
        read_image(disguised)


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "progressive.jpg", "a.tif", "deflate.tif", "tiles.tif", "a.bmp", "a.gif", "a.npy"]
)
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path, name):
    options = {
        "progressive.jpg": {"progressive": True},
        "deflate.tif": {"compression": "deflate"},
        "tiles.tif": {"tile": (16, 16)},
    }.get(name, {})
    content = save(tmp_path / name, GRAY, **options).read_bytes()
    pixels_end = 3 if name == "a.gif" else 1  # the last two bytes of a GIF only close it
    cuts = {pixels_end, 3, 12, 13, 40, *range(50, len(content), len(content) // 40), len(content) - 1, len(content)}
    cut = tmp_path / f"cut{Path(name).suffix}"
    for length in cuts:
        cut.write_bytes(content[:-length])
        with pytest.raises(UserError, match=f"{cut}"):
            read_image(cut)
        with pytest.raises(UserError, match=f"{cut}"):
            read_mask_image(cut)


def test_several_pages_cut_short_are_refused(tmp_path):
    stack = RANDOM.integers(0, 256, (3, 60, 70), dtype=np.uint8)
    content = save(tmp_path / "a.tif", stack, photometric="minisblack", compression="deflate").read_bytes()
    cut = tmp_path / "cut.tif"
    for length in (1, 13, 1000, len(content) // 2):
        cut.write_bytes(content[:-length])
        with pytest.raises(UserError, match="cut.tif"):
            read_image(cut)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.png", "a.jpg", "a.tif", "a.bmp", "a.gif", "a.npy"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
def test_damaged_files_are_images_of_the_stated_size_or_errors(tmp_path, name, changes):
    content = bytearray(save(tmp_path / name, GRAY).read_bytes())
    for place, value in changes:
        content[int(place * len(content))] = value
    path = tmp_path / f"damaged{Path(name).suffix}"
    path.write_bytes(content)
    try:
        size = image_size(path, max_pixels=10**6)
        image = read_image(path, value_range="image", max_pixels=10**6)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    assert image.dtype == np.uint8 and image.shape == (*size, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.gif", "a.npy", "a.jpg"])
def test_missing_empty_and_foreign_files(tmp_path, name):
    path = tmp_path / name
    for read in (read_image, read_mask_image, image_size):
        with pytest.raises(UserError, match=f"{path} does not exist"):
            read(path)
    for content in (b"", b"hello, this is no image"):
        path.write_bytes(content)
        for read in (read_image, read_mask_image, image_size):
            with pytest.raises(UserError, match=f"{path}"):
                read(path)
    path.unlink()
    path.mkdir()
    for read in (read_image, read_mask_image, image_size):
        with pytest.raises(UserError, match=f"{path}"):
            read(path)


def test_npy_of_anything_but_numbers_is_refused(tmp_path):
    objects = tmp_path / "a.npy"
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    for path in (objects, save(tmp_path / "b.npy", np.zeros((4, 5), complex)), save(tmp_path / "c.npy", np.zeros(4))):
        with pytest.raises(UserError, match=f"{path}"):
            read_image(path)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    """A PNG that claims 100,000 x 100,000 pixels in a few hundred bytes."""
    content = save(tmp_path / "a.png", GRAY).read_bytes()
    header = content[12:16] + struct.pack(">II", 100_000, 100_000) + content[24:29]
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    for read in (read_image, read_mask_image, image_size):
        with pytest.raises(UserError, match="bomb.png has 100000 x 100000 pixels, more than data.max_pixels"):
            read(bomb)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.gif"])
def test_the_pixel_limit_is_inclusive(tmp_path, name):
    path = save(tmp_path / name, GRAY)
    assert read_image(path, max_pixels=620).shape == (20, 31, 3)
    with pytest.raises(UserError, match="20 x 31 pixels, more than data.max_pixels = 619"):
        read_image(path, max_pixels=619)


def test_pictures_too_large_for_opencv_go_by_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.images.headers.OPENCV_MAX_PIXELS", 100)
    for name, array in (("a.png", COLOUR), ("b.tif", GRAY16), ("c.png", GRAY)):
        path = save(tmp_path / name, array)
        expected = np.rint(array / 257) if array.dtype == np.uint16 else array
        np.testing.assert_array_equal(read_image(path), expected if array.ndim == 3 else np.dstack([expected] * 3))


def test_dicom_without_pydicom_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    path = tmp_path / "a.dcm"
    path.write_bytes(b"\0" * 200)
    for read in (read_image, image_size):
        with pytest.raises(UserError, match="a.dcm.*pip install pydicom"):
            read(path)


def test_dicom_is_scaled_by_its_stored_bits(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", GRAY, bits=8)
    np.testing.assert_array_equal(read_image(path), np.dstack([GRAY] * 3))
    assert image_size(path) == (20, 31)
    path = write_dicom(tmp_path / "b.dcm", GRAY16 >> 4, bits=12)
    np.testing.assert_array_equal(read_image(path, 1)[:, :, 0], np.rint((GRAY16 >> 4) / 4095 * 255))
    path = write_dicom(tmp_path / "c.dcm", GRAY, bits=8, photometric="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path, 1)[:, :, 0], 255 - GRAY)


def test_dicom_values_are_in_their_units(tmp_path):
    """The same tissue of two scanners, which store Hounsfield units from 0 and from -1024, is the same gray."""
    units = (GRAY16 >> 5).astype(int) - 1024
    stored = write_dicom(
        tmp_path / "a.dcm", (units + 1024).astype(np.uint16), 12, RescaleSlope="1", RescaleIntercept="-1024"
    )
    halved = write_dicom(
        tmp_path / "b.dcm", (2 * (units + 1024)).astype(np.uint16), 16, RescaleSlope="0.5", RescaleIntercept="-1024"
    )
    for path in (stored, halved):
        seen = read_image(path, 1, value_range=(-100, 300))[:, :, 0]
        np.testing.assert_array_equal(seen, np.rint((units.clip(-100, 300) + 100) / 400 * 255))
    np.testing.assert_array_equal(read_image(stored, 1)[:, :, 0], np.rint((units + 1024) / 4095 * 255))
    as_mask = read_mask_pixels(stored, MaskSettings(), MAX_PIXELS)
    np.testing.assert_array_equal(as_mask.values, units + 1024)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("rescale", [{"RescaleSlope": "0"}, {"RescaleIntercept": "nan"}])
def test_a_rescale_that_leaves_no_values_is_named(tmp_path, rescale):
    path = write_dicom(tmp_path / "a.dcm", GRAY16 >> 4, 12, **rescale)
    (given,) = rescale.values()
    with pytest.raises(UserError, match=f"a.dcm has an impossible rescale slope or intercept: {given}$"):
        read_image(path, 1)


def test_pages_of_several_sizes_are_called_so(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(COLOUR, photometric="rgb")
        file.write(COLOUR[::2, ::2], photometric="rgb")
    with pytest.raises(UserError, match=r"a.tif has pages of several sizes \(10 x 16, 20 x 31\)"):
        read_image(tmp_path / "a.tif")


def test_many_planes_are_told_from_rows_by_the_channels(tmp_path):
    bands = np.random.default_rng(0).integers(0, 256, (6, 8, 20), np.uint8)  # 20 bands of 6 x 8 pixels
    for name, array in (("last", bands), ("first", np.moveaxis(bands, 2, 0))):
        path = save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(read_image(path, channels=20), bands)
        assert image_size(path, channels=20) == (6, 8)


def test_an_array_of_one_plane_may_have_as_many_rows_as_there_are_channels(tmp_path):
    path = save(tmp_path / "a.npy", GRAY[:3])
    np.testing.assert_array_equal(read_plane(path), GRAY[:3, :, None])
    assert image_size(path, channels=3) == GRAY[:3].shape


@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": "2", "RescaleIntercept": "-1024"}])
def test_where_low_means_white_the_gray_is_inverted_in_the_end(tmp_path, rescale):
    """The range is of the values in their units, signed or not, and whichever end is white."""
    signed = (GRAY16 >> 1).astype(np.int16) - 5000
    for pixels, is_signed in ((GRAY16, 0), (signed, 1)):
        units = pixels.astype(int) * (2 if rescale else 1) - (1024 if rescale else 0)
        path = write_dicom(
            tmp_path / "a.dcm", pixels, bits=16, photometric="MONOCHROME1", PixelRepresentation=is_signed, **rescale
        )
        seen = read_image(path, 1, value_range=(-3000, 28000))[:, :, 0]
        np.testing.assert_array_equal(seen, 255 - np.rint((units.clip(-3000, 28000) + 3000) / 31000 * 255))


@pytest.mark.parametrize(
    ("said", "problem"), [(None, "stores white as 0 .*15.0%"), ("shown", "holds int16 values, of which none is white")]
)
def test_a_mask_of_signed_values_where_low_means_white_is_read_as_stored_if_settings_say_so(tmp_path, said, problem):
    labels = np.zeros((20, 30), np.int16)
    labels[2:5] = 1
    path = write_dicom(tmp_path / "a.dcm", labels, bits=16, photometric="MONOCHROME1", PixelRepresentation=1)
    with pytest.raises(UserError, match=f"a.dcm {problem}"):
        read_mask_pixels(path, MaskSettings(miniswhite=said), MAX_PIXELS)
    np.testing.assert_array_equal(read_mask_pixels(path, MaskSettings(miniswhite="stored"), MAX_PIXELS).values, labels)


def test_broken_dicom_is_refused_by_name(tmp_path):
    content = write_dicom(tmp_path / "a.dcm", GRAY, bits=8).read_bytes()
    path = tmp_path / "cut.dcm"
    for length in (0, 100, 200, 300, len(content) - 300, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="cut.dcm"):
            read_image(path)
