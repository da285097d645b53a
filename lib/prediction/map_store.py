"""Probability maps on disk: one 8-bit PNG per image and class, `<folder>/[<class>/]<id>.png`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from lib.base.errors import UserError, listed
from lib.base.prefetch import prefetched
from lib.config.schema import Settings
from lib.data.competition import TrainingData
from lib.masks.metrics import IGNORED, Counts, Pair, count_images
from lib.masks.objects import ObjectRule
from lib.masks.resize import Size, resized, resized_mask
from lib.masks.rules import Rule, apply_rules
from lib.prediction.sealed_png import before_seal, png_pixels, read_sealed, text_chunk, write_sealed
from lib.run.folder import RunFolder

CHUNKS_LENGTH = 200  # bytes before the seal that hold the other chunks


class Prediction(NamedTuple):
    """The prediction for an image."""

    maps: np.ndarray  # uint8 (height, width, classes)
    presence: np.ndarray | None = None  # uint8 (classes,): round(255 p) of the image's holding the class, if predicted

    def at_size(self, size: Size) -> "Prediction":
        """The same with maps of another size (height, width)."""
        return self._replace(maps=resized(self.maps, size))


class MapReader(Protocol):
    """A source of maps, such as a MapStore."""

    are_exclusive: bool  # a pixel is of one class at most

    def read(self, image_id: str) -> np.ndarray: ...
    def presence(self, image_id: str) -> np.ndarray | None: ...


@dataclass(frozen=True)
class MapStore:
    """Maps of one kind (out-of-fold or test) below one folder; with one class there is no class folder.

    Each PNG ends in a seal that names image and class (lib/prediction/sealed_png.py). Text chunks before the seal hold
    what the map was made from, and presence where it is predicted. A map made from anything but what `makers` says
    counts as absent, so the maps of older models are replaced one by one and never taken for those of the present ones.
    """

    folder: Path
    classes: tuple[str, ...]
    are_exclusive: bool = False  # a pixel is of one class at most
    makers: Mapping[str, str] | None = None  # by image: fingerprint of what its maps are made from; None: any is read

    def path(self, image_id: str, class_name: str) -> Path:
        return (self.folder / class_name if len(self.classes) > 1 else self.folder) / f"{image_id}.png"

    def has(self, image_id: str) -> bool:
        """True where the maps of all classes of an image are there, intact, and made from what `makers` says."""
        return all(self._content(image_id, name) is not None for name in self.classes)

    def require(self, ids: Iterable[str]) -> None:
        """Raise UserError unless the maps of all these images are there, intact, and made from what `makers` says."""
        missing = [image_id for image_id, is_there in prefetched(self.has, ids) if not is_there]
        if missing:
            raise UserError(
                f"probability maps of {listed(missing)} in {self.folder} are absent, damaged, or of other images or "
                f"models; to make them again, run {self._remedy}"
            )

    def write(self, image_id: str, maps: np.ndarray, presence: np.ndarray | None = None) -> None:
        """Write one image's maps, uint8 (height, width, classes), and its presence, uint8 (classes,), if any."""
        for class_index, (name, values) in enumerate(zip(self.classes, np.moveaxis(maps, -1, 0), strict=True)):
            chunk = b"" if presence is None else presence_chunk(int(presence[class_index]))
            write_sealed(self.path(image_id, name), values, f"{name}/{image_id}", self._made_from(image_id) + chunk)

    def read(self, image_id: str) -> np.ndarray:
        """Read one image's maps, uint8 (height, width, classes). Raises UserError where `has` would be False."""
        return np.stack([png_pixels(self._require(image_id, name)) for name in self.classes], axis=-1)

    def presence(self, image_id: str) -> np.ndarray | None:
        """The presence of each class, uint8 (classes,), as it stands in an image's maps; None where it does not.

        Raises UserError as `read` does.
        """
        of_classes = [presence_in(self._require(image_id, name), f"{name}/{image_id}") for name in self.classes]
        return None if None in of_classes else np.array(of_classes, np.uint8)

    def _require(self, image_id: str, class_name: str) -> bytes:
        content = self._content(image_id, class_name)
        if content is None:
            path = self.path(image_id, class_name)
            state = "is damaged, edited, or of another image or model" if path.is_file() else "does not exist"
            raise UserError(f"probability map {path} {state}; to make it again, run {self._remedy}")
        return content

    def _content(self, image_id: str, class_name: str) -> bytes | None:
        """A map's bytes; None where it is absent, damaged, or of another image, class or maker."""
        name = f"{class_name}/{image_id}"
        content = read_sealed(self.path(image_id, class_name), name)
        if content is None or self._made_from(image_id) in before_seal(content, name)[-CHUNKS_LENGTH:]:
            return content
        return None

    def _made_from(self, image_id: str) -> bytes:
        """The text near the end of an image's maps that identifies what they were made from."""
        return b"" if self.makers is None else text_chunk(f"Made from\0{self.makers.get(image_id)}")

    @property
    def _remedy(self) -> str:
        stage = "03_oof_threshold" if self.folder.name == "oof" else "04_infer"
        return RunFolder(self.folder.parent).command(stage)


def presence_chunk(presence: int) -> bytes:
    """The PNG chunk before the seal that holds a predicted presence, 0 to 255."""
    return text_chunk(f"Presence\0{presence:03d}")


def presence_in(content: bytes, name: str) -> int | None:
    """The presence in a sealed map, or None where it holds none."""
    end = before_seal(content, name)[-len(presence_chunk(0)) :]
    digits = end[-7:-4]  # before the chunk's checksum
    presence = int(digits) if digits.isdigit() else 0
    return presence if end == presence_chunk(presence) else None


def read_presence(store: MapReader, ids: Iterable[str]) -> np.ndarray | None:
    """The presence of each class in some images, uint8 (images, classes); None where it is not predicted."""
    of_images = []
    for _, presence in prefetched(store.presence, ids):
        if presence is None:
            return None
        of_images.append(presence)
    return np.stack(of_images)


def count_maps(store: MapReader, data: TrainingData, ids: Sequence[str], size: tuple[int, int] | None) -> Counts:
    """The pixel counts and the presence of some images' maps; `size` is submission.size."""
    counts = count_images(read_pairs(store, data, ids, size), data.classes)
    return replace(counts, presence=read_presence(store, ids))


def to_map(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] as uint8 round(255 p)."""
    return np.rint(probabilities * 255).astype(np.uint8)


def read_pairs(
    store: MapReader, data: TrainingData, ids: Iterable[str], size: tuple[int, int] | None
) -> Iterator[Pair]:
    """Stream (id, map, truth), both uint8 (height, width, classes), reading a few images ahead.

    `size` is submission.size: what is decided on the pairs is decided at the size at which it is scored. Maps
    are 0 where the truth is IGNORED, so that gates, objects and areas do not see these pixels either.
    """

    def read(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        maps, truth = store.read(image_id), data.read_mask(image_id)
        if maps.shape != truth.shape:
            raise UserError(
                f"the probability map of '{image_id}' is {maps.shape[0]} x {maps.shape[1]}, but its image is "
                f"{truth.shape[0]} x {truth.shape[1]}; remove the run's folder oof and run 03_oof_threshold.py"
            )
        return scored_pair(maps, truth, size, store.are_exclusive)

    return ((image_id, *pair) for image_id, pair in prefetched(read, ids))


def read_objects(store: MapReader, data: TrainingData, ids: Iterable[str]) -> Iterator[Pair]:
    """Stream (id, map, true objects int32) at the images' own size, as `read_pairs` does."""

    def read(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        maps, objects = scored_map(store, image_id, None), data.read_objects(image_id)
        maps[objects < 0] = 0
        return maps, objects

    return ((image_id, *pair) for image_id, pair in prefetched(read, ids))


def read_scored(store: MapReader, data: TrainingData, ids: Iterable[str], settings: Settings) -> Iterator[Pair]:
    """Stream (id, map, truth) as the submission is scored: by masks or, with submission.rows=instance, by objects."""
    if settings.submission.rows == "instance":
        return read_objects(store, data, ids)
    return read_pairs(store, data, ids, settings.submission.size)


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

    `masks_by` makes the same of maps that are read already. Areas in the rules are in pixels of that size.
    """
    return masks_by(rules, scored_map(store, image_id, size), store, image_id)


def predicted_masks(prediction: Prediction, rules: Mapping[str, Rule | ObjectRule], settings: Settings) -> np.ndarray:
    """The same of a prediction that is not stored."""
    maps = decided(prediction.maps, settings.submission.size, settings.data.are_exclusive)
    return apply_rules(rules, maps, prediction.presence)


def masks_by(rules: Mapping[str, Rule | ObjectRule], maps: np.ndarray, store: MapReader, image_id: str) -> np.ndarray:
    """The masks or objects that the rules make of an image's maps, see `apply_rules`; its presence is in the store."""
    return apply_rules(rules, maps, presence_for(rules, store, image_id))


def presence_for(rules: Mapping[str, Rule | ObjectRule], store: MapReader, image_id: str) -> np.ndarray | None:
    """The presence of each class in an image, uint8 (classes,), where a rule asks for it."""
    return store.presence(image_id) if any(rule.presence is not None for rule in rules.values()) else None
