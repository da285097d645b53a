"""Seconds of writing a whole submission from probability maps, against reading the maps and against a notebook's loop.

    python benchmarks/submission_speed.py [--rounds 3]

ours       read each map, threshold it, encode it, write the csv, read it back, decode every row and compare
reading    read each map
notebook   read each map, threshold it, encode it by the popular snippet, write the csv with pandas; nothing is checked

18,000 maps of 101 x 101 pixels and 5,000 of 256 x 1600: a hundred of each are planted, and copied under other names.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from measuring import print_ratios
from planted import planted_pair
from rle_speed import snippet_encode

from lib.base.cli import plain_parser
from lib.base.prefetch import prefetched
from lib.config.data_settings import DataSettings
from lib.config.schema import Settings
from lib.data.competition import TestData, open_test
from lib.masks.rules import Rule
from lib.prediction.map_store import MapStore
from lib.prediction.sealed_png import before_seal, seal
from lib.submission.write import write_submission

SETS = ((18_000, 101, 101), (5_000, 256, 1600))
PLANTED = 100
THRESHOLD = 128


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for count, height, width in SETS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            store = plant(folder, count, height, width)
            settings = Settings(
                name="planted", data=DataSettings(root=folder, test_images="maps", sample_submission=None)
            )
            data = open_test(settings.data)
            rules = {"mask": Rule(THRESHOLD)}
            kinds: dict[str, Callable[[], object]] = {
                "ours": lambda: write_submission(folder / "ours.csv", data, store, rules, settings),  # noqa: B023
                "reading": lambda: read_all(store, data),  # noqa: B023
                "notebook": lambda: notebook(folder, data),  # noqa: B023
            }
            seconds = {kind: [] for kind in kinds}
            for number in range(-1, arguments.rounds):
                for kind, work in kinds.items():
                    started = time.perf_counter()
                    work()
                    if number >= 0:  # the first round fills the disk's cache
                        seconds[kind].append(time.perf_counter() - started)
            assert pd.read_csv(folder / "ours.csv").equals(pd.read_csv(folder / "notebook.csv"))
        print(f"{count} maps of {height} x {width}")
        print_ratios(seconds, "s", [("ours", "reading"), ("notebook", "ours")])


def plant(folder: Path, count: int, height: int, width: int) -> MapStore:
    """Maps of blobs; a map that is not square is put together from squares."""
    random, store = np.random.default_rng(0), MapStore(folder / "maps", ("mask",))
    bodies = []
    for number in range(PLANTED):
        squares = [planted_pair(random, height)[0] for _ in range(-(-width // height))]
        name = f"{number:06d}"
        store.write(name, np.hstack(squares)[:, :width, None])
        bodies.append(before_seal(store.path(name, "mask").read_bytes(), f"mask/{name}"))
    for number in range(PLANTED, count):
        name, body = f"{number:06d}", bodies[number % PLANTED]
        store.path(name, "mask").write_bytes(body + seal(body, f"mask/{name}"))
    return store


def read_all(store: MapStore, data: TestData) -> None:
    for _ in prefetched(store.read, data.ids):
        pass


def notebook(folder: Path, data: TestData) -> None:
    rows = []
    for image_id in data.ids:
        probability_map = cv2.imread(str(folder / "maps" / f"{image_id}.png"), cv2.IMREAD_GRAYSCALE)
        rows.append((image_id, snippet_encode((probability_map >= THRESHOLD).astype(np.uint8))))
    pd.DataFrame(rows, columns=["id", "rle"]).to_csv(folder / "notebook.csv", index=False)


if __name__ == "__main__":
    main()
