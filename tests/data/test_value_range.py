"""The range that 01 finds in images of more than 8 bits."""

import numpy as np
import pytest

from lib.config.data_settings import DataSettings
from lib.data.competition import open_training
from lib.data.value_range import value_range_line
from tests.images.test_reading import save


@pytest.mark.parametrize(
    ("suffix", "values", "said", "expected"),
    [
        (".png", np.arange(0, 4000, 10, dtype=np.uint16), None, ("warning ", "0 to 3990", "use 6.1%", "[0, 3990]")),
        (".tif", np.arange(0, 40000, 100, dtype=np.uint16), None, ("checked ", "0 to 39900", "0 to 65535 become")),
        (".npy", np.arange(400, dtype=np.float32), (0, 299), ("warning ", "0 to 399", "25.00% of the values")),
        (".npy", np.arange(400, dtype=np.float32), (0, 400), ("checked ", "0 to 399", "0 to 400 become")),
        (".npy", np.arange(400, dtype=np.float32), (0, 9000), ("warning ", "0 to 399", "use 4.4%")),
        (".npy", np.arange(-200, 200, dtype=np.int16), None, ("checked ", "-200 to 199")),
        (".npy", np.arange(400, dtype=np.int32), "image", ("checked ", "0 to 399")),
        (".png", np.arange(400).astype(np.uint8), None, ()),
    ],
)
def test_the_range_is_printed_and_a_scale_that_does_not_suit_is_a_warning(tmp_path, suffix, values, said, expected):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    save(tmp_path / f"images/a{suffix}", values.reshape(20, 20))
    save(tmp_path / "masks/a.png", np.eye(20, dtype=np.uint8))
    settings = DataSettings(root=tmp_path, train_images="images", train_masks="masks", value_range=said)
    line = value_range_line(open_training(settings))
    assert all(part in line for part in expected) and line.startswith(expected[:1] or ("",))
    assert bool(line) == bool(expected)


def test_images_of_mixed_depth_are_not_advised_a_range_that_blackens_those_of_8_bits(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    save(tmp_path / "images/a.png", np.arange(1000, 5000, 10, dtype=np.uint16).reshape(20, 20))
    save(tmp_path / "images/b.jpg", np.arange(400).reshape(20, 20).astype(np.uint8))
    for name in "ab":
        save(tmp_path / f"masks/{name}.png", np.eye(20, dtype=np.uint8))

    def line(value_range):
        return value_range_line(
            open_training(
                DataSettings(root=tmp_path, train_images="images", train_masks="masks", value_range=value_range)
            )
        )

    assert "use 6.1%" in line(None) and "data.value_range=image" in line(None)
    assert line((1000, 4990)).startswith("warning ") and "50.00% of the values are clipped" in line((1000, 4990))
    assert line("image").startswith("checked ")


BAND = np.linspace(40, 200, 400).reshape(20, 20)
DISC = np.hypot(*np.mgrid[-10:10, -10:10]) < 8


@pytest.mark.parametrize(
    ("suffix", "fourth", "channels", "is_told"),
    [
        (".tif", BAND, 3, True),
        (".tif", BAND, 1, True),
        (".png", BAND, 3, True),
        (".tif", BAND, 4, False),
        (".tif", np.full((20, 20), 255), 3, False),
        (".png", DISC * 255, 3, False),
        (".png", DISC * 255 - 9 * np.eye(20) * DISC, 3, False),  # soft edges
    ],
)
def test_a_fourth_band_is_not_left_out_as_transparency_in_silence(tmp_path, suffix, fourth, channels, is_told):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    scale = np.uint16(257) if suffix == ".tif" else np.uint8(1)
    save(tmp_path / f"images/a{suffix}", np.dstack([BAND, BAND / 2, BAND, fourth]).astype(np.uint8) * scale)
    save(tmp_path / "masks/a.png", np.eye(20, dtype=np.uint8))
    settings = DataSettings(root=tmp_path, train_images="images", train_masks="masks", channels=channels)
    lines = value_range_line(open_training(settings))
    assert ("the fourth plane of 1 of 1 image files" in lines) == is_told
    assert ("data.channels=4 reads it" in lines) == is_told
