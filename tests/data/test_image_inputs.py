"""Images as people have them: each row of that table in docs/inputs.md."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from lib.data.competition import TrainingData
from lib.images.reading import read_image
from tests.competitions import write_dicom
from tests.data.input_rows import (
    DISC,
    IDS,
    RLE,
    SHAPE,
    Masks,
    Row,
    mask_of,
    page_rows,
    picture,
    put,
    try_row,
)

PAGE = page_rows("## Images")
MASKS = {"train_masks": "masks"}
SQUARE = (24, 24)


def images(write: Callable[[Path, int], object], suffix: str = ".png", ids: tuple[str, ...] = IDS):
    """Each image by a writer of its path and number, and mask files."""

    def written(root: Path) -> None:
        (root / "train_images").mkdir()
        for number, id in enumerate(ids):
            write(root / f"train_images/{id}{suffix}", number)
            put(root / f"masks/{id}.png", mask_of(IDS[number % 3]))

    return written


def arrays(of: Callable[[int], np.ndarray], suffix: str = ".png", **options: object):
    """Images of arrays by their number."""
    return images(lambda path, number: put(path, of(number), **options), suffix)


def are(expected: Callable[[int], np.ndarray], within: int = 0) -> Callable[[TrainingData], None]:
    """A look at the images: they are these arrays, up to rounding."""

    def look(training: TrainingData) -> None:
        for number, id in enumerate(training.ids):
            found, wanted = training.read_image(id), expected(number)
            assert found.shape[:2] == wanted.shape[:2]
            wanted = wanted if wanted.ndim == 3 else wanted[:, :, None]
            assert np.abs(found.astype(int) - wanted).max() <= within, id

    return look


def every_kind(root: Path) -> Masks:
    meant = {}
    for suffix in ("png", "jpg", "bmp", "gif", "webp", "jp2", "tif", "ppm", "pgm", "npy", "dcm"):
        path = root / f"train_images/{suffix}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        if suffix == "dcm":
            write_dicom(path, picture(planes=1), 8)
        else:
            put(path, picture(planes=1 if suffix == "pgm" else 3))
        put(root / f"masks/{suffix}.png", mask_of("a"))
        meant[suffix] = DISC["a"]
    return meant


def palettes(path: Path, number: int) -> None:
    if number == 0:
        put(path, np.dstack([picture(0), picture(1, planes=1)]))
    else:
        options = {"transparency": 3} if number == 1 else {}
        Image.fromarray(picture(number)).quantize(100).save(path, **options)


def in_colour(training: TrainingData) -> None:
    for id in IDS:
        with Image.open(training.image_path(id)) as image:
            shown = np.array(image.convert("RGBA"))[:, :, :3]
        np.testing.assert_array_equal(training.read_image(id), shown)


def luma(number: int) -> np.ndarray:
    return picture(number) @ [0.299, 0.587, 0.114]


def moving(path: Path, number: int) -> None:
    frames = [Image.fromarray(picture(number + 10 * frame)) for frame in range(3)]
    suffix = (".gif", ".png", ".webp")[number]
    frames[0].save(path.with_suffix(suffix), save_all=True, append_images=frames[1:])


def sizes(root: Path) -> Masks:
    meant = {}
    for number, (id, shape) in enumerate(zip(IDS, ((24, 30), (30, 24), (9, 50)), strict=True)):
        put(root / f"train_images/{id}.png", picture(number, shape))
        meant[id] = np.indices(shape).sum(axis=0) < 8
        put(root / f"masks/{id}.png", meant[id].astype(np.uint8))
    return meant


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def turned(orientation: int, shape: tuple[int, int] = SHAPE, as_shown: bool = False, of_mask: int = 1):
    """Images with an orientation, and masks that belong to the stored pixels or, turned by a quarter, to the shown."""

    def write(root: Path) -> Masks:
        meant = {}
        for number, id in enumerate(IDS):
            mask = np.zeros(shape, bool)
            mask[3:15, 2 : 7 + number] = True
            mask = np.rot90(mask, -1) if as_shown else mask
            put(root / f"train_images/{id}.png", picture(number, shape), exif=exif(orientation))
            put(root / f"masks/{id}.png", np.ascontiguousarray(mask).astype(np.uint8), exif=exif(of_mask))
            meant[id] = mask
        return meant

    return write


def mask_turned(root: Path) -> Masks:
    """Mask files alone have an orientation, and are right as they are shown: upside down."""
    turned(1, of_mask=3)(root)
    for id in IDS:
        put(root / f"masks/{id}.png", mask_of(id), exif=exif(3))
    return {id: np.rot90(DISC[id], 2) for id in IDS}


def turned_with_run_lengths(root: Path) -> None:
    for number, id in enumerate(IDS):
        put(root / f"train_images/{id}.png", picture(number), exif=exif(3))
    (root / "train.csv").write_text("id,rle\n" + "".join(f"{id},{RLE[id]}\n" for id in IDS))


def twelve(number: int) -> np.ndarray:
    return picture(number, planes=1).astype(np.uint16) * 16


def twelve_or_sixteen(number: int) -> np.ndarray:
    return twelve(number) * (1 if number % 2 else 16)


def by_own_range(number: int) -> np.ndarray:
    values = twelve(number).astype(float)
    return (values - values.min()) * 255 / (values.max() - values.min())


def with_value(value: float) -> Callable[[int], np.ndarray]:
    """Floats of 0 to 254 with some of another value."""

    def array(number: int) -> np.ndarray:
        values = picture(number, planes=1).astype(np.float32)
        values[:3] = value
        return values

    return array


def known(number: int) -> np.ndarray:
    values = picture(number, planes=1).astype(int)
    values[:3] = 0
    return values


def white_is_zero(path: Path, number: int) -> None:
    tifffile.imwrite(path, picture(number, planes=1), photometric="miniswhite", compression=(None, "zlib")[number % 2])


def tomogram(path: Path, number: int) -> None:
    """Hounsfield units from -1000, stored from 0 with another intercept in each file."""
    pixels = picture(number, planes=1).astype(np.uint16) + 24 * number
    write_dicom(path, pixels, 12, RescaleSlope="1", RescaleIntercept=str(-1000 - 24 * number))


def cloud_optimised(path: Path, number: int) -> None:
    rasterio = pytest.importorskip("rasterio")
    profile = {"driver": "GTiff", "height": 24, "width": 30, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.moveaxis(picture(number), 2, 0))
        file.build_overviews([2])


def smooth(number: int) -> np.ndarray:
    return np.kron(picture(number, (3, 3)), np.ones((8, 10, 1), np.uint8))


def motion_photo(path: Path, number: int) -> None:
    put(path, smooth(number), quality=95, subsampling=0)
    path.write_bytes(path.read_bytes() + b"\0\0\0\x18ftypmp42" + bytes(999))


def cut_short(root: Path) -> None:
    arrays(picture)(root)
    for id, suffix in zip("defg", (".jpg", ".webp", ".jp2", ".ppm"), strict=True):
        put(root / f"masks/{id}.png", mask_of("a"))
        path = put(root / f"train_images/{id}{suffix}", picture(9))
        path.write_bytes(path.read_bytes()[:-30])


def five_bands(number: int) -> np.ndarray:
    return picture(number, planes=5)


def pages(number: int) -> np.ndarray:
    return np.moveaxis(five_bands(number), 2, 0)


IMAGES = {
    "png, jpg, bmp, gif, webp, jp2, tif, ppm, npy, dcm": Row(every_kind, MASKS),
    "gray and colour side by side": Row(
        arrays(lambda n: picture(n, planes=1 + 2 * (n % 2))),
        MASKS,
        images=are(lambda n: picture(n, planes=1 + 2 * (n % 2))),
    ),
    "palettes and transparent pixels": Row(images(palettes), MASKS, images=in_colour),
    "colour, one channel wanted": Row(arrays(picture), MASKS, images=are(luma, 1)),
    "16 bits": Row(
        arrays(lambda n: picture(n, planes=1).astype(np.uint16) * 257),
        MASKS,
        images=are(lambda n: picture(n, planes=1)),
    ),
    "another content than the suffix says": Row(
        images(lambda path, n: Image.fromarray(picture(n)).save(path, "PNG"), ".jpg"), MASKS, images=are(picture)
    ),
    "several pictures in a gif, png or webp": Row(images(moving), MASKS),
    "images of different sizes": Row(sizes, MASKS),
    "EXIF orientation 5 to 8, mask files of the stored size": Row(
        turned(6), MASKS, says="3 of 3 training images have an EXIF orientation|read as stored", images=are(picture)
    ),
    "EXIF orientation 5 to 8, mask files of the shown size": Row(
        turned(6, as_shown=True), MASKS, "set data.orientation=shown", images=are(lambda n: np.rot90(picture(n), -1))
    ),
    "EXIF orientation 2 to 4": Row(turned(3), MASKS, "3 of 3|do not tell|set data.orientation", images=are(picture)),
    "EXIF orientation on square images": Row(turned(6, SQUARE), MASKS, "do not tell|set data.orientation"),
    "EXIF orientation, run lengths": Row(turned_with_run_lengths, {}, "do not tell|set data.orientation"),
    "EXIF orientation of images and their mask files alike": Row(
        turned(3, of_mask=3), MASKS, says="EXIF orientation|read as stored", images=are(picture)
    ),
    "EXIF orientation of mask files alone": Row(
        mask_turned,
        MASKS,
        "masks/a.png has an EXIF orientation|set data.orientation",
        images=are(picture),
    ),
    "12-bit data in 16-bit files": Row(
        arrays(twelve),
        MASKS,
        says="warning|values from|data.value_range=[",
        images=are(lambda n: twelve(n) * (255 / 4095), 1),
    ),
    "12-bit and 16-bit data in files of 16 bits": Row(
        arrays(twelve_or_sixteen),
        MASKS,
        says="warning|use less than 10%|data.value_range=image",
        images=are(by_own_range, 1),
    ),
    "values outside `value_range`": Row(
        arrays(twelve),
        MASKS | {"value_range": [0, 1000]},
        says="warning|clipped",
        images=are(lambda n: np.minimum(twelve(n) * (255 / 4000), 255), 1),
    ),
    "DICOM with a rescale slope and intercept": Row(
        images(tomogram, ".dcm"),
        MASKS,
        says="values from -1000 to -74",
        images=are(lambda n: (picture(n, planes=1) * 1.0).clip(50, 200) * 255 / 150 - 85, 1),
    ),
    "numbers that stand for no data, as -9999": Row(
        arrays(with_value(-9999), ".npy"), MASKS | {"value_range": [0, 255]}, says="warning|clipped", images=are(known)
    ),
    "NaN where there is no data": Row(
        arrays(with_value(np.nan), ".npy"), MASKS | {"value_range": [0, 255]}, "data.nodata=nan", images=are(known)
    ),
    "signed values or floats": Row(
        arrays(lambda n: picture(n).astype(np.float32) / 255, ".tif", photometric="rgb"),
        MASKS,
        "data.value_range",
        images=are(picture, 1),
    ),
    "infinite values": Row(
        arrays(with_value(np.inf), ".npy"), MASKS | {"value_range": [0, 255]}, "a.npy holds values that are not finite"
    ),
    "tif whose 0 is white (MINISWHITE)": Row(
        images(white_is_zero, ".tif"), MASKS, images=are(lambda n: 255 - picture(n, planes=1))
    ),
    "tif with overviews, as cloud-optimised GeoTIFF": Row(images(cloud_optimised, ".tif"), MASKS, images=are(picture)),
    "JPEG with data after its end, such as motion photos": Row(
        images(motion_photo, ".jpg"), MASKS, images=are(smooth, 30)
    ),
    "JPEG, webp, jp2, ppm cut short": Row(cut_short, MASKS, "4 of 7|d.jpg|likewise 'f', 'g'|e.webp"),
    "more bands than `channels`": Row(
        arrays(five_bands, ".npy"),
        MASKS,
        "a.npy has 5 channels|set data.plane",
        images=are(five_bands),
    ),
    "three pages in one tif, three channels wanted": Row(
        arrays(lambda n: pages(n)[:3], ".tif", photometric="minisblack"),
        MASKS,
        images=are(lambda n: five_bands(n)[..., :3]),
    ),
    "a stack of pages in one tif": Row(
        arrays(pages, ".tif", photometric="minisblack"),
        MASKS,
        "a.tif has 5 channels|save each plane as a file",
        images=are(lambda n: five_bands(n)[:, :, :1]),
    ),
    "an npy of four dimensions": Row(
        arrays(lambda n: np.stack([picture(n)] * 4), ".npy"), MASKS, "(4, 24, 30, 3)|save each image or slice as a file"
    ),
    "more pixels than `max_pixels`": Row(
        arrays(picture), MASKS | {"max_pixels": 700}, "24 x 30 pixels, more than data.max_pixels"
    ),
}


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("name", IMAGES)
def test_what_the_page_says_of_it_happens(tmp_path, capsys, name):
    try_row(IMAGES[name], *PAGE[name], tmp_path, lambda: capsys.readouterr().out)


def test_every_row_of_the_page_is_tried():
    assert list(PAGE) == list(IMAGES)


@pytest.mark.parametrize(
    ("kind", "largest", "dtype"), [("P5", 1, "u1"), ("P5", 15, "u1"), ("P6", 15, "u1"), ("P5", 999, ">u2")]
)
def test_the_largest_value_of_a_pnm_is_white(tmp_path, kind, largest, dtype):

    values = np.random.default_rng(0).integers(0, largest + 1, (*SHAPE, 3) if kind == "P6" else SHAPE)
    header = f"{kind}\n# a comment\n{SHAPE[1]} {SHAPE[0]}\n{largest}\n"
    (tmp_path / "a.ppm").write_bytes(header.encode() + values.astype(dtype).tobytes())
    expected = np.rint(values * 255 / largest).reshape(*SHAPE, -1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.ppm", expected.shape[2]), expected)
