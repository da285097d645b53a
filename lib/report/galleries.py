"""Galleries: which images are worth looking at, each drawn as a row of small pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lib.data.competition import TestData, TrainingData
from lib.masks.metrics import count_mask, dice
from lib.masks.rules import Rule
from lib.prediction.map_store import MapStore, read_pairs, scored_map
from lib.report.measures import OofScores, TestLook
from lib.report.pictures import (
    PREDICTION,
    TRUTH,
    data_uri,
    errors_picture,
    mask_picture,
    probability_picture,
    shown_image,
)

SHOWN = 8  # images of a gallery


class Place(NamedTuple):
    """One class of one image."""

    id: str
    layer: int


class Picture(NamedTuple):
    """What a picture shows, its data URI, and its size in pixels."""

    what: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Item:
    """One row of pictures and the words above it."""

    id: str
    name: str  # of the class, where there are several
    words: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures that have something in common."""

    key: str
    title: str
    words: str
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
        name = self.data.classes[place.layer]
        shown = shown_image(self.data.open_image(place.id))
        _, maps, truths = next(read_pairs(self.maps, self.data, [place.id], self.size))
        probability_map, truth = (np.ascontiguousarray(planes[..., place.layer]) for planes in (maps, truths))
        pictures = [
            ("image", shown),
            ("truth", mask_picture(shown, truth, TRUTH)),
            ("probability", probability_picture(shown, probability_map)),
        ]
        scores = []
        processed = self.after and self.after[name].steps
        for what, rules in (("threshold only", self.before), ("with morphology", self.after if processed else None)):
            if rules:
                mask = rules[name].apply(probability_map)
                scores.append(f"{mask_dice(mask, truth):.3f}")
                pictures.append((what, errors_picture(shown, mask, truth)))
        words = "Dice " + " → ".join(scores)
        return Item(place.id, several(self.data.classes, name), words, encoded(pictures))


@dataclass(frozen=True)
class TestPainter:
    """Draws test images with their masks."""

    __test__ = False

    data: TestData
    maps: MapStore
    size: tuple[int, int] | None  # of the masks in the submission
    rules: dict[str, Rule]

    def paint(self, place: Place, looked: TestLook) -> Item:
        """Image | probability | mask."""
        name = self.data.classes[place.layer]
        shown = shown_image(self.data.open_image(place.id))
        maps = scored_map(self.maps, place.id, self.size)
        probability_map = np.ascontiguousarray(maps[..., place.layer])
        mask = self.rules[name].apply(probability_map)
        pictures = [
            ("image", shown),
            ("probability", probability_picture(shown, probability_map)),
            ("mask", mask_picture(shown, mask, PREDICTION)),
        ]
        words = f"certainty {looked.certainty[place.layer]:.3f}, covers {looked.coverage[place.layer]:.1%}"
        return Item(place.id, several(self.data.classes, name), words, encoded(pictures))


def mask_dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two masks, uint8 0/1 (height, width)."""
    return float(dice(*count_mask(mask, truth)))


def ranked_galleries(scores: OofScores, paint: Callable[[Place], Item]) -> list[Gallery]:
    """The images of the worst, middle and best Dice at the threshold rules, one class at a time.

    Ties: more wrong pixels are worse. Images whose truth is empty may be among the worst, never among the best.
    """
    order = np.lexsort((-scores.wrong.ravel(), scores.dice.ravel()))
    solid = order[scores.positives.ravel()[order] > 0]
    worst = order[:SHOWN]
    best = solid[::-1][:SHOWN]
    best = best[~np.isin(best, worst)]
    middle = solid[max((len(solid) - SHOWN) // 2, 0) :][:SHOWN]
    middle = middle[~np.isin(middle, [*worst, *best])]
    chosen = [
        ("worst", "Worst", "The lowest Dice; ties: most wrong pixels first.", worst),
        ("median", "Median", "Around the median Dice of the images that have something to find.", middle),
        ("best", "Best", "The highest Dice of the images that have something to find.", best),
    ]
    return [
        Gallery(key, title, words, [paint(_place(scores, index)) for index in indices], folded=key != "worst")
        for key, title, words, indices in chosen
        if len(indices)
    ]


def changed_galleries(
    gains: np.ndarray, scores: OofScores, paint: Callable[[Place], Item], metric: str
) -> list[Gallery]:
    """The images that the morphology changes most, for the better and for the worse; `gains` (images, classes)."""
    flat = gains.ravel()
    order = np.argsort(flat, kind="stable")
    better = [index for index in order[::-1][:SHOWN] if flat[index] > 0]
    worse = [index for index in order[:SHOWN] if flat[index] < 0]
    chosen = [
        ("better", "Improved by morphology", f"Where {metric} rises most.", better),
        ("worse", "Harmed by morphology", f"Where {metric} falls most.", worse),
    ]
    return [
        Gallery(key, title, words, [paint(_place(scores, index)) for index in indices])
        for key, title, words, indices in chosen
        if len(indices)
    ]


def certainty_galleries(looks: dict[str, TestLook], paint: Callable[[Place, TestLook], Item]) -> list[Gallery]:
    """The test images of which the maps are least and most certain, among those with a mask."""
    places = [
        (float(look.certainty[layer]), Place(image_id, layer))
        for image_id, look in looks.items()
        for layer in range(len(look.certainty))
        if np.isfinite(look.certainty[layer])
    ]
    places.sort()
    least, most = places[:SHOWN], places[SHOWN:][::-1][:SHOWN]
    return [
        Gallery(key, title, words, [paint(place, looks[place.id]) for _, place in chosen], folded=key == "most")
        for key, title, words, chosen in (
            ("least", "Least certain", "Look here first: the model is most likely to be wrong here.", least),
            ("most", "Most certain", "Where the map is almost black and white.", most),
        )
        if chosen
    ]


def _place(scores: OofScores, index: int) -> Place:
    row, layer = divmod(int(index), len(scores.classes))
    return Place(scores.ids[row], layer)


def several(classes: list[str], name: str) -> str:
    """The name of a class, or nothing where there is but one."""
    return name if len(classes) > 1 else ""


def encoded(pictures: list[tuple[str, np.ndarray]]) -> list[Picture]:
    """The pictures, uint8 RGB (height, width, 3), as data URIs."""
    return [Picture(what, data_uri(pixels), pixels.shape[1], pixels.shape[0]) for what, pixels in pictures]
