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
