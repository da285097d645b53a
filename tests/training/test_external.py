"""External images: how they are checked and read, which folds learn from them, and how often."""

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lib.base.errors import UserError
from lib.config.check import check_settings
from lib.config.external_source import external_sources
from lib.data.competition import open_training
from lib.folds.external import open_external
from lib.folds.external_check import ExternalCheck
from lib.folds.split import write_folds
from lib.report.stages import folds_part
from lib.run.folder import RunFolder
from lib.run.provenance import training_inputs
from lib.training.batches import EpochSampler
from lib.training.fold_images import fold_images
from lib.training.fold_job import plan_fold
from tests.conftest import blob_image, write_competition
from tests.training.jobs import settings_of, table_of

SOURCE = {"train_masks": "masks.csv", "id_column": "Image", "rle": {"order": "row", "base": 0}}


@pytest.fixture
def external(tmp_path) -> Path:
    """12 images whose csv has other columns and another order of pixels; a0 and a1 (brighter) are the competition's."""
    competition, root = write_competition(tmp_path / "data"), tmp_path / "more"
    (root / "train_images").mkdir(parents=True)
    random, rows = np.random.default_rng(7), []
    masks = open_training(settings_of(competition).data)
    for number in range(12):
        image, mask = blob_image(random, empty=number % 4 == 3)
        if number < 2:
            twin = f"train_{4 + number:03d}"
            image = cv2.imread(str(masks.image_path(twin)), cv2.IMREAD_GRAYSCALE)
            image, mask = cv2.convertScaleAbs(image, alpha=1 + 0.1 * number), masks.read_mask(twin)[..., 0]
        cv2.imwrite(str(root / "train_images" / f"a{number}.png"), image)
        pixels = np.flatnonzero(mask.ravel())
        runs = np.split(pixels, np.flatnonzero(np.diff(pixels) > 1) + 1) if pixels.size else []
        rows.append({"Image": f"a{number}.png", "rle": " ".join(f"{run[0]} {len(run)}" for run in runs)})
    pd.DataFrame(rows).to_csv(root / "masks.csv", index=False)
    return root


def checked(root: Path, *sources: dict, **train):
    """Settings, run and table of folds (two in turn) after what 01 does with the sources."""
    content = [{"root": str(root)} | SOURCE | source for source in sources or ({},)]
    settings = settings_of(root.parent / "data", {"data": {"external": content}}, **train)
    run, table = RunFolder(root.parent / "run"), table_of(settings)
    check = ExternalCheck(settings, table)
    write_folds(table.assign(stratum=""), settings.data.classes, run.folds)
    check.write(run)
    return settings, run, table, check


def images_of_fold(fold: int, settings, run, table):
    data, external = open_training(settings.data), open_external(run, settings, table)
    return fold_images(fold, table, data, settings, run.resized, external)


def drawn(images, epochs: int) -> Counter:
    return Counter(images.id_of(epoch, turn) for epoch in range(epochs) for turn in range(len(images.empty_turns)))


def test_a_source_inherits_what_it_does_not_set():
    data = {"rle": {"order": "row", "empty": "-1"}, "exclude": ["a"], "group": "{case}", "channels": 1}
    sources = [{"root": "x", "rle": {"base": 0}, "weight": 0.5}, {"train_images": "old", "exclude": ["b"]}]
    settings = check_settings({"name": "a", "data": data | {"external": sources}}, Path("a.yaml"))
    (weight, first), (default, second) = external_sources(settings.data)
    assert (weight, default) == (0.5, 1)
    assert (first.rle.order, first.rle.base, first.rle.empty, first.channels) == ("row", 0, "-1", 1)
    assert (first.exclude, first.group, first.external, second.exclude) == ([], None, [], ["b"])
    assert (first.root, second.root) == (Path("x"), settings.data.root)


def test_a_source_resizes_as_the_run_or_in_a_way_of_its_own():
    data = {"resize": {"column": "pixel_size", "to": 0.4}, "resize_test_csv": "test.csv"}
    sources = [{"root": "x", "resize_csv": "sizes.csv"}, {"root": "y", "resize": {"factor": 0.5}}]
    settings = check_settings({"name": "a", "data": data | {"external": sources}}, Path("a.yaml"))
    (_, first), (_, second) = external_sources(settings.data)
    assert (first.resize, first.resize_csv) == (settings.data.resize, "sizes.csv")
    assert (second.resize.factor, second.resize.column, second.resize.to) == (0.5, None, None)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"root": "x", "weight": 0}, "source 1: weight must be a number above 0, not 0"),
        ({"root": "x", "weight": "much"}, "weight must be a number above 0"),
        ({"root": "x", "rle": {"ordr": "row"}}, "unknown setting 'rle.ordr'"),
        ({"root": "x", "channels": 1}, "channels applies to the whole run"),
        ({"root": "x", "classes": ["other"]}, "classes must be those of the run, in the same order: mask"),
        ({"train_masks": "x.csv"}, "needs a root or train_images of its own"),
    ],
)
def test_a_wrong_source_is_refused(source, words):
    with pytest.raises(UserError, match=words):
        check_settings({"name": "a", "data": {"external": [source]}}, Path("a.yaml"))


def test_every_fold_learns_from_them_but_for_those_it_is_validated_on_and_none_validates_on_them(external):
    settings, run, table, check = checked(external)
    fold_of = table.set_index("id").fold
    assert fold_of["train_004"] == 0 and fold_of["train_005"] == 1
    for fold, twin in ((0, "a0"), (1, "a1")):
        images = images_of_fold(fold, settings, run, table)
        expected = {f"external 1/a{number}" for number in range(12)} - {f"external 1/{twin}"}
        assert set(drawn(images, 1)) - set(table.id) == expected
        assert set(images.validation) == set(table.id[table.fold == fold])
    assert (
        "duplicates of training images or of their groups (2, such as"
        in folds_part(run, settings.data.classes)["external"]
    )
    assert (
        "duplicates of training images or of their groups (2, such as" in check.describe()
        and "12 images in all" in check.describe()
    )


def test_their_images_and_masks_are_read_by_the_settings_of_the_source(external):
    settings, run, table, _ = checked(external)
    source = images_of_fold(0, settings, run, table).source
    image = cv2.imread(str(external / "train_images" / "a5.png"))
    assert np.array_equal(source.read_image("external 1/a5"), image)
    text = pd.read_csv(external / "masks.csv").set_index("Image").rle["a5.png"]
    flat = np.zeros(image.shape[0] * image.shape[1], np.uint8)
    for start, length in np.reshape(text.split(), (-1, 2)).astype(int):
        flat[start : start + length] = 1
    assert np.array_equal(source.read_mask("external 1/a5")[..., 0], flat.reshape(image.shape[:2])) and flat.any()
    own = open_training(settings.data)
    assert np.array_equal(source.read_mask("train_002"), own.read_mask("train_002"))


@pytest.mark.parametrize(("weight", "crops"), [(1, 1), (0.5, 1), (3, 1), (0.5, 4), (1.5, 2)])
def test_a_weight_is_how_often_an_image_is_drawn_where_a_training_image_is_drawn_once(external, weight, crops):
    settings, run, table, _ = checked(external, {"weight": weight}, crops_per_image=crops)
    images, epochs = images_of_fold(1, settings, run, table), 24
    turns = drawn(images, epochs)
    assert {turns[image_id] for image_id in table.id[table.fold == 0]} == {crops * epochs}
    of_source = [turns[f"external 1/a{number}"] for number in range(12) if number != 1]
    # 8 with a mask and 3 without are drawn by themselves, each a whole number of times an epoch
    wanted = [epochs * max(1, round(weight * crops * count)) / count for count in (8, 3)]
    is_empty = [number % 4 == 3 for number in range(12) if number != 1]
    for count, empty in zip(of_source, is_empty, strict=True):
        assert abs(count - wanted[empty]) < 1
    assert sum(images.empty_turns) == sum(drawn(images, 1)[image_id] for image_id in empty_ids(table, fold=0)) + round(
        3 * weight * crops
    )


def empty_ids(table: pd.DataFrame, fold: int) -> list[str]:
    return table.id[(table.fold == fold) & (table.coverage_mask == 0)].tolist()


def test_the_share_of_empty_images_counts_them_too(external):
    settings, run, table, _ = checked(external, {"weight": 2}, empty_share=0.2, epochs=3)
    data = open_training(settings.data)
    job = plan_fold(0, run, table, data, settings, {}, open_external(run, settings, table))
    is_empty = job.images.empty_turns
    sampler = EpochSampler(len(is_empty), 0, 0, 1, np.flatnonzero(is_empty), job.plan.left_out)
    for sampler.epoch in range(3):
        turns = [index for _, index in sampler]
        ids = [job.images.id_of(sampler.epoch, index) for index in turns]
        shown = [not job.images.source.read_mask(image_id).any() for image_id in ids]
        assert shown == is_empty[turns].tolist()
        assert sum(shown) == round(0.25 * sum(np.logical_not(shown)))
        assert any(image_id.startswith("external") for image_id in ids)


def test_shares_of_the_classes_are_those_of_what_is_drawn(external):
    settings, run, table, _ = checked(external, {"weight": 3})
    images = images_of_fold(0, settings, run, table)
    masks = [images.source.read_mask(images.id_of(0, turn)).mean() for turn in range(len(images.empty_turns))]
    assert images.class_shares == pytest.approx([np.mean(masks)], rel=1e-5)
    plain = settings_of(external.parent / "data")
    assert fold_images(0, table, open_training(plain.data), plain, run.resized, ()).class_shares == [
        table.coverage_mask[table.fold == 1].mean()
    ]


def test_folds_edited_by_hand_move_what_is_left_out(external):
    settings, run, table, _ = checked(external)
    swapped = table.assign(fold=1 - table.fold)
    assert "external 1/a0" in drawn(images_of_fold(0, settings, run, swapped), 1)
    assert "external 1/a0" not in drawn(images_of_fold(1, settings, run, swapped), 1)


def test_a_group_that_a_source_names_stays_with_its_fold(external):
    table = pd.DataFrame({"id": [f"a{number}.png" for number in range(12)], "patient": ["p"] * 3 + ["q"] * 9})
    table.to_csv(external / "patients.csv", index=False)
    own = pd.DataFrame({"id": [f"train_{n:03d}" for n in range(24)], "patient": ["p", "r"] * 12})
    own.to_csv(external.parent / "data" / "patients.csv", index=False)
    groups = {"group": "patient", "group_csv": "patients.csv"}
    source = {"root": str(external)} | SOURCE
    settings = settings_of(external.parent / "data", {"data": {"external": [source | groups]} | groups})
    run, table = RunFolder(external.parent / "run"), table_of(settings)
    table["group"] = ["p", "r"] * 12  # folds 0 and 1 in turn
    ExternalCheck(settings, table).write(run)
    assert not {"external 1/a0", "external 1/a1", "external 1/a2"} & set(
        drawn(images_of_fold(0, settings, run, table), 1)
    )
    # a1 is a training image of fold 1 as well, so that its patient's images are
    assert "external 1/a0" not in drawn(images_of_fold(1, settings, run, table), 1)
    assert "external 1/a5" in drawn(images_of_fold(1, settings, run, table), 1)


def test_without_near_duplicates_only_the_same_pixels_count(external):
    settings, run, table, _ = checked(external)
    settings = settings.model_copy(update={"folds": settings.folds.model_copy(update={"near_duplicates": False})})
    ExternalCheck(settings, table).write(run)
    assert "external 1/a0" not in drawn(images_of_fold(0, settings, run, table), 1)
    assert "external 1/a1" in drawn(images_of_fold(1, settings, run, table), 1)


def test_duplicates_of_test_images_are_told(external):
    shutil.copy(external.parent / "data" / "test_images" / "test_003.png", external / "train_images" / "a6.png")
    *_, check = checked(external)
    assert check.of_test == ["a6"] and "duplicates of test images" in check.describe()


def test_a_changed_file_is_refused_and_other_reading_or_weight_asks_for_another_training(external):
    settings, run, table, _ = checked(external)
    before = training_inputs(run, settings)
    moved = external.rename(external.with_name("moved"))
    there = settings_of(external.parent / "data", {"data": {"external": [{"root": str(moved)} | SOURCE]}})
    assert training_inputs(run, there) == before
    images_of_fold(0, there, run, table)
    for change in ({"weight": 2}, {"value_range": [0, 100]}):
        other = settings_of(external.parent / "data", {"data": {"external": [{"root": str(moved)} | SOURCE | change]}})
        assert training_inputs(run, other) != before
    image = cv2.imread(str(moved / "train_images" / "a9.png"))
    cv2.imwrite(str(moved / "train_images" / "a9.png"), 255 - image)
    with pytest.raises(UserError, match="external 1 image a9.* of the external data changed after 01"):
        open_external(run, there, table)


def test_a_source_that_settings_leave_out_for_once_is_still_known(external):
    settings, run, table, _ = checked(external, {}, {"weight": 2})
    before = training_inputs(run, settings)
    content = {"data": {"external": [{"root": str(external)} | SOURCE]}}
    first_alone = settings_of(external.parent / "data", content)
    open_external(run, first_alone, table)
    assert training_inputs(run, first_alone) != before
    assert len(open_external(run, settings, table)) == 2
    assert training_inputs(run, settings) == before


def test_a_run_whose_01_has_not_seen_them_is_refused(external):
    settings, run, table, _ = checked(external)
    run.external.unlink()
    with pytest.raises(UserError, match="does not know the images of data.external; run 01"):
        open_external(run, settings, table)
    with pytest.raises(UserError, match=r"external\.csv does not exist; run 01"):
        training_inputs(run, settings)


def test_a_source_that_cannot_be_used_is_named(external):
    (external / "train_images" / "a2.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"external 1 \(data\.external\): 1 of 12 training images cannot be used"):
        checked(external)
