"""The images that 01 compares to find hidden groups: all of them, or of many a sample that keeps siblings together.

Each candidate has a part of the sample of its own, whole groups or runs of successive images: with members drawn at
random its images would have lost their siblings. The candidate is judged by the images of its part, each compared with
the whole sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.folds.id_patterns import Partition, Series
from lib.masks.statistics import group_members, group_numbers

LARGEST, DRAWN = 2000, 1500  # images: up to the first number all are compared, of more so many
GROUPS_IN_PART = 8  # that a part holds at least; of larger groups only some images are drawn
RUN = 8  # successive images


@dataclass(frozen=True)
class Sample:
    """Numbers of the images to compare, sorted, and for each candidate which of these it is judged by."""

    images: np.ndarray
    of_partition: list[np.ndarray]  # positions in `images`
    of_series: list[np.ndarray]

    @classmethod
    def of(cls, partitions: Sequence[Partition], series: Sequence[Series], count: int) -> "Sample":
        """All of `count` images, or where these are more than LARGEST about DRAWN, the same ones in every run."""
        if count <= LARGEST:
            return cls.everything(count, len(partitions), len(series))
        rng = np.random.default_rng(0)
        share = DRAWN // (len(partitions) + len(series) + 1)
        parts = [_whole_groups(partition.groups, share, rng) for partition in partitions]
        runs = [_runs(order, share, rng) for order in series]
        strangers = rng.choice(count, share, replace=False)
        images = np.unique(np.concatenate([*parts, *runs, strangers]))
        judges = [
            _judges(partition.groups, part, images, share) for partition, part in zip(partitions, parts, strict=True)
        ]
        return cls(images, judges, [np.searchsorted(images, run) for run in runs])

    @classmethod
    def everything(cls, count: int, partitions: int, series: int) -> "Sample":
        """All of `count` images, for so many candidates."""
        images = np.arange(count)
        return cls(images, [images] * partitions, [images] * series)


def _whole_groups(groups: np.ndarray, share: int, rng: np.random.Generator) -> np.ndarray:
    """Images of groups in random order, `share` at most; of a large group only some."""
    shuffled = rng.permutation(len(groups))
    members = [shuffled[places] for places in group_members(groups[shuffled])]
    chosen, room = [], share
    for index in rng.permutation(len(members)):
        group = members[index][: share // GROUPS_IN_PART]
        if len(group) > room:
            break
        chosen.append(group)
        room -= len(group)
    return np.sort(np.concatenate(chosen))


def _runs(series: Series, share: int, rng: np.random.Generator) -> np.ndarray:
    """Runs of successive images, `share` at most; those of a grid lie in its rows."""
    order = np.lexsort((*series.positions.T[::-1], group_numbers(series.keys)))
    starts = np.arange(0, len(order) - RUN + 1, RUN)
    drawn = rng.choice(starts, min(len(starts), share // RUN), replace=False)
    return np.sort(order[(drawn[:, None] + np.arange(RUN)).ravel()])


def _judges(groups: np.ndarray, part: np.ndarray, images: np.ndarray, share: int) -> np.ndarray:
    """Positions in `images` of a candidate's part, and of all images of groups so large that siblings abound."""
    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    is_large = sizes[numbers[images]] > share // GROUPS_IN_PART
    return np.flatnonzero(np.isin(images, part) | is_large)
