"""The part of the page on scenes: groups of the folds, siblings in different folds, test images and their relatives."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lib.base.errors import or_none
from lib.base.files import read_json, sha256_of_json
from lib.config.schema import Settings
from lib.data.competition import open_test, open_training
from lib.data.images import Images
from lib.data.tables import read_table
from lib.folds.split import stored_folds
from lib.report.galleries import Gallery, Item, encode_pictures
from lib.report.pictures import SIDE, fitted, shown_image, small_image, stretched
from lib.run.folder import RunFolder

GROUPS = 8  # pictures of a fold, one for each of its largest groups
SHOWN_PAIRS = 4  # of each kind
MOSAIC_COLUMNS = ["mosaics", "mosaic_row", "mosaic_column"]  # of hidden_groups.csv
SHOWN_MOSAICS, MOSAIC_SIDE = 3, 600  # the largest; pixels of the longer side


def groups_part(run: RunFolder, settings: Settings) -> dict | None:
    """The content of leak.json with galleries; None where 03 could not measure the leak, or without test images.

    `measured_others` says whether the test images were others then: 04 and 05 do without measuring anew.
    """
    if settings.data.test_images is None or not run.leak.is_file():
        return None
    content = read_json(run.leak)
    table = stored_folds(run.folds)
    training, test = open_training(settings.data), open_test(settings.data)
    galleries = [
        *_mosaic_galleries(run, training),
        Gallery(
            "fold_groups",
            "One image of each group",
            f"The {GROUPS} largest groups of each fold. Groups of different folds should not look like one scene.",
            list(_fold_items(table, training)),
            folded=True,
        ),
        Gallery(
            "leaks",
            "Nearest images of different folds",
            "Siblings in different folds make the out-of-fold score too high. If they show one scene, data.group is "
            "missing or too fine.",
            list(_pair_items(content["leaks"]["nearest"], training, training, "nearest in another fold")),
            folded=True,
        ),
        Gallery(
            "relatives",
            "Test images and the nearest training image",
            "The most alike first, then the least alike.",
            [
                *_pair_items(_still_there(content["test"]["nearest"], test), test, training, "nearest training image"),
                *_pair_items(_still_there(content["test"]["furthest"], test), test, training, "nearest training image"),
            ],
            folded=True,
        ),
    ]
    measured_others = content.get("test_ids") not in (None, sha256_of_json(test.ids))
    return {"galleries": galleries, "measured_others": measured_others, **content}


def _mosaic_galleries(run: RunFolder, training: Images) -> Iterator[Gallery]:
    """A gallery of the largest photos whose tiles the images are, if 01 found some."""
    table = pd.DataFrame(or_none(read_table, run.hidden_groups, "written by 01_prepare_folds.py"))
    if not {"id", *MOSAIC_COLUMNS} <= set(table) or not set(table.id) <= set(training.ids):
        return
    table[MOSAIC_COLUMNS] = table[MOSAIC_COLUMNS].apply(pd.to_numeric, errors="coerce")
    if table.isna().any(axis=None):  # edited: no stage checks this file
        return
    table[MOSAIC_COLUMNS] = table[MOSAIC_COLUMNS].astype(int)
    sizes = table.mosaics.value_counts()
    items = [_mosaic_item(table[table.mosaics == name], training) for name in sizes.index[:SHOWN_MOSAICS]]
    description = "Images that continue one another at their borders, laid side by side: there should be no seam."
    yield Gallery("mosaics", "Tiles of one photo", description, items, folded=True)


def _mosaic_item(tiles: pd.DataFrame, training: Images) -> Item:
    """The tiles of a mosaic at their places; places without a tile are black."""
    rows, columns = tiles.mosaic_row.max() + 1, tiles.mosaic_column.max() + 1
    side = max(1, min(SIDE // 2, MOSAIC_SIDE // max(rows, columns)))
    canvas = np.zeros((rows * side, columns * side, 3), np.uint8)
    for tile in tiles.itertuples():
        small = fitted(small_image(training.open_image(tile.id), side), (side, side))
        top, left = side * tile.mosaic_row, side * tile.mosaic_column
        canvas[top : top + side, left : left + side] = small
    caption = f"and {len(tiles) - 1} more images"
    return Item(tiles.id.iloc[0], "", caption, encode_pictures([("side by side", stretched(canvas))]))


def _fold_items(table: pd.DataFrame, training: Images) -> Iterator[Item]:
    for fold, part in table.groupby("fold"):
        sizes = part.group.value_counts()
        largest = sizes.head(GROUPS)
        first = part.drop_duplicates("group").set_index("group").id
        pictures = [(f"{name}: {count}", _small(training, first[name])) for name, count in largest.items()]
        yield Item(f"fold {fold}", "", f"{len(part)} images in {len(sizes)} groups", encode_pictures(pictures))


def _pair_items(pairs: list[dict], images: Images, training: Images, title: str) -> Iterator[Item]:
    """A row of two pictures for each pair of leak.json."""
    for pair in pairs[:SHOWN_PAIRS]:
        score = "" if pair["score"] is None else f", score {pair['score']:.3f}"
        pictures = [
            ("image", _small(images, pair["id"])),
            (f"{title}: {pair['nearest']}", _small(training, pair["nearest"])),
        ]
        yield Item(pair["id"], "", f"distance {pair['distance']:.3f}{score}", encode_pictures(pictures))


def _still_there(pairs: list[dict], test: Images) -> list[dict]:
    """The pairs whose test image has not gone, or become unreadable, since 03."""
    return [pair for pair in pairs if pair["id"] in test.files]


def _small(images: Images, image_id: str) -> np.ndarray:
    """The image at half the size of the galleries'."""
    shown = shown_image(images.open_image(image_id))
    height, width = shown.shape[:2]
    scale = SIDE / 2 / max(height, width)
    return fitted(shown, (max(1, round(scale * height)), max(1, round(scale * width))))
