"""The tables of docs/inputs.md as tests: a row's files are written, and what the row says is what happens.

The settings are read from the page, so that it cannot name others than those that are tried. A row that begins with
`refused` must be refused without them.
"""

import gzip
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from lib.base.errors import UserError
from lib.checks.inspection import check_images, inspect_test, skipped_lines
from lib.config.check import check_settings
from lib.config.data_settings import DataSettings
from lib.data.competition import TrainingData, open_training
from lib.masks.rle import encode
from tests import REPOSITORY

SHAPE = (24, 30)
IDS = ("a", "b", "c")
ROWS, COLUMNS = np.mgrid[: SHAPE[0], : SHAPE[1]]
DISC = {id: np.hypot(ROWS - 11, COLUMNS - 12 - 2 * n) < 6 + n for n, id in enumerate(IDS)}
CORNER = (ROWS < 4) & (COLUMNS > 20)
TWO = {id: np.dstack([DISC[id], CORNER]) for id in IDS}  # masks of two classes
RLE = {id: encode(DISC[id]) for id in IDS}

Masks = dict[str, np.ndarray]  # by id: (height, width) or (height, width, classes)


class Row(NamedTuple):
    """A row of the page as it is tried: the files, their meaning, and words of what is printed or raised."""

    write: Callable[[Path], Masks | None]  # writes the files and returns the masks that are meant; None: DISC
    base: dict = {}  # settings of the layout, beside those that the page names
    refused: str = ""  # words of the error without the page's settings, with | between them
    says: str = ""  # words of what 01 prints when it reads them
    images: Callable[[TrainingData], None] | None = None  # a look at the images


def picture(number: int = 0, shape: tuple[int, int] = SHAPE, planes: int = 3) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (*shape, planes) if planes > 1 else shape, np.uint8)


def put(path: Path, array: np.ndarray, **options: object) -> Path:
    """An array as a file of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix.lower():
        case ".npy":
            np.save(path, array)
        case ".npz":
            np.savez(path, array)
        case ".tif" | ".tiff" if options or array.dtype != np.uint8:
            tifffile.imwrite(path, array, **options)
        case ".gz":
            content = io.BytesIO()
            Image.fromarray(array).save(content, "PPM")
            path.write_bytes(gzip.compress(content.getvalue()))
        case _ if array.dtype == np.uint16:
            cv2.imwrite(str(path), array)
        case _:
            Image.fromarray(array).save(path, **options)
    return path


def mask_of(id: str, value: int = 255, dtype: type = np.uint8) -> np.ndarray:
    return (DISC[id] * value).astype(dtype)


def pairs(images: str, masks: str, value: int = 255, **options: object) -> Callable[[Path], None]:
    """An image and a mask file for each of IDS, at patterns of {id}."""

    def write(root: Path) -> None:
        for number, id in enumerate(IDS):
            put(root / images.replace("{id}", id), picture(number))
            put(root / masks.replace("{id}", id), mask_of(id, value), **options)

    return write


def images_only(root: Path, ids: tuple[str, ...] = IDS) -> None:
    for number, id in enumerate(ids):
        put(root / "train_images" / f"{id}.png", picture(number))


def files(names: str, content: bytes | str = b"0") -> Callable[[Path], None]:
    """Files of one content at a pattern of {id}."""

    def write(root: Path) -> None:
        for id in IDS:
            path = root / names.replace("{id}", id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def both(*writers: Callable[[Path], object]) -> Callable[[Path], Masks | None]:
    """Several writers one after another; the last says what the masks are."""

    def write(root: Path) -> Masks | None:
        return [writer(root) for writer in writers][-1]

    return write


def page_rows(heading: str) -> dict[str, tuple[str, list[dict]]]:
    """The rows of the table under a heading: by name, what happens, and the settings of `data` to choose from."""
    page = (REPOSITORY / "docs" / "inputs.md").read_text()
    part = page.partition(f"\n{heading}\n")[2].partition("\n#")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:2] == "| "]
    return {name: (what, settings_of_cell(cell)) for name, what, cell in lines[1:]}


def settings_of_cell(cell: str) -> list[dict]:
    """The settings of a cell, in `backticks`; alternatives have `or` between them."""
    alternatives = []
    for alternative in re.split(r"` or (?=`)", cell):
        merged = {}
        for snippet in filter(str.strip, re.findall(r"`([^`]+)`?", alternative)):
            for key, value in yaml.safe_load(snippet).items():
                *above, name = key.split(".")
                inner = merged
                for part in above:
                    inner = inner.setdefault(part, {})
                inner[name] = value
        alternatives += [merged] if merged else []
    return alternatives


def checked(root: Path, data: dict) -> TrainingData:
    """Do what 01 does with the settings of `data`, except for the folds."""
    defaults = {"root": str(root), "test_images": None, "sample_submission": None}
    settings: DataSettings = check_settings({"name": "x", "data": defaults | data}, Path("x.yaml")).data
    training = open_training(settings)
    check_images(training)
    print("\n".join([*skipped_lines(settings), inspect_test(settings)]))
    return training


def try_row(row: Row, what: str, alternatives: list[dict], root: Path, printed: Callable[[], str]) -> None:
    """Fail unless what happens is what the page says, first without its settings, where that says something."""
    meant = row.write(root) or {id: DISC[id] for id in IDS}
    assert bool(row.refused) == what.startswith("refused"), what
    if row.refused:
        with pytest.raises(UserError) as caught:
            checked(root, row.base)
        message = str(caught.value)
        assert all(word in message for word in row.refused.split("|")), message
        assert "\n" not in message
    runs = ([] if row.refused or (alternatives and not row.says) else [{}]) + alternatives
    for number, settings in enumerate(runs):
        training = checked(root, row.base | settings)
        said = printed()
        if number == 0:
            assert all(word in said for word in filter(None, row.says.split("|"))), said
        if settings in (runs[-1:] if not alternatives else alternatives[:1]):
            assert training.ids == sorted(meant)
            for id, mask in meant.items():
                np.testing.assert_array_equal(training.read_mask(id), mask.reshape(*mask.shape[:2], -1), err_msg=id)
            if row.images:
                row.images(training)
