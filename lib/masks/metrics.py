"""Scores of masks from pixel counts: true positives (tp), false positives (fp), false negatives (fn).

The empty rule, stated here and nowhere else: if truth and prediction are both empty, every score is 1. If only one of
them is empty, it is 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lib.base.errors import UserError
from lib.base.files import atomic_path
from lib.config.schema import ThresholdSettings

THRESHOLDS = np.arange(1, 256)  # a pixel is mask where map >= threshold; 0 would make every pixel mask
LIMITS = np.arange(10, 20) / 20  # of IoU: .50, .55, ... .95
TITLES = {"dice": "Dice", "dice_global": "Dice of all pixels", "iou": "IoU", "iou_sweep": "IoU sweep"}
IGNORED = 255  # value of unlabelled pixels in a truth; they are left out of losses and scores
EXACT_IN_FLOAT32 = 2**24  # whole numbers up to this one

Pair = tuple[str, np.ndarray, np.ndarray]  # id, map, truth, all classes: (height, width, classes)


def f_beta(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, beta: float) -> np.ndarray:
    """F-beta score of each element: (1 + b²) tp / ((1 + b²) tp + b² fn + fp). A larger beta favours recall."""
    hits = (1 + beta**2) * np.asarray(tp, float)
    return ratio(hits, hits + beta**2 * fn + fp)


def dice(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Dice score of each element: 2 tp / (2 tp + fp + fn)."""
    return f_beta(tp, fp, fn, beta=1)


def iou(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Intersection over union of each element: tp / (tp + fp + fn)."""
    return ratio(np.asarray(tp, float), np.asarray(tp, float) + fp + fn)


def iou_sweep(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Share of the ten limits .50, .55, ... .95 that each element's IoU exceeds (TGS Salt Identification Challenge)."""
    tp = np.asarray(tp, np.int64)
    union = tp + fp + fn
    return np.where(union == 0, len(LIMITS), exceeded_limits(tp, union)) / len(LIMITS)


def exceeded_limits(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """The number of the ten limits that each IoU = intersection / union exceeds; both are whole numbers.

    The limits are k/20 for k = 10 ... 19, compared as whole numbers, 20 intersection > k union: no rounding at a limit.
    """
    exceeded = -(-20 * np.asarray(intersection, np.int64) // np.maximum(union, 1)) - 10  # the number of k >= 10 below
    return np.clip(exceeded, 0, len(LIMITS))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, and 1 where the denominator is 0, since then both masks are empty."""
    return np.divide(numerator, denominator, out=np.ones(np.shape(denominator)), where=np.asarray(denominator) != 0)


@dataclass(frozen=True)
class Metric:
    """A competition's metric: the mean of image scores, or for `dice_global` the Dice of all images' pixels pooled.

    Either is a ratio of sums over the images, score = sum(numerator) / sum(denominator), and `terms` gives each
    image's two terms. With several classes the score is taken per class and averaged over the classes.
    """

    name: str = "dice"  # dice | dice_global | iou | iou_sweep | f_beta
    beta: float = 1.0  # used by f_beta

    @classmethod
    def of(cls, settings: ThresholdSettings) -> "Metric":
        return cls(settings.metric, settings.beta)

    def __str__(self) -> str:
        return f"F-beta ({self.beta:g})" if self.name == "f_beta" else TITLES.get(self.name, self.name)

    @property
    def column(self) -> str:
        """The column of history.csv, and the key of metrics.json, that hold the validation score."""
        return f"val_{self.name}"

    @property
    def pools(self) -> bool:
        """Whether pixels are pooled over the images, instead of averaging the scores of images."""
        return self.name == "dice_global"

    def terms(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numerator and denominator of each element, float64, of the shape of `tp`."""
        if self.pools:
            numerator = 2 * np.asarray(tp, float)
            return numerator, numerator + fp + fn
        image_score = {"dice": dice, "iou": iou, "iou_sweep": iou_sweep}.get(self.name)
        scores = image_score(tp, fp, fn) if image_score else f_beta(tp, fp, fn, self.beta)
        return scores, np.broadcast_to(1.0, scores.shape)

    def score(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
        """Score over all images, the first axis; the other axes are kept."""
        return pooled(*self.terms(tp, fp, fn))


def pooled(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """sum(numerator) / sum(denominator) over the first axis, the images, by the empty rule."""
    return ratio(numerator.sum(axis=0, dtype=float), denominator.sum(axis=0, dtype=float))


def count_mask(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """True positives, false positives and false negatives of a mask, int64 (3,).

    `mask` is uint8 0/1, `truth` 0, 1 or IGNORED, of one shape.
    """
    mask, truth = known_only(mask, truth)
    tp, predicted, positives = (np.count_nonzero(plane) for plane in (mask & truth, mask, truth))
    return np.array([tp, predicted - tp, positives - tp])


def count_masks(masks: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """The counts of `count_mask` for each class of masks (height, width, classes), int64 (3, classes)."""
    return np.stack([count_mask(*of_class) for of_class in zip(planes(masks), planes(truths), strict=True)], axis=1)


def planes(masks: np.ndarray) -> list[np.ndarray]:
    """Masks or maps (height, width, classes) as one contiguous array (height, width) for each class."""
    return [np.ascontiguousarray(masks[..., class_index]) for class_index in range(masks.shape[2])]


def known_only(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mask and truth, uint8 0/1, with background in both where the truth is IGNORED."""
    is_ignored = truth == IGNORED
    return (np.where(is_ignored, 0, mask), np.where(is_ignored, 0, truth)) if is_ignored.any() else (mask, truth)


def count_at_thresholds(probability_map: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at every threshold 1 ... 255, two int32 arrays of shape (255,).

    `probability_map` is uint8, `truth` uint8 0, 1 or IGNORED of the same shape. One histogram of (truth, map value)
    serves all thresholds: the counts at t are the sums of its bins from t up.
    """
    histogram = np.zeros((2, 256), np.int64)
    rows = EXACT_IN_FLOAT32 // probability_map.shape[1]  # OpenCV's histograms are float32, and faster than bincount
    for top in range(0, len(truth), rows):
        part = [truth[top : top + rows], probability_map[top : top + rows]]
        histogram += cv2.calcHist(part, [0, 1], None, [2, 256], [0, 2, 0, 256]).astype(np.int64)
    false_positive, true_positive = histogram[:, :0:-1].cumsum(axis=1, dtype=np.int32)[:, ::-1]
    return true_positive, false_positive


@dataclass(frozen=True)
class Counts:
    """Pixel counts of many images at every threshold; about 2 KB per image and class, whatever the image size."""

    ids: np.ndarray  # (images,) str
    classes: np.ndarray  # (classes,) str
    tp: np.ndarray  # (images, classes, 255) int32
    fp: np.ndarray  # (images, classes, 255) int32
    positives: np.ndarray  # (images, classes) int64, mask pixels in the truth
    pixels: np.ndarray  # (images,) int64, without those IGNORED in all classes
    presence: np.ndarray | None = None  # (images, classes) uint8, predicted presence of each class, if there is any

    @property
    def fn(self) -> np.ndarray:
        """False negatives, (images, classes, 255) int64."""
        return self.positives[:, :, None] - self.tp

    def save(self, path: Path) -> None:
        """Write an .npz atomically; compression would halve its size and take 60 times as long."""
        with atomic_path(path) as temporary:
            np.savez(temporary, **{name: array for name, array in vars(self).items() if array is not None})

    @classmethod
    def load(cls, path: Path) -> "Counts":
        """Read what `save` wrote. Raises UserError when the file is absent, damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**arrays)
        except FileNotFoundError:
            raise UserError(f"{path} does not exist; run 03_oof_threshold.py") from None
        except MemoryError:
            raise
        except Exception:  # numpy raises whatever its parsers stumble over
            raise UserError(f"{path} is not a file of pixel counts; remove it and run 03_oof_threshold.py") from None


def count_images(stream: Iterable[Pair], classes: list[str]) -> Counts:
    """Counts of a stream of (id, probability map, truth), both uint8 (height, width, classes).

    Only one image is in memory at a time. Raises UserError when a map and its truth differ in shape.
    """
    ids, positives, pixels, counts = [], [], [], bytearray()  # grows in place; a list of arrays would be copied
    for image_id, probability_map, truth in stream:
        if probability_map.shape != truth.shape or truth.shape[2] != len(classes):
            raise UserError(
                f"the map of image {image_id} has shape {probability_map.shape}, its mask {truth.shape} "
                f"for {len(classes)} classes; predict the map again"
            )
        for of_class in zip(planes(probability_map), planes(truth), strict=True):
            counts += np.stack(count_at_thresholds(*of_class)).tobytes()
        ids.append(image_id)
        positives.append([np.count_nonzero(plane == 1) for plane in planes(truth)])
        pixels.append(int(np.count_nonzero(truth != IGNORED, axis=(0, 1)).max()))
    if not ids:
        raise UserError("there are no out-of-fold maps to score; run 02_train.py, then 03_oof_threshold.py")
    tables = np.frombuffer(counts, np.int32).reshape(len(ids), len(classes), 2, len(THRESHOLDS))
    tp, fp = tables[:, :, 0], tables[:, :, 1]
    return Counts(np.array(ids), np.array(classes), tp, fp, np.array(positives, np.int64), np.array(pixels, np.int64))
