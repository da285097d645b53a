"""A picture of the same training images under each augmentation preset and under the settings, masks outlined.

python -m lib.tools.augment_picture configs/NAME.yaml augmentation.png [section.key=value ...]
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from lib.base.cli import parser, run_command
from lib.base.files import write_bytes
from lib.config.load import load_settings
from lib.config.schema import Settings
from lib.config.training_settings import AUGMENT_PRESETS, AugmentSettings
from lib.data.competition import TrainingData, open_training
from lib.data.network_input import as_network_sees
from lib.masks.drawing import as_rgb, outlined
from lib.training.augment import augment, build_augmentation, random_crop

IMAGES = 4  # rows
DRAWS = 2  # of each preset
TILE_SIDE = 192  # pixels of a crop as shown
MASK_OUTLINE = (255, 214, 0)


def draw(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.config, arguments.overrides)
    picture = presets_picture(open_training(settings.data), settings)
    write_bytes(arguments.picture, cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    print(f"wrote     {arguments.picture}")


def presets_picture(data: TrainingData, settings: Settings) -> np.ndarray:
    """RGB picture with a row for each image: the image itself, then DRAWS of each preset, then DRAWS of the settings.

    Images are chosen at random by train.seed; crops are those of training, around mask pixels.
    """
    seen, channels = as_network_sees(data), settings.data.network_channels
    are_colours = channels in (1, 3) and not settings.data.neighbours.order
    without = {} if are_colours else {"clahe": 0}  # which such channels must do without in training, too
    presets = {name: AugmentSettings(preset=name, **without) for name in AUGMENT_PRESETS if name != "none"}
    columns = presets | {"as set": settings.augment}
    titles = ["image", *(name for name in columns for _ in range(DRAWS))]
    changes = {name: build_augmentation(of_column, True, channels) for name, of_column in columns.items()}
    random, crop = np.random.default_rng(settings.train.seed), (settings.train.crop_size,) * 2
    rows = [np.concatenate([_titled(title) for title in titles], axis=1)]
    for image_id in random.permutation(data.ids)[:IMAGES]:
        image, mask = random_crop(seen.read_image(image_id), seen.read_mask(image_id), crop, 1.0, random)
        cells = [_outlined(image, mask)]
        for change in changes.values():
            change.set_random_seed(int(random.integers(2**31)))
            cells += [_outlined(*augment(change, image, mask)) for _ in range(DRAWS)]
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows)


def _outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image as RGB at TILE_SIDE pixels, the outline of all classes' masks over it."""
    shown = cv2.resize(as_rgb(image), (TILE_SIDE, TILE_SIDE), interpolation=cv2.INTER_AREA)
    union = cv2.resize((mask == 1).max(axis=2).view(np.uint8), (TILE_SIDE, TILE_SIDE), interpolation=cv2.INTER_NEAREST)
    return cv2.copyMakeBorder(outlined(shown, union, MASK_OUTLINE), 2, 2, 2, 2, cv2.BORDER_CONSTANT)


def _titled(title: str) -> np.ndarray:
    cell = np.zeros((24, TILE_SIDE + 4, 3), np.uint8)
    return cv2.putText(cell, title, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("config", type=Path, metavar="configs/NAME.yaml", help="the settings file")
    command.add_argument("picture", type=Path, metavar="OUT.png", help="the picture to write")
    run_command(draw, command)
