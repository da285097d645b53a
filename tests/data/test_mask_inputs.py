"""Mask files as people have them: each row of docs/inputs.md is read as it was meant, or refused with what to set."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from lib.base.errors import UserError
from lib.checks.inspection import inspect_all
from lib.config.check import check_settings
from lib.config.data_settings import DataSettings
from lib.data.competition import open_training
from lib.images.mask_files import _has_shape
from tests import REPOSITORY
from tests.data.input_rows import settings_of_cell
from tests.images.test_reading import save

SHAPE = (24, 30)
IDS = ("a", "b", "c")
ROWS, COLUMNS = np.mgrid[: SHAPE[0], : SHAPE[1]]
INSIDE = {id: np.hypot(ROWS - 11, COLUMNS - 12 - 2 * n) < 6 + n for n, id in enumerate(IDS)}
RING = {
    id: cv2.dilate(mask.view(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~mask for id, mask in INSIDE.items()
}
TRIMAP = {id: np.where(INSIDE[id], 1, np.where(RING[id], 3, 2)).astype(np.uint8) for id in IDS}
COLOURS = {0: (0, 0, 0), 1: (128, 64, 128), 2: (0, 0, 192), 3: (255, 255, 0)}


def painted(labels: np.ndarray, colours: dict[int, tuple[int, int, int]] = COLOURS) -> np.ndarray:
    """Labels as an RGB picture."""
    picture = np.zeros((*labels.shape, 3), np.uint8)
    for label, colour in colours.items():
        picture[labels == label] = colour
    return picture


def palette_image(labels: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(labels.astype(np.uint8)).convert("P")
    image.putdata(labels.astype(np.uint8).ravel().tolist())
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def half_as_large_again(id: str) -> np.ndarray:
    return np.kron(INSIDE[id], np.ones((3, 3)))[1::2, 1::2].astype(np.uint8)


def png(of: Callable[[str], np.ndarray]) -> Callable[[Path, str], None]:
    """Writes the array that an id has as a png."""
    return lambda folder, id: save(folder / f"{id}.png", of(id))


def jpg(of: Callable[[str], np.ndarray]) -> Callable[[Path, str], None]:
    return lambda folder, id: save(folder / f"{id}.jpg", of(id), quality=90, subsampling=0)


def npy(of: Callable[[str], np.ndarray]) -> Callable[[Path, str], None]:
    return lambda folder, id: save(folder / f"{id}.npy", of(id))


def palette(of: Callable[[str], np.ndarray], colours: list) -> Callable[[Path, str], None]:
    return lambda folder, id: palette_image(of(id), colours).save(folder / f"{id}.png")


def white_is_zero(folder: Path, id: str) -> None:
    tifffile.imwrite(folder / f"{id}.tif", INSIDE[id])  # which tifffile writes so by default


def ones_as_jpg(folder: Path, id: str) -> None:
    save(folder / f"{id}.jpg", INSIDE[id].astype(np.uint8), quality=85)


def decoded_ones(id: str) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(INSIDE[id].astype(np.uint8)).save(content, "JPEG", quality=85)
    return np.array(Image.open(content)) > 0


def soft(id: str) -> np.ndarray:
    return cv2.GaussianBlur(255 * INSIDE[id].view(np.uint8), (5, 5), 1)


def with_alpha(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([colour] * 3 + [alpha]).astype(np.uint8)


def inside(value: int, background: int = 0, dtype: type = np.uint8) -> Callable[[str], np.ndarray]:
    return lambda id: np.where(INSIDE[id], value, background).astype(dtype)


BLACK_RED = [(0, 0, 0), (128, 0, 0)]
RED_BLACK = [(128, 0, 0), (0, 0, 0)]
INSIDE_ONLY = [INSIDE]
BOTH = [INSIDE, RING]
WARNED = (
    "masks ignored throughout",
    "tif whose 0 is white (MINISWHITE), as shown",
    "0 and 1 in a JPEG, with a limit",
)

# What is written, the settings of `data`, and the masks of the classes that were meant.
READ = {
    "0 and 255": (png(inside(255)), {}, INSIDE_ONLY),
    "0 and 1": (png(inside(1)), {}, INSIDE_ONLY),
    "0 and any one other value": (png(inside(38)), {}, INSIDE_ONLY),
    "16 bits, 0 and 65535": (png(inside(65535, dtype=np.uint16)), {}, INSIDE_ONLY),
    "true and false": (npy(lambda id: INSIDE[id]), {}, INSIDE_ONLY),
    "1 bit: png, bmp, pbm": (
        lambda folder, id: Image.fromarray(INSIDE[id]).save(folder / f"{id}.{('png', 'bmp', 'pbm')[IDS.index(id)]}"),
        {},
        INSIDE_ONLY,
    ),
    "tif whose 0 is white (MINISWHITE), as stored": (white_is_zero, {"masks": {"miniswhite": "stored"}}, INSIDE_ONLY),
    "tif whose 0 is white (MINISWHITE), as shown": (
        white_is_zero,
        {"masks": {"miniswhite": "shown"}},
        [{id: ~INSIDE[id] for id in IDS}],
    ),
    "gray stored as RGB": (png(lambda id: np.dstack([inside(255)(id)] * 3)), {}, INSIDE_ONLY),
    "opaque alpha plane": (png(lambda id: with_alpha(inside(255)(id), np.full(SHAPE, 255))), {}, INSIDE_ONLY),
    "alpha plane that agrees": (png(lambda id: with_alpha(inside(255)(id), inside(255)(id))), {}, INSIDE_ONLY),
    "palette with black as 0": (palette(inside(1), BLACK_RED), {}, INSIDE_ONLY),
    "palette of grays": (palette(inside(0, 1), [(255,) * 3, (0,) * 3]), {}, INSIDE_ONLY),
    "nearly gray, in a colour JPEG": (
        jpg(lambda id: np.dstack([soft(id), np.minimum(soft(id), 250) + 3, soft(id)])),
        {"masks": {"above": 127}},
        INSIDE_ONLY,
    ),
    "inverted": (png(inside(0, 255)), {"masks": {"inverted": True}}, INSIDE_ONLY),
    "inverted, by value": (png(inside(0, 255)), {"classes": {"mask": 0}}, INSIDE_ONLY),
    "soft, with a limit": (png(soft), {"masks": {"above": 127}}, [{id: soft(id) > 127 for id in IDS}]),
    "0 and 1 in a JPEG, with a limit": (ones_as_jpg, {"masks": {"above": 0.5}}, [{id: decoded_ones(id) for id in IDS}]),
    "soft floats, with a limit": (npy(lambda id: soft(id) / 255), {"masks": {"above": 0.5}}, INSIDE_ONLY),
    "trimap, one class": (png(TRIMAP.get), {"classes": {"animal": 1}}, INSIDE_ONLY),
    "trimap, several values of a class": (
        png(TRIMAP.get),
        {"classes": {"animal": [1, 3]}},
        [{id: INSIDE[id] | RING[id] for id in IDS}],
    ),
    "several classes by value": (png(TRIMAP.get), {"classes": {"animal": 1, "border": 3}}, BOTH),
    "several classes by colour": (
        png(lambda id: painted(TRIMAP[id])),
        {"classes": {"animal": "#804080", "border": "255 255 0"}},
        BOTH,
    ),
    "lossy colours, with a tolerance": (
        jpg(lambda id: painted(np.kron(TRIMAP[id][::8, ::8], np.ones((8, 8), np.uint8))[: SHAPE[0], : SHAPE[1]])),
        {"classes": {"animal": "#804080", "border": "#ffff00"}, "masks": {"tolerance": 30}},
        [
            {id: np.kron(TRIMAP[id][::8, ::8] == value, np.ones((8, 8)))[: SHAPE[0], : SHAPE[1]] > 0 for id in IDS}
            for value in (1, 3)
        ],
    ),
    "gray files among colours": (
        lambda folder, id: save(folder / f"{id}.png", painted(TRIMAP[id]) if id != "a" else inside(255)("a")),
        {"classes": {"animal": ["#804080", "#ffffff"]}},
        INSIDE_ONLY,
    ),
    "palette by index": (palette(TRIMAP.get, list(COLOURS.values())), {"classes": {"animal": 1, "border": 3}}, BOTH),
    "palette by colour": (
        palette(TRIMAP.get, list(COLOURS.values())),
        {"classes": {"animal": "#804080", "border": "#ffff00"}},
        BOTH,
    ),
    "palette with black as 1, by index": (palette(inside(1), RED_BLACK), {"classes": {"mask": 1}}, INSIDE_ONLY),
    "palette with black as 1, by colour": (
        palette(inside(1), RED_BLACK),
        {"classes": {"mask": "#000000"}},
        INSIDE_ONLY,
    ),
    "alpha plane as the mask": (
        png(lambda id: with_alpha(np.full(SHAPE, 90), inside(255)(id))),
        {"masks": {"alpha": True}},
        INSIDE_ONLY,
    ),
    "alpha plane that means nothing": (
        png(lambda id: with_alpha(inside(255)(id), 200 + 50 * RING[id])),
        {"masks": {"alpha": False}},
        INSIDE_ONLY,
    ),
    "two values, 1 and 2": (png(inside(2, 1)), {"classes": {"mask": 2}}, INSIDE_ONLY),
    "-1 where nothing is known": (
        npy(lambda id: np.where(ROWS < 2, -1, INSIDE[id]).astype(np.int8)),
        {"classes": {"mask": 1}, "masks": {"ignore": -1}},
        [{id: np.where(ROWS < 2, 255, INSIDE[id]) for id in IDS}],
    ),
    "masks ignored throughout": (
        png(lambda id: inside(1)(id) if id != "b" else np.full(SHAPE, 255, np.uint8)),
        {"classes": {"mask": 1}, "masks": {"ignore": 255}},
        [{id: np.full(SHAPE, 255) if id == "b" else INSIDE[id] for id in IDS}],
    ),
    "masks of half the size": (
        png(lambda id: INSIDE[id][1::2, 1::2].astype(np.uint8)),
        {"masks": {"rescale": True}},
        [{id: np.kron(INSIDE[id][1::2, 1::2], np.ones((2, 2))) > 0 for id in IDS}],
    ),
    "masks of three times the size": (
        png(lambda id: np.kron(INSIDE[id], np.ones((3, 3))).astype(np.uint8)),
        {"masks": {"rescale": True}},
        INSIDE_ONLY,
    ),
    "masks of 1.5 times the size": (
        png(half_as_large_again),
        {"masks": {"rescale": True}},
        [{id: np.array(Image.fromarray(half_as_large_again(id)).resize(SHAPE[::-1], Image.NEAREST)) > 0 for id in IDS}],
    ),
    "label image": (
        png(lambda id: TRIMAP[id] * (TRIMAP[id] != 2)),
        {"instances": True},
        [{id: INSIDE[id] | RING[id] for id in IDS}],
    ),
    "a colour for each object": (
        png(lambda id: painted(TRIMAP[id] * (TRIMAP[id] != 2))),
        {"instances": True},
        [{id: INSIDE[id] | RING[id] for id in IDS}],
    ),
    "a plane for each object, as npy": (
        npy(lambda id: np.stack([INSIDE[id], RING[id], np.zeros(SHAPE, bool), ROWS < 2][: 4 - IDS.index(id)])),
        {"instances": True, "masks": {"object_planes": True}},
        [{id: INSIDE[id] | RING[id] | ((ROWS < 2) & (id == "a")) for id in IDS}],
    ),
}

# What is written, the settings of `data`, and words of the error.
REFUSED = {
    "trimap": (png(TRIMAP.get), {}, ["1 (", "2 (", "3 (", "data.classes={mask:", "data.instances"]),
    "1 and 255 together": (
        lambda folder, id: png(inside(1 if id == "a" else 255))(folder, id),
        {},
        ["0 (", "1 (", "255 (", "data.classes"],
    ),
    "two values, none of them 0": (png(inside(2, 1)), {}, ["1 (", "2 (", "data.classes={mask: "]),
    "in colour": (png(lambda id: painted(TRIMAP[id])), {}, ["#804080 (", "#0000c0", "data.classes={mask: "]),
    "black and red": (png(lambda id: painted(inside(1)(id), {1: (255, 0, 0)})), {}, ['data.classes={mask: "#ff0000"}']),
    "in colour, classes by number": (
        png(lambda id: painted(TRIMAP[id])),
        {"classes": {"animal": 1}},
        ["a.png is in colour", "#804000"],
    ),
    "all masks full": (png(lambda id: np.full(SHAPE, 255, np.uint8)), {}, ["all masks are full", "255 (100.0 %)"]),
    "all masks empty": (png(lambda id: np.zeros(SHAPE, np.uint8)), {}, ["all masks are empty", "data.train_masks"]),
    "limit above all values": (png(soft), {"masks": {"above": 255}}, ["255 (", "none is above data.masks.above = 255"]),
    "soft floats as objects": (npy(lambda id: soft(id) / 255), {"instances": True}, ["1.0 (", "data.masks.above=0.5"]),
    "soft edges": (png(soft), {}, ["other values", "data.masks.above=127"]),
    "label image as JPEG": (
        jpg(lambda id: np.where(INSIDE[id], 40, 90 * RING[id]).astype(np.uint8)),
        {"instances": True},
        ["a.jpg is a lossy file", "data.masks.above="],
    ),
    "a colour for each object, as JPEG": (
        jpg(lambda id: painted(TRIMAP[id] * (TRIMAP[id] != 2))),
        {"instances": True},
        ["other values", "data.classes={"],
    ),
    "lossy gray": (jpg(inside(255)), {}, ["data.masks.above=1"]),
    "lossy colours": (
        jpg(lambda id: painted(TRIMAP[id])),
        {"classes": {"animal": "#804080"}},
        ["data.masks.tolerance|none of them is of the class animal"],
    ),
    "colours resized with interpolation": (
        png(lambda id: cv2.resize(painted(np.random.default_rng(0).integers(0, 4, (9, 9))), SHAPE[::-1])),
        {"classes": {"animal": "#804080", "outside": "#0000c0"}},
        ["no data.masks.tolerance explains them", "as they were before, or resized to the nearest pixel"],
    ),
    "alpha plane that contradicts": (
        png(lambda id: with_alpha(np.full(SHAPE, 90), inside(255)(id))),
        {},
        ["alpha plane", "data.masks.alpha=true", "=false"],
    ),
    "no alpha plane": (png(inside(255)), {"masks": {"alpha": True}}, ["a.png has no alpha plane", "data.masks.alpha"]),
    "palette with black as 1": (
        palette(inside(1), RED_BLACK),
        {},
        ["0 = #800000", "1 = #000000", "data.classes={mask: 1}", '{mask: "#000000"}'],
    ),
    "tif whose 0 is white (MINISWHITE)": (
        white_is_zero,
        {},
        ["a.tif stores white as 0", "% of its pixels", "data.masks.miniswhite=stored"],
    ),
    "a class that does not occur": (
        png(TRIMAP.get),
        {"classes": {"animal": 1, "tree": 7}},
        ["none of them is of the class tree", "which is 7"],
    ),
    "planes that differ": (
        npy(lambda id: np.dstack([INSIDE[id], RING[id]])),
        {},
        ["a.npy has 2 planes", "must have one", "data.masks.object_planes=true"],
    ),
    "0 and 1 in a JPEG": (ones_as_jpg, {}, ["2 (", "data.masks.above=0.5"]),
    "a page for each class, as tif": (
        lambda folder, id: tifffile.imwrite(
            folder / f"{id}.tif", np.stack([inside(255)(id), RING[id] * np.uint8(255)]), photometric="minisblack"
        ),
        {},
        ["a.tif has 2 planes", "masks/{class}/{id}.png"],
    ),
    "colours as floats": (
        npy(lambda id: painted(TRIMAP[id]) / np.float32(255)),
        {},
        ["a.npy holds colours that are not whole numbers", "float32", "masks/{class}/{id}.png"],
    ),
    "not finite": (npy(lambda id: np.where(INSIDE[id], np.nan, 0)), {}, ["a.npy holds values that are not finite"]),
    "masks of another size and the image's shape": (
        png(lambda id: INSIDE[id][::2, ::2].astype(np.uint8)),
        {},
        ["a.png is 12 x 15", "24 x 30", "data.masks.rescale=true"],
    ),
    "masks of another shape": (
        png(lambda id: INSIDE[id][:20].astype(np.uint8)),
        {"masks": {"rescale": True}},
        ["a.png is 20 x 30", "24 x 30"],
    ),
}


def write(root: Path, write_mask: Callable[[Path, str], None], said: dict, **more: object) -> DataSettings:
    """Three images, their masks, and the settings."""
    random = np.random.default_rng(0)
    for folder in ("train_images", "masks"):
        (root / folder).mkdir(exist_ok=True)
    for id in IDS:
        save(root / "train_images" / f"{id}.png", random.integers(0, 255, (*SHAPE, 3), np.uint8))
        write_mask(root / "masks", id)
    return data_settings({"root": str(root), "train_masks": "masks", **said, **more})


def data_settings(said: dict) -> DataSettings:
    return check_settings({"name": "x", "data": said}, Path("x.yaml")).data


@pytest.mark.parametrize("name", READ)
def test_read_as_meant(tmp_path, name):
    write_mask, said, meant = READ[name]
    training = open_training(write(tmp_path, write_mask, said))
    note, *warnings = inspect_all(training).notes
    assert bool(warnings) == (name in WARNED)
    assert note.startswith(f"checked   3 mask files of {tmp_path}/masks hold ")
    for id in IDS:
        np.testing.assert_array_equal(training.read_mask(id), np.stack([masks[id] for masks in meant], axis=2))


GRAY_FILES = {
    "one plane": png,
    "RGB": lambda of: png(lambda id: np.dstack([of(id)] * 3)),
    "with an opaque alpha plane": lambda of: png(lambda id: with_alpha(of(id), np.full(SHAPE, 255))),
    "palette of grays": lambda of: palette(of, [(number,) * 3 for number in range(256)]),
    "palette of colours": lambda of: palette(of, [(number, 0, 255 * (number > 0)) for number in range(256)]),
    "array of three planes": lambda of: npy(lambda id: np.dstack([of(id)] * 3)),
}
SAID = [
    {"masks": {"above": 127}},
    {"classes": {"mask": 3}},
    {"classes": {"animal": 1, "border": 3}, "masks": {"ignore": 2}},
    {"classes": {"mask": "#030303"}},
    {"masks": {"inverted": True, "above": 2}},
    {"instances": True},
]


@pytest.mark.parametrize("said", SAID, ids=str)
def test_gray_values_mean_the_same_in_every_kind_of_file(tmp_path, said):
    gray = TRIMAP.get if "above" not in said.get("masks", {}) else soft
    found = {}
    for kind, writer in GRAY_FILES.items():
        (tmp_path / kind).mkdir()
        if kind == "palette of colours" and said != {"instances": True}:
            continue  # its colours are others, and an index has no brightness
        training = open_training(write(tmp_path / kind, writer(gray), said))
        found[kind] = [training.read_mask(id) for id in IDS] + [training.read_objects(id) for id in IDS]
    for kind, arrays in found.items():
        for array, expected in zip(arrays, found["one plane"], strict=True):
            np.testing.assert_array_equal(array, expected, err_msg=kind)
    assert all((mask == 1).any() for mask in found["RGB"][:3])


@pytest.mark.parametrize("type", [bool, np.float32, np.int64])
def test_a_plane_for_each_class_is_read_by_the_colours_that_the_planes_make(tmp_path, type):
    write_mask = npy(lambda id: np.dstack([~INSIDE[id] & ~RING[id], INSIDE[id], RING[id]]).astype(type))
    with pytest.raises(UserError, match="#000100"):
        inspect_all(open_training(write(tmp_path, write_mask, {})))
    said = {"classes": {"animal": "#000100", "border": "#000001"}}
    training = open_training(write(tmp_path, write_mask, said))
    inspect_all(training)
    for id in IDS:
        np.testing.assert_array_equal(training.read_mask(id), np.dstack([INSIDE[id], RING[id]]))


def test_each_plane_is_an_object_and_the_last_of_several_has_a_pixel(tmp_path):
    write_mask, said, _ = READ["a plane for each object, as npy"]
    objects = open_training(write(tmp_path, write_mask, said)).read_objects("a")[..., 0]
    expected = np.where(ROWS < 2, 4, np.where(RING["a"], 2, np.where(INSIDE["a"], 1, 0)))
    assert len(np.unique(objects)) == 4 and len(np.unique(10 * objects + expected)) == 4  # equal but for numbers
    with pytest.raises(UserError, match="with object_planes"):
        write(tmp_path, write_mask, said | {"masks": {"object_planes": True, "above": 1}})


@pytest.mark.parametrize(
    ("size", "shape", "has_it"),
    [((683, 1024), (2000, 3000), True), ((2000, 3000), (681, 1024), False), ((1024, 683), (2000, 3000), False),
     ((1000, 1000), (1000, 1001), False), ((768, 1024), (3000, 4000), True), ((50, 61), (100, 123), True),
     ((50, 64), (100, 123), False), ((150, 184), (100, 123), True)],
)  # fmt: skip
def test_sizes_of_one_shape_differ_by_rounding_only(size, shape, has_it):
    assert _has_shape(size, shape) == _has_shape(shape, size) == has_it


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_what_to_set(tmp_path, name):
    write_mask, said, words = REFUSED[name]
    with pytest.raises(UserError) as error:
        inspect_all(open_training(write(tmp_path, write_mask, said)))
    for word in words:
        assert any(part in str(error.value) for part in word.split("|")), str(error.value)


def test_a_jpeg_is_lossy_whatever_its_name_and_jpeg_2000_is_not(tmp_path):
    def labels(id: str) -> Image.Image:
        return Image.fromarray(np.where(INSIDE[id], 40, 90 * RING[id]).astype(np.uint8))

    def misnamed(folder: Path, id: str) -> None:
        labels(id).save(folder / f"{id}.png", format="JPEG")

    def lossless(folder: Path, id: str) -> None:
        labels(id).save(folder / f"{id}.jp2")

    (tmp_path / "jpeg").mkdir()
    with pytest.raises(UserError, match="a.png is a lossy file, whose values are not exact; set data.masks.above="):
        inspect_all(open_training(write(tmp_path / "jpeg", misnamed, {"instances": True})))
    (tmp_path / "jp2").mkdir()
    notes = inspect_all(open_training(write(tmp_path / "jp2", lossless, {"instances": True}))).notes
    assert "each number but 0 is an object" in notes[0]


def test_masks_of_most_pixels_are_warned_of(tmp_path):
    training = open_training(write(tmp_path, png(inside(0, 255)), {}))
    assert inspect_all(training).notes[1].startswith("warning   79.")
    training = open_training(write(tmp_path, png(inside(0, 255)), {"masks": {"inverted": True}}))
    assert len(inspect_all(training).notes) == 1


def voc_objects(id: str) -> np.ndarray:
    """Two touching halves, and 255 around them."""
    return np.where(RING[id], 255, np.where(INSIDE[id], 1 + (ROWS > 11), 0)).astype(np.uint8)


def test_objects_of_a_palette_file_stay_apart_and_its_void_is_asked_for(tmp_path):
    write_mask = palette(voc_objects, [(number, 0, 255 * (number > 0)) for number in range(256)])
    training = open_training(write(tmp_path, write_mask, {"instances": True, "masks": {"ignore": 255}}))
    (note,) = inspect_all(training).notes
    assert "each number but 0 is an object, 6 in all, 255 ignored" in note
    expected = np.where(RING["a"], -1, np.where(INSIDE["a"], 1 + (ROWS > 11), 0))
    np.testing.assert_array_equal(training.read_objects("a")[..., 0], expected)
    _, warning = inspect_all(open_training(write(tmp_path, write_mask, {"instances": True}))).notes
    assert "255 is taken for an object; set data.masks.ignore=255" in warning


def test_touching_objects_of_two_colours_stay_apart(tmp_path):
    write_mask = png(lambda id: painted(voc_objects(id), {0: (0, 0, 0), 1: (1, 2, 3), 2: (3, 2, 1), 255: (9, 9, 9)}))
    said = {"instances": True, "masks": {"ignore": "#090909"}}
    training = open_training(write(tmp_path, write_mask, said))
    (note,) = inspect_all(training).notes
    assert "each colour but black is an object, 6 in all, #090909 ignored" in note
    expected = np.where(RING["a"], -1, np.where(INSIDE["a"], 1 + (ROWS > 11), 0))
    np.testing.assert_array_equal(training.read_objects("a")[..., 0], expected)
    with pytest.raises(UserError, match="set data.instances=true where each colour is an object"):
        inspect_all(open_training(write(tmp_path, write_mask, {"masks": {"ignore": "#090909"}})))


@pytest.mark.parametrize("said", [{}, {"instances": True}], ids=str)
def test_three_planes_of_objects_are_not_taken_for_colours_of_objects(tmp_path, said):
    """Where two overlap there would be a third."""

    def planes(id: str) -> np.ndarray:
        return np.dstack([INSIDE[id], RING[id], ROWS < 12]).astype(np.uint8)

    def pages(folder: Path, id: str) -> None:
        tifffile.imwrite(folder / f"{id}.tif", np.moveaxis(planes(id), 2, 0), photometric="minisblack")

    for name, write_mask in (("npy", npy(planes)), ("tif", pages)):
        (tmp_path / name).mkdir()
        with pytest.raises(
            UserError, match=f"data.classes=.* data.masks.object_planes=true if planes of .*a.{name} are"
        ):
            inspect_all(open_training(write(tmp_path / name, write_mask, said)))


def test_objects_of_few_pixels_are_warned_of_where_interpolation_may_have_mixed_colours(tmp_path):
    labels = np.pad(np.random.default_rng(0).integers(0, 4, (6, 9)), [(3, 0), (0, 0)])
    write_mask = png(lambda id: cv2.resize(painted(labels), SHAPE[::-1]))
    *_, warning = inspect_all(open_training(write(tmp_path, write_mask, {"instances": True}))).notes
    assert re.search("each colour is an object, and most of [0-9]+ colours have fewer than 5 pixels", warning)


def test_objects_of_one_colour_on_black_are_no_masks_of_all_pixels(tmp_path):
    write_mask = png(lambda id: painted(INSIDE[id], {0: (0, 0, 0), 1: (200, 30, 30)}))
    meaning, warning = inspect_all(open_training(write(tmp_path, write_mask, {"instances": True}))).notes
    assert "each colour but black is an object, 3 in all" in meaning and "no image has several objects" in warning


@pytest.mark.parametrize(
    ("colours", "example"), [([(255, 255, 255), (9, 9, 200)], "#0909c8"), ([(255, 255, 255), (0, 0, 0)], "#c80909")]
)
def test_the_colour_that_an_error_names_is_no_background(tmp_path, colours, example):
    """Neither black nor the most common one."""
    of = dict(enumerate([*colours, (200, 9, 9)]))
    write_mask = png(lambda id: painted(np.where(RING[id], 1, np.where(ROWS < 1, 2, 0)), of))
    with pytest.raises(UserError, match=f'data.classes={{mask: "{example}"}}'):
        inspect_all(open_training(write(tmp_path, write_mask, {})))


def test_a_palette_beside_gray_files_is_asked_for_by_one_of_its_own_colours(tmp_path):
    def write_mask(folder: Path, id: str) -> None:
        of = palette(lambda id: 5 * INSIDE[id], RED_BLACK * 3) if id == "a" else png(lambda id: 2 * inside(1)(id))
        of(folder, id)

    with pytest.raises(UserError, match='data.classes={mask: 5} or data.classes={mask: "#000000"}'):
        inspect_all(open_training(write(tmp_path, write_mask, {})))


@pytest.mark.parametrize("said", [{}, {"classes": {"cell": 1}}, {"masks": {"above": 0.5}}], ids=str)
def test_one_mask_for_each_image_is_warned_of_where_objects_are_meant(tmp_path, said):
    write_mask = png(lambda id: (INSIDE[id] | (COLUMNS > 26)).astype(np.uint8))
    training = open_training(write(tmp_path, write_mask, said | {"instances": True}))
    assert training.read_objects("a").max() == 1
    assert "no image has several objects in a class" in inspect_all(training).notes[1]
    training = open_training(write(tmp_path, write_mask, said))
    assert training.read_objects("a").max() == 2 and len(inspect_all(training).notes) == 1


@pytest.mark.parametrize(("section", "cases"), [("### Read as meant", READ), ("### Refused", REFUSED)])
def test_the_page_has_these_rows_with_these_settings(section, cases):
    part = (REPOSITORY / "docs" / "inputs.md").read_text().partition(f"\n{section}\n")[2].partition("\n#")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in part.splitlines() if line.startswith("| ")]
    assert [name for name, _ in rows[1:]] == list(cases)
    for name, cell in rows[1:]:
        (said,) = settings_of_cell(cell) or [{}]
        assert data_settings(said) == data_settings(cases[name][1]), name
