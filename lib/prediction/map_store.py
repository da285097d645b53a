"""Probability maps on disk: one 8-bit PNG per image and class, `<folder>/[<class>/]<id>.png`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lib.base.errors import UserError
from lib.base.files import write_bytes
from lib.base.prefetch import THREADS, prefetched
from lib.data.competition import TrainingData


@dataclass(frozen=True)
class MapStore:
    """Maps of one kind (out-of-fold or test) below one folder; with one class there is no class folder."""

    folder: Path
    classes: tuple[str, ...]

    def path(self, image_id: str, class_name: str) -> Path:
        """Where the map of one image and class is."""
        return (self.folder / class_name if len(self.classes) > 1 else self.folder) / f"{image_id}.png"

    def has(self, image_id: str) -> bool:
        """Whether the maps of all classes of an image are there. A map that exists is whole."""
        return all(self.path(image_id, name).is_file() for name in self.classes)

    def remove(self, image_id: str) -> None:
        """Remove an image's maps, if any."""
        for name in self.classes:
            self.path(image_id, name).unlink(missing_ok=True)

    def write(self, image_id: str, maps: np.ndarray) -> None:
        """Write one image's maps, uint8 (height, width, classes)."""
        for name, plane in zip(self.classes, np.moveaxis(maps, -1, 0), strict=True):
            encoded = cv2.imencode(".png", np.ascontiguousarray(plane))[1]
            write_bytes(self.path(image_id, name), encoded.tobytes())

    def read(self, image_id: str) -> np.ndarray:
        """Read one image's maps, uint8 (height, width, classes). Raises UserError for an absent or broken file."""
        return np.stack([self._read_plane(self.path(image_id, name)) for name in self.classes], axis=-1)

    @staticmethod
    def _read_plane(path: Path) -> np.ndarray:
        plane = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if plane is None or plane.ndim != 2 or plane.dtype != np.uint8:
            state = "is not an 8-bit gray PNG" if path.is_file() else "does not exist"
            raise UserError(f"probability map {path} {state}; run the stage that writes it again")
        return plane


def to_map(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] as uint8 round(255 p)."""
    return np.rint(probabilities * 255).astype(np.uint8)


def read_pairs(
    store: MapStore, data: TrainingData, ids: Iterable[str], size: tuple[int, int] | None = None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Stream (id, map, truth), both uint8 (height, width, classes), reading a few images ahead.

    `size` (height, width) is that of the masks in the submission, if it is not each image's own: what is decided on
    the pairs is then decided at the size at which it is scored.
    """

    def read(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        maps, truth = store.read(image_id), data.read_mask(image_id)
        if size is not None:
            truth = (resized(255 * truth, size) > 127).view(np.uint8)
        return resized(maps, size), truth

    return ((image_id, *pair) for image_id, pair in prefetched(read, ids, ahead=4 * THREADS))


def resized(maps: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Maps uint8 (height, width, classes) averaged down to `size` (height, width), or as they are without one.

    Probabilities are resized before the threshold: a mask of half the size keeps its borders within a pixel that way.
    """
    if size is None:
        return maps
    layers = [cv2.resize(layer, size[::-1], interpolation=cv2.INTER_AREA) for layer in np.moveaxis(maps, 2, 0)]
    return np.stack(layers, axis=2)
