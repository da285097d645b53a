"""docs/photos.md: with the settings that it names for a program, the masks drawn in that program are read."""

import json
import re
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from lib.checks.inspection import inspect_all
from lib.config.check import check_settings
from lib.data.competition import open_training
from tests import REPOSITORY

PAGE = (REPOSITORY / "docs" / "photos.md").read_text()
ROWS = dict(re.findall(r"^\| ([^|]+?) \| [^|]+ \| ([^|]+?) \|$", PAGE, re.MULTILINE)[1:])
PHOTOS = ["day 1 (3)", "b"]
TRUTH = np.zeros((40, 56), np.uint8)
TRUTH[5:15, 10:30] = TRUTH[20:32, 4:12] = 1


def settings_of(program: str) -> dict:
    """The settings of the page's file, with those that the table's row names."""
    block = re.search(r"as `configs/cells.yaml`:\n\n(.*?)\n\n", PAGE, re.DOTALL)[1]
    named = yaml.safe_load("\n".join(part for part in re.findall("`([^`]+)`", ROWS[program]) if ": " in part)) or {}
    return yaml.safe_load(textwrap.dedent(block))["data"] | named


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), values)


def write_labelme(path: Path, name: str) -> None:
    corners = [[[10, 5], [30, 5], [30, 15], [10, 15]], [[4, 20], [12, 20], [12, 32], [4, 32]]]
    shapes = [{"label": "cell", "shape_type": "polygon", "points": points} for points in corners]
    sizes = {"imageHeight": TRUTH.shape[0], "imageWidth": TRUTH.shape[1]}
    (path / f"{name}.json").write_text(json.dumps({"shapes": shapes, "imagePath": f"{name}.tif", **sizes}))


def write_masks(root: Path, program: str) -> np.ndarray:
    """Write a mask of each photo as the program does; the truth, (height, width, classes)."""
    numbered = TRUTH.copy()
    numbered[20:] *= 2
    soft = cv2.GaussianBlur(TRUTH * 255, (0, 0), 1)
    for name in PHOTOS:
        if program.startswith("Fiji, "):
            save(root / "masks" / f"{name}.png", TRUTH * 255)
        elif program.startswith("Fiji or napari"):
            save(root / "labels" / f"{name}-labels.tif", numbered.astype(np.uint16))
        elif program.startswith("QuPath"):
            save(root / "masks" / f"{name}-labelled.png", numbered)
        elif program == "Labelme":
            write_labelme(root / "photos", name)
        else:
            save(root / "masks" / f"{name}.png", soft)
    if program.startswith("QuPath"):
        return np.stack([numbered == 1, numbered == 2], axis=2)
    return (soft > 127 if program.startswith("GIMP") else TRUTH == 1)[..., None]


@pytest.mark.parametrize("program", ROWS)
def test_the_settings_of_the_page_read_the_masks(tmp_path, program):
    for name, values in zip(PHOTOS, (np.arange(40 * 56, dtype=np.uint16) * 20, TRUTH * 90), strict=True):
        save(tmp_path / "photos" / f"{name}.tif", values.reshape(TRUTH.shape))
    expected = write_masks(tmp_path, program)
    named = settings_of(program)
    if program.startswith("Fiji, "):
        assert named.pop("masks") == {"inverted": True}
    settings = check_settings({"name": "cells", "data": named | {"root": str(tmp_path)}}, Path("cells.yaml"))
    data = open_training(settings.data)
    inspect_all(data)
    for name in PHOTOS:
        np.testing.assert_array_equal(data.read_mask(name), expected)
    assert len(ROWS) == 5
