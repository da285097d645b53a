"""Augmentation: random crops, and the random changes of the presets (settings `augment`)."""

import os

import cv2
import numpy as np

from lib.base.errors import UserError
from lib.config.training_settings import AugmentSettings
from lib.images.mask_files import CV_CHANNELS

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise the import looks for a newer version on the internet
import albumentations as A  # noqa: E402

GRID_CELLS = 5  # cells along each side of the grid that augment.distort bends
MIRRORED = {"border_mode": cv2.BORDER_REFLECT_101, "mask_interpolation": cv2.INTER_NEAREST}


def build_augmentation(settings: AugmentSettings, square: bool, channels: int) -> A.Compose:
    """The changes of `augment`, for uint8 images (height, width, channels) and masks (height, width, classes).

    Geometry first, then colour and texture. Quarter turns are left out unless the crops are `square`: a batch holds
    one shape. Raises UserError for augment.clahe on images with neither 1 nor 3 channels.
    """
    chance = settings.strengths
    if chance["clahe"] and channels not in (1, 3):
        raise UserError(f"augment.clahe needs images of 1 or 3 channels, not {channels}; set augment.clahe=0")
    degrees, scale, contrast = chance["rotate_degrees"], chance["scale"], chance["contrast_range"]
    patches = {"num_holes_range": (1, 6), "hole_height_range": (0.05, 0.2), "hole_width_range": (0.05, 0.2)}
    changes = [
        (A.HorizontalFlip(p=1), chance["horizontal_flip"]),
        (A.VerticalFlip(p=1), chance["vertical_flip"]),
        (A.RandomRotate90(p=1), chance["rotate90"] if square else 0),
        (A.Affine(rotate=(-degrees, degrees), scale=(1 - scale, 1 + scale), **MIRRORED, p=1), chance["rotate"]),
        (
            A.OneOf(
                [
                    A.ElasticTransform(alpha=60, sigma=8, approximate=True, **MIRRORED, p=1),
                    A.GridDistortion(num_steps=GRID_CELLS, distort_limit=0.3, **MIRRORED, p=1),
                ],
                p=1,
            ),
            chance["distort"],
        ),
        (A.RandomBrightnessContrast(brightness_limit=contrast, contrast_limit=contrast, p=1), chance["contrast"]),
        (A.RandomGamma(gamma_limit=(70, 140), p=1), chance["gamma"]),
        (A.CLAHE(clip_limit=(1, 3), p=1), chance["clahe"]),
        (A.Sharpen(p=1), chance["sharpen"]),
        (
            A.OneOf([A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.5), p=1), A.MotionBlur(7, p=1)], p=1),
            chance["blur"],
        ),
        (A.GaussNoise(std_range=(0.02, 0.08), p=1), chance["noise"]),
        (A.CoarseDropout(**patches, fill=0, p=1), chance["dropout"]),
    ]
    for change, p in changes:
        change.p = p
    return A.Compose([change for change, p in changes if p])


def require_room(settings: AugmentSettings, crop: tuple[int, int]) -> None:
    """Raise UserError if crops (height, width) are smaller than the grid that augment.distort bends."""
    if settings.strengths["distort"] and min(crop) < GRID_CELLS:
        raise UserError(
            f"augment.distort needs crops of {GRID_CELLS} pixels or more, not {crop[0]} x {crop[1]}; "
            "set augment.distort=0, or a larger train.crop_size"
        )


def augment(change: A.Compose, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image (height, width, channels) and mask (height, width, classes) after the same random change."""
    if mask.shape[2] <= CV_CHANNELS:
        changed = change(image=image, mask=mask)
        return changed["image"], changed["mask"]
    classes = mask.shape[2]
    padded = np.pad(mask, ((0, 0), (0, 0), (0, -classes % CV_CHANNELS)))  # albumentations needs parts of one shape
    parts = np.split(padded, padded.shape[2] // CV_CHANNELS, axis=2)
    changed = change(image=image, masks=[np.ascontiguousarray(part) for part in parts])
    return changed["image"], np.concatenate(changed["masks"], axis=2)[..., :classes]


def random_crop(
    image: np.ndarray, mask: np.ndarray, size: tuple[int, int], foreground_share: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random window of `size` (height, width); with probability `foreground_share` it contains a random mask pixel.

    Images smaller than the window are mirrored up to it at the bottom and right, and so are their masks.
    """
    height, width = size
    bottom, right = max(height - image.shape[0], 0), max(width - image.shape[1], 0)
    if bottom or right:
        image, mask = (np.pad(array, ((0, bottom), (0, right), (0, 0)), mode="symmetric") for array in (image, mask))
    last_top, last_left = image.shape[0] - height, image.shape[1] - width
    if last_top == last_left == 0:
        return image, mask
    top, left = random.integers(last_top + 1), random.integers(last_left + 1)
    if random.random() < foreground_share and (pixel := random_mask_pixel(mask, random)):
        top, left = (
            np.clip(place - random.integers(length), 0, last)
            for place, length, last in zip(pixel, size, (last_top, last_left), strict=True)
        )
    window = np.s_[top : top + height, left : left + width]
    return image[window], mask[window]


def random_mask_pixel(mask: np.ndarray, random: np.random.Generator) -> tuple[int, int] | None:
    """Row and column of a random pixel of any class, of a mask uint8 0, 1 or IGNORED (height, width, classes).

    None for an empty mask. Sums of rows locate the n-th pixel, 50 times as fast as listing the pixels of a mask of
    4096 x 4096.
    """
    any_class = (mask == 1).any(axis=2).view(np.uint8)
    upto = np.cumsum(cv2.reduce(any_class, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S), dtype=np.int64)
    if upto[-1] == 0:
        return None
    number = random.integers(upto[-1])
    row = int(np.searchsorted(upto, number, side="right"))
    return row, int(np.flatnonzero(any_class[row])[number - upto[row]])
