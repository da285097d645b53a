"""Random changes to a training image and its mask: crops, flips, small rotations, scale, contrast, sharpening."""

import os

import cv2
import numpy as np

from lib.config import AugmentSettings

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or the import asks the network for a newer version
import albumentations  # noqa: E402


def build_augmentation(settings: AugmentSettings, square: bool) -> albumentations.Compose:
    """The changes of `augment`, for uint8 images (height, width, channels) and masks (height, width, classes).

    Quarter turns are left out unless the crops are `square`: a batch holds one shape.
    """
    quarter_turns = [albumentations.RandomRotate90(p=settings.rotate90)] if square else []
    return albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=settings.horizontal_flip),
            albumentations.VerticalFlip(p=settings.vertical_flip),
            *quarter_turns,
            albumentations.Affine(
                rotate=(-settings.rotate_degrees, settings.rotate_degrees),
                scale=(1 - settings.scale, 1 + settings.scale),
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                border_mode=cv2.BORDER_REFLECT_101,
                p=settings.rotate,
            ),
            albumentations.RandomBrightnessContrast(
                brightness_limit=settings.contrast_range, contrast_limit=settings.contrast_range, p=settings.contrast
            ),
            albumentations.Sharpen(p=settings.sharpen),
        ]
    )


def random_crop(
    image: np.ndarray, mask: np.ndarray, size: tuple[int, int], foreground_share: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A window of `size` (height, width), around a random mask pixel in `foreground_share` of the cases.

    Images smaller than the window are mirrored up to it at the bottom and right, and so is the mask.
    """
    height, width = size
    bottom, right = max(height - image.shape[0], 0), max(width - image.shape[1], 0)
    if bottom or right:
        image, mask = (np.pad(array, ((0, bottom), (0, right), (0, 0)), mode="symmetric") for array in (image, mask))
    last_top, last_left = image.shape[0] - height, image.shape[1] - width
    if last_top == last_left == 0:
        return image, mask
    top, left = random.integers(last_top + 1), random.integers(last_left + 1)
    if random.random() < foreground_share:
        rows, columns = np.nonzero(mask.any(axis=-1))
        if len(rows):
            pixel = random.integers(len(rows))
            top = np.clip(rows[pixel] - random.integers(height), 0, last_top)
            left = np.clip(columns[pixel] - random.integers(width), 0, last_left)
    window = np.s_[top : top + height, left : left + width]
    return image[window], mask[window]
