"""A small competition on disk, made anew for the tests that need one: bright blobs on a textured ground."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks here are so small that threads only wait for each other

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from lib.masks import rle
from lib.run.lock import HELD
from tests.stages import SETTINGS, copy_after_01, run_all

settings.register_profile("busy machines", deadline=None)
settings.load_profile("busy machines")

HEIGHT, WIDTH = 48, 64


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> Iterator[None]:
    """Give back what stages that run in this process hold until it ends: their locks, and accelerate's one state."""
    yield
    while HELD:
        HELD.pop().close()
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


def blob_image(random: np.random.Generator, empty: bool) -> tuple[np.ndarray, np.ndarray]:
    """A gray image (HEIGHT, WIDTH) and its mask, uint8 0/1."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    if not empty:
        for _ in range(random.integers(1, 4)):
            centre = (int(random.integers(8, WIDTH - 8)), int(random.integers(8, HEIGHT - 8)))
            cv2.ellipse(mask, centre, tuple(int(a) for a in random.integers(4, 10, 2)), 0, 0, 360, 1, -1)
    ground = cv2.GaussianBlur(random.normal(90, 40, (HEIGHT, WIDTH)), (0, 0), 2)
    image = ground + 70 * cv2.GaussianBlur(mask.astype(float), (0, 0), 1) + random.normal(0, 8, mask.shape)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def write_competition(root: Path, training: int = 24, test: int = 6, seed: int = 0) -> Path:
    """train_images/, train.csv (id, rle), test_images/, sample_submission.csv and solution.csv below `root`."""
    random = np.random.default_rng(seed)
    tables = {}
    for part, count in (("train", training), ("test", test)):
        folder = root / f"{part}_images"
        folder.mkdir(parents=True)
        rows = []
        for number in range(count):
            image, mask = blob_image(random, empty=number % 8 == 7)
            cv2.imwrite(str(folder / f"{part}_{number:03d}.png"), image)
            rows.append({"id": f"{part}_{number:03d}", "rle": rle.encode(mask)})
        tables[part] = pd.DataFrame(rows)
    tables["train"].to_csv(root / "train.csv", index=False)
    tables["test"].to_csv(root / "solution.csv", index=False)
    tables["test"].assign(rle="").to_csv(root / "sample_submission.csv", index=False)
    return root


@pytest.fixture
def competition(tmp_path: Path) -> Path:
    return write_competition(tmp_path / "data")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A user's folder in which all five stages ran undisturbed, and the seconds of each. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_competition(folder / "data" / "blobs")
    (folder / "blobs.yaml").write_text(SETTINGS)
    return folder, run_all(folder)


@pytest.fixture
def user(finished: tuple[Path, dict[str, float]], tmp_path: Path) -> Path:
    """A copy of a folder in which all stages are done."""
    return Path(shutil.copytree(finished[0], tmp_path / "user"))


@pytest.fixture
def prepared(finished: tuple[Path, dict[str, float]], tmp_path: Path) -> Path:
    """A copy of the folder as 01 left it."""
    return copy_after_01(finished[0], tmp_path / "prepared")
