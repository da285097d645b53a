"""Pixel counts of the masks of one class at many thresholds, and their scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from lib.masks.metrics import THRESHOLDS, Counts, Metric, pooled
from lib.masks.rules import NO_MASK, Rule

COLUMNS = 32  # scored at a time: the terms of all thresholds would take 4 KB per image


@dataclass(frozen=True)
class ScoreTable:
    """True and false positives of every image (rows) at every threshold (columns)."""

    metric: Metric
    thresholds: np.ndarray  # (thresholds,) ascending
    tp: np.ndarray  # (images, thresholds)
    fp: np.ndarray  # (images, thresholds)
    positives: np.ndarray  # (images,) mask pixels in the truth
    groups: np.ndarray  # (images,) whole numbers
    presence: np.ndarray | None = None  # (images,) uint8, of the class in the image; None: no rule may require it

    @classmethod
    def of_class(cls, counts: Counts, class_index: int, metric: Metric, groups: np.ndarray) -> "ScoreTable":
        """The table of one class; its arrays are views of the counts."""
        tp, fp = counts.tp[:, class_index], counts.fp[:, class_index]
        presence = None if counts.presence is None else counts.presence[:, class_index]
        return cls(metric, THRESHOLDS, tp, fp, counts.positives[:, class_index], groups, presence)

    @property
    def clusters(self) -> np.ndarray:
        """The groups for standard errors, (images,); each image for itself if all are of one, which has no error."""
        return self.groups if np.ptp(self.groups) else np.arange(len(self.groups))

    def of(self, images: np.ndarray) -> "ScoreTable":
        """The table of some images: a bool array, or their numbers."""
        names = ["tp", "fp", "positives", "groups", *([] if self.presence is None else ["presence"])]
        return replace(self, **{name: getattr(self, name)[images] for name in names})

    def shut_by(self, rule: Rule) -> np.ndarray:
        """True for images whose mask the rule's gates empty, (images,); the table must count maps without steps."""
        shut = np.zeros(len(self.tp), bool) if rule.presence is None else self.presence < rule.presence
        return shut | (self.predicted(rule.gate.top) < rule.gate.area) if rule.gate else shut

    def behind_gates(self, rule: Rule) -> "ScoreTable":
        """The table with the masks emptied that the rule's gates empty."""
        return self.emptied(self.shut_by(rule))

    def emptied(self, images: np.ndarray) -> "ScoreTable":
        """The table with the masks of some images (bool) emptied at every threshold."""
        if not images.any():
            return self
        return replace(self, **{name: np.where(images[:, None], 0, getattr(self, name)) for name in ("tp", "fp")})

    def up_to(self, threshold: int) -> "ScoreTable":
        """The table of the thresholds up to this one."""
        columns = slice(self.column(threshold) + 1)
        return replace(self, thresholds=self.thresholds[columns], tp=self.tp[:, columns], fp=self.fp[:, columns])

    def column(self, threshold: int) -> int:
        return int(np.searchsorted(self.thresholds, threshold))

    def predicted(self, threshold: int) -> np.ndarray:
        """Mask pixels at a threshold, (images,)."""
        column = self.column(threshold)
        return self.tp[:, column] + self.fp[:, column]

    def counts_at(self, rule: Rule) -> np.ndarray:
        """True and false positives of the masks by a rule, without its steps, (2, images)."""
        if rule.is_empty:
            return np.zeros((2, len(self.tp)), self.tp.dtype)
        column = self.column(rule.threshold)
        return np.where(self.shut_by(rule), 0, np.stack([self.tp[:, column], self.fp[:, column]]))

    def terms(self, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """The two terms of `Metric.terms` at some thresholds, each (images, columns)."""
        tp = self.tp[:, columns]
        return self.metric.terms(tp, self.fp[:, columns], self.positives[:, None] - tp)

    def terms_at(self, threshold: int) -> np.ndarray:
        """The terms at one threshold or of NO_MASK, (2, images)."""
        if threshold == NO_MASK:
            return self.empty_terms()
        column = self.column(threshold)
        return np.stack(self.terms(slice(column, column + 1)))[:, :, 0]

    def empty_terms(self) -> np.ndarray:
        """The terms of empty masks, (2, images)."""
        none = np.zeros_like(self.positives)
        return np.stack(self.metric.terms(none, none, self.positives))

    def in_parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The terms at all thresholds, COLUMNS at a time."""
        for first in range(0, len(self.thresholds), COLUMNS):
            yield self.terms(slice(first, first + COLUMNS))

    def scores(self) -> np.ndarray:
        """The score of all images at each threshold, (thresholds,)."""
        return np.concatenate([pooled(*terms) for terms in self.in_parts()])


@dataclass(frozen=True)
class TablesToTune:
    """The table of one class, and those to tune on instead for some parts of the images (lib/tuning/blind_maps.py)."""

    own: ScoreTable
    blind_to: Mapping[int, ScoreTable]  # by part

    def without(self, part: int) -> ScoreTable:
        """The table whose images outside the part are to be tuned on."""
        return self.blind_to.get(part, self.own)

    def without_presence(self) -> "TablesToTune":
        blind_to = {part: replace(table, presence=None) for part, table in self.blind_to.items()}
        return TablesToTune(replace(self.own, presence=None), blind_to)


def sums_within(parts: Iterable[Sequence[np.ndarray]], members: csr_array) -> np.ndarray:
    """Values summed over the images of each set, (values, sets, thresholds); for `members` see `membership`.

    `parts` yields values, each (images, thresholds), some thresholds at a time, as `ScoreTable.in_parts` yields terms.
    """
    return np.concatenate([[members @ value for value in part] for part in parts], axis=2)
