import numpy as np
import pytest

from lib.folds.id_patterns import Series
from lib.folds.likeness import nearest, unit_vectors
from lib.folds.series import _links, cut, likeness_of_series, log_threshold, places


def walk(seed: int, scenes: int, length: int, step: float) -> np.ndarray:
    """Frames of several scenes, each a random walk."""
    rng = np.random.default_rng(seed)
    starts = rng.normal(0, 1, (scenes, 1, 16))
    frames = starts + np.cumsum(rng.normal(0, step, (scenes, length, 16)), axis=1)
    return unit_vectors(frames.reshape(-1, 16), 0, 1)


def in_order(count: int, numbers: np.ndarray | None = None) -> Series:
    numbers = np.arange(count) if numbers is None else numbers
    return Series("number", np.full(count, ""), numbers[:, None])


def neighbours(vectors: np.ndarray) -> np.ndarray:
    own = np.arange(len(vectors))
    return nearest(vectors, vectors, (own, own))[0]


def joined(groups: np.ndarray) -> np.ndarray:
    return groups[:, None] == groups


def test_frames_are_alike_and_shuffled_frames_are_not():
    vectors, everything = walk(0, 5, 20, 0.05), np.arange(100)
    assert likeness_of_series(in_order(100), neighbours(vectors), everything, everything).kappa > 0.5
    shuffled = vectors[np.random.default_rng(1).permutation(100)]
    assert abs(likeness_of_series(in_order(100), neighbours(shuffled), everything, everything).z) < 4


def test_cut_where_the_images_change():
    groups = cut(in_order(100), walk(0, 10, 10, 0.03), most=10)[-1].groups
    assert (joined(groups) == joined(np.arange(100) // 10)).all()


def test_cut_at_gaps_in_any_order_of_the_rows():
    rng = np.random.default_rng(0)
    numbers = np.concatenate([start + np.cumsum(rng.integers(1, 4, 8)) for start in range(0, 5000, 500)])
    order = rng.permutation(80)
    partition = cut(in_order(80, numbers[order]), rng.normal(0, 1, (80, 4)), most=20)[0]
    assert partition.name == "number, cut at its gaps" and not partition.is_cut
    assert (joined(partition.groups) == joined((np.arange(80) // 8)[order])).all()


def test_numbers_in_a_row_have_no_gaps():
    assert [partition.name for partition in cut(in_order(50), walk(0, 5, 10, 0.05), 10)] == [
        "number, cut where the images change"
    ]


def test_a_long_scene_is_cut_to_fill_the_folds_where_it_is_weakest():
    vectors = walk(3, 1, 64, 0.02)
    vectors[30:] = unit_vectors(vectors[30:] + 0.4 * np.eye(16)[0], 0, 1)  # the light changes a little
    partition = cut(in_order(64), vectors, most=20)[-1]
    assert partition.is_cut
    assert np.unique(partition.groups, return_counts=True)[1].max() <= 20
    assert partition.groups[29] != partition.groups[30]
    changes = np.count_nonzero(partition.groups[1:] != partition.groups[:-1])
    assert changes == len(set(partition.groups)) - 1  # blocks are unbroken


def test_links_are_the_best_pair_across_the_cut():
    vectors = walk(0, 3, 4, 0.3)
    for place, link in enumerate(_links(vectors)):
        before, after = vectors[max(0, place - 1) : place + 1], vectors[place + 1 : place + 3]
        assert link == pytest.approx(float((before @ after.T).max()), abs=1e-6)


def test_limit_between_small_and_large_maximises_the_variance_between():
    values = np.array([1, 2, 2, 3, 400, 500, 900.0])
    limit, times = log_threshold(values)
    assert 3 < limit < 400
    assert times == pytest.approx((400 * 500 * 900) ** (1 / 3) / 12**0.25)


def test_grid_blocks_are_compact_and_whole():
    rows, columns = np.divmod(np.arange(144), 12)
    series = Series("grid", np.full(144, "slide"), np.stack([rows * 512, columns * 512], axis=1))
    assert places(series)[:, 0].tolist() == rows.tolist()
    (partition,) = cut(series, np.empty((144, 0)), most=20)
    assert partition.is_cut
    names, counts = np.unique(partition.groups, return_counts=True)
    assert counts.max() <= 20
    for name in names:
        members = partition.groups == name
        area = (np.ptp(rows[members]) + 1) * (np.ptp(columns[members]) + 1)
        assert area == members.sum()  # a full rectangle
