"""Data sets as they are published: each row of that table in docs/inputs.md, in small."""

import contextlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from lib.base.errors import UserError
from lib.masks.metrics import IGNORED
from tests import REPOSITORY
from tests.data.input_rows import (
    COLUMNS,
    CORNER,
    DISC,
    IDS,
    ROWS,
    SHAPE,
    both,
    checked,
    files,
    mask_of,
    page_rows,
    pairs,
    picture,
    put,
)
from tests.data.test_mask_inputs import painted

NUCLEI = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
PAGE = page_rows("## Data sets as they are published")
LABELS = {id: np.where(DISC[id], 1, np.where(CORNER, 2, 0)).astype(np.uint8) for id in IDS}
TWO = {id: np.dstack([DISC[id] & ~CORNER | DISC[id], CORNER & ~DISC[id]]) for id in IDS}


def labelled(images: str, masks: str, values: dict[int, int]):
    """Images and files of labels, LABELS with other values; both classes are meant."""

    def write(root: Path):
        for number, id in enumerate(IDS):
            put(root / images.replace("{id}", id), picture(number))
            put(root / masks.replace("{id}", id), np.vectorize(values.get)(LABELS[id]).astype(np.uint8))
        return TWO

    return write


def coloured(images: str, masks: str, colours: dict[int, tuple[int, int, int]]):
    def write(root: Path):
        for number, id in enumerate(IDS):
            put(root / images.replace("{id}", id), picture(number))
            put(root / masks.replace("{id}", id), painted(LABELS[id], colours))
        return TWO

    return write


def cityscapes(root: Path):
    labelled(
        "leftImg8bit/train/ulm/ulm_{id}_leftImg8bit.png", "gtFine/train/ulm/ulm_{id}_gtFine_labelIds.png",
        {0: 0, 1: 7, 2: 26},
    )(root)  # fmt: skip
    for id in IDS:
        for kind in ("color", "instanceIds"):
            put(root / f"gtFine/train/ulm/ulm_{id}_gtFine_{kind}.png", picture())
        (root / f"gtFine/train/ulm/ulm_{id}_gtFine_polygons.json").write_text("{}")
    return {f"ulm_{id}": TWO[id] for id in IDS}


def ham10000(root: Path):
    for number, id in enumerate(IDS):
        put(root / f"HAM10000_images_part_{1 + number % 2}/ISIC_{id}.jpg", picture(number))
        put(root / f"HAM10000_segmentations_lesion_tschandl/ISIC_{id}_segmentation.png", mask_of(id))
    rows = "".join(f"HAM_{number // 2},ISIC_{id},bkl\n" for number, id in enumerate(IDS))
    (root / "HAM10000_metadata.csv").write_text(f"lesion_id,image_id,dx\n{rows}")
    return {f"ISIC_{id}": DISC[id] for id in IDS}


def cloud38(root: Path):
    for number, id in enumerate(IDS):
        for band in ("blue", "green", "nir", "red"):
            put(root / f"train_{band}/{band}_patch_{id}.TIF", picture(number, planes=1))
        put(root / f"train_gt/gt_patch_{id}.TIF", mask_of(id))
    return {f"patch_{id}": DISC[id] for id in IDS}


def open_images(root: Path):
    for number, id in enumerate(IDS):
        put(root / f"train/{id}.jpg", picture(number))
        for box, rows in (("0a1b", ROWS < 11), ("ff02", ROWS >= 11)):
            larger = np.kron(DISC[id] & rows, np.ones((3, 3)))[1::2, 1::2]
            put(root / f"train-masks/{id}_m01g317_{box}.png", larger.astype(np.uint8) * 255)


def mvtec(root: Path):
    for number, id in enumerate(IDS):
        put(root / f"bottle/train/good/{id}.png", picture(number))
        for place, defect in enumerate(("good", "broken_large")):
            put(root / f"bottle/test/{defect}/{id}.png", picture(10 * place + number))
        put(root / f"bottle/ground_truth/broken_large/{id}_mask.png", mask_of(id))
    return {f"broken_large_{id}": DISC[id] for id in IDS} | {f"good_{id}": np.zeros(SHAPE, bool) for id in IDS}


def kitti(root: Path):
    for number, id in enumerate(IDS):
        put(root / f"image_2/um_{id}.png", picture(number))
        put(root / f"gt_image_2/um_lane_{id}.png", painted(CORNER.astype(int), {0: (255, 0, 0), 1: (255, 0, 255)}))
        put(root / f"gt_image_2/um_road_{id}.png", painted(DISC[id].astype(int), {0: (255, 0, 0), 1: (255, 0, 255)}))
    return {f"um_{id}": DISC[id] for id in IDS}


def voc_objects(root: Path):
    put(root / "JPEGImages/2008_1.jpg", picture(9))
    for number, id in enumerate(IDS):
        put(root / f"JPEGImages/{id}.jpg", picture(number))
        objects = np.where(CORNER, 255, np.where(DISC[id], 1 + (ROWS > 11), 0)).astype(np.uint8)
        indexed = Image.fromarray(objects, "L")
        indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *[224, 224, 192] * 253])
        (root / "SegmentationObject").mkdir(exist_ok=True)
        indexed.save(root / f"SegmentationObject/{id}.png")
    return {id: np.where(CORNER, IGNORED, DISC[id]) for id in IDS}


def named(template: str, write):
    """The same masks under the ids that a template gives."""

    def written(root: Path):
        masks = write(root) or DISC
        return {template.replace("{id}", id): mask for id, mask in masks.items()}

    return written


def lgg_mri(root: Path):
    for number, id in enumerate(IDS):
        put(root / f"kaggle_3m/TCGA_{id}/TCGA_{id}_{number}.tif", picture(number))
        put(root / f"kaggle_3m/TCGA_{id}/TCGA_{id}_{number}_mask.tif", mask_of(id))
    return {f"TCGA_{id}_{number}": DISC[id] for number, id in enumerate(IDS)}


def busi(root: Path):
    pairs("benign/benign ({id}).png", "benign/benign ({id})_mask.png")(root)
    put(root / "benign/benign (b)_mask_1.png", CORNER.astype(np.uint8) * 255)
    return {f"benign ({id})": DISC[id] | CORNER & (id == "b") for id in IDS}


def dsb2018(root: Path):
    for number, id in enumerate(IDS):
        put(root / f"stage1_train/{id}/images/{id}.png", picture(number))
        for name, mask in (("x", DISC[id] & (ROWS < 11)), ("y", DISC[id] & (ROWS >= 11))):
            put(root / f"stage1_train/{id}/masks/{name}.png", mask.astype(np.uint8) * 255)


def livecell(root: Path):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell", "supercategory": "cell"}]}
    meant = {}
    for number, id in enumerate(IDS):
        name = f"A172_Phase_{id}"
        put(root / "images/livecell_train_val_images" / f"{name}.tif", picture(number, planes=1))
        content["images"].append({"id": number, "file_name": f"{name}.tif", "height": 24, "width": 30})
        box = [3, 2, 9, 2, 9, 12, 3, 12]  # columns 3 to 8, rows 2 to 11
        content["annotations"].append(
            {"id": number, "image_id": number, "category_id": 1, "segmentation": [box], "iscrowd": 0}
        )
        meant[name] = (ROWS >= 2) & (ROWS < 12) & (COLUMNS >= 3) & (COLUMNS < 9)
    (root / "livecell_coco_train.json").write_text(json.dumps(content))
    return meant


def roboflow(root: Path):
    meant = livecell(root)
    content = json.loads((root / "livecell_coco_train.json").read_text())
    content["categories"] = [{"id": 0, "name": "cells", "supercategory": "none"}, *content["categories"]]
    (root / "train").mkdir()
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace(".tif", "_png.rf.0a1b.jpg")
        put(root / "train" / image["file_name"], picture(image["id"]))
    (root / "train/_annotations.coco.json").write_text(json.dumps(content))
    return {f"{name}_png.rf.0a1b": mask for name, mask in meant.items()}


def kvasir(root: Path):
    for number, id in enumerate(IDS):
        put(root / f"images/{id}.jpg", picture(number))
        put(root / f"masks/{id}.jpg", np.dstack([mask_of(id)] * 3), quality=90)
    return {id: cv2.imread(str(root / f"masks/{id}.jpg"), cv2.IMREAD_GRAYSCALE) > 127 for id in IDS}


def isic2017(root: Path):
    pairs("Training_Data/ISIC_{id}.jpg", "Part1_GroundTruth/ISIC_{id}_segmentation.png")(root)
    for id in IDS:
        put(root / f"Training_Data/ISIC_{id}_superpixels.png", picture())
    return {f"ISIC_{id}": DISC[id] for id in IDS}


def tracked_cells(root: Path):
    for number, id in enumerate(IDS):
        put(root / f"Fluo/01/t00{number}.tif", picture(number, planes=1).astype(np.uint16) * 100)
        put(root / f"Fluo/01_ST/SEG/man_seg00{number}.tif", LABELS[id].astype(np.uint16) * 300)
    return {f"00{number}": DISC[id] | CORNER for number, id in enumerate(IDS)}


def pets(root: Path):
    meant = {}
    for number, id in enumerate(IDS):
        border = cv2.dilate(mask_of(id, 1), np.ones((3, 3), np.uint8)).astype(bool) & ~DISC[id]
        put(root / f"images/{id}.jpg", picture(number))
        put(root / f"annotations/trimaps/{id}.png", np.where(DISC[id], 1, np.where(border, 3, 2)).astype(np.uint8))
        (root / f"annotations/trimaps/._{id}.png").write_bytes(b"Mac OS X")
        meant[id] = np.where(border, IGNORED, DISC[id])
    (root / "images/a.mat").write_bytes(b"MATLAB")
    return meant


def run_lines(root: Path, heading: str) -> None:
    """Run the lines of Python that the page has under a heading in a folder."""
    page = (REPOSITORY / "docs/inputs.md").read_text(encoding="utf-8").partition(f"### {heading}")[2]
    with contextlib.chdir(root):
        exec(page.partition("```python\n")[2].partition("```")[0], {})


def stacked(root: Path) -> None:
    """PanNuke: images (n, height, width, 3) and masks (n, height, width, 6), both of floats; nuclei are numbered."""
    np.save(root / "images.npy", np.stack([picture(n) for n in range(len(IDS))]).astype(float))
    masks = np.zeros((len(IDS), *SHAPE, 6))
    for n, id in enumerate(IDS):
        masks[n, :, :, 0], masks[n, :, :, 4] = DISC[id] * 300, CORNER
        masks[n, :, :, 5] = ~(DISC[id] | CORNER)
    np.save(root / "masks.npy", masks)


def pannuke(root: Path):
    stacked(root)
    for folder in ("images", *(f"masks/{name}" for name in NUCLEI)):
        (root / folder).mkdir(parents=True)
    run_lines(root, "Stacks of images in one npy")
    return {f"{n:05}": np.dstack([DISC[id], CORNER]) for n, id in enumerate(IDS)}


def brush_masks(root: Path) -> None:
    """Label Studio's exports: its tasks are in another order than the images, and an image has several strokes."""
    (root / "export").mkdir()
    tasks = []
    for n, id in enumerate(IDS):
        task, upload = 7 - n, f"3f2a81c{n}-{id}.png"
        tasks.append({"id": task, "annotations": [], "data": {"image": f"/data/upload/1/{upload}"}})
        put(root / "images" / upload, picture(n))
        strokes = (("disc", DISC[id] & (ROWS < 11)), ("disc", DISC[id] & (ROWS >= 11)), ("corner", CORNER))
        for number, (name, mask) in enumerate(strokes):
            put(
                root / f"export/task-{task}-annotation-{n}-by-1-tag-{name}-{number % 2}.png",
                mask.astype(np.uint8) * 255,
            )
    (root / "export.json").write_text(json.dumps(tasks))


def label_studio(root: Path):
    brush_masks(root)
    run_lines(root, "Brush masks of Label Studio")
    return {id: np.dstack([DISC[id], CORNER]) for id in IDS}


def hrf(root: Path):
    pairs("images/{id}_dr.JPG", "manual1/{id}_dr.tif")(root)
    for id in IDS:
        put(root / f"mask/{id}_dr_mask.tif", np.full(SHAPE, 255, np.uint8))
    return {f"{id}_dr": DISC[id] for id in IDS}


def massachusetts(root: Path):
    for number, id in enumerate(IDS):
        put(root / f"tiff/train/{id}_15.tiff", picture(number))
        put(root / f"tiff/train_labels/{id}_15.tif", painted(mask_of(id, 1), {1: (255, 0, 0)}))
    return {f"{id}_15": DISC[id] for id in IDS}


def celeba_masks(root: Path):
    """Images 0 to 2, a file for each part of a face that it shows, half as large."""
    for number, id in enumerate(IDS):
        put(root / f"CelebA-HQ-img/{number}.jpg", picture(number))
        for name, mask in (("hair", DISC[id]), ("l_eye", CORNER)):
            if name == "hair" or number:
                smaller = mask[::2, ::2].astype(np.uint8) * 255
                put(root / f"CelebAMask-HQ-mask-anno/{number // 2}/{number:05}_{name}.png", np.dstack([smaller] * 3))
    doubled = {id: np.kron(DISC[id][::2, ::2], np.ones((2, 2))) for id in IDS}
    eye = np.kron(CORNER[::2, ::2], np.ones((2, 2)))
    return {str(n): np.dstack([doubled[id], eye * bool(n)]).astype(bool) for n, id in enumerate(IDS)}


def davis(root: Path):
    """Each video numbers its frames from 0, and its objects from 1."""
    for video in ("bear", "dog"):
        for number, id in enumerate(IDS):
            put(root / f"JPEGImages/480p/{video}/{number:05}.jpg", picture(number))
            objects = Image.fromarray(np.where(DISC[id], 1 + (ROWS > 11), 0).astype(np.uint8), "L")
            objects.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            (root / f"Annotations/480p/{video}").mkdir(parents=True, exist_ok=True)
            objects.save(root / f"Annotations/480p/{video}/{number:05}.png")
    return {f"{video}_{number:05}": DISC[id] for video in ("bear", "dog") for number, id in enumerate(IDS)}


def roboflow_masks(root: Path):
    """Image and mask in one folder, a hash for each augmented copy."""
    labelled("train/{id}_jpg.rf.0c1f.jpg", "train/{id}_jpg.rf.0c1f_mask.png", {0: 0, 1: 1, 2: 2})(root)
    (root / "train/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, leaf\n2, fruit\n")
    return {f"{id}_jpg.rf.0c1f": TWO[id] for id in IDS}


ADE20K = ("images/training/ADE_{id}.jpg", "annotations/training/ADE_{id}.png", {0: 0, 1: 5, 2: 13})
STUFF = ("train2017/{id}.jpg", "stuffthingmaps/train2017/{id}.png", {0: 200, 1: 0, 2: 61})

READ = {
    "Cityscapes": cityscapes,
    "ADE20K": named("ADE_{id}", labelled(*ADE20K)),
    "COCO-Stuff": labelled(*STUFF),
    "DRIVE": pairs("training/images/{id}_training.tif", "training/1st_manual/{id}_manual1.gif"),
    "STARE, unpacked": pairs("images/{id}.ppm", "labels-ah/{id}.ah.ppm"),
    "CHASE_DB1": both(pairs("{id}.jpg", "{id}_1stHO.png"), pairs("{id}.jpg", "{id}_2ndHO.png")),
    "HRF": hrf,
    "LGG MRI": lgg_mri,
    "BUSI": busi,
    "Data Science Bowl 2018": dsb2018,
    "LIVECell": livecell,
    "Roboflow's COCO export": roboflow,
    "Roboflow's masks": roboflow_masks,
    "Kvasir-SEG": kvasir,
    "Open Images": open_images,
    "CelebAMask-HQ": celeba_masks,
    "DAVIS": davis,
    "Magnetic tiles": named("Blowhole_{id}", pairs("MT_Blowhole/Imgs/{id}.jpg", "MT_Blowhole/Imgs/{id}.png")),
    "MVTec AD": mvtec,
    "KITTI road": kitti,
    "Pascal VOC, objects": voc_objects,
    "ISIC 2018": named("ISIC_{id}", pairs("Input/ISIC_{id}.jpg", "GroundTruth/ISIC_{id}_segmentation.png")),
    "HAM10000": ham10000,
    "ISIC 2017": isic2017,
    "CVC-ClinicDB": pairs("Original/{id}.tif", "Ground Truth/{id}.tif"),
    "Massachusetts Buildings": massachusetts,
    "Inria": pairs("train/images/{id}.tif", "train/gt/{id}.tif"),
    "38-Cloud": cloud38,
    "LandCover.ai": labelled("images/{id}.tif", "masks/{id}.tif", {0: 0, 1: 1, 2: 3}),
    "DeepCrack": pairs("train_img/{id}.jpg", "train_lab/{id}.png"),
    "SUIM": coloured("images/{id}.jpg", "masks/{id}.bmp", {0: (0, 0, 0), 1: (0, 0, 255), 2: (255, 255, 0)}),
    "Cell Tracking Challenge": tracked_cells,
    "PanNuke, split as below": pannuke,
    "Label Studio's brush masks, copied as below": label_studio,
    "Oxford-IIIT Pet": pets,
}


@pytest.mark.parametrize("name", READ)
def test_the_settings_of_the_page_read_a_data_set(tmp_path, name):
    meant = READ[name](tmp_path) or DISC
    _, (settings,) = PAGE[name]
    training = checked(tmp_path, settings)
    assert training.ids == sorted(meant)
    for id, mask in meant.items():
        np.testing.assert_array_equal(training.read_mask(id), mask.reshape(*SHAPE, -1))


def stacks(root: Path) -> None:
    tifffile.imwrite(root / "train-volume.tif", np.stack([picture(n, planes=1) for n in range(30)]))
    tifffile.imwrite(root / "train-labels.tif", np.stack([mask_of(IDS[n % 3]) for n in range(30)]))


def folders(images: str, masks: str, content: bytes = b"0"):
    return both(files(images, content), files(masks, content))


# What is written, the settings, and words of the error.
REFUSED = {
    "STARE, packed": (folders("images/{id}.ppm.gz", "labels/{id}.ah.ppm.gz"), "images", "labels", "unpack them"),
    "MoNuSeg": (both(pairs("Tissue Images/{id}.tif", "x/{id}.png"), files("Annotations/{id}.xml")),
                "Tissue Images", "Annotations", "3 .xml files|hold outlines|draw them as mask images"),
    "SpaceNet": (both(pairs("PS-RGB/{id}.tif", "x/{id}.png"), files("geojson/{id}.geojson")),
                 "PS-RGB", "geojson/{id}.geojson", "a.geojson|hold outlines|draw them"),
    "CrackForest": (both(pairs("image/{id}.jpg", "x/{id}.png"), files("groundTruth/{id}.mat")),
                    "image", "groundTruth", ".mat files hold arrays: save each"),
    "BraTS, MSD, LiTS": (folders("imagesTr/{id}.nii.gz", "labelsTr/{id}.nii.gz"), "imagesTr", "labelsTr",
                         "3 .nii.gz files|are volumes: save each slice|npy files called {case}_{slice}.npy"),
    "LUNA16": (folders("subset0/{id}.mhd", "masks/{id}.mhd"), "subset0/{id}.mhd", "masks/{id}.mhd",
               "a.mhd|are volumes: save each slice"),
    "ISBI 2012": (stacks, "train-volume.tif", "train-labels.tif", "train-volume.tif is a file|save each of its images"),
    "PanNuke": (stacked, "images.npy", "masks.npy",
                "images.npy is a file|docs/inputs.md"),
    "Label Studio's brush masks": (brush_masks, "images", "export",
                                   "by the number of its task|JSON export|docs/inputs.md"),
    "Label Studio's JSON": (brush_masks, "images", "export.json", "Label Studio's tasks|COCO json|docs/inputs.md"),
    "Supervisely": (both(pairs("img/{id}.png", "x/{id}.png"), files("ann/{id}.png.json", '{"objects": []}')),
                    "img", "ann/{id}.json", "a.png.json cannot be read as annotations|those read are COCO json"),
    "a zip file": (files("train_images.zip"), "train_images", "masks", "does not exist|unpack|train_images.zip first"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_named_with_what_to_do(tmp_path, name):
    write, images, masks, words = REFUSED[name]
    write(tmp_path)
    with pytest.raises(UserError) as caught:
        checked(tmp_path, {"train_images": images, "train_masks": masks})
    assert all(word in str(caught.value) for word in words.split("|")), str(caught.value)
    assert "data.train_" in str(caught.value) or "annotations" in str(caught.value)


def test_the_page_has_these_rows():
    assert list(PAGE) == [*READ, *REFUSED]
    assert all(bool(settings) == (name in READ) for name, (_, settings) in PAGE.items())
