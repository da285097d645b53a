"""The likeness of images of one group, compared with chance, by nearest neighbours.

The statistic is the share of images whose most similar other image is of the same group. Chance is what it would be if
the group names were dealt out at random. `kappa` is how far the share is above chance, of what it could be.
"""

from typing import NamedTuple

import numpy as np

from lib.masks.statistics import group_members, group_numbers

BLOCK_BYTES = 1 << 24  # of similarities in memory at a time; above 32 MB page faults (glibc) take a third of the time
PERMUTATIONS = 200


class Likeness(NamedTuple):
    """Share of images whose most similar one is of the same group; the same by chance, and its standard deviation."""

    share: float
    chance: float
    deviation: float

    @property
    def kappa(self) -> float:
        """(share - chance) / (1 - chance): 0 is chance, 1 is every image."""
        return (self.share - self.chance) / (1 - self.chance) if self.chance < 1 else 0.0

    @property
    def z(self) -> float:
        """Standard deviations above chance."""
        return (self.share - self.chance) / max(self.deviation, 1e-9)

    def reaches(self, kappa: float, z: float) -> bool:
        """Whether both are at least so large."""
        return self.kappa >= kappa and self.z >= z


def unit_vectors(features: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Features (images, dimensions) standardised and of length 1, float32: their products are similarities, -1 to 1."""
    standard = (features.astype(np.float32) - mean) / np.maximum(deviation, 1e-6)
    return standard / np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), 1e-6)


def nearest(vectors: np.ndarray, others: np.ndarray, not_of: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
    """The most similar of `others` for each of `vectors`: its number and similarity, both (vectors,).

    `not_of` holds two arrays of labels, of the vectors and of the others: those of the same label do not count. Where
    nothing is left, the number is -1 and the similarity -1. All are compared with all, in blocks.
    """
    labels, other_labels = not_of
    rows = max(1, BLOCK_BYTES // (4 * max(len(others), 1)))
    numbers, similarity = np.full(len(vectors), -1), np.full(len(vectors), -1.0, np.float32)
    for start in range(0, len(vectors), rows):
        part = slice(start, start + rows)
        products = vectors[part] @ others.T
        products[labels[part, None] == other_labels] = -np.inf
        best = products.argmax(axis=1)
        value = products[np.arange(len(best)), best]
        numbers[part] = np.where(np.isfinite(value), best, -1)
        similarity[part] = np.where(np.isfinite(value), value, -1)
    return numbers, similarity


def likeness_of_groups(groups: np.ndarray, neighbour: np.ndarray, judges: np.ndarray | None = None) -> Likeness:
    """Likeness within groups; `neighbour` is the most similar other image of each, `judges` whose count (all)."""
    numbers = group_numbers(groups)
    judges = np.arange(len(numbers)) if judges is None else judges
    rng = np.random.default_rng(0)
    dealt = [_share(rng.permutation(numbers), neighbour, judges) for _ in range(PERMUTATIONS)]
    sizes, count = np.bincount(numbers).astype(float), len(numbers)
    chance = float((sizes * (sizes - 1)).sum() / (count * (count - 1)))
    return Likeness(_share(numbers, neighbour, judges), chance, float(np.std(dealt)))


def likeness_beyond(coarse: np.ndarray, fine: np.ndarray, vectors: np.ndarray) -> Likeness:
    """Likeness within coarse groups of images that are not of the same fine group; every fine one lies in a coarse one.

    Chance deals out whole fine groups, so its deviation knows that images of one fine group are not independent.
    """
    coarse, fine = group_numbers(coarse), group_numbers(fine)
    neighbour, _ = nearest(vectors, vectors, (fine, fine))
    coarse_of = np.zeros(fine.max() + 1, int)
    coarse_of[fine] = coarse
    rng, everything = np.random.default_rng(0), np.arange(len(fine))
    dealt = [_share(rng.permutation(coarse_of)[fine], neighbour, everything) for _ in range(PERMUTATIONS)]
    return Likeness(_share(coarse, neighbour, everything), float(np.mean(dealt)), float(np.std(dealt)))


def likeness_of_places(
    keys: np.ndarray, places: np.ndarray, neighbour: np.ndarray, reach: int, judges: np.ndarray
) -> Likeness:
    """Likeness of images close in an order or a grid: those of one key, at most `reach` places apart in each direction.

    `judges` are the images that count, `neighbour` is the most similar other image of each.

    Chance deals out the places within each key, so likeness of a whole key does not count.
    """
    same_key, members = keys[neighbour] == keys, group_members(keys)
    rng = np.random.default_rng(0)

    def share(of: np.ndarray) -> float:
        return float((same_key & (np.abs(of[neighbour] - of).max(axis=1) <= reach))[judges].mean())

    dealt = []
    for _ in range(PERMUTATIONS):
        shuffled = places.copy()
        for key in members:
            shuffled[key] = places[rng.permutation(key)]
        dealt.append(share(shuffled))
    return Likeness(share(places), float(np.mean(dealt)), float(np.std(dealt)))


def _share(numbers: np.ndarray, neighbour: np.ndarray, judges: np.ndarray) -> float:
    return float((numbers[neighbour[judges]] == numbers[judges]).mean())
