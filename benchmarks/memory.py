"""Peak memory of stages 03 and 05 once the maps are there, each in a process of its own, on planted maps.

    python benchmarks/memory.py [--images 10000] [--side 256]

Stage 03: count, choose, write, alone and after the imports that prediction needs (mostly torch). Stage
05: search the morphology, write both submissions; it takes about a tenth of a second of one core for each map.
"""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from measuring import peak_megabytes, timed
from planted import FOLDS, plant

from lib.base.cli import plain_parser
from lib.base.files import write_json
from lib.config.schema import Settings
from lib.data.competition import open_test, open_training
from lib.masks.metrics import Counts, count_images
from lib.prediction.map_store import MapStore, read_pairs
from lib.run.folder import RunFolder


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="planted maps")
    parser.add_argument("--side", type=int, default=256, help="side of a map in pixels")
    arguments = parser.parse_args()
    print(f"{arguments.images} maps of {arguments.side} px")
    with tempfile.TemporaryDirectory() as folder:
        data, store = plant(Path(folder), arguments.images, arguments.side)
        inputs = RunFolder(Path(folder)), Settings(name="planted", data=data), store
        for stage in (stage_03, stage_03_after_imports, stage_05):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process of its own
                megabytes, seconds = pool.submit(measured, stage, *inputs).result()
            print(f"{stage.__name__:24} {megabytes:6.0f} MB {seconds:7.1f} s", flush=True)


def measured(stage, *inputs) -> tuple[float, float]:
    """Peak megabytes of this process and seconds of the stage."""
    seconds, _ = timed(stage, *inputs)
    return peak_megabytes(), seconds


def stage_03(run: RunFolder, settings: Settings, store: MapStore) -> None:
    from lib.report.figures import plot_thresholds
    from lib.tuning.thresholds import choose_thresholds

    data = open_training(settings.data)
    counts = count_images(read_pairs(store, data, data.ids, None), data.classes)
    counts.save(run.oof_counts)
    result = choose_thresholds(counts, np.arange(len(data.ids)) % FOLDS, settings.threshold, None)
    result.write_curves(run.threshold.with_suffix(".csv"))
    plot_thresholds(result, run.threshold.with_suffix(".png"))
    write_json(run.threshold, result.to_dict())


def stage_03_after_imports(*inputs) -> None:
    import lib.prediction.predictor  # noqa: F401

    stage_03(*inputs)


def stage_05(run: RunFolder, settings: Settings, store: MapStore) -> None:
    from lib.masks.rules import read_rules
    from lib.submission.write import write_submission
    from lib.tuning.morphology_search import search_morphology

    training, test = open_training(settings.data), open_test(settings.data)
    images = np.arange(len(training.ids))
    read, counts = partial(read_pairs, store, training), Counts.load(run.oof_counts)
    chosen = settings.threshold, settings.postprocess
    result = search_morphology(read, counts, images % FOLDS, images, *chosen)
    write_json(run.postprocess, result.to_dict())
    write_submission(run.unprocessed, test, store, read_rules(run.threshold, test.classes), settings)
    write_submission(run.submission, test, store, read_rules(run.postprocess, test.classes), settings)


if __name__ == "__main__":
    main()
