"""Which morphology steps to adopt for one class, by the nested score.

- A family is a set of steps, such as opening and removal; radius, area and threshold are tuned. Its nested score
  tunes them on the other folds, so a family gains nothing by having more to tune.
- Steps are added one at a time, the one with the largest nested gain first, and only while the gain over the family
  without it exceeds two standard errors (paired over images, clustered by group). So ties go to fewer steps.
- The best of many families is a little lucky. `procedure` therefore leaves each fold out of the selection too: the
  family is selected by cross-validation within the other folds, tuned on them, and scored on the fold.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from lib.masks.metrics import THRESHOLDS, ratio
from lib.masks.rules import Gate, Rule
from lib.masks.statistics import REACH, Terms, best_threshold, influence, is_sure, membership, standard_error
from lib.tuning.morphology_candidates import Steps
from lib.tuning.thresholds import ScoreTable, tune

Family = tuple[str, ...]  # names of the steps, () for the threshold alone


@dataclass(frozen=True)
class Block:
    """The terms of all images after the same steps, at some thresholds."""

    steps: Steps
    thresholds: np.ndarray  # (thresholds,)
    terms: Terms  # a column for each threshold


@dataclass(frozen=True)
class Tuned:
    """A rule, and the block and column that hold its terms."""

    rule: Rule
    block: Block
    column: int


@dataclass(frozen=True)
class ClassSearch:
    """The choice for one class, from the terms of every candidate on every image."""

    table: ScoreTable  # of the threshold alone
    families: dict[Family, list[Block]]  # the blocks with those steps; () has one, the threshold alone
    folds: np.ndarray  # (images,)
    rule: str  # threshold or triplet
    _tuned: dict[frozenset, dict[Family, Tuned]] = field(default_factory=dict)
    _fold_sums: dict[tuple[Steps, Gate | None], np.ndarray] = field(default_factory=dict)

    def tuned(self, without: frozenset[int]) -> dict[Family, Tuned]:
        """The best rule of each family for the images outside the folds `without`."""
        if without not in self._tuned:
            alone = tune(self.table.of(self.outside(without)), self.rule)
            best = {(): Tuned(alone, self.families[()][0], alone.threshold - 1)}
            for family, blocks in self.families.items():
                if family:
                    best[family] = self._best_of(blocks, alone.gate, without)
            self._tuned[without] = best
        return self._tuned[without]

    def _best_of(self, blocks: list[Block], gate: Gate | None, without: frozenset[int]) -> Tuned:
        """The block with the best peak on the images outside `without`, and the threshold to use.

        The blocks of the radius steps hold all thresholds, so that the centre of a plateau can be told from a lone
        peak.
        """
        block = max(blocks, key=lambda block: self._peak(block, gate, without))
        reach = REACH if len(block.thresholds) == len(THRESHOLDS) else 0
        images = self.outside(without)
        column = best_threshold(self.table.behind(gate, block.terms).of(images), self.table.groups[images], reach)
        return Tuned(Rule(int(block.thresholds[column]), gate, block.steps), block, column)

    def _peak(self, block: Block, gate: Gate | None, without: frozenset[int]) -> float:
        """The best score of a block's thresholds; terms add up by folds, so that each block is read once for all."""
        key = block.steps, gate
        if key not in self._fold_sums:
            self._fold_sums[key] = self.table.behind(gate, block.terms).sums_within(self._images_by_fold)
        sums = self._fold_sums[key]
        kept = [fold not in without for fold in range(sums.shape[1])]
        return ratio(*sums[:, kept].sum(axis=1)).max()

    @cached_property
    def _images_by_fold(self) -> csr_array:
        """What sums over the images of each fold, of 0 up to the highest number."""
        return membership(self.folds, self.folds.max() + 1)

    def outside(self, folds: frozenset[int]) -> np.ndarray:
        """The images that are in none of `folds`, (images,) bool."""
        return ~np.isin(self.folds, list(folds))

    def terms(self, tuned: Tuned) -> np.ndarray:
        """The terms of a tuned rule on all images, (2, images)."""
        return self.table.behind(tuned.rule.gate, tuned.block.terms).column(tuned.column)

    def nested(self, family: Family, without: frozenset[int] = frozenset()) -> np.ndarray:
        """A family's nested terms, (2, images outside `without`): each fold's at the rule tuned on the other folds."""
        return self._on_left_out(without, lambda left_out: self.tuned(without | {left_out})[family])

    def procedure(self) -> np.ndarray:
        """The nested terms of selecting and tuning, (2, images): each fold's at the rule selected without it."""
        return self._on_left_out(frozenset(), self.selected_without)

    def selected_without(self, fold: int) -> Tuned:
        """The rule selected and tuned on the other folds."""
        without = frozenset({fold})
        return self.tuned(without)[self.select(without)]

    def _on_left_out(self, without: frozenset[int], rule_for: Callable[[int], Tuned]) -> np.ndarray:
        terms = np.empty((2, len(self.folds)))
        images = self.outside(without)
        for fold in np.unique(self.folds[images]).tolist():
            left_out = self.folds == fold
            terms[:, left_out] = self.terms(rule_for(fold))[:, left_out]
        return terms[:, images]

    def gain(self, after: np.ndarray, before: np.ndarray, without: frozenset[int] = frozenset()) -> tuple[float, float]:
        """The gain in score from one set of terms (2, images outside `without`) to another, and its standard error."""
        difference = influence(*after) - influence(*before)
        return float(difference.mean()), float(standard_error(difference, self.table.groups[self.outside(without)]))

    def select(self, without: frozenset[int] = frozenset()) -> Family:
        """The family chosen by cross-validation within the folds outside `without`."""
        family = ()
        while True:
            longer = [other for other in self.families if len(other) == len(family) + 1 and set(family) < set(other)]
            if not longer:
                return family
            before = self.nested(family, without)
            gains = {other: self.gain(self.nested(other, without), before, without) for other in longer}
            best = max(gains, key=lambda other: gains[other][0])
            gain, error = gains[best]
            if not is_sure(gain, error):
                return family
            family = best
