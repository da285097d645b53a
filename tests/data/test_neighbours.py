"""Neighbours as channels: which they are, that none is taken from another series, and that a changed one is noticed."""

import os
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from lib.base.errors import UserError
from lib.base.files import write_json
from lib.checks.inspection import check_images, inspect_test
from lib.config.check import check_settings
from lib.config.data_settings import DataSettings
from lib.config.external_source import external_sources
from lib.config.schema import InferSettings, Settings
from lib.data.competition import TestData, open_test, open_training
from lib.data.input_files import (
    image_digests,
    known_test_images,
    note_training_files,
    open_unchanged_training,
    write_known,
)
from lib.data.network_input import as_network_sees, describe_neighbours
from lib.deploy.apply import map_names
from lib.deploy.finished import FinishedRun, Member
from lib.deploy.time_budget import ViewsAndFolds
from lib.masks import rle
from lib.prediction.map_store import MapStore
from lib.prediction.predictor import Predictor, predict_to_store
from lib.prediction.run_maps import build_predictor
from lib.run.folder import RunFolder
from lib.training.kept_images import seen_in_training
from tests.training.jobs import settings_of, table_of, train

SHAPE = (40, 48)
NUMBERS = {"a": [1, 2, 3, 8, 10, 11, 12], "b": [1, 2, 9, 10, 11], "c": [5]}  # gaps, and numbers of one and two digits


def gray(case: str, number: int) -> int:
    """What every pixel of a slice is, with some noise: no two slices are alike."""
    return 20 + 70 * "abc".index(case) + 5 * number


@pytest.fixture
def volumes(tmp_path) -> Path:
    """Slices of three cases for training, all but a's third with a mask, and the same again for testing."""
    root, rows = tmp_path / "data", []
    for case, numbers in NUMBERS.items():
        for number, part in product(numbers, ("train", "test")):
            path = root / part / case / f"slice_{number}_0.5.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = np.full(SHAPE, gray(case, number), np.uint8)
            image[10:20, 10:30] += 3
            cv2.imwrite(str(path), image)
            mask = np.zeros(SHAPE, np.uint8)
            mask[10:20, 10:30] = 1
            if part == "train" and (case, number) != ("a", 3):
                rows.append({"id": f"{case}_{number}", "rle": rle.encode(mask)})
    pd.DataFrame(rows).to_csv(root / "train.csv", index=False)
    return root


def settings(volumes: Path, neighbours: dict | None = None, **data) -> Settings:
    content = {
        "train_images": "train/{case}/slice_{slice}_*.png",
        "test_images": "test/{case}/slice_{slice}_*.png",
        "image_id": "{case}_{slice}",
        "sample_submission": None,
        "group": "{case}",
        "images_without_mask": "skip",
        "channels": 1,
        "neighbours": {"order": "slice"} | (neighbours or {}),
    }
    return settings_of(volumes, {"data": content | data}, epochs=1)


def values(image: np.ndarray) -> list[int]:
    """The channels' gray, which noise does not change at the corner."""
    return image[0, 0].tolist()


@pytest.mark.parametrize(("reach", "step"), [(1, 1), (2, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("part", ["train", "test"])
def test_channels_are_the_neighbours_in_the_order_of_their_numbers(volumes, reach, step, part):
    data_settings = settings(volumes, {"reach": reach, "step": step}).data
    data = (open_training if part == "train" else open_test)(data_settings)
    seen = as_network_sees(data)
    assert ("a_3" in data.ids) == (part == "test")
    for image_id in data.ids:
        case, number = image_id.split("_")
        numbers = NUMBERS[case]
        expected, place = [], numbers.index(int(number))
        for offset in range(-reach, reach + 1):
            there = place + step * offset
            expected.append(gray(case, numbers[0 if there < 0 else -1 if there >= len(numbers) else there]))
        assert values(seen.read_image(image_id)) == expected
        assert values(data.read_image(image_id)) == [gray(case, int(number))]
    assert data_settings.network_channels == 2 * reach + 1


def test_channels_of_colour_stay_together(volumes):
    data = open_test(settings(volumes, channels=3).data)
    image = as_network_sees(data).read_image("a_8")
    assert values(image) == [gray("a", 3)] * 3 + [gray("a", 8)] * 3 + [gray("a", 10)] * 3


def test_stacked_images_are_resized_and_kept_as_a_whole(volumes, tmp_path):
    data = open_training(settings(volumes, resize={"factor": 0.5}).data)
    plain = as_network_sees(open_training(settings(volumes).data)).read_image("b_2")
    kept = seen_in_training(data, tmp_path / "kept")
    for _ in range(2):  # made, then read
        image = kept.read_image("b_2")
        assert values(image) == values(plain) and image.shape == (SHAPE[0] // 2, SHAPE[1] // 2, 3)
        assert np.array_equal(
            image,
            np.stack([cv2.resize(plain[..., c], (24, 20), interpolation=cv2.INTER_AREA) for c in range(3)], axis=2),
        )
        assert kept.read_mask("b_2").shape == (20, 24, 1)


def test_excluded_and_unreadable_images_are_no_neighbours(volumes):
    (volumes / "test" / "a" / "slice_10_0.5.png").write_bytes(b"nothing")
    data = open_test(settings(volumes, exclude=["a_3"], unreadable_test_images="empty").data)
    assert list(data.unreadable) == ["a_10"]
    assert values(as_network_sees(data).read_image("a_8")) == [gray("a", number) for number in (2, 8, 11)]


def test_the_network_is_trained_on_and_predicts_the_stacked_channels(volumes, tmp_path):
    chosen = settings(volumes, {"reach": 2})
    run = train(chosen, tmp_path / "run")
    data = open_test(chosen.data)
    predictor = build_predictor(run, chosen, data.classes, [0])
    store = MapStore(tmp_path / "maps", tuple(data.classes))
    list(predict_to_store(predictor, data, data.ids, store))
    stacked = [cv2.imread(str(volumes / "test" / "b" / f"slice_{n}_0.5.png"), 0) for n in (1, 2, 9, 10, 11)]
    expected = predictor.predict_batch(np.stack(stacked, axis=2)[None])
    assert np.array_equal(store.read("b_9"), np.rint(255 * expected.pixels[0].numpy()).astype(np.uint8))


def remembered_digests(run: RunFolder, data: TestData) -> dict[str, str]:
    """What 04 names the test images by, and leaves for the next time."""
    data = open_test(data.settings)
    known = known_test_images(run, data)
    write_known(run.test_files, known)
    return image_digests(known, data)


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {image_id for image_id, digest in after.items() if before.get(image_id) != digest}


def test_a_changed_neighbour_is_noticed_in_the_maps_that_it_is_part_of(volumes, tmp_path):
    data, run = open_test(settings(volumes).data), RunFolder(tmp_path / "run")
    before = remembered_digests(run, data)
    assert remembered_digests(run, data) == before
    cv2.imwrite(str(volumes / "test" / "b" / "slice_9_0.5.png"), np.zeros(SHAPE, np.uint8))
    assert changed(before, remembered_digests(run, data)) == {"b_2", "b_9", "b_10"}


def test_a_new_neighbour_of_the_same_size_and_time_is_noticed(volumes, tmp_path):
    data, run = open_test(settings(volumes).data), RunFolder(tmp_path / "run")
    for path in volumes.rglob("*.png"):
        os.utime(path, (0, 0))  # as an archive may leave them
    before = remembered_digests(run, data)
    old = volumes / "test" / "a" / "slice_8_0.5.png"
    old.rename(old.with_name("slice_9_0.5.png"))
    new = old.with_name("slice_5_0.5.png")
    new.write_bytes((volumes / "test" / "a" / "slice_3_0.5.png").read_bytes())
    os.utime(new, (0, 0))
    assert changed(before, remembered_digests(run, data)) == {"a_3", "a_5", "a_9", "a_10"}


def test_training_notices_a_changed_neighbour_without_a_mask(volumes, tmp_path):
    chosen, run = settings(volumes), RunFolder(tmp_path / "run")
    data = open_training(chosen.data)
    assert "a_3" not in data.ids
    note_training_files(run, data, {})
    open_unchanged_training(run, chosen)
    cv2.imwrite(str(volumes / "train" / "a" / "slice_3_0.5.png"), np.zeros(SHAPE, np.uint8))
    with pytest.raises(UserError, match="image a_3.* of the training data changed"):
        open_unchanged_training(run, chosen)


def test_a_bundle_names_maps_by_the_neighbours_too(volumes, tmp_path):
    chosen = settings(volumes)
    data, run = open_test(chosen.data), RunFolder(tmp_path / "run")
    write_json(run.fold(0).metrics, {"precision": "fp32"})
    run.fold(0).weights.write_bytes(b"weights")
    elsewhere = chosen.model_copy(update={"data": chosen.data.model_copy(update={"root": Path("elsewhere")})})
    finished = FinishedRun(run, chosen, [Member(run, elsewhere, (0,), 1.0)], {}, run.threshold)
    before = map_names(finished, data, [ViewsAndFolds()])
    cv2.imwrite(str(volumes / "test" / "a" / "slice_1_0.5.png"), np.zeros(SHAPE, np.uint8))
    after = map_names(finished, open_test(chosen.data), [ViewsAndFolds()])
    assert {image_id for image_id in before if before[image_id] != after[image_id]} == {"a_1", "a_2"}


def test_01_tells_the_series_and_warns_of_folds_that_split_them(volumes):
    chosen = settings(volumes)
    data, table = open_training(chosen.data), table_of(chosen)
    together = describe_neighbours(data, table.assign(fold=[int(image_id[0] == "a") for image_id in table.id]))
    assert together == "series    3 of 1 to 7 images by {slice}; with its neighbours an image has 3 channels\n"
    assert "warning   2 series are split over folds, such as that of 'a_1'" in describe_neighbours(data, table)


def odd_size(volumes: Path) -> None:
    for part in ("train", "test"):
        cv2.imwrite(str(volumes / part / "b" / "slice_2_0.5.png"), np.full((40, 50), 9, np.uint8))


def broken_neighbour(volumes: Path) -> None:
    (volumes / "train" / "a" / "slice_3_0.5.png").write_bytes(b"nothing")


def twice(volumes: Path) -> None:
    path = volumes / "train" / "a" / "slice_1_0.5.png"
    path.with_name("slice_01_0.5.png").write_bytes(path.read_bytes())


def no_number(volumes: Path) -> None:
    path = volumes / "train" / "a" / "slice_1_0.5.png"
    path.with_name("slice_mid_0.5.png").write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("damage", "data", "words"),
    [
        (odd_size, {}, r"'b_1' and 'b_2' of one series are 40 x 48 and 40 x 50|'b_2' and 'b_1' of one series"),
        (broken_neighbour, {}, r"1 neighbour cannot be read: .*slice_3.*\(data\.neighbours\)"),
        (twice, {}, r"have the same \{slice\} in one series"),
        (no_number, {}, r"\{slice\} of image 'a_mid' is 'mid', which is not a number"),
        (None, {"neighbours": {"order": "day"}}, r"data\.train_images = .* has no part \{day\}"),
        (
            None,
            {"train_images": "train/{case}/slice_{slice}_0.{five}.png", "neighbours": {"order": "five"}},
            "is a series of its own; put",
        ),
    ],
)
def test_01_refuses(volumes, damage, data, words):
    if damage:
        damage(volumes)
    with pytest.raises(UserError, match=words):
        check_images(open_training(settings(volumes, **data).data))


def test_test_images_without_usable_neighbours_are_a_warning_of_01(volumes):
    odd_size(volumes)
    assert "of one series are" in inspect_test(settings(volumes).data)


def test_external_images_may_be_ordered_by_another_part_but_give_as_many_channels(volumes):
    source = {"train_images": "train/{case}/slice_{z}_*.png", "image_id": "{case}_{z}"}
    content = settings(volumes).data.model_dump() | {"external": [source | {"neighbours": {"order": "z", "step": 2}}]}
    [(_, data)] = external_sources(DataSettings.model_validate(content))
    assert values(as_network_sees(open_training(data)).read_image("a_8")) == [
        gray("a", number) for number in (2, 8, 11)
    ]
    content["external"] = [source | {"neighbours": {"order": "z", "reach": 2}}]
    with pytest.raises(ValueError, match="as many channels as those of the run"):
        external_sources(DataSettings.model_validate(content))


def test_clahe_which_would_take_neighbours_for_colours_is_refused():
    content = {"name": "a", "data": {"channels": 1, "neighbours": {"order": "slice"}}, "augment": {"preset": "heavy"}}
    with pytest.raises(UserError, match=r"augment\.clahe would take the channels of data\.neighbours for colours"):
        check_settings(content, Path("a.yaml"))
    content["augment"]["clahe"] = 0
    check_settings(content, Path("a.yaml"))


def test_the_stack_stands_beside_the_windows_of_a_large_image(volumes):
    """Windows of a stacked image are stacks of windows."""
    data = open_test(settings(volumes).data)
    seen = as_network_sees(data)
    assert np.array_equal(seen.open_image("a_2")[8:24, 4:20], seen.read_image("a_2")[8:24, 4:20])
    network = torch.nn.Conv2d(3, 1, 1)
    network.stride, network.forward = 1, lambda images: images.float().mean(dim=1, keepdim=True) / 255
    predictor = Predictor([network], InferSettings(tta="none", margin=0), torch.device("cpu"), "fp32")
    [(_, prediction)] = predictor.predict(seen, ["a_2"])
    mean = np.mean([gray("a", number) for number in (1, 2, 3)]) / 255
    assert abs(int(prediction.maps[0, 0, 0]) - 255 / (1 + np.exp(-mean))) < 1


def test_masks_beside_the_slices_are_no_neighbours(tmp_path):
    for number in range(3):
        for end in ("", "_mask"):
            path = tmp_path / "case1" / f"case1_{number}{end}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), np.full(SHAPE, 50 * number, np.uint8))
    pattern = "{case}/{id}_{slice}"
    paths = {"train_images": f"{pattern}.png", "train_masks": f"{pattern}_mask.png", "image_id": "{id}_{slice}"}
    training = open_training(DataSettings(root=tmp_path, **paths, neighbours={"order": "slice"}))
    assert training.neighbours.stacks["case1_1"] == ["case1_0", "case1_1", "case1_2"]
