"""Synthetic data sets with known scenes: what is found, what is done about it, and false alarms."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from lib.folds.group_sample import Sample
from lib.folds.hidden_groups import chosen, describe_findings, groups_table, is_nested, search, strong_series
from lib.folds.id_patterns import Partition, distinct, id_partitions, id_series, numbered_by_first
from lib.folds.likeness import unit_vectors

FOLDS = 5


def images_of(scenes: np.ndarray, alike: float = 1.5, seed: int = 0) -> np.ndarray:
    """Vectors of images whose scenes add to their features; `alike` 0: the scenes mean nothing."""
    rng = np.random.default_rng(seed)
    numbers = np.unique(scenes, return_inverse=True)[1]
    features = rng.normal(0, 1, (len(scenes), 24)) + alike * rng.normal(0, 1, (numbers.max() + 1, 24))[numbers]
    return unit_vectors(features, features.mean(axis=0), features.std(axis=0))


def walks(scenes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Vectors of frames: within a scene each differs a little from the one before."""
    rng = np.random.default_rng(seed)
    is_first = np.concatenate([[True], scenes[1:] != scenes[:-1]])
    steps = rng.normal(0, 0.15, (len(scenes), 24))
    steps[is_first] = rng.normal(0, 1, (is_first.sum(), 24))
    features = np.concatenate([steps[part].cumsum(axis=0) for part in _runs(is_first)])
    return unit_vectors(features, 0, 1)


def _runs(is_first: np.ndarray) -> list[np.ndarray]:
    return np.split(np.arange(len(is_first)), np.flatnonzero(is_first)[1:])


def find(ids: list[str], vectors: np.ndarray, folds: int = FOLDS):
    return judged(id_partitions(ids), id_series(ids), vectors, folds)


def judged(partitions, series, vectors: np.ndarray, folds: int, sample: Sample | None = None):
    """The findings of all images, or of a sample's, whose vectors alone are looked at."""
    partitions = distinct(partitions)
    sample = sample or Sample.everything(len(vectors), len(partitions), len(series))
    vectors = vectors[sample.images]
    return search(partitions, strong_series(series, vectors, sample), vectors, folds, sample)


def wrong_and_found(groups: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Share of the joined pairs that are wrong, and share of the true pairs that are joined."""
    pairs = np.triu_indices(len(truth), 1)
    joined, true = (labels[pairs[0]] == labels[pairs[1]] for labels in (groups, truth))
    return (joined & ~true).sum() / max(joined.sum(), 1), (joined & true).sum() / true.sum()


SCENES = np.repeat(np.arange(20), 10)
HASHES = [hashlib.sha256(str(k).encode()).hexdigest() for k in range(200)]
GROUPED = {
    "patients": [f"patient{scene:03d}_{k % 10}" for k, scene in enumerate(SCENES)],
    "slides, tiles by row and column": [f"s{scene:02d}_{k % 10 // 5}_{k % 5}" for k, scene in enumerate(SCENES)],
    "days": [f"202104{scene + 10}_{k % 10:03d}" for k, scene in enumerate(SCENES)],
    "no separator": [f"case{scene:02d}x{k % 10}" for k, scene in enumerate(SCENES)],
    "blanks": [f"site {scene:02d} ({k})" for k, scene in enumerate(SCENES)],
}


@pytest.mark.parametrize("kind", GROUPED)
def test_scenes_in_the_ids_are_found_exactly(kind):
    best = chosen(find(GROUPED[kind], images_of(SCENES)))
    assert best is not None and wrong_and_found(best.partition.groups, SCENES) == (0, 1)


@pytest.mark.parametrize("kind", GROUPED)
@pytest.mark.parametrize("seed", range(3))
def test_ids_that_mean_nothing_group_nothing(kind, seed):
    assert find(GROUPED[kind], images_of(SCENES, alike=0, seed=seed)) == []


@pytest.mark.parametrize("ids", [HASHES, [f"img_{k:04d}" for k in range(200)], [f"{k}" for k in range(200)]])
def test_crops_of_sources_that_no_id_names_are_not_grouped(ids):
    shuffled = np.random.default_rng(0).permutation(SCENES)
    assert chosen(find(ids, images_of(shuffled))) is None


@pytest.mark.parametrize("names", [["benign", "malignant", "normal", "other", "none", "mixed"], list("0123456789")])
def test_classes_in_the_ids_are_reported_and_not_used(names):
    kinds = np.array(names)[np.arange(200) % len(names)]
    findings = find([f"{kind}_{k:03d}" for k, kind in enumerate(kinds)], images_of(kinds))
    assert chosen(findings) is None
    assert "kinds of images" in findings[0].obstacle
    text = describe_findings(findings, "auto", "t.csv")
    assert "warning" in text and "grouped by" not in text


def test_a_finding_of_too_few_groups_is_proposed_with_as_many_folds():
    sites = np.repeat(["north", "south"], 60)
    ids = [f"{site}_{hashlib.sha256(str(k).encode()).hexdigest()[:8]}x" for k, site in enumerate(sites)]
    (finding,) = find(ids, images_of(sites))
    assert "2 groups cannot fill 5 folds" in finding.obstacle and "kinds of images" in finding.obstacle
    text = describe_findings([finding], "auto", "t.csv")
    assert 'to use it: data.group="id:([^_]+)" folds.count=2' in text


def test_three_videos_cannot_fill_five_folds_and_are_cut_into_blocks():
    """The names of the videos are proposed with fewer folds; by default frames next to each other share a fold."""
    videos = np.repeat(["0001TP", "0006R0", "0016E5"], 100)
    ids = [f"{video}_{number:06d}" for video, number in zip(videos, np.tile(np.arange(30, 3030, 30), 3), strict=True)]
    findings = find(ids, walks(videos))
    best = chosen(findings)
    groups = best.partition.groups
    assert best.partition.is_cut and best.count >= 2 * FOLDS
    assert is_nested(groups, videos)
    apart = np.mean((groups[1:] != groups[:-1]) & (videos[1:] == videos[:-1]))
    assert apart < 0.15
    text = describe_findings(findings, "auto", "hidden_groups.csv")
    assert "folds are grouped by" in text and "folds.count=3" in text and 'data.group="id:([^_]+)"' in text
    assert chosen(find(ids, walks(videos), folds=3)).count == 3


def test_consecutive_frames_of_one_name_are_cut_where_the_scene_changes():
    best = chosen(find([f"frame{k:04d}" for k in range(200)], walks(SCENES)))
    wrong, found = wrong_and_found(best.partition.groups, SCENES)
    assert wrong < 0.02 and found > 0.9


def test_the_same_scene_in_several_series_is_joined_by_its_numbers():
    """Each part is photographed in six lights; the ids name the light, and the numbers of a part are close."""
    part, light = np.repeat(np.arange(30), 6), np.tile(np.arange(6), 30)
    ids = [f"exp{lit}_num_{1000 * one + 17 * lit}" for one, lit in zip(part, light, strict=True)]
    best = chosen(find(ids, images_of(part)))
    assert wrong_and_found(best.partition.groups, part) == (0, 1)


def test_patients_are_preferred_to_their_studies_only_if_the_studies_are_alike():
    patient, study = np.repeat(np.arange(20), 12), np.repeat(np.arange(60), 4)
    ids = [f"p{one:02d}_s{two:03d}_{k}" for k, (one, two) in enumerate(zip(patient, study, strict=True))]
    of_study = images_of(study, alike=2)
    assert chosen(find(ids, of_study)).count == 60
    alike = unit_vectors(of_study + images_of(patient, alike=3, seed=1), 0, 1)
    assert chosen(find(ids, alike)).count == 20


def test_one_huge_group_is_not_used():
    scenes = np.concatenate([np.zeros(150, int), 1 + np.repeat(np.arange(10), 5)])
    findings = find([f"v{scene:02d}_x{HASHES[k][:6]}z" for k, scene in enumerate(scenes)], images_of(scenes))
    assert chosen(findings) is None and "75%" in findings[0].obstacle


def test_a_handful_of_images_says_nothing():
    assert find(["a1_1", "a1_2", "a2_1", "a2_2"], images_of(np.array([1, 1, 2, 2]))) == []


def test_false_alarms_over_many_data_sets_without_groups():
    """Random partitions of many shapes: none is strong, and a warning is rare."""
    rng = np.random.default_rng(0)
    alarms = []
    for seed in range(60):
        count = int(rng.integers(20, 300))
        vectors = images_of(np.arange(count), alike=0, seed=seed)
        partitions = [
            Partition(str(groups), rng.integers(groups, size=count).astype(str)) for groups in (2, 5, count // 4)
        ]
        alarms += judged(partitions, id_series([f"a{k}" for k in range(count)]), vectors, FOLDS)
    assert not any(finding.is_strong for finding in alarms)
    assert len(alarms) <= 2


RANDOM_IDS = {
    "hexadecimal": lambda rng, k: f"{rng.integers(2**40):010x}",
    "letters and digits": lambda rng, k: "".join(rng.choice([*"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"], 8)),
    "four numbers": lambda rng, k: f"P{rng.integers(30)}S{rng.integers(9)}_v{rng.integers(5)}x{k}",
    "eight fields": lambda rng, k: "_".join(f"{letter}{rng.integers(2, 60)}" for letter in "abcdefg") + f"_{k}",
    "some of another form": lambda rng, k: "odd" * (k % 15 == 0) + f"site{rng.integers(12)}" + f"_{k}" * (k % 15 > 0),
}


@pytest.mark.parametrize("kind", RANDOM_IDS)
def test_ids_at_random_suggest_many_groups_and_none_is_found(kind):
    alarms = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        ids = list(dict.fromkeys(RANDOM_IDS[kind](rng, k) for k in range(150)))
        alarms += find(ids, images_of(np.arange(len(ids)), alike=0, seed=seed))
    assert alarms == []


def test_ids_of_another_form_do_not_count_as_groups():
    sites = np.repeat(["s1x", "s2x", "s3x"], 30)
    ids = [f"{HASHES[k][:6]}z_{site}" for k, site in enumerate(sites)] + [f"odd{k}" for k in range(6)]
    (finding,) = find(ids, images_of(np.concatenate([sites, ids[90:]])))
    assert "3 groups cannot fill 5 folds" in finding.obstacle
    assert str(finding).startswith("3 groups by field 2 of the id (6 other ids alone): ")


def test_modes_and_table():
    ids = GROUPED["patients"]
    findings = find(ids, images_of(SCENES))
    text = describe_findings(findings, "warn", "hidden_groups.csv")
    assert text.startswith("warning   folds could be grouped by 20 groups") and "hidden_groups=warn" not in text
    assert "folds.hidden_groups=warn" in describe_findings(findings, "auto", "hidden_groups.csv")
    assert describe_findings([], "auto", "").startswith("hidden    no groups")
    table = groups_table(ids, findings)
    assert isinstance(table, pd.DataFrame) and table.id.tolist() == ids
    assert table.candidate_1.tolist() == findings[0].partition.groups.tolist()


BIG = {
    "patients of five": np.repeat(np.arange(1200), 5),
    "two images each": np.repeat(np.arange(3000), 2),
    "six large sites": np.repeat(np.arange(6), 1000),
}


@pytest.mark.parametrize("kind", BIG)
@pytest.mark.parametrize("alike", [0, 1.5])
def test_a_sample_of_many_images_says_what_all_of_them_say(kind, alike):
    """At most 2,000 of 6,000 are looked at; where the names mean nothing nothing is found."""
    scenes = BIG[kind]
    ids = [f"p{scene:04d}q_{HASHES[k % 200][:3]}{k:05d}z" for k, scene in enumerate(scenes)]
    partitions = distinct(id_partitions(ids))
    sample = Sample.of(partitions, [], len(ids))
    assert 500 < len(sample.images) <= 1500 and (np.diff(sample.images) > 0).all()
    findings = judged(partitions, [], images_of(scenes, alike), FOLDS, sample)
    if alike:
        assert (numbered_by_first(chosen(findings).partition.groups) == numbered_by_first(scenes)).all()
    else:
        assert findings == []


def test_a_series_is_judged_by_runs_of_a_sample():
    """Frames 0 to 5999 of one film; under shuffled numbers nothing is said of them."""
    scenes = np.repeat(np.arange(300), 20)
    series = id_series([f"{k:04d}" for k in range(6000)])
    sample = Sample.of([], series, 6000)
    vectors = walks(scenes)
    assert len(sample.images) <= 1500
    assert strong_series(series, vectors[sample.images], sample) == series
    shuffled = vectors[np.random.default_rng(0).permutation(6000)]
    assert strong_series(series, shuffled[sample.images], sample) == []
