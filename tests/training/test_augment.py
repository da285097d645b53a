"""Augmentation: presets and single strengths, masks that follow their images, and draws that can be repeated."""

import random
import runpy
import sys

import cv2
import numpy as np
import pytest
import yaml

from lib.base.errors import UserError
from lib.config.training_settings import AUGMENT_PRESETS, AugmentSettings
from lib.training import augment as augment_module
from lib.training.augment import augment, build_augmentation, require_room
from tests.conftest import write_competition

COLOURS = ("contrast", "gamma", "clahe", "sharpen", "blur", "noise", "dropout")
SHAPES = ("horizontal_flip", "vertical_flip", "rotate90", "rotate", "distort")
ALWAYS = {"rotate_degrees": 30, "scale": 0.2, "contrast_range": 0.3}  # the strengths beside the chances


def only(*names: str) -> AugmentSettings:
    """These changes always, and no other."""
    return AugmentSettings(preset="none", **dict.fromkeys(names, 1.0), **ALWAYS)


def changed(settings: AugmentSettings, image: np.ndarray, mask: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    change = build_augmentation(settings, square=True, channels=image.shape[2])
    change.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return change(image=image, mask=mask)


def blob(channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A smooth textured image (96 x 96) with one bright blob off its centre, and the blob's mask for two classes."""
    mask = cv2.ellipse(np.zeros((96, 96), np.uint8), (60, 40), (20, 12), 20, 0, 360, 1, -1)
    ground = cv2.GaussianBlur(np.random.default_rng(0).normal(70, 60, (96, 96)), (0, 0), 3)
    image = np.clip(ground + 110 * mask, 0, 255).astype(np.uint8)
    return np.repeat(image[..., None], channels, axis=2), np.stack([mask, 1 - mask], axis=2)


def test_a_setting_wins_over_its_preset_which_wins_over_nothing():
    assert AugmentSettings().strengths == AugmentSettings(preset="medium").strengths
    heavy, own = AugmentSettings(preset="heavy"), AugmentSettings(preset="heavy", blur=0.0, scale=0.5)
    assert own.strengths == heavy.strengths | {"blur": 0.0, "scale": 0.5}
    assert set(AugmentSettings(preset="none").strengths.values()) == {0.0}
    assert heavy.strengths.keys() == AugmentSettings.model_fields.keys() - {"preset"}
    for preset in AUGMENT_PRESETS.values():
        AugmentSettings(**preset)  # the presets' values are within their ranges


@pytest.mark.parametrize("name", [*SHAPES, *COLOURS])
def test_each_change_does_something_and_colours_leave_the_mask_alone(name):
    image, mask = blob()
    found = [changed(only(name), image, mask, seed) for seed in range(4)]
    assert any(not np.array_equal(one["image"], image) for one in found)
    assert all(np.array_equal(one["mask"], mask) for one in found) == (name in COLOURS)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SHAPES)
def test_the_mask_follows_the_image(name, seed):
    image, mask = blob()
    found = changed(only(name), image, mask, seed)
    assert set(np.unique(found["mask"])) <= {0, 1}
    assert np.array_equal(found["mask"][..., 0], 1 - found["mask"][..., 1])
    bright = cv2.GaussianBlur(found["image"][..., 0], (0, 0), 1) > 135
    inside = found["mask"][..., 0] > 0
    assert bright[inside].mean() > 0.85 > 0.15 > bright[~inside].mean()


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("preset", AUGMENT_PRESETS)
def test_presets_keep_size_and_type_and_are_repeated_by_their_seed(preset, channels):
    settings = AugmentSettings(preset=preset, clahe=None if channels in (1, 3) else 0.0)
    image, mask = blob(channels)
    for seed in range(8):
        one, again = (changed(settings, image, mask, seed) for _ in range(2))
        assert one["image"].shape == image.shape and one["image"].dtype == np.uint8
        assert one["mask"].shape == mask.shape and one["mask"].dtype == np.uint8
        assert np.array_equal(one["image"], again["image"]) and np.array_equal(one["mask"], again["mask"])


def test_crops_that_are_not_square_keep_their_shape():
    image, mask = (array[:64] for array in blob())
    change = build_augmentation(AugmentSettings(preset="heavy"), square=False, channels=3)
    assert all(change(image=image, mask=mask)["image"].shape == image.shape for _ in range(20))


def test_clahe_of_other_channels_is_refused_before_training():
    with pytest.raises(UserError, match=r"augment\.clahe needs images of 1 or 3 channels, not 5; set augment\.clahe=0"):
        build_augmentation(AugmentSettings(preset="heavy"), square=True, channels=5)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_picture_shows_every_preset(tmp_path, monkeypatch, channels):
    """Those without CLAHE where the channels are slices and no colours, as training demands."""
    write_competition(tmp_path / "data", training=5, test=1)
    data, build, drawn = {"root": str(tmp_path / "data"), "channels": 1}, augment_module.build_augmentation, []
    if channels > 1:
        data |= {"train_images": "train_images/{case}_{n}.png", "image_id": "{case}_{n}"}
        data["neighbours"] = {"order": "n", "reach": channels // 2}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"data": data, "augment": {"clahe": 0}}))
    monkeypatch.setattr(augment_module, "build_augmentation", lambda *of: drawn.append(of[0]) or build(*of))
    monkeypatch.setattr(sys, "argv", ["augment_picture", str(tmp_path / "own.yaml"), str(tmp_path / "out.png")])
    runpy.run_module("lib.tools.augment_picture", run_name="__main__")
    picture = cv2.imread(str(tmp_path / "out.png"))
    assert picture.shape[1] // (192 + 4) == 1 + 2 * len(AUGMENT_PRESETS)  # itself, three presets and the settings
    assert picture.shape[0] == 24 + 4 * (192 + 4)
    assert any(settings.strengths["clahe"] for settings in drawn) == (channels == 1)


def test_distortion_of_crops_smaller_than_its_grid_is_refused():
    with pytest.raises(UserError, match=r"augment\.distort needs crops of 5 pixels or more, not 4 x 64"):
        require_room(AugmentSettings(preset="heavy"), (4, 64))
    require_room(AugmentSettings(preset="heavy", distort=0), (4, 64))
    require_room(AugmentSettings(preset="heavy"), (5, 64))


@pytest.mark.parametrize("preset", ["medium", "heavy"])
def test_masks_of_more_classes_than_opencv_takes_change_like_those_of_few(preset):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    mask = (np.random.default_rng(1).random((40, 40, 130)) < 0.5).astype(np.uint8)
    change = build_augmentation(AugmentSettings(preset=preset), square=True, channels=3)
    for seed in range(8):
        change.set_random_seed(seed)
        many = augment(change, image, mask)
        for part in (slice(0, 3), slice(127, 130)):
            change.set_random_seed(seed)
            few = augment(change, image, np.ascontiguousarray(mask[..., part]))
            assert np.array_equal(few[0], many[0]) and np.array_equal(few[1], many[1][..., part])
