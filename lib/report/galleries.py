"""Galleries: which images are worth looking at, each drawn as a row of small pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lib.data.competition import TestData, TrainingData
from lib.masks.metrics import count_mask, dice
from lib.masks.rules import Rule
from lib.prediction.map_store import MapStore, presence_for, read_pairs, scored_map
from lib.report.measures import OofScores, TestStats
from lib.report.pictures import (
    PREDICTION,
    TRUTH,
    data_uri,
    errors_picture,
    mask_picture,
    probability_picture,
    shown_image,
)

IN_GALLERY = 8  # images of a gallery


class Place(NamedTuple):
    """One class of one image."""

    id: str
    class_index: int


class Picture(NamedTuple):
    """A title, the picture as a data URI, and its size in pixels."""

    title: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Item:
    """One row of pictures and the line above it."""

    id: str
    name: str  # of the class, where there are several
    caption: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures that have something in common."""

    key: str
    title: str
    description: str
    items: list[Item]
    folded: bool = False  # shown once it is opened


@dataclass(frozen=True)
class OofPainter:
    """Draws training images with their out-of-fold masks."""

    data: TrainingData
    maps: MapStore
    size: tuple[int, int] | None  # of the masks in the submission
    before: dict[str, Rule]
    after: dict[str, Rule] | None  # once the morphology is chosen

    def paint(self, place: Place) -> Item:
        """Image | truth | probability | threshold only | with morphology (if any was adopted), with the masks' Dice."""
        name = self.data.classes[place.class_index]
        shown = shown_image(self.data.open_image(place.id))
        _, maps, truths = next(read_pairs(self.maps, self.data, [place.id], self.size))
        probability_map, truth = (np.ascontiguousarray(planes[..., place.class_index]) for planes in (maps, truths))
        pictures = [
            ("image", shown),
            ("truth", mask_picture(shown, truth, TRUTH)),
            ("probability", probability_picture(shown, probability_map)),
        ]
        scores = []
        processed = self.after and self.after[name].steps
        for title, rules in (("threshold only", self.before), ("with morphology", self.after if processed else None)):
            if rules:
                mask = rules[name].apply(probability_map, presence_of(name, rules, self.maps, place.id))
                scores.append(f"{mask_dice(mask, truth):.3f}")
                pictures.append((title, errors_picture(shown, mask, truth)))
        caption = "Dice " + " → ".join(scores)
        return Item(place.id, class_label(self.data.classes, name), caption, encode_pictures(pictures))


@dataclass(frozen=True)
class TestPainter:
    """Draws test images with their masks."""

    __test__ = False

    data: TestData
    maps: MapStore
    size: tuple[int, int] | None  # of the masks in the submission
    rules: dict[str, Rule]

    def paint(self, place: Place, stats: TestStats) -> Item:
        """Image | probability | mask."""
        name = self.data.classes[place.class_index]
        shown = shown_image(self.data.open_image(place.id))
        maps = scored_map(self.maps, place.id, self.size)
        probability_map = np.ascontiguousarray(maps[..., place.class_index])
        mask = self.rules[name].apply(probability_map, presence_of(name, self.rules, self.maps, place.id))
        pictures = [
            ("image", shown),
            ("probability", probability_picture(shown, probability_map)),
            ("mask", mask_picture(shown, mask, PREDICTION)),
        ]
        caption = f"certainty {stats.certainty[place.class_index]:.3f}, covers {stats.coverage[place.class_index]:.1%}"
        return Item(place.id, class_label(self.data.classes, name), caption, encode_pictures(pictures))


def presence_of(name: str, rules: dict[str, Rule], maps: MapStore, image_id: str) -> int | None:
    """The presence of one class in an image, where a rule asks for it."""
    presence = presence_for(rules, maps, image_id)
    return None if presence is None else int(presence[list(rules).index(name)])


def mask_dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(dice(*count_mask(mask, truth)))


def ranked_galleries(scores: OofScores, paint: Callable[[Place], Item]) -> list[Gallery]:
    """Galleries of the worst, median and best Dice at the threshold rules, one class at a time.

    Ties: more wrong pixels are worse. Images whose truth is empty may be among the worst, never among the best.
    """
    order = np.lexsort((-scores.wrong.ravel(), scores.dice.ravel()))
    solid = order[scores.positives.ravel()[order] > 0]
    worst = order[:IN_GALLERY]
    best = solid[::-1][:IN_GALLERY]
    best = best[~np.isin(best, worst)]
    middle = solid[max((len(solid) - IN_GALLERY) // 2, 0) :][:IN_GALLERY]
    middle = middle[~np.isin(middle, [*worst, *best])]
    chosen = [
        ("worst", "Worst", "The lowest Dice; ties: most wrong pixels first.", worst),
        ("median", "Median", "Around the median Dice of the images that have something to find.", middle),
        ("best", "Best", "The highest Dice of the images that have something to find.", best),
    ]
    return [
        Gallery(key, title, description, [paint(_place(scores, index)) for index in indices], folded=key != "worst")
        for key, title, description, indices in chosen
        if len(indices)
    ]


def changed_galleries(
    gains: np.ndarray, ids: Sequence[str], paint: Callable[[Place], Item], headings: Sequence[tuple[str, str, str]]
) -> list[Gallery]:
    """A gallery of the images that gain most and one of those that lose most; `gains` is (images, classes).

    `headings` are the key, title and description of each.
    """
    changed = [[Place(ids[row], class_index) for row, class_index in rows] for rows in most_changed(gains, IN_GALLERY)]
    return [
        Gallery(*heading, list(map(paint, places))) for heading, places in zip(headings, changed, strict=True) if places
    ]


def most_changed(gains: np.ndarray, count: int) -> list[list[tuple[int, int]]]:
    """(image, class) of the `count` largest gains, and of as many losses, largest first; 0 is neither."""
    flat = gains.ravel()
    order = np.argsort(-flat, kind="stable")
    indices = order[:count][flat[order[:count]] > 0], order[::-1][:count][flat[order[::-1][:count]] < 0]
    return [[divmod(index, gains.shape[1]) for index in chosen.tolist()] for chosen in indices]


def certainty_galleries(stats: dict[str, TestStats], paint: Callable[[Place, TestStats], Item]) -> list[Gallery]:
    """Galleries of the test images with the least and the most certain maps, among those with a mask."""
    places = [
        (float(image.certainty[class_index]), Place(image_id, class_index))
        for image_id, image in stats.items()
        for class_index in range(len(image.certainty))
        if np.isfinite(image.certainty[class_index])
    ]
    places.sort()
    least, most = places[:IN_GALLERY], places[IN_GALLERY:][::-1][:IN_GALLERY]
    return [
        Gallery(key, title, description, [paint(place, stats[place.id]) for _, place in chosen], folded=key == "most")
        for key, title, description, chosen in (
            ("least", "Least certain", "The model is most likely to be wrong here.", least),
            ("most", "Most certain", "Where the map is almost black and white.", most),
        )
        if chosen
    ]


def _place(scores: OofScores, index: int) -> Place:
    row, class_index = divmod(int(index), len(scores.classes))
    return Place(scores.ids[row], class_index)


def class_label(classes: list[str], name: str) -> str:
    """The name of a class, or nothing where there is only one class."""
    return name if len(classes) > 1 else ""


def encode_pictures(pictures: list[tuple[str, np.ndarray]]) -> list[Picture]:
    """Titled pictures, uint8 RGB (height, width, 3), as data URIs."""
    return [Picture(title, data_uri(pixels), pixels.shape[1], pixels.shape[0]) for title, pixels in pictures]
