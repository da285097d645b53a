"""Pseudo-labels: test images with masks of which another run is confident; added to training, never to validation.

A run is confident of an image if the mask hardly changes with the threshold: the Dice between the masks at SHIFT below
and SHIFT above the chosen threshold is at least train.pseudo_agreement. That run's models have trained on images on
which this run is validated, so out-of-fold scores become slightly optimistic; compare such runs on the test images.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from lib.base.errors import UserError
from lib.base.prefetch import THREADS, prefetched
from lib.config.data_settings import DataSettings
from lib.data.competition import TestData, open_test
from lib.data.image_index import listed_as
from lib.data.images import Images
from lib.data.resize_column import values_of_test
from lib.masks.metrics import count_mask, dice, planes
from lib.masks.rules import Rule, apply_rules, read_rules
from lib.prediction.map_store import MapStore, presence_for, scored_map, scored_masks
from lib.prediction.run_maps import open_test_maps
from lib.run.folder import open_run
from lib.run.provenance import require_maps

SHIFT = 51  # of 255
# settings of data that decide the pixels a network sees
READING = ("channels", "neighbours", "plane_files", "plane", "value_range", "nodata", "orientation")


@dataclass(frozen=True)
class PseudoLabels:
    """The test images of which a run is confident, with its masks."""

    data: TestData
    store: MapStore
    rules: dict[str, Rule]
    size: tuple[int, int] | None  # (height, width) of the masks in the submission
    empty: dict[str, bool]  # of each confident image, whether its mask is empty

    def read_mask(self, image_id: str) -> np.ndarray:
        """Mask uint8 0/1 (height, width, classes) of a test image: the one submitted, at the image's own size."""
        masks = scored_masks(self.store, image_id, self.rules, self.size)
        if self.size is None:
            return masks
        height, width = self.data.image_size(image_id)
        resized = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST) for plane in planes(masks)]
        return np.stack(resized, axis=-1)


class PseudoLabelled(Images):
    """The confident test images by id, read as this run reads its own, with the other run's masks."""

    def __init__(self, settings: DataSettings, labels: PseudoLabels) -> None:
        files = {image_id: labels.data.files[image_id] for image_id in labels.empty}
        values = values_of_test(settings, files)
        super().__init__(listed_as(settings, labels.data.settings), files, values, labels.data.unreadable)
        self.labels = labels

    def read_mask(self, image_id: str) -> np.ndarray:
        """Mask uint8 0/1 (height, width, classes), at the image's own size."""
        return self.labels.read_mask(image_id)


def read_pseudo_labels(root: Path, agreement: float, settings: DataSettings) -> PseudoLabels:
    """The confident test images of the run at `root`, which must have run 04, with the classes in `settings`' order.

    Raises UserError if no image is confident, or if the run has other classes or reads images differently.
    """
    require_same_reading(settings, open_run(root)[1].data, root)
    return _confident_images(root, agreement, tuple(settings.classes))


@cache
def _confident_images(root: Path, agreement: float, classes: tuple[str, ...]) -> PseudoLabels:
    """The confident images; cached for all folds, since every test map must be read."""
    run, settings = open_run(root)
    data, rules = open_test(settings.data), read_rules(run.threshold, settings.data.classes)
    if without_mask := [name for name, rule in rules.items() if rule.is_empty]:
        raise UserError(
            f"{root} predicts no mask at all for {', '.join(without_mask)} (see {run.threshold}), so there is nothing "
            "to learn from its test images; leave train.pseudo_labels empty"
        )
    rules = {name: rules[name] for name in classes}
    store, size = open_test_maps(run, settings, data, require_maps(run, settings)), settings.submission.size
    store = replace(store, classes=classes)

    def measure(image_id: str) -> tuple[float, bool]:
        return measure_agreement(scored_map(store, image_id, size), rules, presence_for(rules, store, image_id))

    empty = {}
    for image_id, (agreed, is_empty) in prefetched(measure, data.ids, 2 * THREADS):
        if agreed >= agreement:
            empty[image_id] = is_empty
    if not empty:
        raise UserError(
            f"{root} is confident of none of {len(data.ids)} test images; lower train.pseudo_agreement = {agreement}"
        )
    return PseudoLabels(data, store, rules, size, empty)


def require_same_reading(settings: DataSettings, other: DataSettings, root: Path) -> None:
    """Raise UserError unless the other run has the same classes, in any order, and reads images in the same way."""
    if set(settings.classes) != set(other.classes):
        raise UserError(
            f"train.pseudo_labels={root} has the classes {', '.join(other.classes)}, this run "
            f"{', '.join(settings.classes)}; name a run with the same classes"
        )
    for name in READING:
        mine, theirs = getattr(settings, name), getattr(other, name)
        if mine != theirs:
            raise UserError(
                f"train.pseudo_labels={root} reads its images with data.{name}={theirs}, this run with {mine}; "
                "name a run that reads them alike"
            )


def measure_agreement(maps: np.ndarray, rules: dict[str, Rule], presence: np.ndarray | None) -> tuple[float, bool]:
    """Agreement of masks as the threshold moves, 0 to 1, and whether all are empty at the threshold itself.

    `maps` is (height, width, classes); of several classes the least confident one counts. The presence that a rule
    requires moves with the threshold.
    """
    agreed = 1.0
    for class_index, (rule, plane) in enumerate(zip(rules.values(), planes(maps), strict=True)):
        of_class = None if presence is None else int(presence[class_index])
        wide, narrow = (shifted(rule, shift).apply(plane, of_class) for shift in (-SHIFT, SHIFT))
        agreed = min(agreed, float(dice(*count_mask(wide, narrow))))
    return agreed, not apply_rules(rules, maps, presence).any()


def shifted(rule: Rule, shift: int) -> Rule:
    """The rule with its threshold, and the presence it requires, higher by `shift`, within 1 to 255."""

    def moved(before: int) -> int:
        return min(max(before + shift, 1), 255)

    presence = None if rule.presence is None else moved(rule.presence)
    return replace(rule, threshold=moved(rule.threshold), presence=presence)
