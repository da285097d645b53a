"""The cost of the search for threshold and morphology, on planted maps read from disk as stage 05 reads them.

    python benchmarks/morphology.py [--images 500] [--side 256] [--checked 4]

A second implementation, which draws every mask, then checks the numbers: all rules on a few images, and the scores of
the chosen rules, in-sample and nested, on all images.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from measuring import peak_megabytes
from planted import FOLDS, plant

from lib.base.cli import plain_parser
from lib.config.schema import PostprocessSettings, ThresholdSettings
from lib.data.competition import open_training
from lib.masks.metrics import count_images, dice
from lib.masks.rules import Rule
from lib.prediction.map_store import read_pairs
from lib.tuning.morphology_candidates import Candidates
from lib.tuning.morphology_search import ClassOutcome, search_morphology

Pair = tuple[np.ndarray, np.ndarray]  # a map and its truth, uint8 (height, width)


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--images", type=int, default=500, help="planted maps")
    parser.add_argument("--side", type=int, default=256, help="side of a map in pixels")
    parser.add_argument("--checked", type=int, default=4, help="images on which every rule is drawn")
    arguments = parser.parse_args()
    candidates = Candidates.build(PostprocessSettings())
    combinations = len(candidates.radius) * len(candidates.component_steps)
    with tempfile.TemporaryDirectory() as folder:
        settings, store = plant(Path(folder), arguments.images, arguments.side)
        data = open_training(settings)
        counts = count_images(read_pairs(store, data, data.ids, None), data.classes)
        folds, groups = np.arange(len(data.ids)) % FOLDS, np.arange(len(data.ids))
        memory, clock, processor = peak_megabytes(), time.perf_counter(), time.process_time()
        result = search_morphology(
            partial(read_pairs, store, data),
            counts,
            folds,
            groups,
            ThresholdSettings(),
            PostprocessSettings(),
        )
        seconds, processor = time.perf_counter() - clock, time.process_time() - processor
        pairs = [(maps[..., 0], truth[..., 0]) for _, maps, truth in read_pairs(store, data, data.ids, None)]
    print(f"{combinations} combinations of steps on {len(pairs)} maps of {arguments.side} px, {FOLDS} folds")
    print(f"{seconds:.1f} s, {processor:.1f} s of the processor; peak memory {memory:.0f} -> {peak_megabytes():.0f} MB")
    print(result)
    check_chosen(result.classes["mask"], folds, pairs)
    check_all(candidates, pairs[: arguments.checked])


def check_chosen(outcome: ClassOutcome, folds: np.ndarray, pairs: list[Pair]) -> None:
    """The reported scores of the chosen rules equal those of masks drawn one by one."""
    in_sample = np.mean([drawn_dice(outcome.rule, *pair) for pair in pairs])
    nested = np.mean([drawn_dice(outcome.without_part[fold], *pair) for fold, pair in zip(folds, pairs, strict=True)])
    assert outcome.rule.steps, "no step adopted: nothing to check"
    assert np.allclose(
        [in_sample, nested], [outcome.scores("after")[score] for score in ("in_sample", "nested")], rtol=0, atol=1e-12
    )
    print(f"the twin's scores of the chosen rules are the same: nested {nested:.6f}, in-sample {in_sample:.6f}")


def check_all(candidates: Candidates, pairs: list[Pair]) -> None:
    """The score of every rule on each image equals that of its mask, drawn."""
    clock = time.perf_counter()
    rules = [Rule(int(level), steps=steps) for steps, levels in candidates.blocks for level in levels]
    for probability_map, truth in pairs:
        tp, fp = candidates.count(probability_map, truth)
        drawn = [drawn_dice(rule, probability_map, truth) for rule in rules]
        assert np.allclose(dice(tp, fp, np.count_nonzero(truth) - tp), drawn, rtol=0, atol=1e-12)
    seconds = (time.perf_counter() - clock) / len(pairs)
    print(
        f"the twin's scores of all {len(rules)} rules on {len(pairs)} images are the same; "
        f"it takes {seconds:.1f} s an image"
    )


def drawn_dice(rule: Rule, probability_map: np.ndarray, truth: np.ndarray) -> float:
    mask = rule.apply(probability_map)
    pixels = np.count_nonzero(mask) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(mask & truth) / pixels if pixels else 1.0


if __name__ == "__main__":
    main()
