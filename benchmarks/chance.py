"""Scores on pure noise: maps that have nothing to do with the masks. A nested score above chance would be a leak.

    python benchmarks/chance.py [--draws 100]

In each draw all that a run chooses is chosen on 30 images in five folds. The rules are then applied to 300 other images
of the same noise, which cannot have helped to choose them. The share of empty masks is 0, .3 or .6.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd

from lib.base.cli import plain_parser, run_command, silence
from lib.config.schema import ObjectSettings, PostprocessSettings, ThresholdSettings
from lib.masks.metrics import Counts, Metric, Pair, count_images, count_masks, pooled
from lib.masks.morphology import components
from lib.masks.objects import ObjectRule, match_objects, object_score
from lib.masks.rules import Rule
from lib.tuning.morphology_search import search_morphology
from lib.tuning.object_search import ClassTrials, MaskRules, Trials, choose_objects
from lib.tuning.threshold_result import ClassChoice
from lib.tuning.thresholds import choose_thresholds

IMAGES, NEW_IMAGES, SIDE = 30, 300, 24
FOLDS, GROUPS = np.arange(IMAGES) % 5, np.arange(IMAGES)
OBJECTS = ObjectSettings(areas=[0, 8], depths=[2], rises=[48])

Scored = tuple[float, float, Rule | ObjectRule]  # nested, in-sample, the rule chosen


def noise(random: np.random.Generator, count: int, empty_share: float) -> list[Pair]:
    """Images of blobs whose maps show other blobs."""

    def blobs(width: float) -> np.ndarray:
        return cv2.GaussianBlur(random.standard_normal((SIDE, SIDE)), (0, 0), width)

    pairs = []
    for number in range(count):
        truth, heights = blobs(2), blobs(1.5)
        truth = (truth > (np.inf if random.random() < empty_share else 0.7 * truth.std())).astype(np.uint8)
        values = 128 + 90 * heights / np.abs(heights).max() + random.normal(0, 20)
        pairs.append((f"{number:03d}", np.clip(values, 0, 255).astype(np.uint8)[..., None], truth[..., None]))
    return pairs


def chosen(pairs: list[Pair], presence: np.ndarray | None = None, **settings: str) -> tuple[Counts, ClassChoice]:
    counts = replace(count_images(iter(pairs), ["noise"]), presence=presence)
    settings = ThresholdSettings(bootstrap=100, **settings)
    return counts, choose_thresholds(counts, FOLDS, settings, GROUPS).classes["noise"]


def pixels(pairs: list[Pair], presence: np.ndarray | None = None, **settings: str) -> Scored:
    _, choice = chosen(pairs, presence, **settings)
    return choice.nested, choice.in_sample, choice.rule


def with_presence(pairs: list[Pair]) -> Scored:
    return pixels(pairs, np.random.default_rng(len(pairs)).integers(0, 256, (len(pairs), 1)).astype(np.uint8))


def morphology(pairs: list[Pair]) -> Scored:
    counts, _ = chosen(pairs)
    by_id = {pair[0]: pair for pair in pairs}
    postprocess, thresholds = PostprocessSettings(radii=[1, 2], areas=[8, 32]), ThresholdSettings(bootstrap=100)
    found = search_morphology(lambda ids: map(by_id.get, ids), counts, FOLDS, GROUPS, thresholds, postprocess)
    return found.mean("after", "nested"), found.mean("after", "in_sample"), found.classes["noise"].rule


def objects(pairs: list[Pair]) -> Scored:
    """Objects of masks with a triplet's gate."""
    _, choice = chosen(pairs, rule="triplet")
    masks, trials = MaskRules(choice.rule, choice.without_part), Trials(OBJECTS)
    scores = [trials.scores(masks.kinds, maps[..., 0], components(truth[..., 0])[0]) for _, maps, truth in pairs]
    by_kind = dict(zip(masks.kinds, np.stack(scores, axis=1), strict=True))
    found = choose_objects(ClassTrials(trials, masks, by_kind, FOLDS), GROUPS)
    return found.nested, found.in_sample, found.rule


CHOICES: dict[str, Callable[[list[Pair]], Scored]] = {
    "threshold": pixels,
    "threshold, pooled pixels": lambda pairs: pixels(pairs, metric="dice_global"),
    "triplet": lambda pairs: pixels(pairs, rule="triplet"),
    "presence gate": with_presence,
    "morphology": morphology,
    "objects behind a triplet": objects,
}


def score_new(rule: Rule | ObjectRule, pairs: list[Pair], metric: Metric) -> float:
    """The score of a rule on images that did not choose it."""
    presences = np.random.default_rng(0).integers(0, 256, len(pairs)).tolist()
    masks = [rule.apply(maps[..., 0], presence) for (_, maps, _), presence in zip(pairs, presences, strict=True)]
    truths = [truth[..., 0] for *_, truth in pairs]
    if isinstance(rule, ObjectRule):
        matches = [match_objects(mask, components(truth)[0]) for mask, truth in zip(masks, truths, strict=True)]
        return float(np.mean([object_score(match, OBJECTS) for match in matches]))
    terms = [
        metric.terms(*count_masks(mask[..., None], truth[..., None])) for mask, truth in zip(masks, truths, strict=True)
    ]
    return float(pooled(*np.array(terms)[..., 0].T))


def draw(name: str, seed: int) -> dict[str, float]:
    """What a choice claims on noise, less the score on new images."""
    random = np.random.default_rng(seed)
    empty_share = [0, 0.3, 0.6][seed % 3]
    with silence():
        nested, in_sample, rule = CHOICES[name](noise(random, IMAGES, empty_share))
    new = score_new(rule, noise(random, NEW_IMAGES, empty_share), Metric("dice_global" if "pooled" in name else "dice"))
    return {"new images": new, "nested - new": nested - new, "in-sample - new": in_sample - new}


def chance(arguments: argparse.Namespace) -> None:
    print(
        f"| chosen ({arguments.draws} draws) | new images | nested - new | in-sample - new |\n| --- | --- | --- | --- |"
    )
    for name in CHOICES:
        drawn = pd.DataFrame([draw(name, seed) for seed in range(arguments.draws)])
        mean, error = drawn.mean(), drawn.sem()
        cells = [f"{mean[key]:+.4f} ± {error[key]:.4f}" for key in ("nested - new", "in-sample - new")]
        print(f"| {name} | {mean['new images']:.4f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("--draws", type=int, default=100, help="runs simulated for each choice")
    run_command(chance, command)
