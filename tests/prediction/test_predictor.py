"""Prediction of whole images: averages, flips, sizes and the maps on disk, against plain twins."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.base.errors import UserError
from lib.config.schema import InferSettings
from lib.prediction.map_store import MapStore, to_map
from lib.prediction.predictor import Predictor, batches_of_equal_size, predict_to_store

CPU = torch.device("cpu")


class Ramp(nn.Module):
    """Logits that depend on pixel and place, so that flips and averages show."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images[:, :1].float() / 64 - 2
        return pixels + self.slope * torch.arange(images.shape[-1]) - 0.1 * torch.arange(images.shape[-2])[:, None]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def ramp_by_hand(image: np.ndarray, slope: float) -> np.ndarray:
    height, width = image.shape[:2]
    return sigmoid(image[:, :, 0] / 64 - 2 + slope * np.arange(width) - 0.1 * np.arange(height)[:, None])


def predictor(slopes: list[float], **settings) -> Predictor:
    settings = InferSettings(**({"tta": "none", "margin": 0, "batch_size": 3} | settings))
    return Predictor([Ramp(slope) for slope in slopes], settings, CPU, "fp32")


class InMemory(dict):
    """Images by id, read as those on disk are."""

    def image_size(self, image_id: str) -> tuple[int, int]:
        return self[image_id].shape[:2]

    def read_image(self, image_id: str) -> np.ndarray:
        return self[image_id]

    open_image = read_image


@pytest.fixture
def images() -> InMemory:
    random = np.random.default_rng(0)
    sizes = [(5, 7), (5, 7), (6, 4), (5, 7), (5, 7), (6, 4), (3, 3), (5, 7)]
    return InMemory({f"i{n}": random.integers(0, 256, (*size, 3), dtype=np.uint8) for n, size in enumerate(sizes)})


def test_every_image_once_at_its_own_size_averaged_over_networks(images):
    maps = list(predictor([0.1, -0.2]).predict(images, images))
    assert sorted(image_id for image_id, _ in maps) == sorted(images)
    for image_id, found in maps:
        expected = (ramp_by_hand(images[image_id], 0.1) + ramp_by_hand(images[image_id], -0.2)) / 2
        assert found.shape == (*images[image_id].shape[:2], 1)
        assert np.abs(found[..., 0] - 255 * expected).max() <= 0.51  # rounding to uint8


VIEWS = {  # a view, and how it is turned back
    "none": [(lambda a: a, lambda a: a)],
    "hflip": [(np.fliplr, np.fliplr)],
    "flips": [(np.flipud, np.flipud), (lambda a: np.rot90(a, 2), lambda a: np.rot90(a, 2))],
    "d4": [
        (lambda a: np.rot90(a, 1), lambda a: np.rot90(a, -1)),
        (lambda a: np.rot90(a, -1), lambda a: np.rot90(a, 1)),
        (lambda a: np.swapaxes(a, 0, 1), lambda a: np.swapaxes(a, 0, 1)),
        (lambda a: np.swapaxes(np.rot90(a, 2), 0, 1), lambda a: np.rot90(np.swapaxes(a, 0, 1), 2)),
    ],
}


@pytest.mark.parametrize("tta", VIEWS)
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_the_views_of_all_networks_are_averaged_turned_back(images, tta, average):
    image, names = images["i0"], list(VIEWS)
    views = [view for name in names[: names.index(tta) + 1] for view in VIEWS[name]]  # each kind holds the one before
    probabilities = np.stack([back(ramp_by_hand(turn(image), slope)) for turn, back in views for slope in (0.3, -0.1)])
    if average == "probabilities":
        expected = probabilities.mean(axis=0)
    else:
        expected = sigmoid(np.log(probabilities / (1 - probabilities)).mean(axis=0))
    found = predictor([0.3, -0.1], tta=tta, average=average).predict_batch(image[None])[0, ..., 0]
    assert len(views) == {"none": 1, "hflip": 2, "flips": 4, "d4": 8}[tta]
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("tta", ["none", "d4"])
@pytest.mark.parametrize("margin", [1, 3, 40])  # the last mirrors the image several times over
def test_the_margin_is_mirrored_and_cut_off(images, tta, margin):
    image = images["i2"]
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    wanted = predictor([0.3, -0.1], tta=tta).predict_batch(padded[None])[0, margin:-margin, margin:-margin]
    found = predictor([0.3, -0.1], tta=tta, margin=margin).predict_batch(image[None])[0]
    assert found.shape == (6, 4, 1) and found == pytest.approx(wanted, abs=1e-6)


def test_batches_hold_one_shape_and_lose_nothing(images):
    batches = list(batches_of_equal_size(images.items(), batch_size=2))
    assert all(len({image.shape for _, image in batch}) == 1 and len(batch) <= 2 for batch in batches)
    assert sorted(image_id for batch in batches for image_id, _ in batch) == sorted(images)


def test_few_images_wait_however_many_sizes_there_are():
    taken = 0

    def stream():
        nonlocal taken
        for side in range(1, 200):
            taken += 1
            yield str(side), np.zeros((side, 1, 3), np.uint8)

    given = 0
    for batch in batches_of_equal_size(stream(), batch_size=4):
        given += len(batch)
        assert taken - given <= 16
    assert given == 199


def test_maps_on_disk_are_those_predicted(images, tmp_path):
    store = MapStore(tmp_path, ("a",))
    ids = list(predict_to_store(predictor([0.1]), images, list(images), store))
    assert sorted(ids) == sorted(images)
    for image_id, found in predictor([0.1]).predict(images, images):
        assert np.array_equal(store.read(image_id), found)


def test_classes_have_folders_and_a_partly_written_image_does_not_count(tmp_path):
    store = MapStore(tmp_path, ("a", "b"))
    maps = np.random.default_rng(0).integers(0, 256, (4, 5, 2), dtype=np.uint8)
    store.write("x", maps)
    assert (tmp_path / "a" / "x.png").is_file()
    assert np.array_equal(store.read("x"), maps)
    store.path("x", "b").unlink()
    assert not store.has("x")
    with pytest.raises(UserError, match=r"b/x\.png does not exist"):
        store.read("x")


def test_to_map_rounds_to_the_nearest_of_255():
    assert to_map(np.array([0, 0.5, 1, 127.4 / 255, 127.6 / 255])).tolist() == [0, 128, 255, 127, 128]
