"""The upload is what was meant: rows, columns, order, sizes, objects; and every way in which it might not be."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.base.errors import UserError
from lib.config.check import check_settings
from lib.config.schema import Settings
from lib.data.competition import TestData, open_test
from lib.masks.objects import ObjectRule, Split
from lib.masks.resize import resized
from lib.masks.rle import decode, encode
from lib.masks.rules import Rule
from lib.prediction.map_store import MapStore
from lib.submission.round_trip import require_reported, round_trip_score, through_a_file
from lib.submission.write import _verify, write_submission

SHAPE = (9, 14)
RANDOM = np.random.default_rng(0)


def settings_of(root: Path, **sections) -> Settings:
    content = {"name": "x", "data": {"root": str(root), **sections.pop("data", {})}, **sections}
    return check_settings(content, source=root)


def write_test_set(root: Path, sample: list[str], shape: tuple[int, int] = SHAPE) -> None:
    (root / "test_images").mkdir()
    for name in "abc":
        Image.fromarray(np.zeros(shape, np.uint8)).save(root / "test_images" / f"{name}.png")
    (root / "sample_submission.csv").write_text("\n".join(sample) + "\n")


def write_maps(root: Path, classes: tuple[str, ...] = ("mask",), shape: tuple[int, int] = SHAPE) -> MapStore:
    store = MapStore(root / "maps", classes)
    for name in "abc":
        maps = RANDOM.integers(0, 256, (*shape, len(classes)), dtype=np.uint8)
        store.write(name, np.zeros_like(maps) if name == "b" else maps)
    return store


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_rows_are_the_samples_in_its_order_with_its_other_columns(tmp_path):
    write_test_set(tmp_path, ["Usage,img,rle_mask", "x,c.png,1 1", "y,a.png,1 1", "z,b.png,1 1"])
    settings = settings_of(tmp_path, data={"id_column": "img"})
    store, path = write_maps(tmp_path), tmp_path / "submission.csv"
    assert write_submission(path, open_test(settings.data), store, {"mask": Rule(100)}, settings) == 3
    header, *rows = read(path)
    assert header == ["Usage", "img", "rle_mask"]
    assert [row[:2] for row in rows] == [["x", "c.png"], ["y", "a.png"], ["z", "b.png"]]
    for _, name, text in rows:
        np.testing.assert_array_equal(decode(text, SHAPE), store.read(name[0])[:, :, 0] >= 100)


@pytest.mark.parametrize("rows", ["mask", "instance"])
def test_images_that_cannot_be_read_get_empty_rows_where_a_setting_says_so(tmp_path, rows):
    write_test_set(tmp_path, ["id,rle", "c,", "gone,", "a,", "b,"])
    broken = tmp_path / "test_images/c.png"
    broken.write_bytes(broken.read_bytes()[:-20])
    data = {"unreadable_test_images": "empty", "rle": {"empty": "-"}}
    settings = settings_of(tmp_path, data=data, submission={"rows": rows})
    test, store, path = open_test(settings.data), write_maps(tmp_path), tmp_path / "submission.csv"
    assert test.ids == ["a", "b"] and list(test.unreadable) == ["c", "gone"]
    assert test.warning.startswith("2 of 4 test images cannot be read, their masks are empty: ")
    assert "c.png" in test.warning and "'gone' has no file" in test.warning
    rule = Rule(100) if rows == "mask" else ObjectRule(Rule(100))
    write_submission(path, test, store, {"mask": rule}, settings)
    texts = {}
    for name, text in read(path)[1:]:
        texts.setdefault(name, []).append(text)
    assert list(texts) == ["c", "gone", "a", "b"] and texts["c"] == texts["gone"] == ["-"]
    found = np.sum([decode(text, SHAPE) for text in texts["a"]], axis=0)
    np.testing.assert_array_equal(found, store.read("a")[:, :, 0] >= 100)


def test_all_classes_of_an_image_share_a_row_where_the_sample_has_a_column_for_each(tmp_path):
    write_test_set(tmp_path, ["rle_two,Usage,id,rle_one", ",x,c,", ",y,a,", ",z,b,"])
    settings = settings_of(tmp_path, data={"classes": ["one", "two"], "id_column": "id", "rle": {"empty": "-"}})
    store, path = write_maps(tmp_path, ("one", "two")), tmp_path / "submission.csv"
    rules = {"one": Rule(100), "two": Rule(200)}
    test = open_test(settings.data)
    assert test.warning is None and write_submission(path, test, store, rules, settings) == 3
    header, *rows = read(path)
    assert header == ["rle_two", "Usage", "id", "rle_one"] and [row[1:3] for row in rows] == [
        *map(list, ("xc", "ya", "zb"))
    ]
    for two, _, name, one in rows:
        for text, index, threshold in ((one, 0, 100), (two, 1, 200)):
            mask = store.read(name)[..., index] >= threshold
            assert (text == "-") == (not mask.any())
            np.testing.assert_array_equal(decode(text.strip("-"), SHAPE), mask)
    objects = settings.model_copy(update={"submission": settings.submission.model_copy(update={"rows": "instance"})})
    with pytest.raises(UserError, match="one row for all classes .* submission.text=json"):
        write_submission(path, test, store, {name: ObjectRule(rule) for name, rule in rules.items()}, objects)


def test_each_object_has_a_row_and_none_shares_a_pixel(tmp_path):
    write_test_set(tmp_path, ["ImageId,EncodedPixels", "b,", "c,", "a,"])
    settings = settings_of(tmp_path, submission={"rows": "instance"}, data={"rle": {"empty": "-1"}})
    store, path = write_maps(tmp_path), tmp_path / "submission.csv"
    rule = ObjectRule(Rule(128), Split("rise", 60), min_area=2)
    count = write_submission(path, open_test(settings.data), store, {"mask": rule}, settings)
    _, *rows = read(path)
    assert len(rows) == count > 10 and rows[0] == ["b", "-1"]
    assert list(dict.fromkeys(name for name, _ in rows)) == ["b", "c", "a"]
    for name in "ca":
        masks = [decode(text, SHAPE, disjoint=True) for other, text in rows if other == name]
        labels = rule.apply(store.read(name)[:, :, 0])
        assert np.sum(masks, axis=0, dtype=int).max() == 1
        assert sorted(map(bytes, masks)) == sorted(
            bytes((labels == n).view(np.uint8)) for n in range(1, labels.max() + 1)
        )


def test_probabilities_are_averaged_down_before_the_threshold(tmp_path):
    write_test_set(tmp_path, ["id,rle", "a,", "b,", "c,"], shape=(8, 12))
    settings = settings_of(tmp_path, submission={"size": [4, 6]})
    store, path = write_maps(tmp_path, shape=(8, 12)), tmp_path / "submission.csv"
    write_submission(path, open_test(settings.data), store, {"mask": Rule(120)}, settings)
    for name, text in read(path)[1:]:
        means = store.read(name)[:, :, 0].reshape(4, 2, 6, 2).mean(axis=(1, 3))
        clear = np.abs(means - 119.5) > 0.5  # OpenCV rounds the mean to a whole number
        np.testing.assert_array_equal(decode(text, (4, 6))[clear], (means >= 119.5)[clear])
    assert resized(store.read("a"), None).shape == (8, 12, 1)


def test_objects_of_another_size_are_refused(tmp_path):
    with pytest.raises(UserError, match="size cannot be set where rows is instance"):
        settings_of(tmp_path, submission={"rows": "instance", "size": [4, 6]})


def written(root: Path, rows: list[str], sections: dict) -> tuple[Path, TestData, Settings, list]:
    """A submission of two-pixel masks, of which the first is replaced by `rows`, and what it should hold."""
    import zlib

    write_test_set(root, ["id,rle", "a,", "b,", "c,"])
    settings = settings_of(root, **sections)
    mask = decode("1 2", SHAPE).astype(np.int32 if sections else np.uint8)
    path = root / "submission.csv"
    path.write_text("\n".join(["id,rle", *rows, "b,1 2", "c,1 2"]) + "\n")
    return path, open_test(settings.data), settings, [(*SHAPE, zlib.crc32(mask))] * 3


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["a,1 2"], None),
        (["a,1 3"], "does not decode to its mask"),
        (["a,"], "does not decode to its mask"),
        (["a,2 1 1 1"], "not in order or overlap"),
        (["a,1 2 2 1"], "not in order or overlap"),
        (["a,126 2"], "past the end"),
        ([], "columns and ids of the sample in their order"),
        (["A,1 2"], "columns and ids of the sample in their order"),
        (["a,1 2", "d,1 2"], "columns and ids of the sample in their order"),
    ],
)
def test_a_file_that_is_not_what_was_meant_is_found(tmp_path, rows, problem):
    path, data, settings, checks = written(tmp_path, rows, {})
    if problem is None:
        _verify(path, data, checks, settings)
    else:
        with pytest.raises(UserError, match=problem):
            _verify(path, data, checks, settings)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["a,1 2"], None),
        (["a,1 1", "a,2 1"], "does not decode to its mask"),  # two objects where one was meant
        (["a,1 2", "a,2 1"], "objects 1 and 2 overlap"),
    ],
)
def test_objects_that_are_not_what_was_meant_are_found(tmp_path, rows, problem):
    path, data, settings, checks = written(tmp_path, rows, {"submission": {"rows": "instance"}})
    if problem is None:
        _verify(path, data, checks, settings)
    else:
        with pytest.raises(UserError, match=problem):
            _verify(path, data, checks, settings)


@pytest.mark.parametrize("metric", ["dice", "dice_global", "iou", "iou_sweep"])
def test_the_rehearsal_gives_the_score_of_the_masks(tmp_path, metric):
    settings = settings_of(
        tmp_path, threshold={"metric": metric}, data={"classes": ["x", "y"], "rle": {"order": "row"}}
    )
    stream = [
        (str(n), RANDOM.integers(0, 256, (5, 7, 2), dtype=np.uint8), RANDOM.integers(0, 2, (5, 7, 2), dtype=np.uint8))
        for n in range(6)
    ]
    stream.append(("empty", np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 2), np.uint8)))
    rules = {"x": Rule(90), "y": Rule(150)}
    scores = []
    for layer, threshold in enumerate((90, 150)):
        masks = [(maps[..., layer] >= threshold, truth[..., layer] > 0) for _, maps, truth in stream]
        common, unions = ([int(f(m, t).sum()) for m, t in masks] for f in (np.logical_and, np.logical_or))
        sums = [int(m.sum() + t.sum()) for m, t in masks]
        if metric == "dice_global":
            scores.append(2 * sum(common) / sum(sums))
        elif metric == "dice":
            scores.append(np.mean([2 * c / s if s else 1 for c, s in zip(common, sums, strict=True)]))
        else:
            ious = np.array([c / u if u else 1.01 for c, u in zip(common, unions, strict=True)])
            limits = np.arange(10, 20) / 20
            scores.append(np.mean(np.minimum(ious, 1) if metric == "iou" else ious[:, None] > limits))
    score = round_trip_score(stream, rules, settings)
    assert score == pytest.approx(np.mean(scores), abs=1e-12)
    require_reported(score, score)
    with pytest.raises(UserError, match="do not upload"):
        require_reported(score, score + 1e-4)


def test_the_round_trip_goes_through_run_lengths(tmp_path, monkeypatch):
    """A coder that loses the last pixel, as a popular snippet does, does not go unnoticed."""
    settings = settings_of(tmp_path)
    full = np.full((3, 4, 1), 255, np.uint8)
    assert through_a_file("a", full // 255, settings).all()
    monkeypatch.setattr(
        "lib.submission.write.encode", lambda mask, convention: encode(mask.ravel()[:-1][None], convention)
    )
    with pytest.raises(UserError, match="training image 'a' do not come back"):
        round_trip_score([("a", full, full // 255)], {"mask": Rule(128)}, settings)
