"""Large images by windows: every pixel's weights add up to 1, seams are within tolerance, memory is the window's."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.config.schema import InferSettings
from lib.config.training_settings import ModelSettings
from lib.model.network import SegmentationNet, build_untrained
from lib.prediction.predictor import Predictor
from lib.prediction.sliding_window import blended_map, windows_along
from tests.prediction.test_predictor import InMemory

TOLERANCE = 4  # of 255, the largest difference from the map at once with an overlap of 256 pixels, the default's


@given(
    length=st.integers(1, 900),
    window=st.integers(2, 12).map(lambda times: 16 * times),
    share=st.floats(0.1, 0.5),
)
def test_weights_add_up_to_one_and_neighbours_share_the_overlap(length, window, share):
    overlap = max(16, int(window * share) // 16 * 16)
    windows = windows_along(length, window, overlap, stride=16)
    total = np.zeros(length)
    for one in windows:
        assert one.pixels.stop - one.pixels.start == one.length <= window
        assert one.pixels.start % 16 == 0
        total[one.pixels] += one.weights
    assert np.allclose(total, 1, atol=1e-6)
    for one, following in zip(windows, windows[1:], strict=False):
        assert one.pixels.stop - following.pixels.start == overlap
    assert len({one.length for one in windows[:-1]}) <= 1


def test_weights_fall_smoothly_to_nothing_at_inner_borders_only():
    first, *_, last = windows_along(500, 128, 32, stride=32)
    assert first.weights[0] == last.weights[-1] == 1
    assert not first.weights[-12:].any() and not last.weights[:12].any()
    assert np.abs(np.diff(first.weights)).max() < 0.2


def test_a_prediction_of_each_pixel_alone_is_blended_to_itself():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (333, 290, 2), dtype=np.uint8)
    batches = []

    def predict(crops: np.ndarray) -> np.ndarray:
        batches.append(crops.shape)
        return crops.astype(np.float32) / 255

    assert np.array_equal(blended_map(image, predict, window=64, overlap=16, stride=16, batch_size=3), image)
    assert max(shape[0] for shape in batches) == 3
    assert max(max(shape[1:3]) for shape in batches) <= 64


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Blobs of several sizes, 640 x 400 pixels."""
    noise = np.random.default_rng(0).standard_normal((640, 400)).astype(np.float32)
    layers = [cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (2, 8, 20)]
    return np.clip(128 + 60 * np.stack(layers, axis=2), 0, 255).astype(np.uint8)


def untrained() -> SegmentationNet:
    torch.manual_seed(0)
    network = build_untrained(ModelSettings(encoder="resnet10t", weights="random"), class_count=1)
    with torch.no_grad():
        network.network.segmentation_head[0].weight *= 50  # of random weights the map would be 128 everywhere
    return network


def trained(image: np.ndarray) -> SegmentationNet:
    """Trained to find where the image's coarse blobs are bright."""
    network = untrained().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    for step in range(15):
        crops = [pixels[:, top : top + 96, 48 * (step % 6) :][..., :96] for top in (0, 200, 500)]
        crops = torch.stack(crops)
        optimizer.zero_grad()
        truth = (crops[:, 2:] > 150).float()
        torch.nn.functional.binary_cross_entropy_with_logits(network(crops), truth).backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("kind", ["untrained", "trained"])
def test_the_map_by_windows_is_the_map_at_once_within_the_tolerance(image, kind):
    network = untrained() if kind == "untrained" else trained(image)

    def predicted(window: int, overlap: float) -> np.ndarray:
        settings = InferSettings(tta="none", window=window, overlap=overlap)
        predictor = Predictor([network], settings, torch.device("cpu"), "fp32")
        predict_batch, sides = predictor.predict_batch, []
        predictor.predict_batch = lambda crops, ids: sides.append(max(crops.shape[1:3])) or predict_batch(crops)
        ((_, found),) = predictor.predict(InMemory(image=image), ["image"])
        assert max(sides) <= window
        return found.maps.astype(int)

    at_once, by_windows = predicted(1024, 0.25), predicted(512, 0.5)
    assert at_once.std() > 20  # a map worth comparing
    difference = np.abs(by_windows - at_once)
    assert difference.max() <= TOLERANCE, (difference.max(), difference.mean())
    assert difference.mean() < 0.02
    assert difference[:160].max() <= 1  # far from the windows' borders
