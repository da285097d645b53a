"""Images that continue one another, such as the tiles that a photo was cut into: seen at their borders, whatever the
ids say.

The right border of an image is compared with the left borders of all others, its lower border with the upper ones. Two
borders fit if each is the other's best by far, as in solvers of jigsaw puzzles ("best buddies", Pomeranz et al., CVPR
2011). Borders that cannot meet, such as two right ones, show how many fit by chance. Tiles that were turned, mirrored
or scaled are not recognised.
"""

import numpy as np

from lib.data.duplicates import linked

RIGHT, LEFT, LOWER, UPPER = range(4)
MEETING = ((RIGHT, LEFT), (LOWER, UPPER))
NEVER_MEETING = tuple((side, side) for side in (RIGHT, LEFT, LOWER, UPPER))
PLAIN = 2.0  # gray levels: standard deviation along a border, below which it fits anything
BY_FAR = 0.3  # squared distance to the best border, as a share of that to the second best
FEWEST, WORTH_SAYING = 10, 0.05  # images that continue another one: number, and share of all
MORE = 10  # times as many borders fit as by chance
SAMPLE = 1000  # images of which all borders are compared first; the rest only if these are pieces of a mosaic
ROWS = 256  # borders compared with all others at a time


def borders_of(thumbnail: np.ndarray) -> np.ndarray:
    """The borders (4, side), uint8, of a thumbnail (side, side, channels), extrapolated by half a pixel, in gray."""
    outer = np.stack([thumbnail[:, -1], thumbnail[:, 0], thumbnail[-1], thumbnail[0]]).mean(axis=2)
    inner = np.stack([thumbnail[:, -2], thumbnail[:, 1], thumbnail[-2], thumbnail[1]]).mean(axis=2)
    return np.clip(1.5 * outer - 0.5 * inner, 0, 255).astype(np.uint8)


def mosaic_groups(borders: np.ndarray) -> np.ndarray | None:
    """Groups of images that continue one another, directly or by a chain, as numbers; None if too few do.

    `borders` are those of all images, uint8 (images, 4, side). If there are many, a sample decides whether all are
    compared.
    """
    count = len(borders)
    sample = np.sort(np.random.default_rng(0).permutation(count)[:SAMPLE])
    fitting, by_chance = (
        np.concatenate([fitting_pairs(borders[:, first], borders[:, second], sample) for first, second in sides])
        for sides in (MEETING, NEVER_MEETING)
    )
    joined = np.isin(sample, fitting).sum()
    chance = len(by_chance) * len(MEETING) / len(NEVER_MEETING)
    if joined < max(FEWEST, WORTH_SAYING * len(sample)) or len(fitting) < MORE * chance:
        return None
    everything = np.arange(count)
    pairs = [fitting_pairs(borders[:, first], borders[:, second], everything) for first, second in MEETING]
    return linked(*np.concatenate(pairs).T, count)


def fitting_pairs(borders: np.ndarray, others: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Pairs (image of `numbers`, other image), int (pairs, 2), whose borders are each other's best by far.

    Borders are of all images, uint8 (images, side).
    """
    best, is_clear = _best_by_far(borders, others, numbers)
    numbers, best = numbers[is_clear], best[is_clear]
    back, is_clear = _best_by_far(others, borders, best)
    mutual = is_clear & (back == numbers)
    return np.stack([numbers[mutual], best[mutual]], axis=1)


def _best_by_far(borders: np.ndarray, others: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The other image whose border is nearest to that of each of `numbers`, and whether it is so by far."""
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
