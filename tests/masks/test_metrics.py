import zipfile
from dataclasses import replace
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.base.errors import UserError
from lib.masks.metrics import Counts, Metric, count_at_thresholds, count_images, dice, f_beta, iou, iou_sweep

COUNT = st.integers(0, 60)


def stream(rng: np.random.Generator, images: int, classes: int):
    """Random (id, map, truth) of different sizes, the truth of every third image empty."""
    for number in range(images):
        shape = (int(rng.integers(3, 12)), int(rng.integers(3, 12)), classes)
        truth = (rng.random(shape) < (0.3 if number % 3 else 0)).astype(np.uint8)
        yield f"image{number}", rng.integers(0, 256, shape, dtype=np.uint8), truth


@given(data=st.data(), shape=st.tuples(st.integers(1, 9), st.integers(1, 9)))
@settings(max_examples=50, deadline=None)
def test_counts_equal_thresholding_one_by_one(data, shape):
    probability_map = data.draw(arrays(np.uint8, shape))
    truth = data.draw(arrays(np.uint8, shape, elements=st.integers(0, 1)))
    tp, fp = count_at_thresholds(probability_map, truth)
    for threshold in range(1, 256):
        mask = probability_map >= threshold
        assert tp[threshold - 1] == (mask & (truth == 1)).sum()
        assert fp[threshold - 1] == (mask & (truth == 0)).sum()


def test_counts_of_a_large_map_are_exact():
    """OpenCV's histograms are float32, which holds no odd number of pixels as large as this."""
    side = 4097
    assert int(np.float32(side**2)) != side**2
    tp, fp = count_at_thresholds(np.full((side, side), 200, np.uint8), np.ones((side, side), np.uint8))
    assert tp.tolist() == [side**2] * 200 + [0] * 55 and not fp.any()


def test_counts_of_many_images_and_classes():
    images = list(stream(np.random.default_rng(0), 7, classes=3))
    counts = count_images(iter(images), ["a", "b", "c"])
    assert counts.ids.tolist() == [image_id for image_id, _, _ in images]
    for row, (_, probability_map, truth) in enumerate(images):
        for index in range(3):
            mask, positive = probability_map[..., index] >= 100, truth[..., index] == 1
            expected = [(mask & positive).sum(), (mask & ~positive).sum(), (~mask & positive).sum()]
            assert [table[row, index, 99] for table in (counts.tp, counts.fp, counts.fn)] == expected
        assert counts.pixels[row] == truth[..., 0].size


@pytest.mark.parametrize("presence", [None, np.arange(8, dtype=np.uint8).reshape(4, 2)])
def test_counts_survive_the_disk(tmp_path, presence):
    counts = count_images(stream(np.random.default_rng(0), 4, classes=2), ["a", "b"])
    counts = replace(counts, presence=presence)
    counts.save(tmp_path / "oof_counts.npz")
    loaded = Counts.load(tmp_path / "oof_counts.npz")
    for name, saved in vars(counts).items():
        if saved is None:
            assert getattr(loaded, name) is None
        else:
            assert np.array_equal(saved, getattr(loaded, name)) and saved.dtype == getattr(loaded, name).dtype
    assert [path.name for path in tmp_path.iterdir()] == ["oof_counts.npz"]


def npz_without_end() -> bytes:
    """A whole zip of an array whose header is no Python: numpy raises tokenize's error."""
    header = b"{'descr': '<i4', 'shape': (3,"
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tp.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return file.getvalue()


@pytest.mark.parametrize("content", [None, b"", b"no counts", b"PK\x03\x04broken", npz_without_end()])
def test_unreadable_counts_name_the_file(tmp_path, content):
    path = tmp_path / "oof_counts.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="oof_counts.npz"):
        Counts.load(path)


def test_another_npz_is_not_counts(tmp_path):
    np.savez(tmp_path / "oof_counts.npz", tp=np.zeros(3))
    with pytest.raises(UserError, match="not a file of pixel counts"):
        Counts.load(tmp_path / "oof_counts.npz")


def test_no_images_and_wrong_shapes_are_user_errors():
    with pytest.raises(UserError, match="no out-of-fold maps"):
        count_images([], ["a"])
    with pytest.raises(UserError, match="image7"):
        count_images([("image7", np.zeros((3, 4, 1), np.uint8), np.zeros((4, 3, 1), np.uint8))], ["a"])


@given(tp=COUNT, fp=COUNT, fn=COUNT, beta=st.sampled_from([0.5, 1, 2]))
@settings(max_examples=200, deadline=None)
def test_scores_equal_their_textbook_definitions(tp, fp, fn, beta):
    if tp + fp + fn == 0:
        assert dice(tp, fp, fn) == iou(tp, fp, fn) == iou_sweep(tp, fp, fn) == f_beta(tp, fp, fn, beta) == 1
        return
    precision, recall = (Fraction(tp, tp + wrong) if tp + wrong else Fraction(0) for wrong in (fp, fn))
    b2 = Fraction(beta) ** 2
    f_score = (1 + b2) * precision * recall / (b2 * precision + recall) if tp else Fraction(0)
    overlap = Fraction(tp, tp + fp + fn)
    assert f_beta(tp, fp, fn, beta) == pytest.approx(float(f_score), abs=1e-12)
    assert dice(tp, fp, fn) == pytest.approx(float(2 * overlap / (1 + overlap)), abs=1e-12)
    assert iou(tp, fp, fn) == pytest.approx(float(overlap), abs=1e-12)
    assert iou_sweep(tp, fp, fn) == sum(overlap > Fraction(k, 20) for k in range(10, 20)) / 10


def test_iou_sweep_counts_a_limit_only_when_exceeded():
    overlap = np.arange(0, 101, 5)
    expected = [0] * 11 + [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert iou_sweep(overlap, 100 - overlap, np.zeros(21, int)).tolist() == expected
    assert iou_sweep(56, 44, 0) == 0.2 and iou_sweep(96, 4, 0) == 1


@pytest.mark.parametrize("score", [dice, iou, iou_sweep, lambda *counts: f_beta(*counts, beta=2)])
def test_empty_rule(score):
    assert score(0, 0, 0) == 1
    assert score(0, 1, 0) == 0
    assert score(0, 0, 1) == 0


def test_counts_of_huge_images_do_not_overflow():
    half = np.array([2**30], np.int32)
    assert iou_sweep(half, half * 0, half * 0) == 1
    assert Metric("dice_global").score(half, half * 0, half * 0) == 1


def test_a_mean_weighs_images_and_a_pooled_metric_weighs_pixels():
    tp, fp, fn = np.array([[8, 0], [1, 0]]), np.array([[0, 0], [3, 5]]), np.array([[0, 0], [0, 0]])
    assert Metric("dice").score(tp, fp, fn) == pytest.approx([(1 + 0.4) / 2, 0.5])
    assert Metric("dice_global").score(tp, fp, fn) == pytest.approx([18 / 21, 0])
    assert Metric("dice_global").score(tp[:1], fp[:1], fn[:1]).tolist() == [1, 1]
    assert str(Metric("f_beta", 0.5)) == "F-beta (0.5)"
