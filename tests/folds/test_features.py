from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch

from lib.base.errors import UserError
from lib.config.data_settings import DataSettings
from lib.data.groups import group_in_id
from lib.data.images import Images
from lib.folds import features
from lib.folds.features import ImageEncoder
from lib.folds.kept_features import image_features, read_features
from lib.images.hashes import thumbnail
from lib.model.encoder_weights import imagenet_weights
from tests.folds.test_duplicates import textured


def write_images(folder: Path, count: int, channels: int = 3) -> Images:
    folder.mkdir(exist_ok=True)
    files = {}
    for seed in range(count):
        path = folder / f"{seed}.png"
        cv2.imwrite(str(path), textured(seed, channels=channels))
        files[path.stem] = [str(path)]
    return Images(DataSettings(root=folder, channels=channels), files)


def test_features_are_the_means_of_two_of_timm_s_own_feature_maps(tmp_path):
    data = write_images(tmp_path, 3)
    found = image_features(tmp_path / "features.npz", data)
    extractor = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3)).eval()
    tensors, _ = imagenet_weights("tf_efficientnet_lite0")
    extractor.load_state_dict({name: tensors[name] for name in extractor.state_dict()})
    pixels = np.stack([thumbnail(data.read_image(image_id)) for image_id in data.ids])
    with torch.inference_mode():
        maps = extractor(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1)  # as the weights were trained
    expected = torch.cat([one.mean(dim=(2, 3)) for one in maps], dim=1).numpy()
    assert found.shape == (3, 152) and found.dtype == np.float16
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels_in_batches(channels, monkeypatch):
    monkeypatch.setattr(features, "BATCH", 2)
    encoder = ImageEncoder()
    for seed in range(5):
        encoder.add(thumbnail(textured(seed, channels=channels)))
    one_by_one = []
    for seed in range(5):
        alone = ImageEncoder()
        alone.add(thumbnail(textured(seed, channels=channels)))
        one_by_one.append(alone.features()[0])
    np.testing.assert_allclose(encoder.features(), one_by_one, rtol=1e-2, atol=1e-2)


def test_kept_features_are_read_until_a_file_changes(tmp_path, monkeypatch):
    data, path = write_images(tmp_path / "images", 3), tmp_path / "features.npz"
    first = image_features(path, data)
    monkeypatch.setattr(features, "ImageEncoder", None)  # nothing may be computed again
    assert (image_features(path, data) == first).all()
    cv2.imwrite(str(data.image_path("1")), textured(9, height=50))
    assert read_features(path, data) is None
    for content in (b"PK not an npz", b"", b"no"):
        path.write_bytes(content)
        assert read_features(path, data) is None


def test_group_in_an_id():
    assert group_in_id(r"id:([^_]+)", "case7_day2_1") == "case7"
    assert group_in_id(r"id:(\w+?)_\w+_(\d+)", "case7_day2_1") == "case7_1"
    for rule, message in (("id:[", "not a regular expression"), ("id:x", "no brackets"), ("id:(z)", "no group in")):
        with pytest.raises(UserError, match=message):
            group_in_id(rule, "case7_day2_1")
