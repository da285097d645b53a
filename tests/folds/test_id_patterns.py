import re

import numpy as np
import pytest

from lib.data.groups import group_in_id
from lib.folds.id_patterns import distinct, id_partitions, id_series, may_be_classes, numbered_by_first


def partitions_of(ids: list[str]) -> dict[str, list[str]]:
    return {partition.name: partition.groups.tolist() for partition in id_partitions(ids)}


VIDEOS = [f"{video}_f{frame:05d}" for video in ("0001TP", "0006R0", "Seq05") for frame in range(30, 3000, 330)]
TILES = [f"slide{slide}_{row}_{column}" for slide in (3, 11) for row in range(4) for column in range(5)]
DATES = [f"cam_{day}_{number}" for day in ("20210430", "20210501", "20210502") for number in range(4)]
EYES = [f"Image_{patient:02d}{eye}" for patient in range(1, 15) for eye in "LR"]
EYES_FIRST = [f"Image_{eye}{patient:02d}" for patient in range(1, 15) for eye in "LR"]
IN_A_FIELD = [
    f"img_P{patient}S{number}_{side}{number % 2}" for patient in (10, 11) for number in range(9) for side in "ab"
]
NO_SEPARATOR = [f"patient{patient}x{number:02d}" for patient in range(4) for number in range(6)]
SOME_NUMBERS = [*(f"{kind}{number}" for kind in "ab" for number in range(30)), *map(str, range(5))]


@pytest.mark.parametrize(
    ("ids", "name", "groups"),
    [
        (VIDEOS, "the first field of the id", [image_id[:6].rstrip("_") for image_id in VIDEOS]),
        (TILES, "the first field of the id", [image_id.split("_")[0] for image_id in TILES]),
        (DATES, "the first 2 fields of the id", [image_id.rpartition("_")[0] for image_id in DATES]),
        (
            [f"p{patient}-day{day}-{cut}" for patient in range(3) for day in range(2) for cut in range(5)],
            "the first 2 fields of the id",
            [f"p{patient}_day{day}" for patient in range(3) for day in range(2) for _ in range(5)],
        ),
        (EYES, "the id up to its first number", [image_id[:-1] for image_id in EYES]),
        (EYES_FIRST, "the first number of the id", [image_id[-2:] for image_id in EYES_FIRST]),
        (IN_A_FIELD, "the id up to its first number", [image_id[:7] for image_id in IN_A_FIELD]),
        (NO_SEPARATOR, "the text before the last number of the id", [image_id[:9] for image_id in NO_SEPARATOR]),
    ],
)
def test_partitions_that_ids_suggest(ids, name, groups):
    assert partitions_of(ids)[name] == groups


@pytest.mark.parametrize(
    "ids",
    [
        VIDEOS,
        TILES,
        DATES,
        NO_SEPARATOR,
        SOME_NUMBERS,
        EYES,
        EYES_FIRST,
        IN_A_FIELD,
        [f"a-{k % 3}.{k}" for k in range(9)],
    ],
)
def test_the_proposed_setting_makes_the_same_groups(ids):
    found = id_partitions(ids)
    assert found
    for partition in found:
        by_setting = np.array([group_in_id(partition.setting, image_id) for image_id in ids])
        assert (numbered_by_first(by_setting) == numbered_by_first(partition.groups)).all()


@pytest.mark.parametrize(
    "ids",
    [
        [f"{number:04d}" for number in range(50)],
        [f"img_{number}" for number in range(50)],
        [f"{np.random.default_rng(k).integers(2**62):016x}" for k in range(50)],
        [],
        ["a"],
    ],
)
def test_ids_without_structure_suggest_no_partition(ids):
    assert partitions_of(ids) == {}


def test_a_date_is_called_a_date():
    assert "the date in the id" in {
        p.name for p in id_partitions([f"c{k % 5}_202104{10 + k % 2}_{k}" for k in range(20)])
    }
    assert "the date in the id" not in {
        p.name for p in id_partitions([f"c{k % 5}_202113{10 + k % 2}_{k}" for k in range(20)])
    }


def test_words_and_short_numbers_may_be_classes():
    assert may_be_classes({"benign", "malignant"}) and may_be_classes({"0", "1", "12"})
    assert not may_be_classes({"case12", "case13"}) and not may_be_classes({str(number) for number in range(40)})
    (partition,) = id_partitions([f"benign ({k})" for k in range(10)] + [f"normal ({k})" for k in range(10, 20)])
    assert partition.may_be_class


def test_the_same_groups_are_tested_once_and_extremes_never():
    ids = [f"a{k // 4}_b{k // 4}_{k}" for k in range(20)]
    assert [partition.name for partition in id_partitions(ids)] == ["the first field of the id"]
    assert distinct([partition._replace(groups=np.array(["x"] * 20)) for partition in id_partitions(ids)]) == []


def test_an_id_of_another_form_is_alone_and_the_others_suggest_what_they_do_without_it():
    ids = [*TILES, "phantom"]
    found = {partition.name: partition for partition in id_partitions(ids)}
    for name, groups in partitions_of(TILES).items():
        partition = found[name]
        assert partition.groups[:-1].tolist() == groups and partition.groups[-1] == "phantom"
        by_setting = np.array([group_in_id(partition.setting, image_id) for image_id in ids])
        assert (numbered_by_first(by_setting) == numbered_by_first(partition.groups)).all()
    for series, without in zip(id_series(ids), id_series(TILES), strict=True):
        assert series.positions[:-1].tolist() == without.positions.tolist() and series.keys[-1] == "phantom"
    classes = [f"{kind} ({k})" for kind in ("benign", "normal") for k in range(20)]
    assert all(partition.may_be_class for partition in id_partitions([*classes, "readme7"]) if partition.others)
    assert "field 2 of the id" not in partitions_of([*TILES, *(f"phantom{k}" for k in range(8))])
    assert "the first 2 fields of the id" in partitions_of([*TILES[:9], "phantom"])  # nine of ten


def test_a_rule_that_many_ids_do_not_follow_or_whose_groups_are_one_is_none():
    assert partitions_of([*(f"x{number:02d}" for number in range(60)), "odd", "even"]) == {}  # x, odd and even
    letters = [f"scan-{letter}" for letter in "abcdefghijklmnopqrst"]
    found = partitions_of([*(f"scan{number % 3}-{number}" for number in range(60)), *letters])
    assert "the first field of the id" in found and "the text before the last number of the id" not in found


def test_series_by_number_overall_and_by_stem():
    overall, by_stem = id_series(VIDEOS)
    assert overall.positions[:, 0].tolist() == [int(re.search(r"\d+$", image_id)[0]) for image_id in VIDEOS]
    assert set(overall.keys) == {""} and by_stem.keys[0] == "0001TP_f"
    assert [series.name for series in id_series([f"img_{k}" for k in range(9)])] == [
        "the running number at the end of the id"
    ]


def test_coordinates_make_a_grid():
    grid = id_series(TILES)[-1]
    assert grid.name == "the coordinates at the end of the id"
    assert grid.positions.tolist() == [list(map(int, image_id.split("_")[1:])) for image_id in TILES]
    assert set(grid.keys) == {"slide3", "slide11"}
    assert id_series([f"x0512_y{k * 64:04d}" for k in range(9)])[-1].positions.shape[1] == 1  # one row is no grid


def test_hashes_make_no_series():
    assert id_series(["abc", "d1"]) == [] and id_series([]) == []
    assert id_series([f"{10**20 + k}" for k in range(9)]) == []


@pytest.mark.parametrize("first", ["", "_"])
@pytest.mark.parametrize("separators", ["_", "-", ".", "_-", "-_. ()"])
def test_a_proposed_rule_makes_the_groups_that_were_found(first, separators):
    """Also if fields are parted by different characters, and without a backslash, which quoted YAML would not take."""
    random = np.random.default_rng(0)
    fields = random.integers(0, 5, (60, 4)).astype(str)
    ids = [
        f"{first}a{row[0]}" + "".join(f"{random.choice(list(separators))}{field}x" for field in row[1:])
        for row in fields
    ]
    partitions = [partition for partition in id_partitions(ids) if partition.setting]
    assert len(partitions) >= 4
    for partition in partitions:
        by_rule = np.array([group_in_id(partition.setting, image_id) for image_id in ids])
        assert numbered_by_first(by_rule).tolist() == numbered_by_first(partition.groups).tolist()
        assert "\\" not in partition.setting
