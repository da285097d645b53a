"""Statistics of nested scores: choosing on some images and scoring on the others.

Scores are ratios of sums over images (see `Metric.terms`), so everything here takes the two terms per image. Images
of one group (patient, scene, duplicates) are not independent: standard errors and bootstrap resample whole groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lib.base.errors import UserError, plural
from lib.masks.metrics import pooled, ratio

SURE = 2  # standard errors that a gain must exceed to be adopted; docs/decisions.md compares 0 to 3
PARTS_FOR_FOLDS = 5  # replace the folds where fewer than three are trained
CHANGED = 5  # groups that must score differently; with fewer, a standard error says little


def nested_parts(folds: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The part of each image, (images,) whole numbers; a nested score leaves out one part at a time.

    The parts are the folds if there are three or more. Otherwise the images are split into five parts by whole groups,
    or image by image if there are fewer than three groups: no model has seen the images it is scored on, so thresholds
    and morphology can be chosen across any parts.
    """
    if len(np.unique(folds)) >= 3:
        return folds
    numbers = group_numbers(groups)
    if numbers.max(initial=0) < 2:
        numbers = np.arange(len(folds))
    return np.random.default_rng(0).permutation(numbers.max(initial=0) + 1)[numbers] % PARTS_FOR_FOLDS


def splits(parts: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield for each part: its number, the images of the other parts (bool), the images of the part (bool).

    Raises UserError for a single part: nothing could be left out.
    """
    numbers = np.unique(parts)
    if len(numbers) < 2:
        raise UserError("a nested score takes out-of-fold maps of at least two images")
    for number in numbers:
        left_out = parts == number
        yield int(number), ~left_out, left_out


def influence(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The contribution of each image to the score: values (images, ...) whose mean is the score.

    For a mean of image scores they are those scores; for a pooled metric, the linearised ratio (delta method).
    """
    score, size = pooled(numerator, denominator), denominator.mean(axis=0)
    return score + (numerator - score * denominator) / np.where(size == 0, 1, size)


def standard_error(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Standard error of the mean of `values` over the first axis, clustered by group; nan for a single group."""
    totals = group_sums(values - values.mean(axis=0), groups)
    count = len(totals)
    correction = count / (count - 1) if count > 1 else np.nan
    return np.sqrt(correction * np.square(totals, out=totals).sum(axis=0)) / len(values)


@dataclass(frozen=True)
class Gain:
    """The gain in score from one way of making masks to another, and whether it can be trusted."""

    mean: float
    standard_error: float  # paired over images, clustered by group; nan for a single group
    changed: int  # groups with an image that scores differently

    @classmethod
    def between(cls, before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> "Gain":
        """The gain from one set of terms (2, images) to another."""
        difference = influence(*after) - influence(*before)
        changed = np.unique(groups[(after != before).any(axis=0)])
        return cls(float(difference.mean()), float(standard_error(difference, groups)), len(changed))

    def doubt(self, limit: float = SURE) -> str:
        """The reason, in words, not to adopt the change; empty if the gain is sure."""
        if self.mean <= 0:
            return "nothing is gained"
        if np.isnan(self.standard_error):
            return "all images are of one group, so it is unknown how sure the gain is"
        if self.changed < CHANGED:
            return f"{plural(self.changed, 'group')} of images would score differently, fewer than {CHANGED}"
        if self.mean <= limit * self.standard_error:
            return f"that is less than {limit:g} standard errors"
        return ""

    def about_nothing(self, nothing: str, score: float, rule: object) -> str:
        """A warning if a rule gains about nothing over empty masks, which score `score`; else an empty text.

        `nothing` names them: no mask at all.
        """
        error = np.nan_to_num(self.standard_error)  # nan: a single group
        if self.mean > error:
            return ""
        compared = "more than" if self.mean < -error else "about as much as"
        return (
            f"{nothing} scores {score:.4f}, {compared} {rule} (nested {self} over it): as far as these images can "
            "tell, the model adds nothing to an empty submission"
        )

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.standard_error:.4f}"


def group_numbers(groups: np.ndarray) -> np.ndarray:
    """Groups as whole numbers from 0, which sort faster than names."""
    return np.unique(groups, return_inverse=True)[1]


def group_members(groups: np.ndarray) -> list[np.ndarray]:
    """The positions of the images of each group, ascending, in the order of the groups' names."""
    numbers = group_numbers(groups)
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)


def group_sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sum of `values` (images, ...) over the images of each group: (groups, ...), in any order."""
    numbers = group_numbers(groups)
    count = numbers.max(initial=-1) + 1
    return values if count == len(values) else membership(numbers, count) @ values


def membership(numbers: np.ndarray, count: int) -> csr_array:
    """A sparse matrix that sums rows by their numbers 0 ... count - 1: `membership(...) @ values` is (count, ...)."""
    rows = np.arange(len(numbers))
    return csr_array((np.ones(len(numbers)), (numbers, rows)), shape=(count, len(numbers)))


def bootstrap_interval(
    numerator: np.ndarray, denominator: np.ndarray, groups: np.ndarray, repeats: int, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean over classes of the score; terms are (images, classes).

    Groups are drawn with replacement. The rules stay as chosen, so the interval covers the sampling of the images
    scored, not of the images tuned on.
    """
    terms = group_sums(np.concatenate([numerator, denominator], axis=1), groups)
    rng, count = np.random.default_rng(seed), len(terms)
    drawn = np.empty((repeats, terms.shape[1]))
    for repeat in range(repeats):
        times_drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        drawn[repeat] = times_drawn.astype(float) @ terms
    scores = ratio(*np.split(drawn, 2, axis=1)).mean(axis=1)
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def run_around(column: int, inside: np.ndarray) -> tuple[int, int]:
    """First and last column of the unbroken run of True that contains `column`."""
    outside = np.flatnonzero(~inside)
    low = int(outside[outside < column].max(initial=-1)) + 1
    high = int(outside[outside > column].min(initial=len(inside))) - 1
    return low, high
