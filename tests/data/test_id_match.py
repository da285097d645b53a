"""Ids that are not those of the images: the likely mistakes are named, with a setting that gives the right masks."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.base.errors import UserError
from lib.checks.inspection import inspect_all
from lib.config.data_settings import DataSettings
from lib.data.competition import open_test, open_training
from lib.data.id_match import loosened, match_ids
from lib.data.number_shift import shifted_numbers
from lib.masks.rle import encode
from tests.competitions import write_lines
from tests.data.test_competition import assert_masks, draw, save, save_image

IDS = ("img_001", "img_002", "img_010")
LOOSEST = {"images_without_mask": "empty", "masks_without_image": "skip"}  # what the two errors of old led to


def write(root, rows, header="id,rle", names=IDS, sample=None):
    """Images by `names`, a table whose rows are made from id and run lengths; the masks by name."""
    masks = {name: draw() for name in names}
    for name in names:
        save_image(root / "train_images" / f"{name}.png")
        save_image(root / "test_images" / f"{name}.png")
    written = [rows(number, name, encode(mask)) for number, (name, mask) in enumerate(masks.items())]
    write_lines(root / "train.csv", header, *written)
    write_lines(root / "sample_submission.csv", header, *(sample or written))
    return masks


def setting_in(message: str) -> dict:
    """The last setting of `set data.key=value` in an error, to be tried as a user would."""
    name, value = re.findall(r"set data\.(\w+)=(\S+?)(?=[,;)]|$)", message)[-1]
    return {name: value.strip("[]").split(",") if name == "loose_ids" else value}


MISTAKES = {
    "index": (lambda n, name, text: f"{n},{name},{text}", ",id,rle"),
    "named index": (lambda n, name, text: f"{n},{name},{text}", "Unnamed: 0,id,rle"),
    "column": (lambda n, name, text: f"{n + 5},{name}.png,{text}", "row,file,rle"),
    "case": (lambda n, name, text: f"{name.upper()},{text}", "id,rle"),
    "zeros": (lambda n, name, text: f"{name.replace('_0', '_').replace('_0', '_')},{text}", "id,rle"),
    "after": (lambda n, name, text: f"{name}_mask.png,{text}", "id,rle"),
    "before": (lambda n, name, text: f"mask-{name},{text}", "id,rle"),
    "folder": (lambda n, name, text: f"stage{n % 2}/train/{name}.jpg,{text}", "id,rle"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("options", [{}, LOOSEST], ids=["strict", "loosest"])
def test_the_advice_for_a_likely_mistake_gives_the_right_masks(tmp_path, mistake, options):
    rows, header = MISTAKES[mistake]
    masks = write(tmp_path, rows, header)
    settings = DataSettings(root=tmp_path, **options)
    with pytest.raises(UserError) as caught:
        open_training(settings)
    message = str(caught.value)
    assert "=skip" not in message and "=empty" not in message
    advised = {"id_column": "id"} if "index" in mistake else setting_in(message)
    assert_masks(open_training(settings.model_copy(update=advised)), masks)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_sample_with_the_same_mistake_names_its_own_setting(tmp_path, mistake):
    rows, header = MISTAKES[mistake]
    write(tmp_path, rows, header)
    settings = DataSettings(root=tmp_path)
    with pytest.raises(UserError) as caught:
        open_test(settings)
    advised = {"sample_id_column": "id"} if "index" in mistake else setting_in(str(caught.value))
    test = open_test(settings.model_copy(update=advised))
    assert {row.id for row in test.rows} == set(IDS)
    if "loose_ids" not in advised:
        assert all(name.startswith("sample_") for name in advised)


def test_ids_that_count_from_another_number_are_no_ids_of_the_images(tmp_path):
    names = [f"img_{number:03d}" for number in range(1, 6)]
    rows = [f"img_{number:03d}," for number in range(5)]
    write(tmp_path, lambda n, name, text: f"img_{n:03d},{text}", names=names, sample=rows)
    words = "numbered 0 to 4, the images 1 to 5, so that equal numbers may be different images"
    for options in ({}, LOOSEST):
        with pytest.raises(UserError, match=f"'img_000' of .*{words}"):
            open_training(DataSettings(root=tmp_path, **options))
    with pytest.raises(UserError, match=words):
        open_test(DataSettings(root=tmp_path))


@pytest.mark.parametrize(
    ("ids", "images"),
    [((), ()), (("a", "b"), ("c", "d")), (("1", "2"), ("1", "2")), (("1", "3"), ("2", "3")), (("1",), ("1", "2")),
     (("a1", "a2"), ("b2", "b3")), (("1", "x"), ("2", "x")),
     ("2347", "12345"), ("02345", "0123457"), ("379", "12345678"), (("a1", "a7", "b1", "b3"), ("a1", "b1"))],
)  # fmt: skip
def test_other_ids_are_not_taken_for_shifted_ones(ids, images):
    assert shifted_numbers(set(ids), set(images)) is None


def numbered(numbers, start: str = "f") -> list[str]:
    return [f"{start}{number:03}" for number in numbers]


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        (numbered(range(24)), numbered({*range(1, 25)} - {6}), "they are numbered 1 to 24, the images 0 to 23"),
        (numbered(range(24)), numbered(range(2, 25)), "they are numbered 2 to 24, the images 0 to 23"),
        (numbered(range(1, 25)), numbered({*range(23)} - {6}), "they are numbered 0 to 22, the images 1 to 24"),
        (numbered({*range(24)} - {9}), numbered(range(1, 25)), "they are numbered 1 to 24, the images 0 to 23"),
        (numbered(range(24)), numbered([11, 15, 21, 34]), "they are numbered 11 to 34, the images 0 to 23"),
        (
            [id for video in "ABC" for id in numbered(range(8), f"{video}_")] + ["still"],
            [id for video in "ABC" for id in numbered(range(1, 9 - (video == "B")), f"{video}_")] + ["still"],
            "those called 'A_#' are numbered 1 to 8, the images 0 to 7",
        ),
    ],
    ids=["one absent", "first absent", "last absent", "image absent", "few", "videos"],
)
def test_masks_that_count_from_another_number_are_not_paired_with_equal_numbers(tmp_path, images, masks, words):
    for id in images:
        save_image(tmp_path / "images" / f"{id}.png")
    for id in masks:
        save(tmp_path / "masks" / f"{id}.png", draw())
    for options in ({}, LOOSEST):
        with pytest.raises(UserError, match=f"{words}.* number both alike, or leave these out with data.exclude"):
            open_training(DataSettings(root=tmp_path, train_images="images", train_masks="masks", **options))


def test_equal_numbers_that_are_the_same_image_are_read_once_the_others_are_excluded(tmp_path):
    names = numbered(range(6))
    masks = write(tmp_path, lambda n, name, text: f"{numbered([n + 1])[0]},{text}", names=names)
    options = {"exclude": ["f006"], "images_without_mask": "skip"}
    expected = dict(zip(names[1:], masks.values(), strict=False))
    assert_masks(open_training(DataSettings(root=tmp_path, **options)), expected)


def test_a_count_from_another_number_is_only_mentioned_where_the_first_image_may_have_no_mask(tmp_path):
    masks = write(tmp_path, lambda n, name, text: f"{name},{text}" if n else "f003,1 1", names=numbered(range(4)))
    write_lines(tmp_path / "train.csv", "id,rle", *(f"{id},{encode(masks[id])}" for id in numbered(range(1, 4))))
    words = "image 'f000' has no mask .*=empty .or skip. if that is right; masks count from 1, images from 0: number"
    with pytest.raises(UserError, match=words):
        open_training(DataSettings(root=tmp_path))
    del masks["f000"]
    assert_masks(open_training(DataSettings(root=tmp_path, images_without_mask="skip")), masks)
    with pytest.raises(UserError, match="image 'f004' has no mask .* if that is right$"):
        save_image(tmp_path / "train_images/f004.png")
        open_training(DataSettings(root=tmp_path, exclude=["f000"]))


def test_no_pattern_is_proposed_that_pairs_different_numbers(tmp_path):
    """Neither the last frame of each video with the first, nor any other: the numbers may mean the same frames."""
    for video in range(9):
        save_image(tmp_path / f"images/video{video}_frame003.png")
        save(tmp_path / f"masks/video{video}_frame8.png", draw())
    with pytest.raises(UserError) as caught:
        open_training(DataSettings(root=tmp_path, train_images="images", train_masks="masks"))
    assert "{id}_frame" not in str(caught.value)


def test_another_text_before_each_id_is_put_into_the_pattern(tmp_path):
    masks = write(tmp_path, lambda n, name, text: f"{n * 7919:08x}-{name},{text}")
    with pytest.raises(UserError, match="another text before each, as in '00000000-img_001'") as caught:
        open_training(DataSettings(root=tmp_path))
    assert_masks(open_training(DataSettings(root=tmp_path, **setting_in(str(caught.value)))), masks)


def test_a_sample_of_ids_alone_lacks_the_column_to_fill_in(tmp_path):
    write(tmp_path, lambda n, name, text: f"{name},{text}")
    write_lines(tmp_path / "sample_submission.csv", "id", *IDS)
    with pytest.raises(UserError, match="no column of run lengths .data.sample_rle_column.; its columns are: id"):
        open_test(DataSettings(root=tmp_path))


def test_classes_after_the_ids_are_named(tmp_path):
    masks = write(tmp_path, lambda n, name, text: f"{name}.png_1,{text}\n{name}.png_2,{text}")
    with pytest.raises(UserError, match=r'ids of images with _1, _2 after them; .* set data.classes to \["1", "2"\]'):
        open_training(DataSettings(root=tmp_path, classes=["defect"]))
    layout = DataSettings(root=tmp_path, classes=["1", "2"])
    assert_masks(open_training(layout), {id: np.stack([mask, mask], axis=2) for id, mask in masks.items()})


def test_the_two_errors_of_old_do_not_lead_to_empty_masks(tmp_path):
    write(tmp_path, lambda n, name, text: f"other{n},{text}")
    with pytest.raises(
        UserError, match="no image in .* has a mask in .*: the images are 'img_001', .*, the masks 'other0'"
    ):
        open_training(DataSettings(root=tmp_path, **LOOSEST))


def test_a_few_ids_that_match_do_not_excuse_the_others(tmp_path):
    write(tmp_path, lambda n, name, text: f"{name.upper() if n else name},{text}")
    with pytest.raises(UserError, match="differ in upper and lower case only"):
        open_training(DataSettings(root=tmp_path, **LOOSEST))


def test_masks_and_images_that_really_lack_each_other_are_left_out_as_set(tmp_path):
    masks = write(tmp_path, lambda n, name, text: f"{name if n else 'case77'},{text}")
    masks["img_001"] = np.zeros_like(masks["img_001"])
    assert_masks(open_training(DataSettings(root=tmp_path, **LOOSEST)), masks)


def test_unicode_forms_are_one(tmp_path):
    name = "Zürich_é"
    composed, decomposed = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    masks = write(tmp_path, lambda n, name, text: f"{composed},{text}", names=[decomposed])
    assert_masks(open_training(DataSettings(root=tmp_path)), {composed: masks[decomposed]})
    assert open_test(DataSettings(root=tmp_path)).rows[0].values[0] == composed
    with pytest.raises(UserError, match="data.exclude leaves no image"):
        open_training(DataSettings(root=tmp_path, exclude=[decomposed]))


def test_mask_files_and_image_files_with_something_around_the_id(tmp_path):
    masks = write(tmp_path, lambda n, name, text: f"{name},{text}")
    for name, mask in masks.items():
        save(tmp_path / "masks" / f"{name}_mask.png", mask)
        save_image(tmp_path / "scans" / f"{name}_sat.png")
    settings = DataSettings(root=tmp_path, train_masks="masks")
    with pytest.raises(UserError, match="{id}_mask; set data.train_masks to a pattern such as masks/{id}_mask.png"):
        open_training(settings)
    assert_masks(open_training(settings.model_copy(update={"train_masks": "masks/{id}_mask.png"})), masks)
    settings = DataSettings(root=tmp_path, train_images="scans")
    with pytest.raises(UserError, match="{id}_sat; set data.train_images to a pattern such as scans/{id}_sat.png"):
        open_training(settings)
    assert_masks(open_training(settings.model_copy(update={"train_images": "scans/{id}_sat.png"})), masks)


def files(root, images: str, masks: str, **values) -> dict[str, np.ndarray]:
    """Images and mask files whose patterns have an {id}, and further parts of which `values` has one for each id."""
    written = {}
    for number, id in enumerate(IDS):
        parts = {"id": id} | {name: of_ids[number] for name, of_ids in values.items()}
        save_image(root / images.format(**parts))
        written[id] = save(root / masks.format(**parts), draw())
    return written


def test_a_hash_after_the_ids_of_images_is_put_into_the_pattern(tmp_path):
    hashes = ["w160ea", "w1e478", "w159e9"]
    masks = files(tmp_path, "images/{id}_{hash}.tif", "masks/{id}.png", hash=hashes)
    settings = DataSettings(root=tmp_path, train_images="images", train_masks="masks")
    with pytest.raises(UserError, match=r"text after each id, as in 'img_001_w160ea'; .* as images/{id}_w1\*.tif"):
        open_training(settings)
    assert_masks(open_training(settings.model_copy(update={"train_images": "images/{id}_w1*.tif"})), masks)


def test_a_pattern_that_would_cut_the_ids_short_is_not_proposed(tmp_path):
    """`{id}_*` takes the shortest id, `img` of img_001_7f."""
    files(tmp_path, "images/{id}_{hash}.tif", "masks/{id}.png", hash=["7f", "a0", "b3"])
    with pytest.raises(UserError, match="so that their ids are the same"):
        open_training(DataSettings(root=tmp_path, train_images="images", train_masks="masks"))


def test_several_files_of_each_id_are_listed(tmp_path):
    masks = files(tmp_path, "scans/{id}_rgb.png", "scans/{id}_fg.png")
    for id in IDS:
        save_image(tmp_path / "scans" / f"{id}_depth.png")
    settings = DataSettings(root=tmp_path, train_images="scans", train_masks="scans/{id}_fg.png")
    with pytest.raises(UserError, match="names are the ids with _depth, _rgb after them; let data.train_images = 'sca"):
        open_training(settings)
    assert_masks(open_training(settings.model_copy(update={"train_images": "scans/{id}_rgb.png"})), masks)


def test_mask_files_of_several_kinds_are_classes_or_one_of_them_is_named(tmp_path):
    masks = files(tmp_path, "images/{id}.png", "masks/{id}_color_RGB.png")
    for id in IDS:
        save(tmp_path / "masks" / f"{id}_id_RGB.png", draw())
    settings = DataSettings(root=tmp_path, train_images="images", train_masks="masks")
    words = r'set data.classes to \["color_RGB", "id_RGB"\]; if not, .* name one of them, as {id}_color_RGB'
    with pytest.raises(UserError, match=words):  # without {id}_{class}, which is `img` and 001_color_RGB
        open_training(settings)
    named = settings.model_copy(update={"train_masks": "masks/{id}_color_RGB.png"})
    assert_masks(open_training(named), masks)


def test_masks_of_other_classes_beside_the_images_are_not_taken_for_images_without_a_mask(tmp_path):
    masks = files(tmp_path, "train/{id}.png", "train/{id}_disc.png")
    for id in IDS:
        save(tmp_path / "train" / f"{id}_rim.png", draw())
    settings = DataSettings(
        root=tmp_path, train_images="train", train_masks="train/{id}_{class}.png", classes=["disc"],
        other_classes="skip", images_without_mask="empty",
    )  # fmt: skip
    with pytest.raises(UserError, match="images 'img_001_rim', .* no mask in .*: their names .* {id}_rim; .*exclude"):
        open_training(settings)
    assert_masks(open_training(settings.model_copy(update={"exclude": ["*_rim"]})), masks)


def test_masks_that_label_studio_numbers_by_task_are_to_be_renamed(tmp_path):
    files(tmp_path, "images/{id}.png", "masks/task-{n}-annotation-{m}-by-1-tag-Cell-0.png", n=[1, 2, 3], m=[7, 9, 8])
    with pytest.raises(UserError, match="by the number of its task; .* rename the masks after their images"):
        open_training(DataSettings(root=tmp_path, train_images="images", train_masks="masks"))


def test_ids_that_become_one_are_an_error(tmp_path):
    write(tmp_path, lambda n, name, text: f"Img_{n},{text}", names=["img_1", "IMG_1"])
    with pytest.raises(UserError, match="'Img_1' of .*train.csv may be images 'IMG_1', 'img_1'"):
        open_training(DataSettings(root=tmp_path, loose_ids=["case"]))
    write(tmp_path / "zeros", lambda n, name, text: f"{'0' * n}7,{text}", names=["007", "8"])
    with pytest.raises(UserError, match="'07' and '7' of .*train.csv are both '007'"):
        open_training(DataSettings(root=tmp_path / "zeros", loose_ids=["zeros"]))
    write(tmp_path / "folders", lambda n, name, text: f"part{n}/a.png,{text}", names=["a", "b"])
    with pytest.raises(UserError, match="'part0/a' and 'part1/a' are both 'a' by data.id_pattern"):
        open_training(DataSettings(root=tmp_path / "folders", id_pattern="*/{id}", **LOOSEST))


def test_an_id_in_two_columns(tmp_path):
    masks = write(tmp_path, lambda n, name, text: f"{name[:3]},{name[4:]},{text}", "subject,img,pixels")
    settings = DataSettings(root=tmp_path, id_column="{subject}_{img}")
    assert_masks(open_training(settings), masks)
    with pytest.raises(UserError, match="no column 'day' .data.id_column"):
        open_training(settings.model_copy(update={"id_column": "{subject}_{day}", "rle_column": "pixels"}))


def test_columns_of_the_sample_are_settings_of_their_own(tmp_path):
    masks = write(tmp_path, lambda n, name, text: f"{n + 1},{name},{text},x", "row,id,annotation,cell")
    write_lines(tmp_path / "sample_submission.csv", "number,image,prediction,note", *(f"9,{name},,?" for name in IDS))
    settings = DataSettings(
        root=tmp_path, id_column="id", rle_column="annotation", sample_id_column="image", sample_rle_column="prediction"
    )
    assert_masks(open_training(settings), masks)
    test = open_test(settings)
    assert test.rle_columns == [2] and test.rows[0] == ("img_001", 0, ("9", "img_001", "", "?"))
    with pytest.raises(UserError, match="sample_submission.csv: set data.sample_rle_column to the column"):
        open_test(
            settings.model_copy(update={"sample_rle_column": None}).model_copy(update={"sample_id_column": "note"})
        )


def test_masks_that_are_all_empty_are_an_error(tmp_path):
    write(tmp_path, lambda n, name, text: f"{name},")
    with pytest.raises(UserError, match="the masks of all 3 training images in .*train.csv.* are empty"):
        inspect_all(open_training(DataSettings(root=tmp_path)))


@given(st.text("aAbB01", max_size=6))
def test_loosened_ids_are_those_of_the_definition(name):
    case = name.lower()
    assert loosened(name, ["case"]) == case
    digits = "".join(str(int(part)) if part.isdigit() else part for part in re.split(r"(\d+)", name))
    assert loosened(name, ["zeros"]) == digits
    assert match_ids([name], ["elsewhere"], ["case", "zeros"], "x") == {name: name}
