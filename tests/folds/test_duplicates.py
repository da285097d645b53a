import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn

from lib.folds import duplicates
from lib.folds.duplicates import describe_duplicates, duplicates_table, merged_groups, near_links
from lib.images.hashes import perceptual_hash, thumbnail


def textured(seed: int, height: int = 120, width: int = 160, channels: int = 3) -> np.ndarray:
    """An image with detail at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(rng.normal(0, 1, (height, width)), (0, 0), sigma) * sigma for sigma in (1, 3, 9, 27)]
    gray = 120 + 25 * sum(layers)
    return np.clip(gray[..., None] + rng.normal(0, 5, (height, width, channels)), 0, 255).astype(np.uint8)


def hash_of(image: np.ndarray) -> str:
    return perceptual_hash(thumbnail(image))


def bits_apart(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def spots(seed: int) -> np.ndarray:
    """Dark microscopy: the same uneven light in every image, a few spots at random places, some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128]
    image = 8 + 6 * x / 128 + rng.normal(0, 2, (128, 128))
    for _ in range(6):
        row, column = rng.uniform(0, 128, 2)
        image += rng.uniform(30, 90) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * rng.uniform(3, 7) ** 2))
    return np.clip(image, 0, 255).astype(np.uint8)[..., None]


CHANGES = {
    "jpeg": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1),
    "half size": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "brighter": lambda image: np.clip(image * 1.2 + 15, 0, 255).astype(np.uint8),
    "gamma": lambda image: (255 * (image / 255) ** 0.7).astype(np.uint8),
    "noise": lambda image: np.clip(image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255).astype(np.uint8),
    "gray": lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_image_stays_near(change):
    for seed in range(10):
        for image in (textured(seed), textured(seed, height=401, width=530)):
            assert bits_apart(hash_of(image), hash_of(CHANGES[change](image))) <= duplicates.NEAR_BITS


@pytest.mark.parametrize("channels", [1, 3, 4, 9])
def test_hash_is_the_signs_of_the_lowest_frequencies_of_the_mean_thumbnail(channels):
    image = textured(0, height=512, width=1024, channels=channels)
    mean = image.reshape(64, 8, 64, 16, channels).mean(axis=(1, 3, 4))
    signs = dctn(mean, norm="ortho")[:16, :16].ravel()[1:] > 0
    assert bits_apart(hash_of(image), np.packbits(signs).tobytes().hex()) <= 2  # of rounding


def test_different_images_are_far_apart():
    for make in (textured, spots):
        hashes = [hash_of(make(seed)) for seed in range(60)]
        closest = min(bits_apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i])
        assert closest > duplicates.NEAR_BITS * 1.5


def test_plain_images_are_like_no_other():
    black = np.zeros((50, 70, 1), np.uint8)
    slope = np.tile(np.arange(128, dtype=np.uint8), (128, 1))[..., None]  # frequencies of one direction only
    assert hash_of(black) == hash_of(black + 200) == hash_of(slope) == ""
    assert len(near_links(["", "", ""])) == 0


def test_hash_of_many_channels_and_tiny_images():
    assert len(hash_of(textured(0, channels=9))) == 64
    assert len(hash_of(textured(0, height=7, width=5, channels=1))) == 64


def linked_by_brute_force(hashes: list[str], limit: int) -> list[set[int]]:
    """Connected sets of two or more, by flooding."""
    sets, seen = [], set()
    for start in range(len(hashes)):
        reached, frontier = {start}, [start]
        while frontier:
            i = frontier.pop()
            near = [j for j, text in enumerate(hashes) if hashes[i] and text and bits_apart(hashes[i], text) <= limit]
            frontier += set(near) - reached
            reached |= set(near)
        if len(reached) > 1 and start not in seen:
            sets.append(reached)
            seen |= reached
    return sets


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_links_equal_brute_force(data, seed):
    rng = np.random.default_rng(seed)
    limit = data.draw(st.integers(0, 60))
    centres = rng.integers(0, 256, (4, 32), dtype=np.uint8)
    hashes = []
    for _ in range(data.draw(st.integers(0, 25))):
        bits = np.unpackbits(centres[rng.integers(4)])
        bits[rng.choice(255, rng.integers(0, 50), replace=False)] ^= 1
        hashes.append("" if rng.random() < 0.1 else np.packbits(bits).tobytes().hex())
    links = near_links(hashes, limit)
    assert all(i < j and bits_apart(hashes[i], hashes[j]) == bits <= limit for i, j, bits in links)
    expected = linked_by_brute_force(hashes, limit)
    assert len(links) == sum(len(members) - 1 for members in expected)  # as many as trees need, so no circle
    images = pd.DataFrame({"id": [f"{i:02d}" for i in range(len(hashes))], "group": None})
    images["sha256"] = images.id
    found = pd.Series(images.index, dtype=int).groupby(merged_groups(images, links)).apply(set) if len(images) else []
    assert sorted(map(sorted, (members for members in found if len(members) > 1))) == sorted(map(sorted, expected))


def test_links_do_not_depend_on_the_block_size(monkeypatch):
    rng = np.random.default_rng(0)
    base = np.unpackbits(rng.integers(0, 256, (5, 32), dtype=np.uint8), axis=1)
    flips = rng.random((80, 256)) < 0.05
    hashes = [np.packbits(base[i % 5] ^ flip).tobytes().hex() for i, flip in enumerate(flips)]
    whole = near_links(hashes)
    assert len(whole) == 75
    monkeypatch.setattr(duplicates, "CACHE_BYTES", 1)
    np.testing.assert_array_equal(near_links(hashes)[:, 2].sum(), whole[:, 2].sum())
    assert len(near_links(hashes)) == 75


def test_groups_join_by_name_pixels_and_likeness():
    images = pd.DataFrame(
        [
            ("a", "patient 2", "s1"),
            ("b", None, "s1"),  # the pixels of a
            ("c", "patient 1", "s2"),
            ("d", "patient 2", "s3"),  # the group of a
            ("e", None, "s4"),  # near d
            ("f", None, "s5"),
            ("g", "patient 3", "s2"),  # the pixels of c
        ],
        columns=["id", "group", "sha256"],
    )
    groups = merged_groups(images, np.array([[3, 4, 7]]))
    # b and e have names of their own, "b" and "e", which come before "patient 2"
    assert groups.tolist() == ["b", "b", "patient 1", "b", "b", "f", "patient 1"]
    order = np.random.default_rng(0).permutation(len(images))
    place = np.argsort(order)
    links = np.array([[place[3], place[4], 7]])
    shuffled = images.iloc[order].reset_index(drop=True)
    assert merged_groups(shuffled, links)[place].tolist() == groups.tolist()


def test_table_lists_pairs_and_what_their_masks_have_in_common():
    images = pd.DataFrame({"id": list("abcde"), "sha256": ["x", "y", "x", "z", "x"]})
    masks = {id: np.zeros((2, 2, 1), np.uint8) for id in "abcde"}
    masks["a"][0] = 1
    masks["e"][0] = 1
    masks["c"][:, 0] = 1
    masks["d"] = np.zeros((3, 3, 1), np.uint8)
    table = duplicates_table(images, np.array([[0, 2, 0], [1, 3, 9]]), masks.get)
    assert table.iloc[:, :4].values.tolist() == [["a", "c", "exact", 0], ["a", "e", "exact", 0], ["b", "d", "near", 9]]
    np.testing.assert_array_equal(table.mask_dice, [0.5, 1, np.nan])
    first, warning = describe_duplicates(table).splitlines()
    assert first == "2 exact and 1 near duplicates"
    assert warning.startswith("1 exact ") and "0.50" in warning and "'a' and 'c'" in warning


def test_no_duplicates():
    images = pd.DataFrame({"id": ["a", "b"], "sha256": ["x", "y"]})
    table = duplicates_table(images, near_links([]), None)
    assert len(table) == 0 and describe_duplicates(table) == "0 exact and 0 near duplicates"
