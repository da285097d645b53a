"""Images that continue one another, such as the tiles that a photo was cut into: seen at their borders, whatever the
ids say.

The right border of an image is compared with the left borders of all others, its lower border with the upper ones. Two
borders fit if each is the other's best by far, as in solvers of jigsaw puzzles ("best buddies", Pomeranz et al., CVPR
2011). Borders that cannot meet, such as two right ones, show how many fit by chance. Tiles that were turned, mirrored
or scaled are not recognised.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from lib.folds.duplicates import linked

RIGHT, LEFT, LOWER, UPPER = range(4)
MEETING = ((RIGHT, LEFT), (LOWER, UPPER))
STEPS = ((0, 1), (1, 0))  # rows and columns from the first image of such a pair to the second
NEVER_MEETING = tuple((side, side) for side in (RIGHT, LEFT, LOWER, UPPER))
PLAIN = 2.0  # gray levels: standard deviation along a border, below which it fits anything
BY_FAR = 0.3  # squared distance to the best border, as a share of that to the second best
FEWEST, WORTH_SAYING = 10, 0.05  # images that continue another one: number, and share of all
MORE = 10  # times as many borders fit as by chance
SAMPLE = 1000  # images of which all borders are compared first; the rest only if these are pieces of a mosaic
ROWS = 256  # borders compared with all others at a time


class Mosaics(NamedTuple):
    """Images that continue one another, directly or by a chain."""

    groups: np.ndarray  # (images,) numbers
    places: np.ndarray  # (images, 2) row and column in the mosaic, from 0


def borders_of(thumbnail: np.ndarray) -> np.ndarray:
    """The borders (4, side), uint8, of a thumbnail (side, side, channels), extrapolated by half a pixel, in gray."""
    ends = [-1, -2, 0, 1]  # the outer and the next pixels at either end
    strips = np.concatenate([thumbnail[:, ends].swapaxes(0, 1), thumbnail[ends]]).mean(axis=2, dtype=np.float32)
    return np.clip(1.5 * strips[::2] - 0.5 * strips[1::2], 0, 255).astype(np.uint8)


def find_mosaics(borders: np.ndarray) -> Mosaics | None:
    """The mosaics that images are tiles of; None if too few continue another one.

    `borders` are those of all images, uint8 (images, 4, side). If there are many, a sample decides whether all are
    compared.
    """
    count = len(borders)
    sample = np.sort(np.random.default_rng(0).permutation(count)[:SAMPLE])
    pairs, by_chance = (_pairs_of_sides(borders, sides, sample) for sides in (MEETING, NEVER_MEETING))
    fitting = np.concatenate(pairs)
    joined = np.isin(sample, fitting).sum()
    chance = len(np.concatenate(by_chance)) * len(MEETING) / len(NEVER_MEETING)
    if joined < max(FEWEST, WORTH_SAYING * len(sample)) or len(fitting) < MORE * chance:
        return None
    if len(sample) < count:
        pairs = _pairs_of_sides(borders, MEETING, np.arange(count))
    groups = linked(*np.concatenate(pairs).T, count)
    return Mosaics(groups, _places(groups, pairs))


def count_continuing(tests: np.ndarray, borders: np.ndarray) -> int:
    """The number of test images that continue a training image; both borders as in `find_mosaics`."""
    everything, count = np.concatenate([borders, tests]), len(borders)
    numbers, continuing = np.arange(count, len(everything)), set()
    for pairs in _pairs_of_sides(everything, (*MEETING, *(sides[::-1] for sides in MEETING)), numbers):
        continuing |= set(pairs[pairs[:, 1] < count, 0].tolist())
    return len(continuing)


def _pairs_of_sides(borders: np.ndarray, sides: Iterable[tuple[int, int]], numbers: np.ndarray) -> list[np.ndarray]:
    """The `fitting_pairs` of each pair of sides."""
    return [fitting_pairs(borders[:, first], borders[:, second], numbers) for first, second in sides]


def fitting_pairs(borders: np.ndarray, others: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Pairs (image of `numbers`, other image), int (pairs, 2), whose borders are each other's best by far.

    Borders are of all images, uint8 (images, side).
    """
    best, is_clear = _best_by_far(borders, others, numbers)
    numbers, best = numbers[is_clear], best[is_clear]
    back, is_clear = _best_by_far(others, borders, best)
    mutual = is_clear & (back == numbers)
    return np.stack([numbers[mutual], best[mutual]], axis=1)


def _places(groups: np.ndarray, pairs: list[np.ndarray]) -> np.ndarray:
    """Row and column of each image in its mosaic, by the first of its pairs that leads there."""
    steps = defaultdict(list)
    for of_direction, step in zip(pairs, STEPS, strict=True):
        for first, second in of_direction.tolist():
            steps[first].append((second, np.array(step)))
            steps[second].append((first, -np.array(step)))
    places, is_placed = np.zeros((len(groups), 2), int), np.zeros(len(groups), bool)
    for start in steps:
        waiting = deque([] if is_placed[start] else [start])
        is_placed[start] = True
        while waiting:
            image = waiting.popleft()
            for other, step in steps[image]:
                if not is_placed[other]:
                    places[other], is_placed[other] = places[image] + step, True
                    waiting.append(other)
    corners = np.zeros((groups.max() + 1, 2), int)
    np.minimum.at(corners, groups, places)
    return places - corners[groups]


def _best_by_far(borders: np.ndarray, others: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The other image with the border nearest to that of each of `numbers`, and whether it is nearest by far."""
    others = others.astype(np.float32)
    lengths, is_plain = (others**2).sum(axis=1), others.std(axis=1) < PLAIN
    best, is_clear = np.zeros(len(numbers), int), np.zeros(len(numbers), bool)
    for start in range(0, len(numbers), ROWS):
        part = numbers[start : start + ROWS]
        mine, rows = borders[part].astype(np.float32), np.arange(len(part))
        distances = (mine**2).sum(axis=1)[:, None] + lengths - 2 * mine @ others.T
        distances[:, is_plain] = np.inf
        distances[rows, part] = np.inf
        nearest = distances.argmin(axis=1)
        least = distances[rows, nearest]
        distances[rows, nearest] = np.inf
        is_clear[start : start + ROWS] = (least < BY_FAR * distances.min(axis=1)) & (mine.std(axis=1) >= PLAIN)
        best[start : start + ROWS] = nearest
    return best, is_clear
