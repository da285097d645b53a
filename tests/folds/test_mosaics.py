"""Tiles of one photo are found by their borders; independent images are not joined."""

import numpy as np
import pytest

from lib.folds import mosaics
from lib.folds.mosaics import LEFT, LOWER, RIGHT, UPPER, borders_of, find_mosaics, fitting_pairs
from lib.images.hashes import thumbnail
from tests.folds.test_overlaps import pictures, texture


def tiles_of(photos: list[np.ndarray], each_way: int) -> tuple[np.ndarray, np.ndarray]:
    """Borders of the tiles of photos, shuffled, and for each (photo, row, column)."""
    places, borders = [], []
    for number, photo in enumerate(photos):
        side = len(photo) // each_way
        for row in range(each_way):
            for column in range(each_way):
                tile = photo[side * row : side * (row + 1), side * column : side * (column + 1), None]
                borders.append(borders_of(thumbnail(np.ascontiguousarray(tile))))
                places.append((number, row, column))
    order = np.random.default_rng(0).permutation(len(places))
    return np.stack(borders)[order], np.array(places)[order]


def test_borders_are_extrapolated_by_half_a_pixel():
    rows, columns = np.mgrid[:8, :8]
    ramp = (100 + 10 * columns + 2 * rows)[..., None].astype(np.uint8)
    borders = borders_of(ramp)
    along = 2 * np.arange(8)
    assert np.array_equal(borders[RIGHT], 175 + along) and np.array_equal(borders[LEFT], 95 + along)
    along = 10 * np.arange(8)
    assert np.array_equal(borders[UPPER], 99 + along) and np.array_equal(borders[LOWER], 115 + along)


@pytest.mark.parametrize("sample", [1000, 40])
def test_tiles_are_grouped_by_photo(sample, monkeypatch):
    monkeypatch.setattr(mosaics, "SAMPLE", sample)
    monkeypatch.setattr(mosaics, "ROWS", 7)
    borders, places = tiles_of([texture(seed) for seed in range(12)], 4)
    groups, found_places = find_mosaics(borders)
    same_group, same_photo = (labels[:, None] == labels for labels in (groups, places[:, 0]))
    assert not (same_group & ~same_photo).any()
    assert (same_group & same_photo).sum() > 0.7 * same_photo.sum()
    for group in np.unique(groups):
        true, found = places[groups == group, 1:], found_places[groups == group]
        assert np.array_equal(found, true - true.min(axis=0))


def test_pairs_that_fit_are_neighbours_in_the_photo():
    borders, places = tiles_of([texture(seed) for seed in range(12)], 4)
    everything = np.arange(len(places))
    for first, second, step in ((RIGHT, LEFT, (0, 0, 1)), (LOWER, UPPER, (0, 1, 0))):
        pairs = fitting_pairs(borders[:, first], borders[:, second], everything)
        assert (places[pairs[:, 1]] - places[pairs[:, 0]] == step).all()
        assert len(pairs) > 0.6 * 12 * 12  # twelve pairs each way in each of twelve photos


def test_a_pair_fits_exactly_if_each_is_the_others_best_by_far():
    random = np.random.default_rng(0)
    borders, others = (random.integers(0, 40, (30, 6)).astype(np.uint8) for _ in range(2))
    others[:10] = np.clip(borders[:10][::-1] + random.integers(-9, 9, (10, 6)), 0, 255)  # some fit, some nearly
    distances = ((borders[:, None].astype(float) - others) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    distances[borders.std(axis=1) < mosaics.PLAIN] = distances[:, others.std(axis=1) < mosaics.PLAIN] = np.inf
    expected = []
    for i in range(30):
        j = distances[i].argmin()
        limits = np.sort(distances[i])[1], np.sort(distances[:, j])[1]
        if distances[:, j].argmin() == i and distances[i, j] < mosaics.BY_FAR * min(limits):
            expected.append((i, j))
    assert 0 < len(expected) < 10
    assert [tuple(pair) for pair in fitting_pairs(borders, others, np.arange(30)).tolist()] == expected


@pytest.mark.parametrize("kind", ["one spot", "spots", "rim", "stripes", "textures", "plain"])
def test_independent_images_are_not_joined(kind):
    assert find_mosaics(np.stack([borders_of(picture[..., None]) for picture in pictures(kind)])) is None


def test_tiles_of_one_place_under_other_lights_are_not_joined():
    """Their right borders fit each other as well as they fit the neighbours' left ones: frames, not a mosaic."""
    borders, _ = tiles_of([np.clip(texture(seed) * light, 0, 255) for seed in (0, 1) for light in (0.8, 0.82, 0.84)], 3)
    assert find_mosaics(borders) is None
