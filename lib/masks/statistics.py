"""The statistics of choosing on some images and scoring on others.

Scores are ratios of sums over images (see `Metric.terms`), so everything here takes the two terms per image. Images
of one group (patient, scene, duplicates) are not independent: standard errors and bootstrap resample whole groups.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lib.base.errors import UserError
from lib.masks.metrics import pooled, ratio

REACH = 10  # columns to either side of a threshold that make its neighbourhood
SURE = 2  # standard errors by which a step of processing must gain to be adopted; docs/decisions.md has 0 to 3
PART = 32  # columns that are in memory at a time: 256 bytes an image


@dataclass(frozen=True)
class Terms:
    """The two terms (see `Metric.terms`) of every image in several columns, one for each threshold.

    They are made or read some columns at a time, so that a few columns of many images are all that memory holds.
    """

    columns: int
    read: Callable[[slice], tuple[np.ndarray, np.ndarray]]  # numerator and denominator, (images, columns in the slice)

    @classmethod
    def of_arrays(cls, numerator: np.ndarray, denominator: np.ndarray) -> "Terms":
        """Terms that are in memory, two arrays (images, columns)."""
        return cls(numerator.shape[1], lambda part: (numerator[:, part], denominator[:, part]))

    def of(self, images: np.ndarray) -> "Terms":
        """The terms of some images, a bool array."""
        return Terms(self.columns, lambda part: tuple(term[images] for term in self.read(part)))

    def parts(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """All columns, PART at a time, with their numerator and denominator."""
        for first in range(0, self.columns, PART):
            part = slice(first, min(first + PART, self.columns))
            yield part, *self.read(part)

    def column(self, column: int) -> np.ndarray:
        """The terms of one column, (2, images)."""
        return np.stack(self.read(slice(column, column + 1)))[:, :, 0]

    def first(self, columns: int) -> "Terms":
        """The first columns only."""
        return Terms(columns, self.read)

    def sums_within(self, members: csr_array) -> np.ndarray:
        """Sums of the terms over the images of each set, (2, sets, columns); `members` is what `membership` returns."""
        sums = [np.stack([members @ numerator, members @ denominator]) for _, numerator, denominator in self.parts()]
        return np.concatenate(sums, axis=2)

    def scores(self) -> np.ndarray:
        """The score of all images in each column, (columns,)."""
        return np.concatenate([pooled(numerator, denominator) for _, numerator, denominator in self.parts()])


def splits(folds: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each fold: its number, the images of the other folds (bool), the images of the fold (bool).

    Raises UserError when fewer than two folds have images: nothing could be left out.
    """
    numbers = np.unique(folds)
    if len(numbers) < 2:
        raise UserError(
            "a nested score needs out-of-fold maps of at least two folds; train another fold with 02_train.py"
        )
    for number in numbers:
        left_out = folds == number
        yield int(number), ~left_out, left_out


def influence(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """What each image contributes to the score: values, images first, whose mean is the score.

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


def is_sure(gain: float, error: float) -> bool:
    """Whether a nested gain is reason enough to adopt what gains it; never where the error is nan."""
    return gain > SURE * error


def group_numbers(groups: np.ndarray) -> np.ndarray:
    """Names of groups as whole numbers from 0, which sort faster."""
    return np.unique(groups, return_inverse=True)[1]


def group_sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sum of `values` over the images of each group: images first in, groups (in any order) first out."""
    numbers = group_numbers(groups)
    count = numbers.max(initial=-1) + 1
    return values if count == len(values) else membership(numbers, count) @ values


def membership(numbers: np.ndarray, count: int) -> csr_array:
    """A matrix that sums rows by their numbers 0 ... count - 1: `membership(...) @ values` is (count, ...)."""
    rows = np.arange(len(numbers))
    return csr_array((np.ones(len(numbers)), (numbers, rows)), shape=(count, len(numbers)))


def bootstrap_interval(
    numerator: np.ndarray, denominator: np.ndarray, groups: np.ndarray, repeats: int, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean over classes of the score; terms are (images, classes).

    Groups are drawn with replacement. The rules stay as chosen: the interval holds the chance of the images scored,
    not that of the images tuned on.
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


def best_threshold(terms: Terms, groups: np.ndarray, reach: int = REACH, tolerance: float = 0.5) -> int:
    """Column of the threshold to use: the centre of a plateau before a lone peak.

    Candidates are the columns whose score is less than `tolerance` standard errors of the paired difference below the
    best; of these the one whose neighbourhood, `reach` columns to either side, has the best mean score; of equals the
    middle of their unbroken run. A peak that the images do tell from the rest therefore stays.
    """
    scores = terms.scores()
    candidates = _not_worse(terms, groups, int(np.argmax(scores)), tolerance)
    window = np.ones(2 * reach + 1) / (2 * reach + 1)
    neighbourhood = np.convolve(np.pad(scores, reach, mode="edge"), window, "valid")
    judged = np.where(candidates, neighbourhood, -np.inf)
    best = int(np.argmax(judged))
    low, high = run_around(best, judged >= judged[best] - 1e-12)
    return (low + high) // 2


def plateau(terms: Terms, groups: np.ndarray, column: int) -> tuple[int, int]:
    """First and last column of the unbroken run around `column` within two standard errors of its score or above it."""
    return run_around(column, _not_worse(terms, groups, column, tolerance=2))


def _not_worse(terms: Terms, groups: np.ndarray, column: int, tolerance: float) -> np.ndarray:
    """Whether each column's score is at most `tolerance` standard errors below that of `column`, (columns,) bool.

    The error is that of the paired difference: thresholds share most of their pixels, so unpaired errors would be far
    too wide.
    """
    best, near = influence(*terms.column(column))[:, None], np.empty(terms.columns, bool)
    for part, *some in terms.parts():
        lost = best - influence(*some)
        near[part] = lost.mean(axis=0) <= tolerance * standard_error(lost, groups)
    near[column] = True
    return near


def run_around(column: int, inside: np.ndarray) -> tuple[int, int]:
    """First and last column of the unbroken run of True that holds `column`."""
    outside = np.flatnonzero(~inside)
    low = int(outside[outside < column].max(initial=-1)) + 1
    high = int(outside[outside > column].min(initial=len(inside))) - 1
    return low, high
