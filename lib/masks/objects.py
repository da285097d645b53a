"""From a probability map to objects, each one row of the submission, and their score.

The objects of a mask are its connected components. Objects that touch can be cut apart: seeds are the places where the
mask is deeper than `depth` pixels or where the map rises by `rise` above the threshold, and each seed grows downhill
until the mask is full (a watershed on the distance to the border, or on the map itself).

Scores are those of the Data Science Bowl 2018 (ap) and the Airbus Ship Detection Challenge (F2): at each of the IoU
limits .50, .55, ... .95 a predicted object is right if its IoU with a true one exceeds the limit; the image's score is
the mean over the limits of TP / (TP + FP + FN), or of the F-beta score. Above an IoU of one half an object has at most
one partner, so no assignment is needed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from lib.config.schema import ObjectSettings, Settings
from lib.masks.metrics import LIMITS, Metric, count_mask, exceeded_limits, f_beta, iou
from lib.masks.morphology import components
from lib.masks.rules import Rule, at_least

KERNEL = np.ones((3, 3), np.uint8)  # neighbours through corners, as components connect
LEVEL_STEP = 16  # map levels between two stages of growing


@dataclass(frozen=True)
class Split:
    """A method of cutting a mask into objects."""

    kind: str = "components"  # components | depth | rise
    size: int = 0  # depth: pixels to the border; rise: map values above the threshold

    def label(self, mask: np.ndarray, probability_map: np.ndarray, threshold: int) -> np.ndarray:
        """Objects int32, numbered from 1, of a mask uint8 0/1; all (height, width). Each mask pixel belongs to one."""
        if self.kind == "components":
            return components(mask)[0]
        left, top, width, height = cv2.boundingRect(mask)
        box = np.s_[top : top + height, left : left + width]
        labels = np.zeros(mask.shape, np.int32)
        labels[box] = self._cut(mask[box], probability_map[box], threshold)
        return labels

    def _cut(self, mask: np.ndarray, probability_map: np.ndarray, threshold: int) -> np.ndarray:
        if mask.size == 0:
            return np.zeros(mask.shape, np.int32)
        if self.kind == "depth":
            depth = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            return grow([(depth > level).view(np.uint8) for level in range(self.size, 0, -1)] + [mask])
        levels = range(threshold + self.size, threshold, -LEVEL_STEP)
        return grow([mask & at_least(probability_map, level) for level in levels] + [mask])

    def __str__(self) -> str:
        return self.kind if self.kind == "components" else f"cut by {self.kind} {self.size}"


def grow(regions: list[np.ndarray]) -> np.ndarray:
    """Objects int32, numbered from 1, that fill the last region; the seeds are the components of the first.

    Each of the regions, uint8 0/1 (height, width), contains the one before. In each the seeds spread by one pixel at a
    time, also through corners, until they meet; where two arrive together the later seed wins. Components of the last
    region without a seed are objects too.
    """
    labels = components(regions[0])[0].astype(np.float32)  # OpenCV dilates no int32; exact up to 2^24
    for region in regions[1:]:
        while True:
            free = (labels == 0) & (region > 0)
            reached = np.where(free, cv2.dilate(labels, KERNEL), 0)
            if not reached.any():
                break
            labels += reached
    labels = labels.astype(np.int32)
    unseeded, _ = components(((labels == 0) & (regions[-1] > 0)).view(np.uint8))
    return np.where(unseeded > 0, unseeded + labels.max(initial=0), labels)


@dataclass(frozen=True)
class ObjectRule:
    """From a map of one class to its objects: the rule of the mask, a method of cutting, a minimum area."""

    mask: Rule
    split: Split = Split()
    min_area: int = 0  # pixels; smaller objects are dropped

    @property
    def presence(self) -> int | None:
        """The presence that the mask's rule requires, if any."""
        return self.mask.presence

    def apply(self, probability_map: np.ndarray, presence: int | None = None) -> np.ndarray:
        """Objects int32, numbered from 1 without gaps, of a uint8 map, both (height, width); see `Rule.apply`."""
        labels = self.split.label(self.mask.apply(probability_map, presence), probability_map, self.mask.threshold)
        areas = np.bincount(labels.ravel())
        kept = areas >= max(self.min_area, 1)
        kept[0] = False
        return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]

    def __str__(self) -> str:
        if self.mask.is_empty:
            return "no object at all"
        dropped = f", objects <{self.min_area} dropped" if self.min_area else ""
        return f"{self.mask}, {self.split}{dropped}"

    def to_dict(self) -> dict:
        return {"name": str(self), "mask": self.mask.to_dict(), "split": vars(self.split), "min_area": self.min_area}

    @classmethod
    def from_dict(cls, content: dict) -> "ObjectRule":
        return cls(Rule.from_dict(content["mask"]), Split(**content["split"]), content["min_area"])


Rules = dict[str, Rule] | dict[str, ObjectRule]  # by class; of objects with submission.rows=instance


class Matches(NamedTuple):
    """The predicted objects of an image: their areas, and at how many of the limits each is right."""

    areas: np.ndarray  # (predicted,) pixels of each predicted object
    limits: np.ndarray  # (predicted,) number of IoU limits, from .50 up, that the IoU with its partner exceeds
    true: int  # number of true objects


def match_objects(predicted: np.ndarray, truth: np.ndarray) -> Matches:
    """Compare label images (height, width) of whole numbers, 0 being background and objects numbered from 1.

    Pixels with a negative truth are ignored: they belong to no object.
    """
    if truth.min(initial=0) < 0:
        predicted, truth = np.where(truth < 0, 0, predicted), np.maximum(truth, 0)
    areas, true_areas = (np.bincount(labels.ravel(), minlength=1) for labels in (predicted, truth))
    inside = (predicted > 0) & (truth > 0)
    pairs, common = np.unique(predicted[inside].astype(np.int64) * len(true_areas) + truth[inside], return_counts=True)
    predicted_index, true_index = np.divmod(pairs, len(true_areas))
    limits = np.zeros(len(areas), np.int64)
    union = areas[predicted_index] + true_areas[true_index] - common
    np.maximum.at(limits, predicted_index, exceeded_limits(common, union))
    present = areas > 0
    present[0] = False
    return Matches(areas[present], limits[present], int(np.count_nonzero(true_areas[1:])))


def object_score(matches: Matches, settings: ObjectSettings, min_area: int = 0) -> float:
    """The score of an image, 0 to 1; predicted objects smaller than `min_area` pixels are dropped.

    As in both competitions, an image without true objects scores 1 if none is predicted either, else 0.
    """
    kept = matches.areas >= min_area
    tp = np.count_nonzero(matches.limits[kept, None] > np.arange(len(LIMITS)), axis=0)
    fp, fn = np.count_nonzero(kept) - tp, matches.true - tp
    scores = iou(tp, fp, fn) if settings.metric == "ap" else f_beta(tp, fp, fn, settings.beta)
    return float(scores.mean())


def describe_score(settings: ObjectSettings) -> str:
    return "object AP" if settings.metric == "ap" else f"object F{settings.beta:g}"


def score_terms(mask: np.ndarray, truth: np.ndarray, settings: Settings) -> tuple[float, float]:
    """Numerator and denominator of the submission's score for one image and class, see `Metric.terms`.

    Both are masks uint8 0/1, the truth perhaps IGNORED, or with submission.rows=instance objects int32.
    """
    if settings.submission.rows == "instance":
        return object_score(match_objects(mask, truth), settings.objects), 1.0
    return Metric.of(settings.threshold).terms(*count_mask(mask, truth))
