import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib.base.files import read_json
from lib.data.tables import write_table
from lib.report import groups_part as groups_part_module
from lib.report.groups_part import SHOWN_PAIRS, groups_part
from lib.report.page import write_report
from lib.report.pictures import SIDE
from lib.tuning.leak import measure_leak
from lib.tuning.thresholds import choose_thresholds
from tests.report.test_report import FOLDS, FakeRun, Page


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> FakeRun:
    """A run after 03, its leak measured."""
    fake = FakeRun(tmp_path_factory.mktemp("measured"))
    for stage in (fake.prepare, fake.train, fake.choose):
        stage()
    result = choose_thresholds(fake.counts, fake.table.fold.to_numpy(), fake.settings.threshold, None)
    fake.printed = measure_leak(fake.run, fake.settings, fake.training, fake.table, list(range(FOLDS)), result)
    fake.nested = result.mean("nested")
    write_report(fake.run, fake.settings)
    return fake


def test_the_page_shows_the_scenes(measured):
    tags = Page(measured.page).found
    assert {"id": "scenes"} in [attributes for tag, attributes in tags if tag == "section"]
    keys = [attributes.get("id") for tag, attributes in tags if tag == "h3"]
    assert {"fold_groups", "leaks", "relatives"} <= set(keys)
    assert f"nested: {measured.nested:.4f}" in measured.page


def test_pairs_are_in_different_folds_and_the_nearest_come_first(measured):
    part = groups_part(measured.run, measured.settings)
    folds = dict(zip(measured.table.id, measured.table.fold, strict=True))
    nearest = part["leaks"]["nearest"]
    assert all(folds[pair["id"]] != folds[pair["nearest"]] for pair in nearest)
    distances = [pair["distance"] for pair in nearest]
    assert distances == sorted(distances) and all(0 <= pair["score"] <= 1 for pair in nearest)
    groups, leaks, relatives = part["galleries"]
    assert len(groups.items) == FOLDS and len(leaks.items) == SHOWN_PAIRS and len(relatives.items) == 2 * SHOWN_PAIRS
    assert {item.id for item in relatives.items} <= set(measured.test.ids)


def test_what_is_printed_names_both_scores(measured):
    assert measured.printed.startswith("leak      the 12 test images are")
    assert f"nested: {measured.nested:.4f}" in measured.printed or "no score can be predicted" in measured.printed


def test_rows_of_the_folds_in_another_order_change_nothing(measured):
    before = read_json(measured.run.leak)
    table = measured.table.iloc[::-1]
    counts = measured.counts
    by_image = {name: value[::-1] for name, value in vars(counts).items() if name not in ("classes", "presence")}
    turned = replace(counts, **by_image)
    result = choose_thresholds(turned, table.fold.to_numpy(), measured.settings.threshold, None)
    measure_leak(measured.run, measured.settings, measured.training, table, list(range(FOLDS)), result)
    after = read_json(measured.run.leak)
    for part, end in itertools.product(("leaks", "test"), ("nearest", "furthest")):
        pairs_before, pairs_after = (
            {(frozenset([pair["id"], pair["nearest"]]), round(pair["distance"], 4)) for pair in content[part][end]}
            for content in (before, after)
        )
        assert pairs_before == pairs_after  # two that are each other's nearest come in either order
    assert after["new_scenes"]["score"] == pytest.approx(before["new_scenes"]["score"], abs=2e-3)


def test_test_images_that_have_gone_since_03_are_not_shown_and_it_is_said(measured):
    assert not groups_part(measured.run, measured.settings)["measured_others"]
    gone = read_json(measured.run.leak)["test"]["nearest"][0]["id"]
    data = measured.settings.data.model_copy(update={"exclude": [gone], "sample_submission": None})
    settings = measured.settings.model_copy(update={"data": data})
    *_, relatives = groups_part(measured.run, settings)["galleries"]
    assert gone not in {item.id for item in relatives.items} and len(relatives.items) == 2 * SHOWN_PAIRS
    for each, is_said in ((settings, True), (measured.settings, False)):
        write_report(measured.run, each)
        assert ("with other test images than there are now" in measured.page) == is_said


def test_what_03_measured_with_test_images_is_not_shown_once_there_are_none(measured):
    assert measured.run.leak.is_file()
    data = measured.settings.data.model_copy(update={"test_images": None})
    assert groups_part(measured.run, measured.settings.model_copy(update={"data": data})) is None


def test_without_test_images_it_is_said_and_nothing_stale_is_left(measured):
    data = measured.settings.data.model_copy(update={"test_images": None})
    settings = measured.settings.model_copy(update={"data": data})
    result = choose_thresholds(measured.counts, measured.table.fold.to_numpy(), settings.threshold, None)
    assert "there are no test images (data.test_images)" in measure_leak(
        measured.run, settings, measured.training, measured.table, list(range(FOLDS)), result
    )
    assert groups_part(measured.run, settings) is None


def test_the_tiles_of_a_photo_are_laid_side_by_side(measured, monkeypatch):
    """Two tiles beside each other and one below the second, of an image each that is one gray."""
    grays = {image_id: 60 * (number + 1) for number, image_id in enumerate(measured.training.ids[:3])}
    table = pd.DataFrame({"id": list(grays), "mosaics": 0, "mosaic_row": [0, 0, 1], "mosaic_column": [0, 1, 1]})
    write_table(measured.run.hidden_groups, table)
    drawn = []
    monkeypatch.setattr(groups_part_module, "encode_pictures", lambda pictures: drawn.append(pictures) or [])
    flat = SimpleNamespace(ids=list(grays), open_image=lambda image_id: np.full((50, 70, 3), grays[image_id], np.uint8))
    (gallery,) = groups_part_module._mosaic_galleries(measured.run, flat)
    for content in ("", "id,mosaics\n", f"id,mosaics,mosaic_row,mosaic_column\n{flat.ids[0]},0,0,edited\n"):
        measured.run.hidden_groups.write_text(content)
        assert list(groups_part_module._mosaic_galleries(measured.run, flat)) == []
    measured.run.hidden_groups.unlink()
    assert list(groups_part_module._mosaic_galleries(measured.run, flat)) == []
    assert [item.caption for item in gallery.items] == ["and 2 more images"]
    ((_, picture),) = drawn[0]
    side = SIDE // 2
    assert picture.shape == (2 * side, 2 * side, 3)
    quarters = picture[side // 2 :: side, side // 2 :: side, 0]
    assert quarters.tolist() == [[85, 170], [0, 255]]  # stretched: 0 to 180 become 0 to 255
