"""Masks as pictures, COCO json, run lengths as json and what a user's function writes, read back by other libraries."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from pycocotools.coco import COCO
from rasterio.transform import from_origin
from skimage.measure import label

from lib.base.errors import UserError
from lib.config.check import check_settings
from lib.config.schema import Settings
from lib.data.competition import TestData, open_test
from lib.masks.objects import ObjectRule
from lib.masks.rules import Rule
from lib.prediction.map_store import MapStore
from lib.run.folder import RunFolder
from lib.submission.outputs import new_submissions, require_format, set_aside, write_outputs, write_overlays
from lib.submission.write import decode_rows, encode_rows
from tests.stages import completed, stage_words

SHAPE = (21, 34)
RULES = {"one": Rule(150), "two": Rule(200)}


def prepared(root: Path, classes: list[str], **submission) -> tuple[TestData, MapStore, Settings]:
    """Three images, their maps, and settings without a sample."""
    random = np.random.default_rng(1)
    (root / "photos").mkdir()
    store = MapStore(root / "maps", tuple(classes))
    for name in ("1", "22", "333"):
        Image.fromarray(random.integers(0, 256, (*SHAPE, 3), np.uint8)).save(root / "photos" / f"{name}.png")
        coarse = random.integers(0, 256, (7, 17, len(classes)), np.uint8)
        store.write(name, coarse.repeat(3, axis=0).repeat(2, axis=1))
    data = {"root": str(root), "test_images": "photos", "sample_submission": None, "classes": classes}
    settings = check_settings({"name": "x", "data": data, "submission": submission}, root)
    return open_test(settings.data), store, settings


def with_submission(settings: Settings, **changes) -> Settings:
    return settings.model_copy(update={"submission": settings.submission.model_copy(update=changes)})


def rules_of(classes: list[str]) -> dict[str, Rule]:
    return {name: RULES[name] for name in classes}


@pytest.mark.parametrize(
    ("classes", "pixels", "values"),
    [
        (["one"], None, [255]),
        (["one"], [1], [1]),
        (["one", "two"], None, [1, 2]),
        (["one", "two"], [10, 5], [10, 5]),
        (["one", "two"], ["#ff8000", "#0000ff"], [(255, 128, 0), (0, 0, 255)]),
    ],
)
@pytest.mark.parametrize("format", ["png", "tif"])
def test_a_picture_holds_the_value_of_each_class(tmp_path, classes, pixels, values, format):
    data, store, settings = prepared(tmp_path, classes, format=format, pixels=pixels)
    (archive, folder), _ = write_outputs(tmp_path / "out", data, store, rules_of(classes), settings)
    with zipfile.ZipFile(archive) as zipped:
        assert sorted(zipped.namelist()) == sorted(f"{name}.{format}" for name in data.ids)
    for name in data.ids:
        picture = np.asarray(Image.open(folder / f"{name}.{format}"))
        maps = store.read(name)
        expected = np.zeros_like(picture)
        for index, value in enumerate(values):
            expected[maps[..., index] >= RULES[classes[index]].threshold] = value
        np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize(("format", "size"), [("png", None), ("tif", None), ("png", (7, 9))])
def test_a_damaged_image_gets_an_empty_mask_of_the_size_in_its_header(tmp_path, format, size):
    _, store, settings = prepared(tmp_path, ["one", "two"], format=format, size=size)
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "4.tif")
    for name, kept in (("22.png", 200), ("333.png", 10), ("4.tif", 2000)):
        path = tmp_path / "photos" / name
        path.write_bytes(path.read_bytes()[:kept])
    shape_of = {"22": SHAPE, "333": None, "4": (30, 40)}
    data = open_test(settings.data.model_copy(update={"unreadable_test_images": "empty"}))
    assert {name: one.size for name, one in data.unreadable.items()} == shape_of
    (_, folder), description = write_outputs(tmp_path / "out", data, store, RULES, settings)
    written = [name for name, shape in shape_of.items() if shape or size]
    assert {path.stem for path in folder.iterdir()} == {"1", *written}
    for name in written:
        picture = np.asarray(Image.open(folder / f"{name}.{format}"))
        assert picture.shape == (size or shape_of[name]) and not picture.any()
    assert ("no file for '333', whose size is not known" in description) == (size is None)


def test_classes_with_files_of_their_own_get_files_of_their_own(tmp_path):
    data, store, settings = prepared(tmp_path, ["one", "two"], format="png")
    masks = settings.data.model_copy(update={"train_masks": "masks/{class}/{id}.png"})
    (_, folder), _ = write_outputs(tmp_path, data, store, RULES, settings.model_copy(update={"data": masks}))
    for index, name in enumerate(RULES):
        picture = np.asarray(Image.open(folder / name / "22.png"))
        np.testing.assert_array_equal(picture, 255 * (store.read("22")[..., index] >= RULES[name].threshold))


def test_values_are_those_of_the_training_masks(tmp_path):
    data, store, settings = prepared(tmp_path, {"one": "#804000", "two": ["#000080", "#0000ff"]}, format="png")
    (_, folder), _ = write_outputs(tmp_path, data, store, RULES, settings)
    picture, maps = np.asarray(Image.open(folder / "22.png")), store.read("22")
    assert (picture[maps[..., 1] >= 200] == (0, 0, 128)).all()
    assert (picture[(maps[..., 0] >= 150) & (maps[..., 1] < 200)] == (128, 64, 0)).all()


def test_objects_are_numbered_in_16_bits(tmp_path):
    data, store, settings = prepared(tmp_path, ["one"], format="png", rows="instance")
    (_, folder), _ = write_outputs(tmp_path, data, store, {"one": ObjectRule(RULES["one"])}, settings)
    picture = np.asarray(Image.open(folder / "333.png"))
    expected = label(store.read("333")[..., 0] >= 150, connectivity=2)
    assert len(np.unique(picture)) == len(np.unique(expected)) > 3
    assert len(np.unique(picture.astype(int) * 1000 + expected)) == len(np.unique(expected))  # the same but for numbers


def test_a_tif_keeps_its_place_on_earth(tmp_path):
    data, store, settings = prepared(tmp_path, ["one"], format="tif")
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10)}
    profile = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "count": 1, "dtype": "uint8", **place}
    with rasterio.open(tmp_path / "photos" / "4.tif", "w", **profile) as file:
        file.write(np.zeros((1, *SHAPE), np.uint8))
    store.write("4", store.read("1"))
    (_, folder), _ = write_outputs(tmp_path, open_test(settings.data), store, rules_of(["one"]), settings)
    Image.fromarray(np.zeros((*SHAPE, 3), np.uint8)).save(tmp_path / "photos" / "5.tif", format="PNG")
    store.write("5", store.read("1"))
    write_outputs(tmp_path, open_test(settings.data), store, rules_of(["one"]), settings)
    with rasterio.open(folder / "4.tif") as written:
        assert written.crs == rasterio.CRS.from_epsg(32633) and written.transform == place["transform"]
        np.testing.assert_array_equal(written.read(1), 255 * (store.read("1")[..., 0] >= 150))
    smaller = with_submission(settings, size=(7, 9))
    with pytest.raises(UserError, match="has a georeference"):
        write_outputs(tmp_path, open_test(settings.data), store, rules_of(["one"]), smaller)


def test_coco_reads_the_data_set_and_the_results(tmp_path):
    data, store, settings = prepared(tmp_path, ["one", "two"], format="coco")
    (path,), _ = write_outputs(tmp_path, data, store, RULES, settings)
    read = COCO(path)
    assert sorted(read.getImgIds()) == [1, 22, 333] and [one["name"] for one in read.loadCats([1, 2])] == list(RULES)
    for name in data.ids:
        for index, rule in enumerate(RULES.values()):
            found = read.loadAnns(read.getAnnIds(imgIds=[int(name)], catIds=[index + 1]))
            mask = store.read(name)[..., index] >= rule.threshold
            np.testing.assert_array_equal(sum(read.annToMask(one) for one in found), mask)
            assert len(found) == label(mask, connectivity=2).max() and sum(one["area"] for one in found) == mask.sum()
            for one in found:
                pixels = read.annToMask(one) > 0
                assert one["score"] == pytest.approx(store.read(name)[..., index][pixels].mean() / 255, abs=1e-4)
    results = with_submission(settings, format="coco_results")
    (path,), _ = write_outputs(tmp_path / "results", data, store, RULES, results)
    assert len(read.loadRes(str(path)).anns) == len(read.anns)


def test_ids_that_are_one_number_stay_text(tmp_path):
    _, store, settings = prepared(tmp_path, ["one"], format="coco")
    Image.open(tmp_path / "photos" / "1.png").save(tmp_path / "photos" / "01.png")
    store.write("01", store.read("22"))
    (path,), _ = write_outputs(tmp_path, open_test(settings.data), store, rules_of(["one"]), settings)
    images = json.loads(path.read_text())["images"]
    assert {image["id"]: image["file_name"] for image in images} == {
        name: f"{name}.png" for name in ("01", "1", "22", "333")
    }


def test_run_lengths_as_json_with_a_word_for_nothing(tmp_path):
    _, _, settings = prepared(tmp_path, ["one"], rows="instance", text="json")
    rle = settings.data.rle.model_copy(update={"empty": "authentic"})
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"rle": rle})})
    labels = np.zeros(SHAPE, np.int32)
    assert encode_rows(labels, settings) == ["authentic"]
    labels[2:4, 1], labels[7, 5:7] = 1, 2
    (text,) = encode_rows(labels, settings)
    runs = [json.loads(part) for part in text.split(";")]
    assert runs == [[1 * 21 + 2 + 1, 2], [5 * 21 + 7 + 1, 1, 6 * 21 + 7 + 1, 1]]
    np.testing.assert_array_equal(decode_rows([text], SHAPE, settings), labels)
    assert not decode_rows(["authentic"], SHAPE, settings).any()


def test_what_is_left_is_written_by_a_function_of_the_users(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def write(folder, predictions, data):\n"
        "    path = folder / 'areas.txt'\n"
        "    path.write_text(' '.join(f'{id}={int(masks.sum())}' for id, maps, masks in predictions))\n"
        "    return path\n"
    )
    data, store, settings = prepared(tmp_path, ["one"], format=f"{tmp_path / 'mine.py'}:write")
    (path,), _ = write_outputs(tmp_path, data, store, rules_of(["one"]), settings)
    areas = {name: int((store.read(name) >= 150).sum()) for name in data.ids}
    assert path.read_text() == " ".join(f"{name}={area}" for name, area in areas.items())


@pytest.mark.parametrize(
    ("submission", "problem"),
    [
        ({"format": "jpg"}, "must be one of csv, png"),
        ({"pixels": [1, 2, 3]}, "3 values for 1 classes"),
        ({"pixels": [1, "#00ff00"]}, "not both"),
        ({"pixels": ["green"]}, "submission.pixels"),
        ({"pixels": [256]}, "from 0 to 255"),
        ({"file_name": "mask"}, "{id} in it once"),
        ({"file_name": "a/{id}"}, "{id} in it once"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, submission, problem):
    with pytest.raises(UserError, match=problem):
        prepared(tmp_path, ["one"], **submission)


@pytest.mark.parametrize("returned", ["None", "folder", "folder.parent / 'a'", "folder / 'b'"])
def test_a_function_that_does_not_return_what_it_wrote_is_named(tmp_path, returned):
    (tmp_path / "mine.py").write_text(
        f"def write(folder, predictions, data):\n    (folder / 'a').touch()\n    return {returned}\n"
    )
    data, store, settings = prepared(tmp_path, ["one"], format=f"{tmp_path / 'mine.py'}:write")
    (tmp_path / "a").touch()
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="mine.py:write must return the path of what it has written into its folder"):
        write_outputs(tmp_path / "out", data, store, rules_of(["one"]), settings)


@pytest.mark.parametrize(("path", "problem"), [("none.py:f", "does not exist"), ("mine.py:g", "no function 'g'")])
def test_a_function_that_is_not_there_is_named(tmp_path, path, problem):
    (tmp_path / "mine.py").write_text("def f(): ...\n")
    data, store, settings = prepared(tmp_path, ["one"], format=str(tmp_path / path))
    with pytest.raises(UserError, match=problem):
        write_outputs(tmp_path, data, store, rules_of(["one"]), settings)
    with pytest.raises(UserError, match=problem):  # before anything is predicted
        require_format(settings)


def test_an_overlay_differs_from_the_image_inside_the_mask_alone(tmp_path):
    data, store, settings = prepared(tmp_path, ["one"])
    store.write("1", np.pad(np.full((8, 8, 1), 255, np.uint8), ((0, 13), (0, 26), (0, 0))))
    Image.new("RGB", SHAPE[::-1], (90, 90, 90)).save(tmp_path / "photos" / "1.png")
    write_overlays(tmp_path / "overlays", data, store, rules_of(["one"]), settings)
    picture = np.asarray(Image.open(tmp_path / "overlays" / "1.jpg")).astype(int)
    far = np.abs(picture[:, 17:] - 90)
    assert far.max() < 12 < np.abs(picture[:7, :7] - 90).max(axis=2).min()


def test_what_was_there_is_kept_under_another_name(tmp_path):
    (tmp_path / "submission.csv").write_text("old")
    set_aside(tmp_path)
    assert (tmp_path / "previous_submission.csv").read_text() == "old" and not (tmp_path / "submission.csv").exists()
    set_aside(tmp_path)  # nothing new: what is kept stays
    assert (tmp_path / "previous_submission.csv").read_text() == "old"
    (tmp_path / "other" / "masks").mkdir(parents=True)
    with pytest.raises(UserError, match="not written by this command"):
        set_aside(tmp_path / "other")


@pytest.mark.parametrize(
    ("format", "files", "previous"),
    [
        ("png", {"submission.zip", "masks"}, {"previous_submission.json"}),
        ("coco", {"submission.json"}, {"previous_submission.zip", "previous_masks"}),
    ],
)
def test_a_runs_submission_takes_its_place_when_all_has_gone_well(tmp_path, format, files, previous):
    data, store, settings = prepared(tmp_path, ["one"], format=format)
    run = RunFolder(tmp_path / "run")
    for root in (run.root, run.root / "masks"):
        root.mkdir()
    for name in ("masks/old.png", "submission.zip", "submission.json"):
        (run.root / name).write_text("old")
    arguments = run, data, store, rules_of(["one"]), rules_of(["one"]), settings
    with pytest.raises(KeyboardInterrupt), new_submissions(*arguments):
        raise KeyboardInterrupt
    assert (run.root / "masks" / "old.png").is_file() and (run.root / "submission.zip").read_text() == "old"
    with new_submissions(*arguments) as written:
        assert (run.root / "submission.json").read_text() == "old"
    assert {path.name for path in written.paths} == files and all(path.exists() for path in written.paths)
    assert {path.name for path in run.root.iterdir()} == files | previous
    assert not (run.root / "masks" / "old.png").exists()
    assert all((run.root / name).is_dir() or (run.root / name).read_text() == "old" for name in previous)
    assert not list(run.root.glob(".submission*"))


def test_of_another_format_than_before_only_the_new_files_are_05s_own(user):
    """The csv files of before, which may be of older maps, get another name."""
    run = user / "runs" / "blobs"
    before = json.loads((run / "05_postprocess.json").read_text())["uploads"]
    completed(user, *stage_words("05_postprocess"), "submission.format=png")
    after = json.loads((run / "05_postprocess.json").read_text())["uploads"]
    assert (before.keys(), after.keys()) == ({"submission.csv", "submission_unprocessed.csv"}, {"submission.zip"})
    assert all((run / f"previous_{name}").is_file() and not (run / name).exists() for name in before)
