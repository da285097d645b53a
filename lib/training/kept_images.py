"""Resized images and masks of a training, kept on disk so that each is decoded at full size only once.

They lie in `runs/NAME/resized/`, in a folder named by everything that decides their pixels, until all folds are
trained. Without data.resize nothing is kept: decoding a copy would take as long as decoding the image.
"""

import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np

from lib.base.distributed import is_first
from lib.base.files import sha256_of_json
from lib.data.competition import TrainingData
from lib.data.images import Images
from lib.data.network_input import WithNeighbours, as_network_sees
from lib.data.resizing import ResizedImages
from lib.masks.resize import Size
from lib.prediction.sealed_png import png_pixels, read_sealed, write_sealed
from lib.run.folder import Fold, RunFolder

MOST = 0.5  # of the free disk space
CHANGES_NO_PIXEL = {
    "folds.csv",
    "fold",
    "left_out_images",
    "model",
    "augment",
    "loss",
    "train",
    "best_epoch_by",
    "weights_file",
}


class KeptImages:
    """Resized images and masks by id: made on first use, then read from `folder`."""

    def __init__(self, images: ResizedImages, folder: Path) -> None:
        self.images, self.folder = images, folder
        self.settings, self.classes = images.settings, images.classes

    def image_size(self, image_id: str) -> Size:
        """(height, width) of the resized image."""
        return self.images.image_size(image_id)

    def read_image(self, image_id: str) -> np.ndarray:
        """Resized image uint8 (height, width, channels)."""
        return self._kept("image", image_id, self.settings.network_channels, self.images.read_image)

    def open_image(self, image_id: str) -> np.ndarray:
        """The same, for what reads by regions."""
        return self.read_image(image_id)

    def read_mask(self, image_id: str) -> np.ndarray:
        """Resized mask uint8 0, 1 or IGNORED (height, width, classes)."""
        return self._kept("mask", image_id, len(self.classes), self.images.read_mask)

    def _kept(self, kind: str, image_id: str, channels: int, make: Callable[[str], np.ndarray]) -> np.ndarray:
        """The content of the file or, if it is absent or damaged, the result of `make`, which is then written."""
        path, name = self.folder / kind / f"{image_id}.png", f"{kind}/{image_id}"
        content = read_sealed(path, name)
        if content is not None:
            pixels = png_pixels(content)
            return pixels.reshape(len(pixels), -1, channels)
        array = make(image_id)
        # colours as such, which take a third less space; other channels side by side
        write_sealed(path, array if channels == 3 else array.reshape(len(array), -1), name)
        return array


SeenImages = TrainingData | WithNeighbours | ResizedImages | KeptImages  # at the size at which the network sees them


def kept_folder(run: RunFolder, made_from: dict) -> Path:
    """The folder of the resized images; `made_from` identifies the inputs of the run's models."""
    decisive = {name: value for name, value in made_from.items() if name not in CHANGES_NO_PIXEL}
    return run.resized / sha256_of_json(decisive)[:16]


def seen_in_training(images: Images, folder: Path) -> SeenImages:
    """Images and masks as the network sees them, kept in a folder if they are resized and there is room."""
    seen = as_network_sees(images)
    if not isinstance(seen, ResizedImages):
        return seen
    planes = images.settings.network_channels + len(images.classes)
    needed = planes * sum(height * width for height, width in map(seen.image_size, images.ids))
    return KeptImages(seen, folder) if has_room(folder, needed) else seen


@cache
def has_room(folder: Path, needed: int) -> bool:
    """Whether so many bytes, less those already there, fit into a share MOST of the free disk; prints a note if not.

    Decided once per process, before the first fold takes room.
    """
    missing = needed - sum(path.stat().st_size for path in folder.rglob("*.png"))
    disk = next(parent for parent in folder.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(disk).free
    if missing <= MOST * free:
        return True
    if is_first():
        print(
            f"note      resized images would take up to {missing / 1e9:.1f} GB of the {free / 1e9:.1f} GB free in "
            f"{disk}, so none are kept: each is decoded at its own size in every epoch"
        )
    return False


def remove_kept(run: RunFolder, folds: Iterable[Fold]) -> None:
    """Remove the kept images once all folds of the run are trained; until then another process may read and write."""
    if all(run.fold(fold).is_done for fold in folds):
        shutil.rmtree(run.resized, ignore_errors=True)
