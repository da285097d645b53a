import itertools

import numpy as np
import pytest

from lib.folds import likeness
from lib.folds.likeness import likeness_beyond, likeness_of_groups, likeness_of_places, nearest, unit_vectors


def random_vectors(seed: int, count: int, dimensions: int = 8) -> np.ndarray:
    features = np.random.default_rng(seed).normal(3, 2, (count, dimensions))
    return unit_vectors(features, features.mean(axis=0), features.std(axis=0))


@pytest.mark.parametrize("block_bytes", [1, 1 << 26])
def test_nearest_is_what_comparing_all_pairs_finds(monkeypatch, block_bytes):
    monkeypatch.setattr(likeness, "BLOCK_BYTES", block_bytes)
    vectors, others = random_vectors(0, 30), random_vectors(1, 25)
    own, their = np.arange(30) % 4, np.arange(25) % 4
    found, similarity = nearest(vectors, others, (own, their))
    for i in range(30):
        allowed = [j for j in range(25) if their[j] != own[i]]
        best = max(allowed, key=lambda j: float(np.dot(vectors[i], others[j])))
        assert found[i] == best and similarity[i] == pytest.approx(float(np.dot(vectors[i], others[best])), abs=1e-5)


def test_nearest_of_nothing_left():
    vectors = random_vectors(0, 3)
    found, similarity = nearest(vectors, vectors, (np.zeros(3), np.zeros(3)))
    assert found.tolist() == [-1, -1, -1] and similarity.tolist() == [-1, -1, -1]


def test_chance_is_the_mean_over_all_ways_of_dealing_the_names():
    groups, neighbour = np.array(list("aabbbc")), np.array([1, 0, 0, 2, 5, 3])
    shares = [np.mean(np.array(dealt)[neighbour] == dealt) for dealt in itertools.permutations(groups)]
    found = likeness_of_groups(groups, neighbour)
    assert found.chance == pytest.approx(np.mean(shares))
    assert found.deviation == pytest.approx(np.std(shares), rel=0.25)  # 200 deals of 720
    assert found.share == np.mean([True, True, False, True, False, False])  # by hand
    assert found.kappa == pytest.approx((found.share - found.chance) / (1 - found.chance))


def test_places_count_only_within_reach_and_key():
    keys, places = np.array(list("aaaabbbb")), np.array([[0], [1], [2], [3], [0], [1], [2], [3]])
    neighbour = np.array([2, 4, 3, 0, 5, 0, 7, 4])
    found = likeness_of_places(keys, places, neighbour, 1, judges=np.arange(8))
    assert found.share == 3 / 8  # 2-3, 4-5 and 6-7
    dealt = [
        np.mean([keys[i] == keys[j] and abs(of[i] - of[j]) <= 1 for i, j in enumerate(neighbour)])
        for first in itertools.permutations(range(4))
        for second in itertools.permutations(range(4))
        for of in [[*first, *second]]
    ]
    assert found.chance == pytest.approx(np.mean(dealt), abs=0.05)


def test_likeness_beyond_fine_groups():
    """Rooms of houses: images of a house are alike only if the house adds something to its rooms."""
    rng = np.random.default_rng(0)
    room = np.repeat(np.arange(24), 5)
    house = room // 4
    of_room = rng.normal(0, 1, (24, 16))[room] + rng.normal(0, 0.2, (120, 16))
    assert abs(likeness_beyond(house, room, unit_vectors(of_room, 0, 1)).kappa) < 0.2
    of_house = of_room + 3 * rng.normal(0, 1, (6, 16))[house]
    assert likeness_beyond(house, room, unit_vectors(of_house, 0, 1)).kappa > 0.9
