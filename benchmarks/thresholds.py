"""The cost of the choice of thresholds, on planted maps.

    python benchmarks/thresholds.py [--images 2000] [--side 256] [--rounds 5]

First the threshold part of stage 03 (read, count, choose, write) against only reading the maps and masks from disk;
then counting and choosing against the common loop over 99 thresholds, both on maps in memory. The sides take turns,
so a busy machine slows both, and the fastest round counts. Processor seconds are printed beside wall seconds.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import timed
from planted import FOLDS, plant

from lib.base.cli import plain_parser
from lib.base.files import write_json
from lib.config.schema import ThresholdSettings
from lib.data.competition import TrainingData, open_training
from lib.masks.metrics import THRESHOLDS, count_images
from lib.prediction.map_store import MapStore, read_pairs
from lib.tuning.threshold_result import ThresholdResult
from lib.tuning.thresholds import choose_thresholds

GRID = np.arange(1, 100) / 100  # what the common loop tries
IN_MEMORY = 1000  # images at most that the loop runs over


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--images", type=int, default=2000, help="planted maps")
    parser.add_argument("--side", type=int, default=256, help="side of a map in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings, store = plant(Path(folder), arguments.images, arguments.side)
        data = open_training(settings)
        print(f"{arguments.images} maps of {arguments.side} px, {mean_kilobytes(store):.0f} KB each")
        against_reading(store, data, Path(folder), arguments.rounds)
        against_loop(list(read_pairs(store, data, data.ids[:IN_MEMORY], None)), arguments.rounds)


def against_reading(store: MapStore, data: TrainingData, folder: Path, rounds: int) -> None:
    def read() -> None:
        for _ in read_pairs(store, data, data.ids, None):
            pass

    def choose() -> None:
        counts = count_images(read_pairs(store, data, data.ids, None), data.classes)
        counts.save(folder / "oof_counts.npz")
        result = choose_thresholds(counts, folds_of(data.ids), ThresholdSettings(), None)
        result.write_curves(folder / "threshold.csv")
        write_json(folder / "threshold.json", result.to_dict())

    read_seconds, choose_seconds = best_of(rounds, read, choose)
    report("reading only", read_seconds, "read, count, choose, write", choose_seconds, choose_seconds / read_seconds)


def against_loop(pairs: list[tuple[str, np.ndarray, np.ndarray]], rounds: int) -> None:
    probabilities = [maps[..., 0] / np.float32(255) for _, maps, _ in pairs]
    truths = [truth[..., 0] == 1 for _, _, truth in pairs]
    found = {}

    def ours() -> None:
        found["ours"] = count_and_choose(pairs)

    def loop() -> None:
        found["loop"] = common_loop(probabilities, truths)

    ours_seconds, loop_seconds = best_of(rounds, ours, loop)
    report(
        "count and choose", ours_seconds, f"loop over {len(GRID)} thresholds", loop_seconds, loop_seconds / ours_seconds
    )
    same = np.searchsorted(np.arange(256) / np.float32(255), GRID)  # p >= threshold where map >= this
    curve = found["ours"].classes["mask"].curve
    assert np.allclose(curve[same - THRESHOLDS[0]], found["loop"], rtol=0, atol=1e-12)
    print(f"same {len(GRID)} numbers on both sides; ours also has the other {len(THRESHOLDS) - len(GRID)} thresholds, ")
    print("the choice, its nested score and the bootstrap interval")


def count_and_choose(pairs: list[tuple[str, np.ndarray, np.ndarray]]) -> ThresholdResult:
    counts = count_images(iter(pairs), ["mask"])
    return choose_thresholds(counts, folds_of(counts.ids), ThresholdSettings(), None)


def common_loop(probabilities: list[np.ndarray], truths: list[np.ndarray]) -> list[float]:
    """Mean Dice at each of GRID, as in most notebooks, without their slower habits (float masks, a smoothing term)."""
    scores = []
    for threshold in GRID:
        dices = []
        for probability, truth in zip(probabilities, truths, strict=True):
            mask = probability >= threshold
            pixels = mask.sum() + truth.sum()
            dices.append(2 * (mask & truth).sum() / pixels if pixels else 1.0)
        scores.append(np.mean(dices))
    return scores


def folds_of(ids: list[str]) -> np.ndarray:
    return np.arange(len(ids)) % FOLDS


def best_of(rounds: int, *functions: Callable[[], None]) -> np.ndarray:
    """The least seconds and processor seconds of each function, taking turns: (functions, 2)."""
    return np.min([[timed(function) for function in functions] for _ in range(rounds)], axis=0)


def report(first: str, first_seconds: np.ndarray, second: str, second_seconds: np.ndarray, ratios: np.ndarray) -> None:
    print(f"\n{'':28} {'seconds':>9} {'processor':>10}")
    for name, (seconds, processor) in (first, first_seconds), (second, second_seconds):
        print(f"{name:28} {seconds:9.2f} {processor:10.2f}")
    print(f"{'ratio':28} {ratios[0]:9.2f} {ratios[1]:10.2f}")


def mean_kilobytes(store: MapStore) -> float:
    return float(np.mean([path.stat().st_size for path in store.folder.iterdir()])) / 1000


if __name__ == "__main__":
    main()
