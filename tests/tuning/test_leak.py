import json

import numpy as np
import pytest

from lib.config.data_settings import DataSettings
from lib.config.schema import Settings
from lib.folds.likeness import unit_vectors
from lib.run.folder import RunFolder
from lib.tuning.leak import (
    Distances,
    count_siblings,
    describe_leak,
    expect_on_new_scenes,
    matching_weights,
    measure_leak,
    nearest_pairs,
    to_dict,
)


def weights_by_brute_force(training: np.ndarray, test: np.ndarray, count: int) -> np.ndarray:
    weights = np.zeros(len(training))
    for distance in test:
        near = sorted(range(len(training)), key=lambda image: abs(training[image] - distance))[:count]
        weights[near] += 1 / count
    return weights


@pytest.mark.parametrize("count", [12, 60, 400])
def test_weights_are_those_of_the_nearest_distances(count):
    rng = np.random.default_rng(count)
    training, test = rng.uniform(0, 1, count), rng.uniform(0, 1, 30)
    weights, beyond = matching_weights(training, test)
    np.testing.assert_allclose(weights, weights_by_brute_force(training, test, max(10, round(0.05 * count))))
    assert weights.sum() == pytest.approx(30) and beyond == np.mean(test > training.max())


def scores_that_fall(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Distances, most of them small, and the terms of scores 0.9 - 0.5 distance with noise."""
    rng = np.random.default_rng(seed)
    distances = rng.beta(1, 4, count)
    return distances, np.stack([0.9 - 0.5 * distances + rng.normal(0, 0.05, count), np.ones(count)])


def test_the_score_at_the_distances_of_the_test_images_is_recovered():
    training, terms = scores_that_fall(1000)
    test = np.random.default_rng(1).uniform(0.3, 0.6, 200)
    found = expect_on_new_scenes([terms], training, test, np.arange(1000) % 5, np.arange(1000) // 4, 500)
    truth = (0.9 - 0.5 * test).mean()
    assert found.score == pytest.approx(truth, abs=0.02)
    assert found.interval[0] < truth < found.interval[1]
    assert terms[0].mean() - truth > 0.1  # so far off is the score of all images
    assert found.far_images == {
        fold: int((training[np.arange(1000) % 5 == fold] >= np.median(test)).sum()) for fold in range(5)
    }


def test_test_images_like_the_training_images_change_nothing():
    training, terms = scores_that_fall(500)
    found = expect_on_new_scenes([terms], training, training, np.arange(500) % 5, np.arange(500), 100)
    assert found.score == pytest.approx(terms[0].mean(), abs=0.003)


def test_pooled_terms_are_weighted_as_sums():
    training, _ = scores_that_fall(300)
    rng = np.random.default_rng(0)
    denominator = rng.integers(1, 1000, 300).astype(float)
    numerator = denominator * rng.uniform(0, 1, 300)
    test = np.full(20, 0.4)
    found = expect_on_new_scenes(
        [np.stack([numerator, denominator])], training, test, np.arange(300) % 3, np.arange(300), 100
    )
    weights, _ = matching_weights(training, test)
    assert found.score == pytest.approx((weights * numerator).sum() / (weights * denominator).sum())


@pytest.mark.parametrize(
    ("test", "groups", "message"),
    [
        (np.full(20, 1.5), np.arange(100), "100% of the test images are further"),
        (np.full(20, 0.2), np.arange(100) // 50, "only 2 groups"),
    ],
)
def test_no_score_is_predicted_where_no_image_is_far_enough(test, groups, message):
    training, terms = scores_that_fall(100)
    found = expect_on_new_scenes([terms], training, test, np.arange(100) % 5, groups, 100)
    assert found.score is None and message in found.why_not
    printed = describe_leak(found, None, 0.8, len(test))
    assert "no score can be predicted" in printed and "score to expect" not in printed
    json.dumps(to_dict(found, None, 0.8))


def test_a_fold_without_far_images_is_named():
    training, terms = scores_that_fall(200)
    folds = np.arange(200) % 2
    training[folds == 1] = np.minimum(training[folds == 1], 0.1)
    found = expect_on_new_scenes([terms], training, np.full(20, 0.3), folds, np.arange(200), 100)
    assert found.far_images[1] == 0 and "fold 1 has no image as far" in describe_leak(found, None, 0.8, 20)


@pytest.mark.parametrize("of_test", [0.0, 0.3])
def test_no_multiple_of_a_distance_between_copies_is_stated(of_test):
    training, terms = np.full(40, 1e-7), np.ones((2, 40))
    found = expect_on_new_scenes([terms], training, np.full(6, of_test), np.arange(40) % 2, np.arange(40), 10)
    printed = describe_leak(found, None, 0.8, 6)
    assert "times" not in printed and f"distance of {of_test:.3f} to" in printed and "one of 0.000 to" in printed


def test_nothing_is_measured_while_the_test_images_are_hidden(tmp_path):
    (tmp_path / "sample.csv").write_text("id,rle\n")
    hidden = {"root": tmp_path, "sample_submission": "sample.csv", "unreadable_test_images": "empty"}
    run = RunFolder(tmp_path)
    said = measure_leak(run, Settings(name="a", data=DataSettings(**hidden)), None, None, [], None)
    assert said.startswith("leak      not measured: there are no test images") and not run.leak.exists()


def test_siblings_are_counted_by_the_limit_that_parts_best():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 5)
    centres = rng.normal(0, 1, (30, 16))
    vectors = unit_vectors(centres[groups] + rng.normal(0, 0.2, (100, 16)), 0, 1)
    test_groups = np.array([3] * 7 + list(range(20, 30)))  # seven of a training group, ten of new scenes
    test_vectors = unit_vectors(centres[test_groups] + rng.normal(0, 0.2, (17, 16)), 0, 1)
    found = count_siblings(vectors, groups, Distances.of(test_vectors, vectors).to_nearest)
    assert (found.like, found.unlike) == (7, 10)

    distances = 1 - vectors @ vectors.T
    same = groups[:, None] == groups
    within = np.where(same & ~np.eye(100, dtype=bool), distances, 9).min(axis=1)
    across = np.where(same, 9, distances).min(axis=1)
    best = max((np.mean(within <= limit) + np.mean(across > limit)) / 2 for limit in (*within, *across))
    assert (np.mean(within <= found.limit) + np.mean(across > found.limit)) / 2 == pytest.approx(best, abs=0.011)


def test_without_siblings_nothing_is_said_of_them():
    vectors = unit_vectors(np.random.default_rng(0).normal(0, 1, (40, 8)), 0, 1)
    assert count_siblings(vectors, np.arange(40), np.full(3, 0.5)) is None
    assert count_siblings(vectors, np.arange(40) % 10, np.full(3, 0.5)) is None  # groups that mean nothing


def test_pairs_for_the_report():
    distances = Distances(np.array([0.3, 0.1, 0.2]), np.array([2, 0, 1]))
    pairs = nearest_pairs(list("abc"), list("xyz"), distances, np.array([True, True, False]), np.array([0.5, 0.6]))
    assert [(pair["id"], pair["nearest"], pair["score"]) for pair in pairs["nearest"]] == [
        ("b", "x", 0.6),
        ("a", "z", 0.5),
    ]
    assert [pair["id"] for pair in pairs["furthest"]] == ["a", "b"]
