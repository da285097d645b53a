"""Tables of run lengths and their ids as people have them: each row of those tables in docs/inputs.md."""

import gzip
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.base.errors import UserError
from lib.config.data_settings import DataSettings, RleSettings
from lib.data.competition import TrainingData, open_training
from lib.masks.rle import encode
from tests.data.input_rows import (
    CORNER,
    DISC,
    IDS,
    RLE,
    ROWS,
    SHAPE,
    TWO,
    Masks,
    Row,
    images_only,
    mask_of,
    page_rows,
    picture,
    put,
    try_row,
)

LINES = [f"{id},{RLE[id]}" for id in IDS]
PLAIN = "\n".join(["id,rle", *LINES]) + "\n"


def table(content: str | bytes, name: str = "train.csv", meant: Masks | None = None) -> Callable[[Path], Masks | None]:
    """The images, and a table of this content."""

    def write(root: Path) -> Masks | None:
        images_only(root)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return meant

    return write


def lines(header: str, row: Callable[[str], str], **options: object) -> Callable[[Path], Masks | None]:
    """A table with a row made of each id."""
    return table("\n".join([header, *map(row, IDS)]) + "\n", **options)


def ids(names: dict[str, str], header: str = "id,rle", row: str = "{id},{rle}") -> Callable[[Path], Masks]:
    """Images by these names, and a table by their values."""

    def write(root: Path) -> Masks:
        images_only(root, tuple(names))
        pairs = list(zip(names.values(), IDS, strict=False))
        rows = [row.format(id=of_table, rle=RLE[id], n=n) for n, (of_table, id) in enumerate(pairs)]
        (root / "train.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return {unicodedata.normalize("NFC", name): DISC[id] for name, id in zip(names, IDS, strict=False)}

    return write


def parquet(root: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images_only(root)
    runs = [[int(number) for number in RLE[id].split()] for id in IDS]
    parquet.write_table(
        pyarrow.table({"id": IDS, "rle": runs, "area": [1.5, float("nan"), 2.0]}), root / "train.parquet"
    )


def parts(root: Path) -> None:
    images_only(root)
    (root / "part_1.csv").write_text("\n".join(["id,rle", *LINES[:1]]))
    (root / "part_2.csv").write_text("\n".join(["id,rle", *LINES[1:]]))


def halves(id: str) -> str:
    """Two rows, of the upper and the lower half of an image's mask."""
    return "\n".join(f"{id},{encode(DISC[id] & half)}" for half in (ROWS < 11, ROWS >= 11))


def seg_files(root: Path) -> None:
    lines("id,mask", lambda id: f"{id},masks/{id}_seg.png")(root)
    for id in IDS:
        put(root / f"masks/{id}_seg.png", mask_of(id))


def with_an_empty_one(word: str) -> Callable[[Path], Masks]:
    return lines(
        "id,rle", lambda id: f"{id},{RLE[id] if id != 'b' else word}", meant=DISC | {"b": np.zeros(SHAPE, bool)}
    )


def has_no_groups(training: TrainingData) -> None:
    assert training.groups is None


HALF = {id: np.kron(DISC[id][::2, ::2], np.ones((2, 2))) > 0 for id in IDS}
BY_ROW = RleSettings(order="row")
WHOLE = "train.csv|not whole numbers with blanks between them"

TABLES = {
    "csv with commas": Row(table(PLAIN)),
    "csv with tabs": Row(table(PLAIN.replace(",", "\t"))),
    "csv with semicolons and decimal commas": Row(lines("id;area;rle", lambda id: f"{id};1,5;{RLE[id]}")),
    "Excel's line `sep=;` before the header": Row(table("sep=;\r\n" + PLAIN.replace(",", ";"))),
    "tsv": Row(table(PLAIN.replace(",", "\t"), "train.tsv")),
    "csv.gz": Row(table(gzip.compress(PLAIN.encode()), "train.csv.gz")),
    "parquet": Row(parquet),
    "several tables of the same columns": Row(parts),
    "UTF-8 with a byte order mark": Row(table(PLAIN.encode("utf-8-sig"))),
    'UTF-16, as Excel\'s "Unicode text"': Row(table(PLAIN.replace(",", "\t").encode("utf-16"))),
    "Windows line ends, blank lines": Row(table(PLAIN.replace("\n", "\r\n\r\n"))),
    "blanks around names and values": Row(lines(" id , rle ", lambda id: f" {id} , {RLE[id]} ")),
    "quoted line breaks in another column": Row(lines("id,note,rle", lambda id: f'{id},"two\nlines",{RLE[id]}')),
    "another encoding than UTF-8 or UTF-16": Row(
        table(PLAIN.replace("rle", "maß").encode("latin-1")),
        refused="not a csv file in UTF-8|0xdf|again as UTF-8",
    ),
    "values separated by bars": Row(table(PLAIN.replace(",", "|")), refused="one column, 'id"),
    "no line with the columns' names": Row(table("\n".join(LINES)), refused="first line must name the columns|'a'"),
    "a row that is too short": Row(table(PLAIN + "d\n"), refused="train.csv, line 5: 1 value, but 2 columns"),
    "a row twice": Row(table(PLAIN + LINES[0]), refused="'a' has several rows|are the same; leave only one"),
    "several rows of an image": Row(lines("id,rle", halves), refused="several rows in|set data.instances=true"),
    "other names of the columns": Row(
        lines("rank,slice,pixels", lambda id: f"1,{id},{RLE[id]}"), refused="set data.rle_column|rank, slice, pixels"
    ),
    "a column of run lengths for each class": Row(
        lines("id,corner,disc", lambda id: f"{id},{encode(CORNER)},{RLE[id]}", meant=TWO)
    ),
    "a column of classes": Row(
        lines("id,kind,rle", lambda id: f"{id},corner,{encode(CORNER)}\n{id},disc,{RLE[id]}", meant=TWO)
    ),
    "a column of classes with attributes after them, as `29_102`": Row(
        lines("id,kind,rle", lambda id: f"{id},29_102,{RLE[id]}\n{id},3,{encode(CORNER)}"),
        {"classes": ["3", "29"], "class_column": "kind"},
        "'29_102'; these are classes with attributes after them|the classes alone",
    ),
    "a column of classes, not all of them to be learned": Row(
        lines("id,kind,rle", lambda id: f"{id},corner,{encode(CORNER)}\n{id},disc,{RLE[id]}"),
        {"classes": ["disc"], "class_column": "kind"},
        "different classes from data.classes ('disc') in 3 of 6 rows: 'corner'|data.other_classes=skip",
    ),
    "a column called `group`": Row(
        lines("id,rle,group", lambda id: f"{id},{RLE[id]},{'treated' if id == 'a' else 'control'}"),
        says="groups    2 by column 'group' of |train.csv; each is kept in one fold; set data.group=none",
        images=has_no_groups,
    ),
    "`nan` in a column of groups": Row(
        lines("id,rle,group", lambda id: f"{id},{RLE[id]},{'p1' if id == 'a' else 'nan'}"),
        refused="train.csv has no group for 'b', 'c' (its cell is nan)",
    ),
    "a blank cell in a column called `group`": Row(
        lines("id,rle,group", lambda id: f"{id},{RLE[id]},{'p1' if id == 'a' else ''}"),
        refused="train.csv has no group for 'b', 'c'; set data.group=none if this column means something else",
    ),
    "a class after the id": Row(
        lines("id,rle", lambda id: f"{id}_corner,{encode(CORNER)}\n{id}_disc,{RLE[id]}", meant=TWO)
    ),
    "a class before the id": Row(
        lines("id,rle", lambda id: f"corner_{id},{encode(CORNER)}\ndisc_{id},{RLE[id]}", meant=TWO),
        refused='corner_, disc_ before|set data.classes to ["corner", "disc"], and data.id_pattern to {class}_{id}',
    ),
    "a folder of the class before the id": Row(
        lines("id,rle", lambda id: f"train/disc/{id}.png,{RLE[id]}\ntrain/corner/{id}.png,{encode(CORNER)}", meant=TWO),
        {"classes": ["disc", "corner"]},
        "'train/disc/a.png' ends in none of the classes|data.id_pattern=*/{class}/{id}",
    ),
    "names of mask files in place of run lengths": Row(seg_files, refused="names files|such as masks/{id}_seg.png"),
    "run lengths as a list, `[1, 2]`": Row(lines("id,rle", lambda id: f'{id},"[{RLE[id].replace(" ", ", ")}]"')),
    "run lengths as decimals, `1.0 2.0`": Row(
        lines("id,rle", lambda id: f"{id},{' '.join(number + '.0' for number in RLE[id].split())}"), refused=WHOLE
    ),
    "`nan`, `None` or a word for an empty mask": Row(
        with_an_empty_one("nan"), refused="'nan'|mask of 'b'|set data.rle.also_empty to [\"nan\"]"
    ),
    "run lengths cut at 32,767 characters by a spreadsheet": Row(
        lines("id,rle", lambda id: f"{id},{'1 1 ' * 8191}12"),
        refused="32766 characters|spreadsheets cut a cell|data.doubtful_rle=read",
    ),
    "run lengths of images of half the size": Row(
        lines("id,rle", lambda id: f"{id},{encode(DISC[id][::2, ::2])}", meant=HALF), refused="data.rle_factor=2"
    ),
    "columns of heights and widths that are not those of an image": Row(
        lines("id,rle,Height,Width", lambda id: f"{id},{RLE[id]},{SHAPE[0]},{SHAPE[1] - (id == 'b')}"),
        refused=f"1 image of 3, such as 'b', has a different size|{SHAPE[0]} x {SHAPE[1]} instead of 24 x 29",
    ),
    "corners, boxes, or starts and ends in place of run lengths": Row(
        lines("id,rle", lambda id: f"{id},{' '.join(map(str, cv2.boundingRect(DISC[id].view(np.uint8))))}"),
        refused="no number of 3 of 3 masks|corners (x, y) or boxes",
    ),
    "run lengths along the rows": Row(
        lines("id,rle", lambda id: f"{id},{encode(DISC[id], BY_ROW)}"), refused="data.rle.order=row"
    ),
    "all masks empty": Row(
        lines("id,rle", lambda id: f"{id},"),
        {"images_without_mask": "empty"},
        "masks of all 3 training images|empty",
    ),
}


def in_two_columns(root: Path) -> Masks:
    names = {f"s{n}_{id}": id for n, id in enumerate(IDS)}
    images_only(root, tuple(names))
    rows = [f"{name[:2]},{id},{RLE[id]}" for name, id in names.items()]
    (root / "train.csv").write_text("\n".join(["subject,img,rle", *rows]))
    return {name: DISC[id] for name, id in names.items()}


def one_more(image: bool) -> Callable[[Path], Masks]:
    """An image without a row, or a row without an image."""

    def write(root: Path) -> Masks:
        table(PLAIN if image else f"{PLAIN}d,1 1\n")(root)
        if image:
            put(root / "train_images/d.png", picture(9))
        return DISC | ({"d": np.zeros(SHAPE, bool)} if image else {})

    return write


def in_kinds(root: Path) -> Masks:
    """Images of equal names in two folders, and a table of their paths."""
    lines = ["id,rle"]
    for number, kind in enumerate(("good", "bad")):
        put(root / f"images/{kind}/7.png", picture(number))
        lines.append(f"{kind}/7.png,{RLE[IDS[number]]}")
    (root / "train.csv").write_text("\n".join(lines))
    return {"good_7": DISC["a"], "bad_7": DISC["b"]}


KINDS = {"train_images": "images/{kind}/{id}.png", "image_id": "{kind}_{id}"}
LONG = {f"12345678901{n}": "1.23457E+11" for n in range(3)}
IDS_OF_TABLES = {
    "numbers with leading zeros, large numbers, 1e5": Row(
        ids({name: name for name in ("007", "12345678901234567890", "1e5")})
    ),
    "with the suffix of an image": Row(ids({id: f"{id}.png" for id in IDS})),
    "in another Unicode form": Row(
        ids({unicodedata.normalize("NFD", f"é{id}"): unicodedata.normalize("NFC", f"é{id}") for id in IDS})
    ),
    "with blanks and umlauts": Row(ids({f"Übung {id} größer": f"Übung {id} größer" for id in IDS})),
    "in another column": Row(
        ids({id: id for id in IDS}, "row,file,rle", "{n}1,{id}.png,{rle}"), refused="set data.id_column=file"
    ),
    "in two columns": Row(in_two_columns),
    "pandas' index as the first column": Row(
        ids({id: id for id in IDS}, ",id,rle", "{n},{id},{rle}"), refused="pandas|set data.id_column|id, rle"
    ),
    "upper case in the table": Row(ids({id: id.upper() for id in IDS}), refused="set data.loose_ids=[case]"),
    "leading zeros lost in the table": Row(
        ids({f"00{n}": f"{n}" for n in range(3)}), refused="set data.loose_ids=[zeros]"
    ),
    "`_mask` after the id": Row(ids({id: f"{id}_mask.png" for id in IDS}), refused="set data.id_pattern={id}_mask"),
    "a folder before the id": Row(ids({id: f"train/{id}.png" for id in IDS}), refused="set data.id_pattern=*/{id}"),
    "`good/7.png` and `bad/7.png`": Row(
        in_kinds, KINDS | {"id_pattern": "*/{id}"}, "'good/7' and 'bad/7' are both '7'|data.id_pattern={folder}/{id}"
    ),
    "`7.0` for 7": Row(ids({f"{n}": f"{n}.0" for n in range(7, 10)}), refused="set data.id_pattern={id}.0"),
    "`1.23457E+11`, as a spreadsheet writes long numbers": Row(ids(LONG), refused="1.23457E+11|took the ids"),
    "numbers from 1, where those of the images are from 0": Row(
        ids({f"f{n}": f"f{n + 1}" for n in range(3)}),
        {"images_without_mask": "empty", "masks_without_image": "skip"},
        "they are numbered 1 to 3, the images 0 to 2|number both alike, or leave these out with data.exclude",
    ),
    "no id is an image's": Row(
        ids({"x": "p", "y": "q"}),
        {"images_without_mask": "empty", "masks_without_image": "skip"},
        "no image in|has a mask",
    ),
    "excluded by the image's id, where the table has it in capitals": Row(
        lines("id,rle", lambda id: f"{id.upper()},{RLE[id]}", meant={id: DISC[id] for id in "bc"})
    ),
    "excluded by the table's id, where the image has it in small letters": Row(
        lines("id,rle", lambda id: f"{id.upper()},{RLE[id]}", meant={id: DISC[id] for id in "bc"})
    ),
    "images without a mask": Row(one_more(True), refused="image 'd' has no mask|images_without_mask=empty"),
    "masks without an image": Row(one_more(False), refused="mask 'd'|set data.masks_without_image=skip"),
}

SECTIONS = {"## Tables": TABLES, "## Ids": IDS_OF_TABLES}
CASES = [(heading, name) for heading, rows in SECTIONS.items() for name in rows]


@pytest.mark.parametrize(("heading", "name"), CASES)
def test_what_the_page_says_of_it_happens(tmp_path, capsys, heading, name):
    what, alternatives = page_rows(heading)[name]
    try_row(SECTIONS[heading][name], what, alternatives, tmp_path, lambda: capsys.readouterr().out)


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_row_of_the_page_is_tried(heading):
    assert list(page_rows(heading)) == list(SECTIONS[heading])


@pytest.mark.parametrize(
    ("form", "pattern"),
    [("{c}-{id}", "{class}-{id}"), ("{id}_{c}.png", "{id}_{class}"), ("{c}/{id}.jpg", "{class}/{id}")],
)
def test_ids_that_hold_a_class_elsewhere_are_refused_with_the_pattern_that_reads_them(tmp_path, form, pattern):
    kinds = {"disc": DISC, "big_disc": dict.fromkeys(IDS, CORNER)}  # one ends in the other

    def row(id: str) -> str:
        return "\n".join(f"{form.format(c=c, id=f'x_{id}')},{encode(kinds[c][id])}" for c in kinds)

    images_only(tmp_path, tuple(f"x_{id}" for id in IDS))
    (tmp_path / "train.csv").write_text("\n".join(["id,rle", *map(row, IDS)]))
    settings = DataSettings(root=tmp_path, classes=["disc", "big_disc"])
    if form != "{c}-{id}":  # which is found where the ids match no image
        with pytest.raises(UserError, match=re.escape(f"data.id_pattern={pattern}") + "$"):
            open_training(settings)
    training = open_training(settings.model_copy(update={"id_pattern": pattern}))
    for id in IDS:
        np.testing.assert_array_equal(training.read_mask(f"x_{id}"), np.dstack([DISC[id], CORNER]))
    one = settings.model_copy(update={"classes": ["big_disc"], "id_pattern": pattern})
    with pytest.raises(UserError, match="is not data.id_pattern = .* with one of the classes 'big_disc'"):
        open_training(one)
    training = open_training(one.model_copy(update={"other_classes": "skip"}))
    np.testing.assert_array_equal(training.read_mask("x_a")[:, :, 0], CORNER)
