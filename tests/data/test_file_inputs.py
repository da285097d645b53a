"""Files, test images and annotations as people have them: each row of those tables in docs/inputs.md."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.base.errors import UserError
from lib.checks.inspection import inspect_test
from lib.config.check import check_settings
from lib.config.data_settings import DataSettings
from lib.data.competition import open_test
from tests.data.input_rows import (
    COLUMNS,
    CORNER,
    DISC,
    IDS,
    RLE,
    ROWS,
    SHAPE,
    TWO,
    Masks,
    Row,
    both,
    files,
    images_only,
    mask_of,
    page_rows,
    pairs,
    picture,
    put,
    try_row,
)

IN_FOLDERS = {"train_images": "images", "train_masks": "masks"}
BESIDE = {"train_images": "train", "train_masks": "train/{id}_mask.png"}
PLAIN = pairs("images/{id}.png", "masks/{id}.png")


def kinds(root: Path) -> Masks:
    """Two folders of images with equal names."""
    for number, kind in enumerate(("good", "bad")):
        put(root / f"images/{kind}/7.png", picture(number))
        put(root / f"masks/{kind}/7.png", mask_of("ab"[number]))
    return {"good_7": DISC["a"], "bad_7": DISC["b"]}


KINDS = {"train_images": "images/{kind}/{id}.png", "train_masks": "masks/{kind}/{id}.png"}


def bands(names: dict[str, tuple[str, str]], planes: int = 1) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for id, of_id in names.items():
            for name in of_id:
                put(root / f"images/{id}_{name}.png", picture(planes=planes))
            put(root / f"masks/{id}.png", mask_of(id))

    return write


BANDS = {"train_images": "images/{id}_*.png", "train_masks": "masks"}


def classes(without: str = "") -> Callable[[Path], Masks]:
    def write(root: Path) -> Masks:
        for number, id in enumerate(IDS):
            put(root / f"images/{id}.png", picture(number))
            put(root / f"masks/disc/{id}.png", mask_of(id))
            if id != without:
                put(root / f"masks/corner/{id}.png", CORNER.astype(np.uint8) * 255)
        return TWO | {id: np.dstack([DISC[id], 0 * CORNER]) for id in IDS if id == without}

    return write


def with_underscores(root: Path) -> Masks:
    """Mask files of two classes and of one that is not to be learned."""
    masks = {}
    for number, (id, disc) in enumerate(zip(("img_1", "img_2", "p"), IDS, strict=True)):
        put(root / f"images/{id}.png", picture(number))
        put(root / f"masks/{id}_disc.png", mask_of(disc))
        put(root / f"masks/{id}_corner.png", CORNER.astype(np.uint8) * 255)
        put(root / f"masks/{id}_rim.png", mask_of(disc))
        masks[id] = TWO[disc]
    return masks


def some_in_capitals(root: Path) -> None:
    (root / "images/b.jpg").rename(root / "images/b.JPG")


def some_as_bmp(root: Path) -> None:
    """Masks in two folders, of which one holds files of another suffix."""
    for number, (id, suffix) in enumerate(zip(IDS, ("png", "png", "bmp"), strict=True)):
        put(root / f"images/{id}.png", picture(number))
        put(root / f"masks/{suffix}s/{id}.{suffix}", mask_of(id))


def modalities(root: Path) -> Masks:
    for number, id in enumerate(IDS):
        for mod in ("t1", "t2"):
            put(root / f"images/P_{id}_{mod}.png", picture(number, planes=1))
        put(root / f"masks/P_{id}.png", mask_of(id))
    return {f"P_{id}": DISC[id] for id in IDS}


def with_brackets(root: Path) -> None:
    for folder in ("images", "masks"):
        (root / folder / "d.png").rename(root / folder / "d [x=0,y=5].png")


def splits(root: Path) -> None:
    for number, (split, id) in enumerate(zip(("train", "val", "test"), IDS, strict=True)):
        put(root / f"{split}/images/{id}.png", picture(number))
        put(root / f"{split}/masks/{id}.png", mask_of(id))


def mixed(root: Path) -> None:
    for number, (suffix, id) in enumerate(zip(("jpg", "png", "tif"), IDS, strict=True)):
        put(root / f"images/{id}.{suffix}", picture(number))
        put(root / f"masks/{id}.png", mask_of(id))


def hidden(root: Path) -> None:
    PLAIN(root)
    for name in (".DS_Store", "._a.png", ".ipynb_checkpoints/a-checkpoint.png"):
        (root / "images" / name).parent.mkdir(exist_ok=True)
        (root / "images" / name).write_bytes(b"0")


def links(root: Path) -> None:
    pairs("real/{id}.png", "far/{id}.png")(root)
    (root / "images").symlink_to(root / "real")
    (root / "masks").mkdir()
    for id in IDS:
        (root / f"masks/{id}.png").symlink_to(root / f"far/{id}.png")


def lost_link(root: Path) -> None:
    PLAIN(root)
    put(root / "masks/d.png", mask_of("a"))
    (root / "images/d.png").symlink_to(root / "gone.png")


def no_images(root: Path) -> None:
    PLAIN(root)
    contents = (b"", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    for id, content in zip("def", contents, strict=True):
        (root / f"images/{id}.png").write_bytes(content)
        put(root / f"masks/{id}.png", mask_of("a"))


def cut_short(root: Path) -> None:
    PLAIN(root)
    put(root / "masks/d.png", mask_of("a"))
    (root / "images/d.png").write_bytes((root / "images/a.png").read_bytes()[:-40])


FURTHER = both(pairs("train/{id}.png", "train/{id}_mask.png"), pairs("train/{id}.png", "train/{id}_fov.png"))

FILES = {
    "masks with a suffix of their own in the images' folder": Row(pairs("train/{id}.png", "train/{id}_mask.png")),
    "a further kind of file beside them, such as `a_fov.png`": Row(
        FURTHER, BESIDE | {"images_without_mask": "empty"}, "{id}_fov|data.exclude|data.train_images = 'train'"
    ),
    "images called `a_training`, masks `a_manual1`": Row(
        pairs("images/{id}_training.tif", "masks/{id}_manual1.png"),
        IN_FOLDERS,
        "images/{id}_training.tif|masks/{id}_manual1.png",
    ),
    "images called `frame01`, masks `mask01`": Row(
        pairs("images/frame{id}.png", "masks/mask{id}.png"), IN_FOLDERS, "images/frame{id}.png|masks/mask{id}.png"
    ),
    "a pattern without `{id}`": Row(PLAIN, IN_FOLDERS | {"train_images": "images/*.png"}, "data.image_id|write {id}"),
    "backslashes in a pattern, except on Windows": Row(
        PLAIN, IN_FOLDERS | {"train_images": "images\\{id}.png"}, "no file is found|write / between folders"
    ),
    "DICOM files without a suffix": Row(
        both(pairs("x/{id}.png", "masks/{id}.png"), files("images/{id}", b"\0" * 128 + b"DICM" + b"\0" * 99)),
        {"train_images": "images/{id}", "train_masks": "masks"},
        "images/a is a DICOM file; let its name end in .dcm",
    ),
    "`a.ome.tif` and `a.png`": Row(
        pairs("images/{id}.ome.tif", "masks/{id}.png"), IN_FOLDERS, "set data.train_images|images/{id}.ome.tif"
    ),
    "`a.jpg` and `a.jpg.png`": Row(pairs("images/{id}.jpg", "masks/{id}.jpg.png"), IN_FOLDERS),
    "masks `a.png` and `a.jpg`": Row(
        both(pairs("images/{id}.png", "masks/{id}.jpg"), PLAIN), IN_FOLDERS, "masks/a.jpg and |masks/a.png"
    ),
    "jpg, png, tif side by side": Row(mixed, IN_FOLDERS),
    "suffixes in capitals, a folder": Row(pairs("images/{id}.JPG", "masks/{id}.TIF"), IN_FOLDERS),
    "suffixes in capitals, a pattern in small letters": Row(
        pairs("images/{id}.JPG", "masks/{id}.png"),
        {"train_images": "images/{id}.jpg", "train_masks": "masks"},
        "no file is found|images holds 3 .JPG files",
    ),
    "suffixes in capitals, some of them": Row(
        both(pairs("images/{id}.jpg", "masks/{id}.png"), some_in_capitals),
        {"train_images": "images/{id}.jpg", "train_masks": "masks/{id}.png", "masks_without_image": "skip"},
        says="images: 1 .JPG file; data.train_images = 'images/{id}.jpg' leaves them out",
    ),
    "masks of another suffix than the pattern's, some of them": Row(
        some_as_bmp,
        {
            "train_images": "images/{id}.png",
            "train_masks": "masks/{kind}/{id}.png",
            "image_id": "{id}",
            "images_without_mask": "empty",
        },
        says="masks/{kind}: 1 .bmp file; data.train_masks = 'masks/{kind}/{id}.png' leaves them out",
    ),
    "a folder of train, val and test each": Row(splits),
    "`good/7.png` and `bad/7.png`": Row(kinds, KINDS, "several files, such as|data.image_id|data.plane_files"),
    "several files of one id as planes": Row(
        bands(dict.fromkeys(IDS, ("B2", "B10"))), BANDS, "several files, such as|data.plane_files=true"
    ),
    "`{id}_{mod}` where ids, too, have an underscore": Row(
        modalities,
        {"train_images": "images/{id}_{mod}.png", "train_masks": "masks/{id}.png", "plane_files": True, "channels": 2},
        "a different number of files|in P_c_t2.png {id} is 'P' and {mod} is 'c_t2', as parts of data.train_images",
    ),
    "planes in colour": Row(
        bands(dict.fromkeys(IDS, ("B2", "B10")), planes=3),
        BANDS | {"plane_files": True, "channels": 2},
        "a_B10.png has 3 different planes|save R, G and B as a file each",
    ),
    "planes that are others in another image": Row(
        bands({"a": ("B2", "B3"), "b": ("B2", "B3"), "c": ("B2", "B4")}),
        BANDS | {"plane_files": True, "channels": 2},
        "the files of 'a' and 'c' are not the same planes|_B3.png|_B4.png",
    ),
    "a folder of masks for each class": Row(classes(), {"train_images": "images"}),
    "a folder of masks for each class, not all of them to be learned": Row(
        both(classes(), lambda root: None),
        {"train_images": "images", "train_masks": "masks/{class}/{id}.png", "classes": ["disc"]},
        "has the class 'corner', which is not one of data.classes|data.other_classes=skip",
    ),
    "`{id}_{class}` where ids, too, have an underscore": Row(
        with_underscores,
        {"train_images": "images", "train_masks": "masks/{id}_{class}.png", "classes": ["disc", "corner"]},
        "the class '1_rim' (what the shortest {id} leaves of its name), which is not|data.other_classes=skip",
        "3 mask files of other classes left out (data.other_classes), such as",
    ),
    "a class without a file for some images": Row(
        classes("b"),
        {"train_images": "images", "classes": ["disc", "corner"], "train_masks": "masks/{class}/{id}.png"},
        "image 'b' has no mask|or not for every class|data.images_without_mask=empty|(skip leaves out only images",
    ),
    "`.DS_Store`, `._a.png`, `.ipynb_checkpoints`": Row(hidden, IN_FOLDERS),
    "`Thumbs.db` and other files that are no images": Row(
        both(files("images/Thumbs{id}.db"), files("images/{id}.txt"), PLAIN),
        IN_FOLDERS,
        says="not read in|3 .db files, 3 .txt files",
    ),
    "links to files and folders": Row(links, IN_FOLDERS),
    "a link that leads nowhere": Row(lost_link, IN_FOLDERS, "images/d.png|No such file"),
    "an empty file, a web page, a pointer of Git LFS": Row(
        no_images, IN_FOLDERS, "3 of 6|d.png is empty|e.png is a text|'<html>|f.png is a pointer|Git LFS"
    ),
    "an image cut short": Row(cut_short, IN_FOLDERS, "1 of 4|d.png is cut short"),
    "the same, where its id has brackets": Row(
        both(cut_short, with_brackets), IN_FOLDERS, "d [x=0,y=5].png|(data.exclude leaves images out)"
    ),
    "`~` in a path": Row(pairs("train_images/{id}.png", "masks/{id}.png"), {"train_masks": "masks"}),
    "`**` in a path": Row(pairs("x/y/{id}.jpg", "masks/{id}.png"), {"train_masks": "masks"}),
}


# ---- annotations -----------------------------------------------------------------------------------------------------

POLYGON = [3, 2, 9, 2, 9, 12, 3, 12]  # corners between pixels: columns 3 to 8, rows 2 to 11
SECOND = [20, 15, 28, 15, 28, 20, 20, 20]
BOX = dict.fromkeys(IDS, (ROWS >= 2) & (ROWS < 12) & (COLUMNS >= 3) & (COLUMNS < 9))
BOTH = {id: BOX[id] | (ROWS >= 15) & (ROWS < 20) & (COLUMNS >= 20) & (COLUMNS < 28) for id in IDS}
COCO = {"train_masks": "train.json"}


def coco_in_folders(root: Path) -> Masks:
    """The images of two splits, each with a COCO json of its own, as Roboflow packs them."""
    coco([[POLYGON]])(root)
    content = json.loads((root / "train.json").read_text())
    for split, numbers in (("train", [0, 2]), ("valid", [1])):
        (root / split).mkdir()
        images = [content["images"][number] for number in numbers]
        annotations = [content["annotations"][number] for number in numbers]
        for image in images:
            (root / "train_images" / image["file_name"]).rename(root / split / image["file_name"])
        part = content | {"images": images, "annotations": annotations}
        (root / split / "_annotations.coco.json").write_text(json.dumps(part))
    return BOX


def coco(
    shapes: list, names: str = "{id}.png", size: tuple[int, int] = SHAPE, meant: Masks = BOX, **more: object
) -> Callable[[Path], Masks]:
    """A COCO json that says the same objects of each image; a second one is of class 2 or a crowd as `more` says."""

    def write(root: Path) -> Masks:
        images_only(root)
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "box"}]}
        if "category" in more:
            content["categories"].append({"id": 2, "name": more["category"]})
        for number, id in enumerate(IDS):
            name = names.replace("{id}", id)
            content["images"].append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
            for place, shape in enumerate(shapes):
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]),
                        "image_id": number,
                        "category_id": 1 + ("category" in more and place),
                        "segmentation": shape,
                        "iscrowd": int("crowd" in more),
                    }
                )
        (root / "train.json").write_text(json.dumps(content))
        return meant

    return write


def counts(mask: np.ndarray) -> dict:
    """Uncompressed run lengths of COCO: down the columns, beginning with background."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return {"size": list(SHAPE), "counts": np.diff([0, *ends, flat.size]).tolist()}


def turned_coco(root: Path) -> Masks:
    """Annotations of the shown pixels, of pictures that are stored lying on their side."""
    coco([[POLYGON]], size=SHAPE)(root)
    for number, id in enumerate(IDS):
        exif = Image.Exif()
        exif[274] = 6
        stored = np.rot90(picture(number))
        Image.fromarray(np.ascontiguousarray(stored)).save(root / f"train_images/{id}.png", exif=exif)
    return BOX


def jsonl(root: Path) -> Masks:
    images_only(root)
    ring = [list(pair) for pair in zip(POLYGON[::2], POLYGON[1::2], strict=True)]
    lines = [{"id": id, "annotations": [{"type": "blood_vessel", "coordinates": [ring]}]} for id in IDS]
    (root / "polygons.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return BOX


def labelme(root: Path) -> Masks:
    images_only(root)
    points = [list(pair) for pair in zip(POLYGON[::2], POLYGON[1::2], strict=True)]
    content = {"shapes": [{"label": "box", "points": points}], "imageHeight": SHAPE[0], "imageWidth": SHAPE[1]}
    files("labels/{id}.json", json.dumps(content))(root)
    return BOX


def yolo(line: str = "", more: str = "") -> Callable[[Path], Masks]:
    def write(root: Path) -> Masks:
        images_only(root)
        shares = [value / SHAPE[1 - number % 2] for number, value in enumerate(POLYGON)]
        files("labels/{id}.txt", line or f"0 {' '.join(f'{share:.9f}' for share in shares)}\n")(root)
        if more:
            (root / "labels/classes.txt").write_text(more)
        return BOX

    return write


ANNOTATIONS = {
    "COCO json of polygons": Row(coco([[POLYGON]])),
    "COCO json of run lengths": Row(coco([counts(BOX["a"])])),
    "COCO crowds": Row(coco([counts(BOX["a"])], crowd=True), COCO, "has crowds|set data.crowd=mask"),
    "COCO file names behind a folder": Row(
        coco([[POLYGON]], "train/{id}.png"), COCO, "train/a.png|set data.id_pattern=*/{id}"
    ),
    "COCO sizes that are not those of the files": Row(
        coco([[POLYGON]], size=(48, 60)), COCO, "train.json, mask of 'a'|48 x 60 pixels|not 24 x 30"
    ),
    "COCO sizes of the shown pixels, images with EXIF orientation": Row(
        turned_coco, COCO, "3 of 3|EXIF orientation|set data.orientation=shown"
    ),
    "a COCO json in each folder of images": Row(coco_in_folders),
    "COCO file names as Label Studio writes them": Row(
        coco([[POLYGON]], "..\\label-studio\\upload\\{id}.png"), COCO, "set data.id_pattern=*/{id}"
    ),
    "classes that `classes` does not name": Row(
        coco([[POLYGON], [SECOND]], category="tree"),
        COCO | {"classes": ["box"]},
        "'box', 'tree'|data.other_classes=skip",
    ),
    "several objects of an image": Row(
        coco([[POLYGON], [SECOND]], meant=BOTH), COCO, "have several objects in|set data.instances=true"
    ),
    "jsonl of polygons, as in HuBMAP 2023": Row(jsonl),
    "COCO json whose `annotations` are no list": Row(
        both(coco([[POLYGON]]), files("train.json", '{"images": [], "annotations": {"1": {}}, "categories": []}')),
        COCO,
        "train.json cannot be read as annotations|a list of annotations, and this file a dict",
    ),
    "labelme json": Row(labelme),
    "YOLO segmentation txt": Row(yolo()),
    "YOLO's classes.txt among the labels": Row(yolo(more="box\n")),
    "YOLO boxes": Row(yolo("0 0.5 0.5 0.2 0.2\n"), {"train_masks": "labels/{id}.txt"}, "is a box and not a polygon"),
    "YOLO polygons with a confidence at the end": Row(
        yolo("0 0.1 0.1 0.6 0.1 0.6 0.5 0.93\n"),
        {"train_masks": "labels/{id}.txt"},
        "labels/a.txt|'0 0.1 0.1 |has 7 numbers after that of the class|such as a confidence at the end",
    ),
    "json of another kind": Row(
        both(lambda root: images_only(root), files("train.json", '{"_via_settings": {}}')),
        COCO,
        "train.json cannot be read as annotations|it holds _via_settings|those read are COCO json",
    ),
}

SECTIONS = {"## Files": FILES, "## Annotations": ANNOTATIONS}
CASES = [(heading, name) for heading, rows in SECTIONS.items() for name in rows]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
@pytest.mark.parametrize(("heading", "name"), CASES)
def test_what_the_page_says_of_it_happens(tmp_path, capsys, monkeypatch, heading, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    what, alternatives = page_rows(heading)[name]
    try_row(SECTIONS[heading][name], what, alternatives, tmp_path, lambda: capsys.readouterr().out)


# ---- test images -----------------------------------------------------------------------------------------------------

SAMPLE = "id,rle\n" + "".join(f"test_{id},\n" for id in IDS)


def test_side(
    sample: str = SAMPLE, absent: str = "", damaged: str = "", turned: bool = False, suffix: str = ""
) -> Callable[[Path], None]:
    """Training data without a fault, and test images called test_a, test_b, test_c with their sample."""

    def write(root: Path) -> None:
        images_only(root)
        (root / "train.csv").write_text("id,rle\n" + "".join(f"{id}{suffix},{RLE[id]}\n" for id in IDS))
        (root / "sample_submission.csv").write_text(sample)
        for number, id in enumerate(IDS):
            exif = Image.Exif()
            exif[274] = 6 if turned else 1
            path = put(root / f"test_images/test_{id}.png", picture(number), exif=exif)
            if id == damaged:
                path.write_bytes(path.read_bytes()[:-40])
            if id == absent:
                path.unlink()

    return write


test_side.__test__ = False
ALL = {"test_a", "test_b", "test_c"}

# What is written, words of 01's warning without the page's settings, the ids of the rows, and the unreadable ones.
TEST_IMAGES = {
    "as the sample has them": (test_side(), "", ALL, set()),
    "one that the sample has is absent": (test_side(absent="b"), "'test_b' of|has no image", ALL, {"test_b"}),
    "one is damaged": (test_side(damaged="b"), "1 of 3 test images cannot be read|test_b.png", ALL, {"test_b"}),
    "one that the sample does not have": (
        test_side(SAMPLE.replace("test_c,\n", "")),
        "has no row for test image 'test_c'|data.test_images_without_row=skip",
        ALL - {"test_c"}, set()
    ),
    "the sample has other columns than the training table": (
        test_side("n,name,pixels,x\n" + "".join(f"{n},test_{id},,\n" for n, id in enumerate(IDS))), "", ALL, set()
    ),
    "the sample has another suffix after the ids": (
        test_side(SAMPLE.replace(",\n", "_mask.png,\n")), "set data.sample_id_pattern={id}_mask", ALL, set()
    ),
    "a sample without rows": (test_side("id,rle\n"), "", ALL, set()),
    "a sample without rows, ids with a suffix in the training table": (
        test_side("id,rle\n", suffix=".png"),
        "as 'a', where train.csv has 'a.png'|sample_id_pattern={id}.png",
        ALL, set()
    ),
    "no sample": (test_side(), "", ALL, set()),
    "EXIF orientation in test images alone": (
        test_side(turned=True), "3 of 3 test images have an EXIF orientation|as stored", ALL, set()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEST_IMAGES)
def test_01_tells_of_test_images_and_04_stops_as_the_page_says(tmp_path, name):
    write, warning, ids, unreadable = TEST_IMAGES[name]
    what, alternatives = page_rows("## Test images")[name]
    write(tmp_path)

    def settings(said: dict):
        return check_settings({"name": "x", "data": {"root": str(tmp_path)} | said}, Path("x.yaml")).data

    assert bool(warning) == ("01 warns" in what)
    if warning:
        line = inspect_test(settings({}))
        assert line.startswith("warning ") and all(word in line for word in warning.split("|")), line
    if "04 stops" in what:
        assert stops(settings({}), damaged="damaged" in name)
    data = open_test(settings(alternatives[0] if alternatives else {}))
    assert {row.id for row in data.rows} == ids and set(data.unreadable) == unreadable


@pytest.mark.parametrize(
    ("pattern", "classes", "first"),
    [
        (None, ["x"], "test_a"),
        ("{id}.png", ["x"], "test_a.png"),
        ("{id}.png", ["x", "y"], "test_a.png_x"),
        ("{class}/{id}.png", ["x", "y"], "x/test_a.png"),
    ],
)
def test_a_sample_without_rows_is_given_ids_of_the_form_that_is_set(tmp_path, pattern, classes, first):
    test_side("id,rle\n")(tmp_path)
    data = DataSettings(root=tmp_path, sample_id_pattern=pattern, classes=classes)
    assert open_test(data).rows[0].values == (first, "")
    (tmp_path / "sample_submission.csv").write_text(f"id,rle\n{first},\n")
    assert [row.id for row in open_test(data.model_copy(update={"test_images_without_row": "skip"})).rows] == ["test_a"]


def test_a_sample_without_rows_needs_a_form_that_leaves_nothing_open(tmp_path):
    test_side("id,rle\n")(tmp_path)
    with pytest.raises(UserError, match="'[*]/{id}' does not; give the sample its rows"):
        open_test(DataSettings(root=tmp_path, sample_id_pattern="*/{id}"))


def stops(settings, damaged: bool) -> bool:
    """Whether the test images cannot be opened, or a damaged one not be read."""
    try:
        data = open_test(settings)
        for id in data.ids if damaged else []:
            data.read_image(id)
    except UserError:
        return True
    return False


@pytest.mark.parametrize(("heading", "cases"), [*SECTIONS.items(), ("## Test images", TEST_IMAGES)])
def test_every_row_of_the_page_is_tried(heading, cases):
    assert list(page_rows(heading)) == list(cases)
