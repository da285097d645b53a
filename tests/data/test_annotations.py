"""Annotation files: each kind gives the pixels of pycocotools, and of the definition where that is beyond doubt."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from lib.base.errors import UserError
from lib.checks.inspection import inspect_all
from lib.config.data_settings import DataSettings
from lib.config.mask_settings import MaskSettings
from lib.data.competition import open_training
from tests.data.test_competition import SHAPE, assert_masks, save_image

HEIGHT, WIDTH = SHAPE
TRIANGLE = [1.3, 0.7, 11.8, 2.2, 4.1, 8.6]
BOX = [2, 1, 6, 1, 6, 5, 2, 5]  # corners between pixels: columns 2 to 5, rows 1 to 4
PIECES = [[0, 0, 3, 0, 3, 2, 0, 2], [8, 5, 13, 5, 13, 9, 8, 9]]


def box_mask() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:5, 2:6] = 1
    return mask


def pieces_mask() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[:2, :3] = mask[5:, 8:] = 1
    return mask


def coco(root, annotations, images=("a", "b", "c"), categories=("cell", "dot")) -> dict:
    """A COCO file of annotations (image number, category number, segmentation, is a crowd)."""
    for name in images:
        save_image(root / "train_images" / f"{name}.png")
    content = {
        "images": [
            {"id": n + 10, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
            for n, name in enumerate(images)
        ],
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(categories)],
        "annotations": [
            {"id": n, "image_id": image + 10, "category_id": category, "segmentation": shape, "iscrowd": int(crowd),
             "area": 1, "bbox": [0, 0, 1, 1]}
            for n, (image, category, shape, crowd) in enumerate(annotations)
        ],
    }  # fmt: skip
    (root / "train.json").write_text(json.dumps(content))
    return content


def settings_of(root, **options) -> DataSettings:
    return DataSettings(
        root=root, **{"train_masks": "train.json", "classes": ["cell", "dot"], "instances": True} | options
    )


def test_coco_polygons_and_run_lengths_are_those_of_pycocotools(tmp_path):
    from pycocotools import mask as masks
    from pycocotools.coco import COCO

    drawn = (np.random.default_rng(0).random(SHAPE) < 0.4).astype(np.uint8)
    compressed = masks.encode(np.asfortranarray(drawn))
    flat = np.append(0, np.append(drawn.T.ravel(), 2))
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.append(0 if drawn[0, 0] == 0 else [0, 0], ends[ends > 0])).tolist()
    shapes = [
        (0, 1, [TRIANGLE], False),
        (0, 1, PIECES, False),
        (0, 2, {"size": list(SHAPE), "counts": compressed["counts"].decode()}, False),
        (1, 2, {"size": list(SHAPE), "counts": counts}, True),
    ]
    content = coco(tmp_path, shapes)
    reference = COCO(tmp_path / "train.json")
    expected = {name: np.zeros((*SHAPE, 2), np.uint8) for name in "abc"}  # c is listed and has none: empty
    for annotation in content["annotations"]:
        mask = reference.annToMask(annotation)
        expected["abc"[annotation["image_id"] - 10]][:, :, annotation["category_id"] - 1] |= mask
    assert (expected["a"][:, :, 1] == drawn).all() and (expected["b"][:, :, 1] == drawn).all()
    training = open_training(settings_of(tmp_path, crowd="mask"))
    assert_masks(training, expected)
    assert training.read_objects("a")[:, :, 0].max() == 2
    expected["b"][:] = 0
    assert_masks(open_training(settings_of(tmp_path, crowd="skip")), expected)
    with pytest.raises(UserError, match="train.json has crowds.*set data.crowd=mask .*skip"):
        open_training(settings_of(tmp_path))
    assert len(inspect_all(training).facts) == 3


def test_coco_classes_are_those_of_the_settings(tmp_path):
    coco(tmp_path, [(0, 1, [BOX], False), (1, 2, PIECES, False)], images=("a", "b"))
    boxes = {"a": box_mask(), "b": np.zeros(SHAPE, np.uint8)}
    assert_masks(open_training(settings_of(tmp_path, classes=["cell"], other_classes="skip")), boxes)
    with pytest.raises(UserError, match="has the classes 'cell', 'dot', but data.classes is .*other_classes=skip"):
        open_training(settings_of(tmp_path, classes=["cell"]))
    with pytest.raises(UserError, match="has none of data.classes .'nucleus'., but 'cell', 'dot'"):
        open_training(settings_of(tmp_path, classes=["nucleus"], other_classes="skip"))
    with pytest.raises(UserError, match="'a' has several objects in .*train.json; set data.instances=true"):
        coco(tmp_path, [(0, 1, [BOX], False), (0, 1, PIECES, False)])
        open_training(settings_of(tmp_path, instances=False))


def test_the_one_class_of_a_file_needs_no_name(tmp_path):
    coco(tmp_path, [(0, 1, [BOX], False)], images=("a",), categories=("nucleus",))
    training = open_training(DataSettings(root=tmp_path, train_masks="train.json"))
    assert_masks(training, {"a": box_mask()})


def test_jsonl_polygons(tmp_path):
    for name in ("a", "b"):
        save_image(tmp_path / "train_images" / f"{name}.png")
    rings = [list(map(list, zip(BOX[::2], BOX[1::2], strict=True)))]
    lines = [
        {"id": "a", "annotations": [{"type": "blood_vessel", "coordinates": rings}]},
        {"id": "b", "annotations": [{"type": "unsure", "coordinates": rings}]},
    ]
    (tmp_path / "polygons.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = {"train_masks": "polygons.jsonl", "classes": ["blood_vessel"], "other_classes": "skip"}
    training = open_training(settings_of(tmp_path, **options))
    assert_masks(training, {"a": box_mask(), "b": 0 * box_mask()})
    lines[0]["annotations"][0]["coordinates"] *= 2
    (tmp_path / "polygons.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match="a polygon of 'a' has 2 rings"):
        open_training(settings_of(tmp_path, **options))


def test_labelme_polygons_rectangles_masks_and_groups(tmp_path):
    def png(mask):
        file = io.BytesIO()
        Image.fromarray(mask * 255).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    def points(flat):
        return [[x, y] for x, y in zip(flat[::2], flat[1::2], strict=True)]

    shapes = {
        "a": [{"label": "cell", "points": [[2, 1], [6, 5]], "shape_type": "rectangle", "group_id": None}],
        "b": [{"label": "cell", "points": points(piece), "shape_type": "polygon", "group_id": 4} for piece in PIECES],
        "c": [],
        "d": [
            {"label": "dot", "points": [[2, 1], [5, 4]], "shape_type": "mask", "mask": png(np.ones((4, 4), np.uint8))}
        ],
    }
    shapes["e"] = [{"label": "dot", "points": [[2, 1], [6, 1], [6, 5], [2, 5]], "shape_type": "rectangle"}]
    (tmp_path / "labels").mkdir()
    for name, of_image in shapes.items():
        save_image(tmp_path / "train_images" / f"{name}.png")
        content = {"shapes": of_image, "imagePath": f"{name}.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
        if name == "a":  # some tools write numbers as text
            content |= {"imageHeight": f"{HEIGHT}", "imageWidth": f"{WIDTH}"}
        (tmp_path / "labels" / f"{name}.json").write_text(json.dumps(content))
    settings = settings_of(tmp_path, train_masks="labels/{id}.json", instances=False)
    nothing = np.zeros(SHAPE, np.uint8)
    masks = {
        "a": (box_mask(), nothing),
        "b": (pieces_mask(), nothing),
        "c": (nothing,) * 2,
        "d": (nothing, box_mask()),
    }
    masks["e"] = masks["d"]
    assert_masks(open_training(settings), {name: np.dstack(pair) for name, pair in masks.items()})
    with pytest.raises(UserError, match="labels/a.json holds the annotations of one image.*labels/{id}.json"):
        open_training(settings.model_copy(update={"train_masks": "labels/a.json"}))
    with pytest.raises(
        UserError, match=r"it holds 5 .json files; if .* annotations, set data.train_masks to labels/{id}.json"
    ):
        open_training(settings.model_copy(update={"train_masks": "labels", "classes": ["cell"]}))
    content["shapes"] = [{"label": "cell", "points": [[2, 1], [6, 5]], "shape_type": "line"}]
    (tmp_path / "labels/d.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="labels/d.json cannot be read as annotations: a shape called 'cell' is a line"):
        open_training(settings)


@pytest.mark.parametrize("mask", ["", "iVBORw0KGgo", "no base64", None, 7])
def test_a_labelme_mask_that_is_no_png_is_an_error_of_its_image(tmp_path, mask):
    shape = {"label": "cell", "points": [[2, 1], [5, 4]], "shape_type": "mask", "mask": mask}
    content = {"shapes": [shape], "imageHeight": HEIGHT, "imageWidth": WIDTH}
    (tmp_path / "a.json").write_text(json.dumps(content))
    save_image(tmp_path / "train_images" / "a.png")
    training = open_training(settings_of(tmp_path, train_masks="{id}.json"))
    with pytest.raises(UserError, match=r"\{id\}.json, mask of 'a' .*: its (annotation|mask) cannot be decoded"):
        training.read_mask("a")


def test_yolo_polygons_are_shares_of_the_size(tmp_path):
    (tmp_path / "labels").mkdir()
    texts = {"a": f"1 {shares(BOX)}\n", "b": f"0 {shares(PIECES[0])}\n0 {shares(PIECES[1])}\n", "c": ""}
    for name, text in texts.items():
        save_image(tmp_path / "train_images" / f"{name}.png")
        (tmp_path / "labels" / f"{name}.txt").write_text(text)
    settings = settings_of(tmp_path, train_masks="labels/{id}.txt")
    nothing = np.zeros(SHAPE, np.uint8)
    masks = {"a": (nothing, box_mask()), "b": (pieces_mask(), nothing), "c": (nothing, nothing)}
    training = open_training(settings)
    assert_masks(training, {name: np.dstack(pair) for name, pair in masks.items()})
    assert sorted(np.unique(training.read_objects("b"))) == [0, 1, 2]
    (tmp_path / "labels/c.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(
        UserError, match="labels/c.txt cannot be read as annotations: .0 0.5 .* is a box and not a polygon"
    ):
        open_training(settings)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels/classes.txt", "box \r\npieces\r\n"),
        ("classes.txt", "box\npieces\n"),
        ("dataset.yml", "path: .\nnames: {0: box, 1: pieces}\n"),
    ],
)
def test_the_order_of_yolos_classes_is_that_of_the_file_beside_them(tmp_path, name, content):
    save_image(tmp_path / "train_images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text(f"0 {shares(BOX)}\n1 {shares(PIECES[0])}\n1 {shares(PIECES[1])}\n")
    (tmp_path / name).write_bytes(content.encode())
    settings = settings_of(tmp_path, train_masks="labels/{id}.txt", classes=["pieces", "box"])
    assert_masks(open_training(settings), {"a": np.dstack([pieces_mask(), box_mask()])})


def test_a_list_of_yolos_classes_alone_holds_no_masks_and_a_blank_one_no_names(tmp_path):
    save_image(tmp_path / "train_images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/classes.txt").write_text("\n")
    settings = settings_of(tmp_path, train_masks="labels/{id}.txt", classes=["pieces", "box"])
    with pytest.raises(UserError, match=r"labels/\{id\}.txt \(data.train_masks\) holds no mask of any image$"):
        open_training(settings)
    (tmp_path / "labels/a.txt").write_text(f"1 {shares(BOX)}\n0 {shares(PIECES[0])}\n0 {shares(PIECES[1])}\n")
    assert_masks(open_training(settings), {"a": np.dstack([pieces_mask(), box_mask()])})


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("data.yaml", b"names: {box: 0, pieces: 1}\n", "data.yaml has names by 'box', 'pieces' and not by the numbers"),
        ("classes.txt", b"caf\xe9\n", "classes.txt cannot be read: 'utf-8' codec"),
        ("data.yaml", b"path: a\npath: b\nnames: [pieces, box]\n", "data.yaml is not valid YAML: .*path"),
    ],
)
def test_a_list_of_yolos_classes_that_cannot_be_read_is_named(tmp_path, name, content, error):
    save_image(tmp_path / "train_images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text(f"0 {shares(BOX)}\n1 {shares(PIECES[0])}\n")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=error):
        open_training(settings_of(tmp_path, train_masks="labels/{id}.txt", classes=["box", "pieces"]))


def test_lists_of_yolos_classes_that_differ_are_both_named(tmp_path):
    save_image(tmp_path / "train_images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text(f"0 {shares(BOX)}\n1 {shares(PIECES[0])}\n1 {shares(PIECES[1])}\n")
    (tmp_path / "data.yaml").write_text("names: [box, pieces]\n")
    (tmp_path / "labels/classes.txt").write_text("pieces\nbox\n")
    settings = settings_of(tmp_path, train_masks="labels/{id}.txt", classes=["pieces", "box"])
    with pytest.raises(UserError, match="class 0 is 'box' in .*data.yaml and 'pieces' in .*labels/classes.txt; remove"):
        open_training(settings)
    (tmp_path / "labels/classes.txt").write_text("box\npieces\nthird\n")
    assert_masks(open_training(settings), {"a": np.dstack([pieces_mask(), box_mask()])})


def test_some_of_yolos_classes_are_named_by_number_or_by_its_data_yaml(tmp_path):
    save_image(tmp_path / "train_images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text(f"0 {shares(BOX)}\n1 {shares(PIECES[0])}\n1 {shares(PIECES[1])}\n")
    settings = settings_of(tmp_path, train_masks="labels/{id}.txt", classes=["pieces"], other_classes="skip")
    with pytest.raises(UserError, match="class numbers '0', '1', but data.classes only 'pieces'.*give the number"):
        open_training(settings)
    by_number = settings.model_copy(update={"masks": MaskSettings(values={"pieces": [1]})})
    assert_masks(open_training(by_number), {"a": pieces_mask()[..., None]})
    (tmp_path / "data.yaml").write_text("names: [box, pieces]\n")
    assert_masks(open_training(settings), {"a": pieces_mask()[..., None]})
    with pytest.raises(UserError, match="has the classes 'box', 'pieces', but data.classes is 'pieces'"):
        open_training(settings.model_copy(update={"other_classes": "error"}))
    both = settings.model_copy(update={"classes": ["pieces", "box"]})
    assert_masks(open_training(both), {"a": np.dstack([pieces_mask(), box_mask()])})


def shares(flat):
    return " ".join(f"{x / WIDTH:.9f} {y / HEIGHT:.9f}" for x, y in zip(flat[::2], flat[1::2], strict=True))


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ([[1, 1, 5, 5]], "a polygon has 2 corners"),
        ([[1, 1, 5, 5, 3]], "cannot reshape"),
        ([[20, 20, 30, 20, 30, 30]], "lies outside the image of 9 x 13"),
        ([[1, 1, 1e12, 1, 3, 3]], "lies outside the image"),
        ([[1, 1, float("nan"), 1, 3, 3]], "lies outside the image"),
        ({"size": [9, 13], "counts": [100, 5]}, "its counts make 105 pixels"),
        ({"size": [13, 9], "counts": [117]}, "for an image of 13 x 9 pixels .height x width., not 9 x 13"),
        ([], "has no segmentation, perhaps only a box"),
    ],
)
def test_what_does_not_fit_the_image_is_an_error(tmp_path, shape, problem):
    coco(tmp_path, [(0, 1, shape, False)])
    with pytest.raises(UserError, match=problem) as caught:
        open_training(settings_of(tmp_path)).read_mask("a")
    assert "train.json" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("via.json", '{"_via_settings": {}, "_via_img_metadata": {}}'),
        ("qupath.json", '[{"type": "Feature", "geometry": {}}]'),
        ("cut.json", '{"images": [{"id": 1'),
        ("cut.jsonl", '{"id": "a"}'),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, name, content):
    save_image(tmp_path / "train_images/a.png")
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"{name} cannot be read as annotations: .*; those read are COCO json, labelme"):
        open_training(settings_of(tmp_path, train_masks=name))
    with pytest.raises(UserError, match="annotations .*gone.json do not exist .data.train_masks"):
        open_training(settings_of(tmp_path, train_masks="gone.json"))
    (tmp_path / "masks.xml").touch()
    with pytest.raises(UserError, match="masks.xml is one file of a kind that is not read .data.train_masks"):
        open_training(settings_of(tmp_path, train_masks="masks.xml", classes=["cell"]))


def test_an_empty_list_is_not_of_label_studio(tmp_path):
    save_image(tmp_path / "train_images" / "a.png")
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(UserError, match="it holds a list; those read are COCO json"):
        open_training(settings_of(tmp_path))


def test_sizes_in_coco_may_be_text(tmp_path):
    content = coco(tmp_path, [(0, 1, [BOX], False)], images=("a",), categories=("cell",))
    content["images"][0] |= {"height": f"{HEIGHT}", "width": f"{WIDTH}.0"}
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert_masks(open_training(settings_of(tmp_path, classes=["cell"])), {"a": box_mask()})


@pytest.mark.parametrize("height", [None, "tall", [HEIGHT]])
def test_sizes_that_are_no_numbers_are_quoted(tmp_path, height):
    content = coco(tmp_path, [(0, 1, [BOX], False)], images=("a",), categories=("cell",))
    content["images"][0]["height"] = height
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=re.escape(f"its height and width are {height!r} and {WIDTH}, not numbers")):
        open_training(settings_of(tmp_path, classes=["cell"]))


def test_file_names_behind_a_folder_need_a_pattern(tmp_path):
    content = coco(tmp_path, [(0, 1, [BOX], False)], images=("a",), categories=("cell",))
    content["images"][0]["file_name"] = "train/part 1/a.png"
    (tmp_path / "train.json").write_text(json.dumps(content))
    settings = DataSettings(root=tmp_path, train_masks="train.json")
    with pytest.raises(UserError, match="if it is an id behind a folder, set data.id_pattern=./{id}"):
        open_training(settings)
    assert_masks(open_training(settings.model_copy(update={"id_pattern": "*/{id}"})), {"a": box_mask()})


def test_without_pycocotools_the_error_says_what_to_install(tmp_path, monkeypatch):
    import sys

    coco(tmp_path, [(0, 1, [BOX], False)])
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match="pip install pycocotools"):
        open_training(settings_of(tmp_path)).read_mask("a")
