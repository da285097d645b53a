"""Opening data as it lies on disk: the layouts of real competitions, and every way in which files can disagree."""

import csv
import gzip
import hashlib
import os
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image

from lib.base.errors import UserError
from lib.checks.inspection import check_images, inspect_all, inspect_test, skipped_lines
from lib.config.data_settings import DataSettings, RleSettings
from lib.data.competition import open_compared, open_test, open_training
from lib.data.sample_submission import read_sample
from lib.masks.rle import encode
from tests.competitions import save, write_dicom, write_lines

RANDOM = np.random.default_rng(0)
SHAPE = (9, 13)
FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 300))


def draw(shape=SHAPE, share=0.4) -> np.ndarray:
    return (RANDOM.random(shape) < share).astype(np.uint8)


def save_image(path: Path, shape=SHAPE) -> np.ndarray:
    return save(path, RANDOM.integers(0, 256, (*shape, 3), dtype=np.uint8))


def simple(root: Path, ids=("a", "b", "c")) -> dict[str, np.ndarray]:
    """The layout that needs no settings; the masks by id."""
    masks = {id: draw() for id in ids}
    for id in ids:
        save_image(root / "train_images" / f"{id}.png")
        save_image(root / "test_images" / f"test_{id}.png")
    write_lines(root / "train.csv", "id,rle", *(f"{id},{encode(mask)}" for id, mask in masks.items()))
    write_lines(root / "sample_submission.csv", "id,rle", *(f"test_{id}," for id in reversed(ids)))
    return masks


def assert_masks(training, expected: dict[str, np.ndarray]) -> None:
    """`expected` by id: (height, width) or (height, width, classes)."""
    assert training.ids == sorted(expected)
    for id, mask in expected.items():
        read = training.read_mask(id)
        assert read.dtype == np.uint8 and read.flags.c_contiguous
        np.testing.assert_array_equal(read, mask.reshape(*mask.shape[:2], -1))


def test_the_simple_layout_needs_no_settings(tmp_path):
    masks = simple(tmp_path)
    training, test = open_training(DataSettings(root=tmp_path)), open_test(DataSettings(root=tmp_path))
    assert_masks(training, masks)
    assert training.classes == ["mask"] and training.groups is None
    assert training.read_image("a").shape == (*SHAPE, 3)
    assert training.image_path("a") == tmp_path / "train_images" / "a.png" and training.image_size("a") == SHAPE
    assert test.ids == ["test_a", "test_b", "test_c"]
    assert (test.columns, test.rle_columns) == (["id", "rle"], [1])
    assert [(row.id, row.class_index, row.values) for row in test.rows] == [
        (id, 0, (id, "")) for id in ("test_c", "test_b", "test_a")
    ]


def test_what_is_opened_can_be_pickled(tmp_path):
    masks = simple(tmp_path)
    training = pickle.loads(pickle.dumps(open_training(DataSettings(root=tmp_path))))
    assert_masks(training, masks)
    assert pickle.loads(pickle.dumps(open_test(DataSettings(root=tmp_path)))).ids == ["test_a", "test_b", "test_c"]


def test_a_group_column_is_used_unless_another_is_named(tmp_path):
    masks = simple(tmp_path)
    rows = (f"{id},{encode(mask)},g{n // 2},h{n}" for n, (id, mask) in enumerate(masks.items()))
    write_lines(tmp_path / "train.csv", "id,rle,group,site", *rows)
    assert open_training(DataSettings(root=tmp_path)).groups == {"a": "g0", "b": "g0", "c": "g1"}
    assert open_training(DataSettings(root=tmp_path, group="site")).groups == {"a": "h0", "b": "h1", "c": "h2"}
    with pytest.raises(UserError, match="no column 'ward' .data.group"):
        open_training(DataSettings(root=tmp_path, group="ward"))


# ---- the layouts of real competitions -------------------------------------------------------------------------------


def test_salt_mask_images_and_csv_agree(tmp_path):
    masks = {"a1": draw((5, 5)), "b2": np.zeros((5, 5), np.uint8)}
    for id, mask in masks.items():
        save_image(tmp_path / "train/images" / f"{id}.png", (5, 5))
        save(tmp_path / "train/masks" / f"{id}.png", mask.astype(np.uint16) * 65535)
    write_lines(tmp_path / "train.csv", "id,rle_mask", *(f"{id},{encode(mask)}" for id, mask in masks.items()))
    from_csv = DataSettings(root=tmp_path, train_images="train/images")
    for settings_of in (from_csv, from_csv.model_copy(update={"train_masks": "train/masks"})):
        assert_masks(open_training(settings_of), masks)


def test_carvana_gif_masks_and_groups_from_names(tmp_path):
    masks = {f"{car}_{view}": draw() for car in ("fff9", "0cdf") for view in ("01", "02")}
    for id, mask in masks.items():
        save_image(tmp_path / "train" / f"{id}.jpg")
        save(tmp_path / "train_masks" / f"{id}_mask.gif", mask)
    save_image(tmp_path / "test/abc_01.jpg")
    write_lines(tmp_path / "sample_submission.csv", "img,rle_mask", "abc_01.jpg,1 1")
    layout = DataSettings(
        root=tmp_path,
        train_images="train/{car}_{view}.jpg",
        train_masks="train_masks/{car}_{view}_mask.gif",
        test_images="test/{car}_{view}.jpg",
        image_id="{car}_{view}",
        group="{car}",
    )
    training = open_training(layout)
    assert_masks(training, masks)
    assert training.groups == {id: id[:4] for id in masks}
    (row,) = open_test(layout).rows
    assert row == ("abc_01", 0, ("abc_01.jpg", "1 1"))


def test_dsb_one_mask_file_per_nucleus(tmp_path):
    objects = {"x": [draw(share=0.1) for _ in range(4)], "y": [draw()]}
    for id, masks in objects.items():
        save(tmp_path / "stage1_train" / id / "images" / f"{id}.png", np.dstack([draw() * 9] * 4))
        for number, mask in enumerate(masks):
            save(tmp_path / "stage1_train" / id / "masks" / f"hash{number}.png", mask * 255)
    layout = {"root": tmp_path, "train_images": "stage1_train/{id}/images/*.png"}
    from_files = DataSettings(**layout, train_masks="stage1_train/{id}/masks/*.png", instances=True)
    assert_masks(open_training(from_files), {id: np.any(masks, axis=0) for id, masks in objects.items()})
    assert open_training(from_files).read_image("x").shape == (*SHAPE, 3)
    with pytest.raises(UserError, match="'x' has several mask files in .*; set data.instances"):
        open_training(from_files.model_copy(update={"instances": False}))
    rows = (f"{id},{encode(mask)}" for id, masks in objects.items() for mask in masks)
    write_lines(tmp_path / "stage1_train_labels.csv", "ImageId,EncodedPixels", *rows)
    from_csv = DataSettings(**layout, train_masks="stage1_train_labels.csv", instances=True)
    assert_masks(open_training(from_csv), {id: np.any(masks, axis=0) for id, masks in objects.items()})


def test_airbus_ships_blank_rows_and_broken_files(tmp_path):
    ships = [np.zeros(SHAPE, np.uint8) for _ in range(2)]
    ships[0][:3, 2:5], ships[1][2:, 4:9] = 1, 1
    for id in ("sea", "ships", "6384c3e78"):
        save_image(tmp_path / "train_v2" / f"{id}.jpg")
    rows = ["sea.jpg,", *(f"ships.jpg,{encode(ship)}" for ship in ships), "6384c3e78.jpg,"]
    write_lines(tmp_path / "train_ship_segmentations_v2.csv", "ImageId,EncodedPixels", *rows)
    layout = DataSettings(
        root=tmp_path,
        train_images="train_v2",
        train_masks="train_ship_segmentations_v2.csv",
        instances=True,
        exclude=["6384c3e78"],
    )
    assert_masks(open_training(layout), {"sea": ships[0] * 0, "ships": ships[0] | ships[1]})


def test_siim_relative_runs_blanks_and_nested_folders(tmp_path):
    """PNG stands in for DICOM, which tests/test_images.py reads."""
    relative = RleSettings(base=0, starts="relative", empty="-1")
    masks = [draw(), draw()]
    ids = ["1.2.276.0.7230010.3.1", "1.2.276.0.7230010.3.2", "1.2.276.0.7230010.3.3"]
    for number, id in enumerate(ids):
        save_image(tmp_path / "dicom-images-train" / f"study{number // 2}" / f"series{number}" / f"{id}.png")
    rows = [f"{ids[0]}, -1", *(f"{ids[1]}, {encode(mask, relative)}" for mask in masks)]
    write_lines(tmp_path / "train-rle.csv", "ImageId, EncodedPixels", *rows)
    layout = DataSettings(
        root=tmp_path,
        train_images="dicom-images-train/{study}/*/{id}.png",
        train_masks="train-rle.csv",
        rle=relative,
        instances=True,
        images_without_mask="skip",
        group="{study}",
    )
    training = open_training(layout)
    assert_masks(training, {ids[0]: masks[0] * 0, ids[1]: masks[0] | masks[1]})
    assert training.groups == {ids[0]: "study0", ids[1]: "study0"}


@pytest.mark.parametrize("generation", [1, 2])
def test_severstal_both_generations(tmp_path, generation):
    masks = {id: np.stack([draw() for _ in range(4)], axis=2) for id in ("0002cc93b", "00031f466")}
    masks["00031f466"][:] = 0
    masks["0002cc93b"][:, :, 2] = 0
    for id in masks:
        save_image(tmp_path / "train_images" / f"{id}.jpg")
    texts = [(id, c, encode(mask[:, :, c - 1])) for id, mask in masks.items() for c in (1, 2, 3, 4)]
    if generation == 1:
        write_lines(
            tmp_path / "train.csv", "ImageId_ClassId,EncodedPixels", *(f"{id}.jpg_{c},{text}" for id, c, text in texts)
        )
        layout = DataSettings(root=tmp_path, classes=[1, 2, 3, 4])
    else:
        write_lines(
            tmp_path / "train.csv",
            "ImageId,ClassId,EncodedPixels",
            *(f"{id}.jpg,{c},{text}" for id, c, text in texts if text),
        )
        layout = DataSettings(root=tmp_path, classes=[1, 2, 3, 4], class_column="ClassId", images_without_mask="empty")
        with pytest.raises(UserError, match="'0002cc93b', '00031f466' have no mask.*images_without_mask"):
            open_training(layout.model_copy(update={"images_without_mask": "error"}))
    assert_masks(open_training(layout), masks)
    save_image(tmp_path / "test_images" / "z.jpg")
    write_lines(
        tmp_path / "sample_submission.csv", "ImageId_ClassId,EncodedPixels", *(f"z.jpg_{c},1 1" for c in (1, 2, 3, 4))
    )
    test = open_test(layout)
    assert [(row.id, row.class_index, row.values[0]) for row in test.rows] == [
        ("z", c - 1, f"z.jpg_{c}") for c in (1, 2, 3, 4)
    ]


def test_clouds_class_in_the_id_column(tmp_path):
    classes = ["Fish", "Flower", "Gravel", "Sugar"]
    masks = {"0011165": np.stack([draw() for _ in classes], axis=2)}
    save_image(tmp_path / "train_images" / "0011165.jpg")
    rows = (f"0011165.jpg_{name},{encode(masks['0011165'][:, :, index])}" for index, name in enumerate(classes))
    write_lines(tmp_path / "train.csv", "Image_Label,EncodedPixels", *rows)
    assert_masks(open_training(DataSettings(root=tmp_path, classes=classes)), masks)
    with pytest.raises(UserError, match="'0011165.jpg_Sugar' ends in none of the classes"):
        open_training(DataSettings(root=tmp_path, classes=["Fish", "Flower", "Gravel"]))


@pytest.mark.parametrize("sign", ["-", "_", " ", ":"])
def test_any_sign_may_part_id_and_class(tmp_path, sign):
    masks, classes = simple(tmp_path, ("a", "b_dent", "c")), ["dent", "deep dent"]
    rows = (f"{id}{sign}{name},{encode(mask)}" for id, mask in masks.items() for name in classes)
    write_lines(tmp_path / "train.csv", "id,rle", *rows)
    expected = {id: np.stack([mask, mask], axis=2) for id, mask in masks.items()}
    assert_masks(open_training(DataSettings(root=tmp_path, classes=classes)), expected)


def test_the_column_of_the_classes_is_named(tmp_path):
    masks = simple(tmp_path)
    write_lines(tmp_path / "train.csv", "id,Defect,rle", *(f"{id},dent,{encode(mask)}" for id, mask in masks.items()))
    layout = DataSettings(root=tmp_path, classes=["dent", "scratch"], images_without_mask="empty")
    with pytest.raises(UserError, match="set data.class_column=Defect, the column that holds them"):
        open_training(layout)
    read = open_training(layout.model_copy(update={"class_column": "Defect"}))
    assert_masks(read, {id: np.stack([mask, np.zeros_like(mask)], axis=2) for id, mask in masks.items()})

    write_lines(tmp_path / "sample_submission.csv", "id,number,rle", *(f"test_{id},1," for id in "abc"))
    with pytest.raises(UserError, match="set data.classes, or data.sample_class_column to .* one of: id, number, rle"):
        open_test(layout)
    with pytest.raises(UserError, match="in 3 of 3 rows: .1.; name the classes as the table does"):
        open_test(layout.model_copy(update={"sample_class_column": "number"}))


def test_hubmap_groups_from_another_table(tmp_path):
    masks = {"2f6ecfcdf": draw(), "aaa6a05cc": draw()}
    for id in masks:
        save_image(tmp_path / "train" / f"{id}.tiff")
        (tmp_path / "train" / f"{id}.json").touch()
    write_lines(tmp_path / "train.csv", "id,encoding", *(f"{id},{encode(mask)}" for id, mask in masks.items()))
    information = "HuBMAP-20-dataset_information.csv"
    write_lines(
        tmp_path / information,
        "image_file,width_pixels,patient_number",
        *(f"{id}.tiff,9,{number}" for id, number in (("2f6ecfcdf", 63921), ("aaa6a05cc", 68250), ("test", 1))),
    )
    layout = DataSettings(root=tmp_path, train_images="train", group="patient_number", group_csv=information)
    assert_masks(open_training(layout), masks)
    assert open_training(layout).groups == {"2f6ecfcdf": "63921", "aaa6a05cc": "68250"}
    write_lines(tmp_path / information, "image_file,patient_number", "2f6ecfcdf.tiff,1")
    with pytest.raises(UserError, match="has no patient_number for 'aaa6a05cc'"):
        open_training(layout)


def test_uw_madison_id_of_several_parts_and_an_empty_sample(tmp_path):
    classes = ["large_bowel", "small_bowel", "stomach"]
    masks = {
        f"case7_day{day}_slice_000{n}": np.stack([draw() for _ in classes], axis=2) for day in (0, 3) for n in (1, 2)
    }
    for id in masks:
        day, _, number = id.partition("_slice_")
        name = f"slice_{number}_{SHAPE[1]}_{SHAPE[0]}_1.50_1.50.png"
        save(tmp_path / "train/case7" / day / "scans" / name, RANDOM.integers(0, 9000, SHAPE, dtype=np.uint16))
        save(tmp_path / "test/case9" / day / "scans" / name, draw())
    row = RleSettings(order="row")
    rows = (f"{id},{name},{encode(mask[:, :, c], row)}" for id, mask in masks.items() for c, name in enumerate(classes))
    write_lines(tmp_path / "train.csv", "id,class,segmentation", *rows)
    write_lines(tmp_path / "sample_submission.csv", "id,class,predicted")
    layout = DataSettings(
        root=tmp_path,
        train_images="train/{case}/{day}/scans/slice_{slice}_*.png",
        test_images="test/{case}/{day}/scans/slice_{slice}_*.png",
        image_id="{day}_slice_{slice}",
        group="{case}",
        classes=classes,
        class_column="class",
        rle=row,
        value_range="image",
    )
    training = open_training(layout)
    assert_masks(training, masks)
    assert set(training.groups.values()) == {"case7"}
    image = training.read_image(training.ids[0])
    assert image.min() == 0 and image.max() == 255
    excluding = layout.model_copy(update={"exclude": ["case7_day0_*"]})
    assert open_training(excluding).ids == ["case7_day3_slice_0001", "case7_day3_slice_0002"]
    test = open_test(layout)
    assert test.rle_columns == [2] and len(test.rows) == 12
    assert test.rows[1] == ("case7_day0_slice_0001", 1, ("case7_day0_slice_0001", "small_bowel", ""))


def test_contrails_bands_and_npy_masks(tmp_path):
    ids = ["1000216489776414077", "1000603527582775543"]
    bands, masks = {}, {}
    for id in ids:
        for band in (8, 11, 14, 15, 16):
            bands[id, band] = save(
                tmp_path / "train" / id / f"band_{band:02d}.npy", RANDOM.uniform(243, 303, (12, 10, 8))
            )
        masks[id] = save(tmp_path / "train" / id / "human_pixel_masks.npy", draw((12, 10))[:, :, None].astype(np.int32))
        save(tmp_path / "test" / id / "band_11.npy", bands[id, 8])
    write_lines(tmp_path / "sample_submission.csv", "record_id,encoded_pixels", f"{ids[0]},1 1", f"{ids[1]},1 1")
    layout = DataSettings(
        root=tmp_path,
        train_images="train/{id}/band_1[145].npy",
        train_masks="train/{id}/human_pixel_masks.npy",
        plane_files=True,
        plane=4,
        value_range=(243, 303),
        rle=RleSettings(empty="-"),
    )
    training = open_training(layout)
    assert_masks(training, masks)
    image = training.read_image(ids[0])
    for channel, band in enumerate((11, 14, 15)):
        expected = (bands[ids[0], band][:, :, 4] - 243) / 60 * 255
        np.testing.assert_allclose(image[:, :, channel], expected, atol=0.51)
    (tmp_path / "train" / ids[1] / "band_15.npy").unlink()
    with pytest.raises(UserError, match=f"'{ids[1]}' has a different number of files from data.channels = 3.*band_11"):
        open_training(layout)


def test_vesuvius_slices_as_channels(tmp_path):
    slices = {n: save(tmp_path / f"train/1/surface_volume/{n:02d}.tif", draw() * 50) for n in range(5)}
    mask = save(tmp_path / "train/1/inklabels.png", draw() * 255)
    save(tmp_path / "train/1/ir.png", draw())
    layout = DataSettings(
        root=tmp_path,
        train_images="train/{id}/surface_volume/0[1-4].tif",
        plane_files=True,
        train_masks="train/{id}/inklabels.png",
        channels=4,
        group="{id}",
    )
    training = open_training(layout)
    assert_masks(training, {"1": mask > 0})
    assert training.groups == {"1": "1"}
    np.testing.assert_array_equal(training.read_image("1"), np.dstack([slices[n] for n in (1, 2, 3, 4)]))
    save(tmp_path / "train/1/surface_volume/03.tif", draw((9, 12)))
    with pytest.raises(UserError, match="03.tif is 9 x 12, but .*01.tif"):
        training.read_image("1")


@pytest.mark.parametrize("shape", [(6, 6), (1, 6, 6), (6, 6, 1)])
def test_planes_in_arrays_as_high_as_there_are_planes(tmp_path, shape):
    planes = {n: save(tmp_path / f"train/1/{n}.npy", draw((6, 6)).reshape(shape)) for n in range(6)}
    save(tmp_path / "masks/1.png", draw((6, 6)) * 255)
    layout = DataSettings(
        root=tmp_path, train_images="train/{id}/[0-5].npy", plane_files=True, train_masks="masks", channels=6
    )
    training = open_training(layout)
    assert training.image_size("1") == (6, 6)
    np.testing.assert_array_equal(training.read_image("1"), np.dstack([planes[n].reshape(6, 6) for n in range(6)]))


def test_sennet_tokens_and_labels_without_images(tmp_path):
    row = RleSettings(order="row", empty="1 0")
    masks = {"kidney_1_dense_0000": draw(), "kidney_2_0001": np.zeros(SHAPE, np.uint8)}
    for id in masks:
        kidney, number = id.rsplit("_", 1)
        save_image(tmp_path / "train" / kidney / "images" / f"{number}.tif")
    rows = [f"{id},{encode(mask, row)}" for id, mask in masks.items()]
    assert rows[1].endswith(",1 0")
    write_lines(tmp_path / "train_rles.csv", "id,rle", *rows, "kidney_3_dense_0001,1 0")
    layout = DataSettings(
        root=tmp_path,
        train_images="train/{kidney}/images/{slice}.tif",
        train_masks="train_rles.csv",
        image_id="{kidney}_{slice}",
        group="{kidney}",
        rle=row,
    )
    with pytest.raises(UserError, match="'kidney_3_dense_0001' of .* has no image.*masks_without_image"):
        open_training(layout)
    training = open_training(layout.model_copy(update={"masks_without_image": "skip"}))
    assert_masks(training, masks)
    assert training.groups["kidney_1_dense_0000"] == "kidney_1_dense"


def test_a_folder_of_masks_for_each_class(tmp_path):
    masks = {id: np.stack([draw(), draw()], axis=2) for id in ("a", "b")}
    for id, mask in masks.items():
        save_image(tmp_path / "train_images" / f"{id}.png")
        for index, name in enumerate(("cell", "nucleus")):
            save(tmp_path / "masks" / name / f"{id}.png", mask[:, :, index])
    layout = DataSettings(root=tmp_path, classes=["cell", "nucleus"], train_masks="masks/{class}/{id}.png")
    assert_masks(open_training(layout), masks)
    with pytest.raises(UserError, match="must say where the {class} stands"):
        open_training(layout.model_copy(update={"train_masks": "masks"}))
    with pytest.raises(UserError, match="has the class 'nucleus', which is not one of data.classes"):
        open_training(layout.model_copy(update={"classes": ["cell"]}))
    (tmp_path / "masks/cell/b.png").unlink()
    with pytest.raises(UserError, match="'b' has no mask"):
        open_training(layout)
    masks["b"][:, :, 0] = 0
    assert_masks(open_training(layout.model_copy(update={"images_without_mask": "empty"})), masks)


def test_objects_are_numbered_by_rows_or_are_components(tmp_path):
    simple(tmp_path, ["a", "b"])
    write_lines(tmp_path / "train.csv", "id,rle", "a,1 3", "a,3 2 12 1", "b,")
    training = open_training(DataSettings(root=tmp_path, instances=True))
    expected = np.zeros(SHAPE[::-1], np.int32)
    expected.ravel()[:2], expected.ravel()[[2, 3, 11]] = 1, 2  # the later row has the pixel that both claim
    np.testing.assert_array_equal(training.read_objects("a")[:, :, 0], expected.T)
    assert training.read_objects("b").shape == (*SHAPE, 1) and not training.read_objects("b").any()
    write_lines(tmp_path / "train.csv", "id,rle", "a,1 3 20 2", "b,")
    objects = open_training(DataSettings(root=tmp_path)).read_objects("a")
    assert objects.dtype == np.int32 and objects.max() == 2 and np.count_nonzero(objects) == 5


def test_masks_in_the_other_form(tmp_path):
    masks = simple(tmp_path)
    for id in ("a", "b"):
        save(tmp_path / "masks" / f"{id}.png", masks[id] * 255)
        write_lines(tmp_path / "runs" / id / "rle.csv", "Id,Predicted", f"{id},{encode(masks[id])}")
    for compared in ("masks", "runs/{id}/rle.csv"):
        training = open_training(DataSettings(root=tmp_path, compare_masks=compared))
        assert_masks(open_compared(training), {id: masks[id] for id in ("a", "b")})
    write_lines(tmp_path / "runs/b/rle.csv", "Id,EncodedPixels", "b,")
    with pytest.raises(
        UserError, match="b/rle.csv has the columns Id, EncodedPixels, but the table before it Id, Pred"
    ):
        open_compared(training)


@pytest.mark.parametrize("compared", ["none/{id}.png", "{id}/none.csv", "none.json", "a.txt", "names.csv"])
def test_errors_about_masks_in_the_other_form_name_its_setting(tmp_path, compared):
    simple(tmp_path)
    write_lines(tmp_path / "a.txt", "0 0.1 0.1 0.2 0.1 0.2 0.2")
    write_lines(tmp_path / "names.csv", "id,mask", "a,a.png", "b,b.png", "c,c.png")
    training = open_training(DataSettings(root=tmp_path, compare_masks=compared))
    with pytest.raises(UserError, match=r"data\.compare_masks") as caught:
        open_compared(training)
    assert "data.train_masks" not in str(caught.value)


def test_groups_from_dicom_headers(tmp_path):
    for number, patient in enumerate(("p1", "p2", "p1")):
        write_dicom(tmp_path / "train_images" / f"{number}.dcm", draw() * 255, PatientID=patient)
    write_lines(tmp_path / "train.csv", "id,rle", "0,", "1,", "2,")
    layout = DataSettings(root=tmp_path, channels=1, group="dicom:PatientID")
    assert open_training(layout).groups == {"0": "p1", "1": "p2", "2": "p1"}
    with pytest.raises(UserError, match="0.dcm has no element 'PatientAge' in its header .data.group"):
        open_training(layout.model_copy(update={"group": "dicom:PatientAge"}))


def test_masks_beside_their_images_are_no_images(tmp_path):
    masks = {f"benign ({number})": draw() for number in range(3)}
    for id, mask in masks.items():
        save_image(tmp_path / "benign" / f"{id}.png")
        save(tmp_path / "benign" / f"{id}_mask.png", mask * 255)
    layout = DataSettings(root=tmp_path, train_images="benign", train_masks="benign/{id}_mask.png")
    assert_masks(open_training(layout), masks)
    with pytest.raises(UserError, match="find the same files; let data.train_masks name"):
        open_training(layout.model_copy(update={"train_masks": "benign"}))


def test_a_table_of_file_names_says_which_pattern_to_set(tmp_path):
    masks = {id: draw() for id in "abcd"}
    for id, mask in masks.items():
        save_image(tmp_path / "images" / f"{id}.png")
        save(tmp_path / "masks" / f"{id}_seg.png", mask * 255)
    rows = [f"images/{id}.png,masks/{id}_seg.png,p{number // 2}" for number, id in enumerate("abcd")]
    write_lines(tmp_path / "train.csv", "image,mask,patient", *rows)
    layout = DataSettings(root=tmp_path, train_images="images")
    for rle_column in (None, "mask"):
        with pytest.raises(UserError, match=r"'mask' names files, such as masks/a_seg.png.*, such as masks/{id}_seg"):
            open_training(layout.model_copy(update={"rle_column": rle_column}))
    told = layout.model_copy(update={"train_masks": "masks/{id}_seg.png", "group_csv": "train.csv", "group": "patient"})
    assert_masks(open_training(told), masks)
    assert open_training(told).groups == {"a": "p0", "b": "p0", "c": "p1", "d": "p1"}


# ---- what does not belong together ----------------------------------------------------------------------------------


def test_images_and_rows_that_do_not_match_are_counted(tmp_path):
    simple(tmp_path, [f"{n:02d}" for n in range(6)])
    write_lines(tmp_path / "train.csv", "id,rle", "00,", *(f"x{n}," for n in range(5)))
    with pytest.raises(
        UserError, match="masks 'x0', 'x1', 'x2' and 2 more of .*train.csv have no image in .*train_images"
    ):
        open_training(DataSettings(root=tmp_path))
    write_lines(tmp_path / "train.csv", "id,rle", "00,")
    with pytest.raises(UserError, match="images '01', '02', '03' and 2 more have no mask in .*train.csv"):
        open_training(DataSettings(root=tmp_path))
    assert open_training(DataSettings(root=tmp_path, images_without_mask="skip")).ids == ["00"]
    assert len(open_training(DataSettings(root=tmp_path, images_without_mask="empty")).ids) == 6
    write_lines(tmp_path / "train.csv", "id,rle", "y,")
    with pytest.raises(UserError, match="no image in .* has a mask"):
        open_training(DataSettings(root=tmp_path, images_without_mask="skip", masks_without_image="skip"))


def test_01_counts_the_images_that_are_left_out_without_a_mask(tmp_path, capsys):
    masks = simple(tmp_path)
    write_lines(tmp_path / "train.csv", "id,rle", f"b,{encode(masks['b'])}")
    check_images(open_training(DataSettings(root=tmp_path, doubtful_rle="read", images_without_mask="skip")))
    assert "2 of 3 images have no mask and are left out (data.images_without_mask)" in capsys.readouterr().out
    check_images(open_training(DataSettings(root=tmp_path, doubtful_rle="read", images_without_mask="empty")))
    assert "left out" not in capsys.readouterr().out


def test_01_counts_the_masks_that_are_left_out_without_an_image(tmp_path, capsys):
    masks = simple(tmp_path)
    masks |= {"x": masks["a"], "y": masks["b"], "z": masks["c"]}
    rows = (f"{name},{encode(mask)}" for name, mask in masks.items())
    write_lines(tmp_path / "train.csv", "id,rle", *rows)
    settings = DataSettings(root=tmp_path, doubtful_rle="read", masks_without_image="skip")
    check_images(open_training(settings.model_copy(update={"exclude": ["z"]})))  # what is asked for is not counted
    assert "2 masks without an image left out (data.masks_without_image)" in capsys.readouterr().out


@pytest.mark.parametrize("repeated", ["a", "a.png", " a "])
def test_an_id_twice_is_an_error_unless_rows_are_instances(tmp_path, repeated):
    masks = simple(tmp_path)
    other = draw()
    with (tmp_path / "train.csv").open("a") as file:
        file.write(f"{repeated},{encode(other)}\n")
    with pytest.raises(UserError, match="'a' has several rows in .*train.csv; set data.instances"):
        open_training(DataSettings(root=tmp_path))
    assert_masks(open_training(DataSettings(root=tmp_path, instances=True)), masks | {"a": masks["a"] | other})


def test_files_of_one_id_are_planes_only_where_a_setting_says_so(tmp_path):
    """Three cases with slices of equal names, which as many channels would take for red, green and blue."""
    masks = {}
    for case in ("case1", "case2", "case3"):
        for name in "ab":
            save(tmp_path / "train" / case / f"{name}.png", draw() * 255)
            masks[f"{case}_{name}"] = save(tmp_path / "masks" / case / f"{name}.png", draw())
    layout = DataSettings(root=tmp_path, train_images="train/{case}/{id}.png", train_masks="masks/{case}/{id}.png")
    with pytest.raises(UserError, match="2 ids have several files, such as 'a': .*case1/a.png.*let data.image_id"):
        open_training(layout)
    assert_masks(open_training(layout.model_copy(update={"image_id": "{case}_{id}"})), masks)
    planes = layout.model_copy(update={"plane_files": True, "instances": True})
    assert open_training(planes).read_image("a").shape == (*SHAPE, 3)
    with pytest.raises(
        UserError, match="'a', 'b' have a different number of files from data.channels = 1: .*plane_files"
    ):
        open_training(planes.model_copy(update={"channels": 1}))


def test_ids_of_several_test_images_are_told_apart_by_their_own_template(tmp_path):
    for folder in ("one", "two"):
        save_image(tmp_path / folder / "a.png")
    layout = DataSettings(root=tmp_path, test_images="{folder}/{id}.png", sample_submission=None)
    with pytest.raises(UserError, match="1 id has several files, .*let data.test_id tell them apart"):
        open_test(layout)
    apart = layout.model_copy(update={"test_id": "{folder}_{id}"})
    assert open_test(apart).ids == ["one_a", "two_a"]


def test_the_error_on_two_files_names_them_and_not_the_others(tmp_path):
    simple(tmp_path)
    save_image(tmp_path / "train_images" / "b.jpg")
    for channels in (1, 3):
        with pytest.raises(UserError, match="1 id has several files, such as 'b': .*b.jpg, .*b.png"):
            open_training(DataSettings(root=tmp_path, channels=channels))


def test_files_that_are_no_images_are_counted(tmp_path):
    simple(tmp_path)
    for name in ("1.svg", "2.svg", "notes"):
        (tmp_path / "test_images" / name).touch()
    (tmp_path / "train_images/more").mkdir()
    settings = DataSettings(root=tmp_path)
    assert skipped_lines(settings) == [
        f"warning   not read in {tmp_path}/train_images: 1 folder (data.train_images)",
        f"warning   not read in {tmp_path}/test_images: 2 .svg files, 1 suffixless file (data.test_images)",
    ]
    assert skipped_lines(settings.model_copy(update={"train_images": "train_images/*.png", "test_images": None})) == []


def test_images_that_a_pattern_leaves_out_are_counted_once_and_not_if_another_setting_reads_them(tmp_path):
    simple(tmp_path)
    for name in ("a_mask.tif", "b_mask.tif", "a.bmp", "b.BMP", "c.bmp", "c_depth.png", "c.txt"):
        (tmp_path / "train_images" / name).touch()
    beside = DataSettings(root=tmp_path, train_images="train_images/{id}.png", train_masks="train_images/{id}_mask.tif")
    (line,) = skipped_lines(beside)
    assert line.startswith(f"warning   not read in {tmp_path}/train_images: 2 .bmp files, 1 .BMP file; data.train_ima")
    assert skipped_lines(beside.model_copy(update={"test_images": "train_images/{id}.[bB][mM][pP]"})) == []
    excluded = beside.model_copy(update={"exclude": ["a"]})
    (line,) = skipped_lines(excluded)
    assert "/train_images: 1 .BMP file, 1 .bmp file; data.train_images" in line
    (line,) = skipped_lines(beside)
    unreadable = beside.model_copy(update={"test_images": "train_images/c.txt"})  # which `inspect_test` says
    assert skipped_lines(unreadable) == [line]


def test_annotations_beside_the_images_are_not_counted_as_unread(tmp_path):
    simple(tmp_path)
    for name in ("a.json", "b.json", "a.xml"):
        (tmp_path / "train_images" / name).touch()
    beside = DataSettings(root=tmp_path, train_masks="train_images/{id}.json", test_images=None)
    elsewhere = beside.model_copy(update={"train_masks": "labels/{id}.json"})
    (line,), (other,) = skipped_lines(beside), skipped_lines(elsewhere)
    assert ": 1 .xml file (" in line and "json" not in line and "2 .json files, 1 .xml file" in other


def test_a_pattern_of_exclude_that_matches_nothing_is_named(tmp_path):
    simple(tmp_path)
    (tmp_path / "train.csv").write_text((tmp_path / "train.csv").read_text() + "lost,1 1\n")
    matching = ["a", "test_[a]", "lost"]  # a training image, a test image, a mask without an image
    assert skipped_lines(DataSettings(root=tmp_path, exclude=matching)) == []
    (line,) = skipped_lines(DataSettings(root=tmp_path, exclude=[*matching, "A", "test_?_2"]))
    assert line == "warning   data.exclude: 'A', 'test_?_2' match no image or mask"


def test_an_image_whose_mask_is_excluded_under_another_form_of_its_id_does_not_count_as_without_one(tmp_path):
    masks = simple(tmp_path)
    write_lines(tmp_path / "train.csv", "id,rle", "A,1 1", f"b,{encode(masks['b'])}")
    layout = DataSettings(root=tmp_path, loose_ids=["case"], exclude=["A"], images_without_mask="skip")
    training = open_training(layout)
    assert training.ids == ["b"] and training.without_mask == 1  # c


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    masks = simple(tmp_path / "salt")
    assert_masks(open_training(DataSettings(root="~/salt")), masks)
    assert_masks(
        open_training(
            DataSettings(train_images="~/salt/train_images/*{id}.png", train_masks="~/salt/train.csv", root=tmp_path)
        ),
        masks,
    )


def test_a_mask_of_another_size_names_both_files(tmp_path):
    simple(tmp_path)
    for id in ("a", "b", "c"):
        save(tmp_path / "masks" / f"{id}.png", draw(SHAPE[::-1] if id == "b" else SHAPE))
    training = open_training(DataSettings(root=tmp_path, train_masks="masks"))
    with pytest.raises(UserError, match="masks/b.png is 13 x 9 .*train_images/b.png is 9 x 13"):
        training.read_mask("b")


def test_a_bad_mask_names_table_id_and_image(tmp_path):
    simple(tmp_path)
    write_lines(tmp_path / "train.csv", "id,rle", "a,1 1", f"b,{9 * 13} 2", "c,")
    training = open_training(DataSettings(root=tmp_path))
    with pytest.raises(UserError, match="train.csv, mask of 'b' .*b.png.: run 1 goes past the end of the image .117"):
        training.read_mask("b")


@pytest.mark.parametrize(
    ("header", "options", "problem"),
    [
        ("id,notes,rle", {}, None),
        ("img,pixels", {}, None),
        ("id,notes,other", {}, "set data.rle_column .* one of: id, notes, other"),
        ("id,rle,EncodedPixels", {}, "set data.rle_column"),
        ("id,rle,EncodedPixels", {"rle_column": "rle"}, None),
        ("id,rle", {"id_column": "name"}, "no column 'name' .data.id_column.; its columns are: id, rle"),
        ("id,rle", {"rle_column": "mask"}, "no column 'mask' .data.rle_column"),
        ("id,rle", {"class_column": "kind"}, "no column 'kind' .data.class_column"),
    ],
)
def test_columns_are_found_or_asked_for(tmp_path, header, options, problem):
    simple(tmp_path)
    values = ["1 1"] * header.count(",")
    write_lines(tmp_path / "train.csv", header, *(",".join([id, *values]) for id in "abc"))
    layout = DataSettings(root=tmp_path, **options)
    if problem is None:
        assert open_training(layout).read_mask("a").sum() == 1
    else:
        with pytest.raises(UserError, match=problem):
            open_training(layout)


def test_each_class_may_have_a_column(tmp_path):
    simple(tmp_path)
    masks = {id: np.stack([draw(), draw()], axis=2) for id in "abc"}
    rows = (f"{id},x,{encode(mask[:, :, 1])},{encode(mask[:, :, 0])}" for id, mask in masks.items())
    write_lines(tmp_path / "train.csv", "id,note,heart,lung", *rows)
    layout = DataSettings(root=tmp_path, classes=["lung", "heart"])
    assert_masks(open_training(layout), masks)
    write_lines(tmp_path / "train.csv", "id,heart,lung", *(f"{id},,{'1 1 ' * 8191}12" for id in masks))
    with pytest.raises(UserError, match="spreadsheets cut a cell"):
        open_training(layout)
    write_lines(tmp_path / "sample_submission.csv", "id,rle_heart,lung_rle", "test_c,,", "test_a,,", "test_b,,")
    test = open_test(layout)
    assert inspect_test(layout) == "checked   3 test images, 3 rows of sample_submission.csv"
    assert test.rle_columns == [2, 1] and [row[:2] for row in test.rows[:3]] == [
        ("test_c", 0),
        ("test_c", 1),
        ("test_a", 0),
    ]
    write_lines(tmp_path / "sample_submission.csv", "id,heart,lung")
    assert [row.values for row in open_test(layout).rows[:2]] == [("test_a", "", ""), ("test_a", "", "")]


def test_masks_that_the_sample_has_no_row_for_are_warned_of(tmp_path):
    simple(tmp_path)
    layout = DataSettings(root=tmp_path, classes=["dent", "scratch"], sample_class_column="kind")
    write_lines(
        tmp_path / "sample_submission.csv",
        "id,kind,rle",
        "test_a,dent,",
        "test_b,dent,",
        "test_b,scratch,",
        "test_c,dent,",
    )
    test = open_test(layout)
    assert "no row for 2 of 6 masks" in test.warning and len(test.rows) == 4
    assert inspect_test(layout).startswith("warning   the sample has no row for 2 of 6 masks")
    write_lines(tmp_path / "sample_submission.csv", "id,kind,rle")  # as the warning says
    test = open_test(layout)
    assert test.warning is None and len({(row.id, row.class_index) for row in test.rows}) == 6
    assert {row.values[1] for row in test.rows} == {"dent", "scratch"}


def test_a_template_that_the_sample_has_no_part_for_is_named_by_its_setting(tmp_path):
    simple(tmp_path)
    write_lines(tmp_path / "sample_submission.csv", "id,rle", "one/test_a,")
    layout = DataSettings(root=tmp_path, test_images="test_images/{id}.png", sample_id_pattern="{folder}/{id}")
    assert [row.id for row in read_sample(layout).rows] == ["test_a"]
    with pytest.raises(UserError, match="data.test_id = '{case}_{id}' must be made of parts"):
        read_sample(layout.model_copy(update={"test_id": "{case}_{id}"}))


def test_one_folder_of_training_and_test_images(tmp_path):
    masks = simple(tmp_path)
    for path in (tmp_path / "test_images").iterdir():
        path.rename(tmp_path / "train_images" / path.name)
    layout = DataSettings(root=tmp_path, test_images="train_images", images_without_mask="skip")
    assert_masks(open_training(layout), masks)
    with pytest.raises(
        UserError, match="has no row for test images 'a', 'b', 'c'; .*data.test_images_without_row=skip"
    ):
        open_test(layout)
    test = open_test(layout.model_copy(update={"test_images_without_row": "skip"}))
    assert test.ids == sorted(row.id for row in test.rows) == ["test_a", "test_b", "test_c"]
    assert test.read_image("test_a").ndim == 3


@pytest.mark.parametrize("token", ["nan", "None", "[]", "-1", "authentic", "1 0", "0"])
def test_the_error_on_an_empty_token_names_the_setting_that_takes_it(tmp_path, token):
    masks = simple(tmp_path)
    masks["b"][:] = 0
    rows = (f"{id},{encode(mask) or token}" for id, mask in masks.items())
    write_lines(tmp_path / "train.csv", "id,rle", *rows)
    with pytest.raises(UserError) as caught:
        inspect_all(open_training(DataSettings(root=tmp_path)))
    advised = re.search(r"data.rle.(also_empty) to (\[.*?\])(?= \(data)", str(caught.value))
    rle = {advised[1]: yaml.safe_load(advised[2])}
    training = open_training(DataSettings(root=tmp_path, rle=rle))
    inspect_all(training)
    assert_masks(training, masks)
    assert encode(masks["b"], training.settings.rle) == ""  # what is written is not changed by the advice


def test_a_mask_cannot_be_declared_empty():
    with pytest.raises(ValueError, match="run lengths of a mask"):
        RleSettings(empty="1 1")


def test_tables_of_other_kinds(tmp_path):
    masks = simple(tmp_path)
    for name, separator in (("a.tsv", "\t"), ("a.csv.gz", ";")):
        text = "\n".join(f"{id}{separator}{encode(mask)}" for id, mask in masks.items())
        content = f"id{separator}rle\n{text}\n".encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert_masks(open_training(DataSettings(root=tmp_path, train_masks=name)), masks)


def test_the_ids_may_stand_in_any_column(tmp_path):
    masks = simple(tmp_path)
    write_lines(tmp_path / "train.csv", "rle,name", *(f"{encode(mask)},{id}" for id, mask in masks.items()))
    assert_masks(open_training(DataSettings(root=tmp_path, id_column="name")), masks)


@pytest.mark.parametrize("id", ["../a", "a/b", "..", ".hidden", "a\\b"])
def test_ids_in_tables_cannot_leave_the_folder(tmp_path, id):
    simple(tmp_path)
    write_lines(tmp_path / "train.csv", "id,rle", f"{id},")
    with pytest.raises(UserError, match="train.csv has the id .* cannot be used as a file name"):
        open_training(DataSettings(root=tmp_path))
    write_lines(tmp_path / "sample_submission.csv", "id,rle", f"{id},")
    with pytest.raises(UserError, match="sample_submission.csv has the id"):
        open_test(DataSettings(root=tmp_path))


def test_ids_that_look_like_numbers_stay_text(tmp_path):
    masks = {id: draw() for id in ("007", "7", "1e3", "12345678901234567890", "nan", "NA")}
    for id in masks:
        save_image(tmp_path / "train_images" / f"{id}.png")
    write_lines(tmp_path / "train.csv", "id,rle", *(f"{id},{encode(mask)}" for id, mask in masks.items()))
    assert_masks(open_training(DataSettings(root=tmp_path)), masks)


def test_group_problems(tmp_path):
    simple(tmp_path)
    write_lines(tmp_path / "train.csv", "id,rle,group", "a,,1", "a,,2", "b,,1", "c,,1")
    with pytest.raises(UserError, match="has more than one group for 'a': '1' and '2'"):
        open_training(DataSettings(root=tmp_path, instances=True))
    write_lines(tmp_path / "train.csv", "id,rle,group", "a,,1", "b,,", "c,,1")
    with pytest.raises(UserError, match="has no group for 'b'"):
        open_training(DataSettings(root=tmp_path))
    with pytest.raises(
        UserError, match="data.group = '{case}' must be made of parts that the files' pattern has: {id}"
    ):
        open_training(DataSettings(root=tmp_path, group="{case}"))
    for id in "abc":
        save(tmp_path / "masks" / f"{id}.png", draw())
    with pytest.raises(UserError, match="data.group = 'patient' is a column.*set data.group_csv"):
        open_training(DataSettings(root=tmp_path, train_masks="masks", group="patient"))


def test_missing_places_name_the_setting(tmp_path):
    with pytest.raises(UserError, match="data.root"):
        open_training(DataSettings(root=tmp_path / "gone"))
    with pytest.raises(UserError, match="train_images does not exist .data.train_images"):
        open_training(DataSettings(root=tmp_path))
    simple(tmp_path)
    with pytest.raises(UserError, match="data.exclude leaves no image"):
        open_training(DataSettings(root=tmp_path, exclude=["*"]))
    (tmp_path / "train.csv").unlink()
    with pytest.raises(UserError, match="train.csv does not exist .data.train_masks"):
        open_training(DataSettings(root=tmp_path))
    (tmp_path / "sample_submission.csv").unlink()
    with pytest.raises(UserError, match="sample_submission.csv does not exist .data.sample_submission"):
        open_test(DataSettings(root=tmp_path))
    with pytest.raises(UserError, match="data.test_images is not set"):
        open_test(DataSettings(root=tmp_path, test_images=None))


# ---- test data ------------------------------------------------------------------------------------------------------


def test_sample_and_test_images_must_be_the_same_ids(tmp_path):
    simple(tmp_path)
    write_lines(tmp_path / "sample_submission.csv", "id,rle", "test_a,", "test_z,")
    with pytest.raises(UserError, match="'test_z' of .*sample_submission.csv .* has no image in .*test_images"):
        open_test(DataSettings(root=tmp_path))
    write_lines(tmp_path / "sample_submission.csv", "id,rle", "test_a,")
    with pytest.raises(UserError, match="sample_submission.csv .* has no row for test images 'test_b', 'test_c'"):
        open_test(DataSettings(root=tmp_path))
    assert open_test(DataSettings(root=tmp_path, exclude=["test_[bc]"])).ids == ["test_a"]
    with pytest.raises(UserError, match="the ids are 'test_a', .* does data.exclude leave all out"):
        open_test(DataSettings(root=tmp_path, exclude=["test_a"]))


@pytest.mark.parametrize(
    ("test", "masks", "of_training"),
    [
        ("{}.png", "{}_GT.png", "{id}_GT.png"),
        ("{}_img.png", "{}_masks.png", "{id}_masks.png"),
        ("testA_{}.png", "testA_{}_anno.png", "train_{id}_anno.png"),
    ],
)
def test_masks_among_the_test_images_are_not_predicted(tmp_path, test, masks, of_training):
    simple(tmp_path)
    for id in ("7", "8"):
        save_image(tmp_path / "held_out" / test.format(id))
        save(tmp_path / "held_out" / masks.format(id), draw())
    whole = {"root": tmp_path, "test_images": "held_out", "sample_submission": None}
    settings = DataSettings(**whole, train_masks=f"train/{of_training}")
    with pytest.raises(
        UserError, match=r"named like the masks of .*; leave them out with data.exclude=\[\"\*_"
    ) as caught:
        open_test(settings)
    pattern = re.search(r'exclude=\["(.*)"\]', str(caught.value))[1]
    assert open_test(settings.model_copy(update={"exclude": [pattern]})).ids == [test.format(n)[:-4] for n in "78"]


def test_test_images_that_only_end_as_masks_do_are_images(tmp_path):
    simple(tmp_path)
    for name in ("a_left", "b_left", "c"):
        save_image(tmp_path / "held_out" / f"{name}.png")
    settings = DataSettings(
        root=tmp_path, test_images="held_out", sample_submission=None, train_masks="train/{id}_left.png"
    )
    assert open_test(settings).ids == ["a_left", "b_left", "c"]


def test_sample_rows_of_one_image_are_one_row(tmp_path):
    simple(tmp_path, ["a", "b"])
    write_lines(tmp_path / "sample_submission.csv", "ImageId,EncodedPixels", "test_b,-1", "test_a,-1", "test_b,1 1")
    assert [row.values for row in open_test(DataSettings(root=tmp_path)).rows] == [("test_b", "-1"), ("test_a", "-1")]


def test_sample_keeps_other_columns(tmp_path):
    simple(tmp_path, ["a"])
    write_lines(tmp_path / "sample_submission.csv", "id,height,rle,Usage", "test_a,9,,Public")
    test = open_test(DataSettings(root=tmp_path))
    assert test.rle_columns == [2] and test.rows[0].values == ("test_a", "9", "", "Public")


def test_without_a_sample_there_is_a_row_for_each_image_and_class(tmp_path):
    simple(tmp_path, ["b", "a"])
    test = open_test(DataSettings(root=tmp_path, sample_submission=None))
    assert test.columns == ["id", "rle"] and [row.values for row in test.rows] == [("test_a", ""), ("test_b", "")]
    test = open_test(DataSettings(root=tmp_path, sample_submission=None, classes=["x", "y"]))
    assert test.columns == ["id", "class", "rle"] and test.rows[1].values == ("test_a", "y", "")
    write_lines(tmp_path / "sample_submission.csv", "Image_Label,EncodedPixels")
    test = open_test(DataSettings(root=tmp_path, classes=["x", "y"]))
    assert [row.values for row in test.rows][:2] == [("test_a_x", ""), ("test_a_y", "")]


def test_test_images_that_cannot_be_read_stop_unless_a_setting_says_otherwise(tmp_path):
    simple(tmp_path)
    (tmp_path / "test_images/test_a.png").unlink()
    with pytest.raises(UserError, match="'test_a' of .* has no image in .*test_images"):
        open_test(DataSettings(root=tmp_path))
    empty = DataSettings(root=tmp_path, unreadable_test_images="empty")
    assert open_test(empty).unreadable == {"test_a": ("'test_a' has no file", None)}
    for name in "bc":
        (tmp_path / f"test_images/test_{name}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of the 3 test images can be read"):
        open_test(empty)
    not_decoded = open_test(empty, find_damaged=False)
    assert not_decoded.ids == ["test_b", "test_c"] and list(not_decoded.unreadable) == ["test_a"]
    assert open_test(DataSettings(root=tmp_path, exclude=["test_a"], sample_submission=None)).unreadable == {}


def test_01_looks_at_the_test_images_and_the_sample(tmp_path):
    simple(tmp_path)
    settings = DataSettings(root=tmp_path)
    assert inspect_test(settings) == "checked   3 test images, 3 rows of sample_submission.csv"
    assert inspect_test(settings.model_copy(update={"sample_submission": None})).endswith("3 rows of the submission")
    assert inspect_test(settings.model_copy(update={"test_images": None})).startswith("checked   no test images")
    broken = tmp_path / "test_images/test_b.png"
    broken.write_bytes(broken.read_bytes()[:-20])
    for value in ("error", "empty"):
        said = inspect_test(settings.model_copy(update={"unreadable_test_images": value}))
        assert said.startswith("warning   1 of 3 test images cannot be read: ") and "test_b.png" in said
    write_lines(tmp_path / "sample_submission.csv", "id,rle", "other,")
    assert re.match("warning   test images: no id of .*sample_submission.csv.*'other'", inspect_test(settings))
    (tmp_path / "sample_submission.csv").unlink()
    assert re.match("warning   test images: .*sample_submission.csv does not exist", inspect_test(settings))


# ---- checking everything --------------------------------------------------------------------------------------------


def test_inspect_all_tells_size_coverage_and_hash(tmp_path):
    masks = simple(tmp_path)
    copy = tmp_path / "train_images" / "b.png"
    with Image.open(tmp_path / "train_images" / "a.png") as image:
        image.save(copy, compress_level=1)
    training = open_training(DataSettings(root=tmp_path))
    facts = inspect_all(training).facts
    assert [fact.id for fact in facts] == ["a", "b", "c"]
    for fact in facts:
        image = cv2.imread(str(training.image_path(fact.id)))[:, :, ::-1]
        assert (fact.height, fact.width) == SHAPE
        assert fact.coverage == (masks[fact.id].mean(),)
        assert fact.sha256 == hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    assert facts[0].sha256 == facts[1].sha256 != facts[2].sha256


def test_more_classes_than_opencv_has_channels(tmp_path):
    """Of an array with more than 128 channels, cv2.split makes something else, without an error."""
    names = [f"c{number}" for number in range(130)]
    save(tmp_path / "train_images" / "a.png", np.zeros((4, 10), np.uint8))
    write_lines(
        tmp_path / "train.csv", "id," + ",".join(names), "a," + ",".join(f"1 {n % 7}" * (n % 7 > 0) for n in range(130))
    )
    training = open_training(DataSettings(root=tmp_path, classes=names, doubtful_rle="read"))
    (fact,) = inspect_all(training).facts
    assert fact.coverage == tuple(number % 7 / 40 for number in range(130))
    objects, masks = training.read_objects("a"), training.read_mask("a")
    assert objects.shape == (4, 10, 130) and np.array_equal(objects > 0, masks > 0)


def test_the_hash_tells_shapes_apart(tmp_path):
    for id, shape in (("a", (2, 8)), ("b", (4, 4))):
        save(tmp_path / "train_images" / f"{id}.png", np.zeros(shape, np.uint8))
    write_lines(tmp_path / "train.csv", "id,rle", "a,1 1", "b,")
    first, second = inspect_all(open_training(DataSettings(root=tmp_path))).facts
    assert first.sha256 != second.sha256


def test_inspect_all_says_each_problem_once_and_counts_the_bad_files(tmp_path):
    simple(tmp_path, [f"{n}" for n in range(9)])
    for n in (0, 1, 3, 5, 8):
        path = tmp_path / "train_images" / f"{n}.png"
        path.write_bytes(path.read_bytes()[:-20])
    (tmp_path / "train_images" / "4.png").unlink()
    training = open_training(DataSettings(root=tmp_path, masks_without_image="skip"))
    (tmp_path / "train_images" / "6.png").unlink()
    with pytest.raises(UserError) as caught:
        inspect_all(training)
    message = str(caught.value)
    assert message.startswith("6 of 8 training images cannot be used: ") and "\n" not in message
    assert message.count("cut short") == 1 and "; likewise '1', '3', '5' and 1 more; " in message
    assert message.count(".png") == 2 and "0.png" in message and "6.png cannot be read: No such file" in message


# ---- anything at all ------------------------------------------------------------------------------------------------

runs = st.lists(st.tuples(st.integers(1, 112), st.integers(1, 6) | st.integers(1, 12)), max_size=4)
likely_texts = runs.map(lambda pairs: " ".join(f"{start} {length}" for start, length in pairs))
likely_rows = st.tuples(st.sampled_from(["a", "b", "c", "a.png", " c"]), likely_texts).map(",".join)
cells = st.one_of(
    st.sampled_from(["a", "a.png", "d", "", "..", "a_x", "1 1", "1 0", "117 1", "117 2", "1 9 5 9", "-1"]),
    st.text('0123456789 -,"ab.\n', max_size=12),
    st.text(max_size=6),
)
any_rows = st.lists(cells, min_size=1, max_size=3).map(",".join)


def paint(rows: list[list[str]], id: str, empty: str) -> np.ndarray:
    """The mask of an image by the definition, run by run, from the rows (id, ..., run lengths) of a table."""
    mask = np.zeros(SHAPE[::-1], np.uint8)  # transposed, so that its pixels lie down the columns
    for row in rows:
        if row[0].strip().removesuffix(".png") == id and row[-1].strip() not in ("", empty):
            numbers = [int(number) for number in row[-1].split()]
            for start, length in zip(numbers[::2], numbers[1::2], strict=True):
                assert 1 <= start < start + length <= mask.size + 1
                mask.ravel()[start - 1 : start - 1 + length] = 1
    return mask.T


@settings(max_examples=FUZZ_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.sampled_from(["id,rle", "id,rle", "ImageId, EncodedPixels", "id,note,rle", "id", "x,y,z"]),
    rows=st.lists(likely_rows, max_size=6) | st.lists(st.one_of(likely_rows, any_rows), max_size=6),
    instances=st.sampled_from([True, True, False]),
    empty=st.sampled_from(["", "-1", "-", "1 0"]),
    policy=st.sampled_from(["empty", "skip", "error"]),
)
def test_any_table_gives_the_right_masks_or_a_clear_error(tmp_path_factory, header, rows, instances, empty, policy):
    root = tmp_path_factory.getbasetemp() / "any"
    if not root.exists():
        simple(root)
    (root / "train.csv").write_text("\n".join([header, *rows]), errors="replace")
    layout = DataSettings(
        root=root,
        instances=instances,
        rle=RleSettings(empty=empty),
        images_without_mask=policy,
        masks_without_image="error" if policy == "error" else "skip",
    )
    try:
        training = open_training(layout)
        masks = {id: training.read_mask(id) for id in training.ids}
    except UserError as error:
        assert str(root) in str(error) or "data." in str(error)
        assert "\n" not in str(error)
        return
    event("masks read")
    with (root / "train.csv").open(newline="") as file:
        written = [row for row in csv.reader(file, skipinitialspace=True) if row][1:]
    for id, mask in masks.items():
        np.testing.assert_array_equal(mask[:, :, 0], paint(written, id, empty))


@pytest.mark.parametrize("suffix", [".jpg", ""])
def test_a_suffix_of_ids_is_told_whatever_class_comes_first_where_the_sample_has_no_rows(tmp_path, suffix):
    simple(tmp_path)
    rows = (f"{name}{suffix},1 1,{label}" for name, label in (("a", "cloud"), ("a", "sky"), ("b", "sky"), ("c", "sky")))
    write_lines(tmp_path / "train.csv", "id,rle,label", *rows)
    write_lines(tmp_path / "sample_submission.csv", "id,rle,label")
    settings = DataSettings(root=tmp_path, classes=["sky"], class_column="label", other_classes="skip")
    assert ("sample_id_pattern={id}.jpg" in inspect_test(settings)) == (suffix == ".jpg")


def test_a_table_and_a_sample_without_rows(tmp_path):
    simple(tmp_path)
    for name in ("train.csv", "sample_submission.csv"):
        write_lines(tmp_path / name, "id,rle")
    assert inspect_test(DataSettings(root=tmp_path, images_without_mask="empty")).startswith("checked   3 test images")
