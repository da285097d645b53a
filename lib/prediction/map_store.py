"""Probability maps on disk: one 8-bit PNG per image and class, `<folder>/[<class>/]<id>.png`."""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from lib.base.errors import UserError
from lib.base.files import write_bytes
from lib.base.prefetch import THREADS, prefetched
from lib.data.competition import TrainingData
from lib.masks.metrics import IGNORED, planes
from lib.masks.objects import ObjectRule
from lib.masks.rules import Rule, apply_rules
from lib.run.folder import RunFolder

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


class Prediction(NamedTuple):
    """What is predicted of an image."""

    maps: np.ndarray  # uint8 (height, width, classes)
    presence: np.ndarray | None = None  # uint8 (classes,): round(255 p) of the image's holding the class, if predicted


class MapReader(Protocol):
    """What maps are read from, such as a MapStore."""

    are_exclusive: bool  # a pixel is of one class at most

    def read(self, image_id: str) -> np.ndarray: ...
    def presence(self, image_id: str) -> np.ndarray | None: ...


@dataclass(frozen=True)
class MapStore:
    """Maps of one kind (out-of-fold or test) below one folder; with one class there is no class folder.

    Each PNG ends in a seal, a text chunk that names image and class and holds a checksum of all bytes before it, so
    that damaged, edited and exchanged files are noticed. Where presence is predicted, a text chunk before the seal
    holds it: it is of the same image and the same models as the map, or the map is refused.
    """

    folder: Path
    classes: tuple[str, ...]
    are_exclusive: bool = False  # a pixel is of one class at most

    def path(self, image_id: str, class_name: str) -> Path:
        """Where the map of one image and class is."""
        return (self.folder / class_name if len(self.classes) > 1 else self.folder) / f"{image_id}.png"

    def has(self, image_id: str) -> bool:
        """True where the maps of all classes of an image are there and intact."""
        return all(self._read_sealed(image_id, name) is not None for name in self.classes)

    def remove(self, image_id: str) -> None:
        """Remove an image's maps, if any."""
        for name in self.classes:
            self.path(image_id, name).unlink(missing_ok=True)

    def write(self, image_id: str, maps: np.ndarray, presence: np.ndarray | None = None) -> None:
        """Write one image's maps, uint8 (height, width, classes), and its presence, uint8 (classes,), if any."""
        for class_index, (name, values) in enumerate(zip(self.classes, np.moveaxis(maps, -1, 0), strict=True)):
            encoded = cv2.imencode(".png", np.ascontiguousarray(values))[1].tobytes()
            body = encoded.removesuffix(PNG_END)
            if presence is not None:
                body += presence_chunk(int(presence[class_index]))
            write_bytes(self.path(image_id, name), body + seal(body, image_id, name), durable=False)

    def read(self, image_id: str) -> np.ndarray:
        """Read one image's maps, uint8 (height, width, classes). Raises UserError for an absent or damaged file."""
        files = [np.frombuffer(self._require_sealed(image_id, name), np.uint8) for name in self.classes]
        return np.stack([cv2.imdecode(content, cv2.IMREAD_UNCHANGED) for content in files], axis=-1)

    def presence(self, image_id: str) -> np.ndarray | None:
        """The presence of each class, uint8 (classes,), as it stands in an image's maps; None where it does not.

        Raises UserError as `read` does.
        """
        found = [presence_in(self._require_sealed(image_id, name), image_id, name) for name in self.classes]
        return None if None in found else np.array(found, np.uint8)

    def _require_sealed(self, image_id: str, class_name: str) -> bytes:
        content = self._read_sealed(image_id, class_name)
        if content is None:
            path = self.path(image_id, class_name)
            state = "is damaged, edited, or of another image" if path.is_file() else "does not exist"
            stage = "03_oof_threshold" if self.folder.name == "oof" else "04_infer"
            remedy = RunFolder(self.folder.parent).command(stage)
            raise UserError(f"probability map {path} {state}; to make it again, run {remedy}")
        return content

    def _read_sealed(self, image_id: str, class_name: str) -> bytes | None:
        """The bytes of a map's file; None where it is absent or does not end in its seal."""
        try:
            content = self.path(image_id, class_name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        length = len(seal(b"", image_id, class_name))
        return content if content[-length:] == seal(content[:-length], image_id, class_name) else None


def seal(body: bytes, image_id: str, class_name: str) -> bytes:
    """The end of a map's PNG: a tEXt chunk with the checksum of `body`, which is all that precedes it, and IEND."""
    return text_chunk(f"Map\0{zlib.crc32(body):08x} {class_name}/{image_id}") + PNG_END


def presence_chunk(presence: int) -> bytes:
    """What stands before the seal where presence, 0 to 255, is predicted."""
    return text_chunk(f"Presence\0{presence:03d}")


def presence_in(content: bytes, image_id: str, class_name: str) -> int | None:
    """The presence in a map's PNG, or None where it holds none."""
    end = content[: -len(seal(b"", image_id, class_name))][-len(presence_chunk(0)) :]
    digits = end[-7:-4]  # before the chunk's checksum
    presence = int(digits) if digits.isdigit() else 0
    return presence if end == presence_chunk(presence) else None


def text_chunk(text: str) -> bytes:
    """A PNG's tEXt chunk: keyword, zero byte, text."""
    kind = b"tEXt" + text.encode("ascii", "backslashreplace")
    return struct.pack(">I", len(kind) - 4) + kind + struct.pack(">I", zlib.crc32(kind))


def read_presence(store: MapReader, ids: Iterable[str]) -> np.ndarray | None:
    """The presence of each class in some images, uint8 (images, classes); None where it is not predicted."""
    found = []
    for _, presence in prefetched(store.presence, ids, ahead=4 * THREADS):
        if presence is None:
            return None
        found.append(presence)
    return np.stack(found)


def to_map(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] as uint8 round(255 p)."""
    return np.rint(probabilities * 255).astype(np.uint8)


def read_pairs(
    store: MapStore, data: TrainingData, ids: Iterable[str], size: tuple[int, int] | None = None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Stream (id, map, truth), both uint8 (height, width, classes), reading a few images ahead.

    `size` is submission.size: what is decided on the pairs is decided at the size at which it is scored. Maps
    are 0 where the truth is IGNORED, so that gates, objects and areas do not see these pixels either.
    """

    def read(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        maps, truth = store.read(image_id), data.read_mask(image_id)
        if maps.shape != truth.shape:
            raise UserError(
                f"{store.path(image_id, store.classes[0])} is {maps.shape[0]} x {maps.shape[1]}, but its image is "
                f"{truth.shape[0]} x {truth.shape[1]}; remove {store.folder} and make the maps again"
            )
        return scored_pair(maps, truth, size, store.are_exclusive)

    return ((image_id, *pair) for image_id, pair in prefetched(read, ids, ahead=4 * THREADS))


def scored_pair(
    maps: np.ndarray, truth: np.ndarray, size: tuple[int, int] | None, are_exclusive: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Maps and truth of an image at the size of the submission, the maps 0 where the truth is IGNORED."""
    maps, truth = decided(maps, size, are_exclusive), resized_mask(truth, size)
    return np.where(truth == IGNORED, 0, maps), truth


def decided(maps: np.ndarray, size: tuple[int, int] | None, are_exclusive: bool) -> np.ndarray:
    """Maps at the size of the submission; of classes that exclude each other only the highest of each pixel."""
    maps = resized(maps, size)
    return keep_highest(maps) if are_exclusive else maps


def keep_highest(maps: np.ndarray) -> np.ndarray:
    """Maps (height, width, classes) that are 0 but for the highest one of each pixel; in a tie the first class stays.

    With this, classes that exclude each other have a threshold each, and still no pixel is of two: it is of the class
    that is likeliest there, where that reaches its threshold, or of none.
    """
    is_highest = maps.argmax(axis=2)[..., None] == np.arange(maps.shape[2])
    return np.where(is_highest, maps, 0)


def scored_map(store: MapReader, image_id: str, size: tuple[int, int] | None) -> np.ndarray:
    """An image's maps uint8 (height, width, classes) at the size (height, width) of the submission, if it has one."""
    return decided(store.read(image_id), size, store.are_exclusive)


def scored_truth(data: TrainingData, image_id: str, size: tuple[int, int] | None) -> np.ndarray:
    """An image's true masks uint8 0, 1 or IGNORED (height, width, classes) at that size."""
    return resized_mask(data.read_mask(image_id), size)


def scored_masks(
    store: MapReader, image_id: str, rules: Mapping[str, Rule | ObjectRule], size: tuple[int, int] | None
) -> np.ndarray:
    """An image's masks uint8 0/1, or objects int32, (height, width, classes): what is submitted and scored.

    Every stage and tool makes its masks here. Areas in the rules are in pixels of that size.
    """
    return apply_rules(rules, scored_map(store, image_id, size))


def resized(maps: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Maps uint8 (height, width, classes) averaged down to `size` (height, width), or as they are without one.

    Probabilities are resized before the threshold: a mask of half the size keeps its borders within a pixel that way.
    """
    if size is None:
        return maps
    return np.stack([cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA) for plane in planes(maps)], axis=2)


def resized_mask(masks: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Masks uint8 (height, width, classes) resized likewise: mask, or IGNORED, where at least half of a pixel is."""
    if size is None:
        return masks
    small = (resized(np.where(masks == 1, 255, 0).astype(np.uint8), size) > 127).view(np.uint8)
    if (masks == IGNORED).any():
        small[resized(np.where(masks == IGNORED, 255, 0).astype(np.uint8), size) > 127] = IGNORED
    return small
