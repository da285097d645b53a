"""configs/examples: each data set in small, as its authors write it, and the masks that are meant."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lib.checks.inspection import inspect_all
from lib.config.load import load_settings
from lib.data.competition import open_training
from lib.images.mask_values import IGNORED
from tests import REPOSITORY
from tests.data.test_mask_inputs import painted, palette_image
from tests.images.test_reading import save

EXAMPLES = sorted((REPOSITORY / "configs" / "examples").glob("*.yaml"))
SHAPE = (40, 50)


class Example(NamedTuple):
    """Files of a data set: {n} is the image's number, and `labels` are those that its masks have."""

    image: str
    mask: str
    labels: list[int]
    write: Callable[[Path, np.ndarray], None]
    classes: list[int]  # the label of each class
    ignored: int | None = None


def as_gray(path: Path, labels: np.ndarray) -> None:
    save(path, labels.astype(np.uint8))


def as_colours(colours: list[tuple[int, int, int]]) -> Callable[[Path, np.ndarray], None]:
    return lambda path, labels: save(path, painted(labels, dict(enumerate(colours))))


def as_voc(path: Path, labels: np.ndarray) -> None:
    """Pascal's palette: the bits of the index, spread over R, G and B."""
    colours = [
        tuple(sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(8)) for channel in range(3))
        for index in range(256)
    ]
    palette_image(labels, colours).save(path)


def as_soft(path: Path, labels: np.ndarray) -> None:
    """0 and 255, and a few values beside them."""
    save(path, np.where(labels == 1, 250 + labels % 5, labels).astype(np.uint8))


CAMVID = [(0, 0, 0), (128, 128, 128), (128, 0, 0), (128, 64, 128), (0, 0, 192), (128, 128, 0), (64, 0, 128)]
CAMVID += [(64, 64, 0), (0, 128, 192), (192, 0, 64)]  # the last, of carts, is in no class
ISPRS = [(0, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)]
MADE = {
    "pets_trimap": Example("images/pet_{n}.jpg", "annotations/trimaps/pet_{n}.png", [1, 2, 3], as_gray, [1], 3),
    "pascal_voc": Example(
        "JPEGImages/2007_{n}.jpg", "SegmentationClass/2007_{n}.png", [*range(21), 255], as_voc, [*range(1, 21)], 255
    ),
    "camvid": Example(
        "701_StillsRaw_full/Seq05_{n}.png",
        "LabeledApproved_full/Seq05_{n}_L.png",
        [*range(10)],
        as_colours(CAMVID),
        [*range(1, 9)],
        0,
    ),
    "isprs_potsdam": Example(
        "2_Ortho_RGB/top_2_{n}_RGB.tif",
        "5_Labels_all_noBoundary/top_2_{n}_label_noBoundary.tif",
        [*range(7)],
        as_colours(ISPRS),
        [*range(1, 7)],
        0,
    ),
    "loveda": Example(
        "Train/Rural/images_png/{n}.png", "Train/Rural/masks_png/{n}.png", [*range(8)], as_gray, [*range(2, 8)], 0
    ),
    "deepglobe_roads": Example("train/{n}_sat.jpg", "train/{n}_mask.png", [0, 1], as_soft, [1]),
    "label_images": Example("images/{n}.png", "labels/{n}.tif", [*range(12)], as_gray, [*range(1, 12)]),
}


@pytest.mark.parametrize("config", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_reads_its_data_set(tmp_path, config):
    example, random = MADE[config.stem], np.random.default_rng(0)
    settings = load_settings(config, [f"data.root={tmp_path}"]).data
    drawn = {}
    for number in range(3):
        labels = np.kron(random.permuted(np.resize(example.labels, 80)).reshape(8, 10), np.ones((5, 5), int))
        image, mask = (tmp_path / pattern.format(n=number) for pattern in (example.image, example.mask))
        for path in (image, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        save(image, random.integers(0, 255, (*SHAPE, 3), np.uint8))
        example.write(mask, labels)
        drawn[str(image)] = labels
    training = open_training(settings)
    inspect_all(training)
    for image_id in training.ids:
        labels = drawn[str(training.image_path(image_id))]
        if settings.instances:
            objects = training.read_objects(image_id)[:, :, 0]
            pairs = {*zip(objects.ravel().tolist(), labels.ravel().tolist(), strict=True)}
            assert (0, 0) in pairs and len(pairs) == len(np.unique(objects)) == len(np.unique(labels))
            continue
        expected = np.stack(
            [np.where(labels == example.ignored, IGNORED, labels == c) for c in example.classes], axis=2
        )
        np.testing.assert_array_equal(training.read_mask(image_id), expected)


def test_every_example_is_tried():
    assert [path.stem for path in EXAMPLES] == sorted(MADE)
