"""Selection of morphology steps: a step is adopted when its nested gain exceeds two standard errors.

- A family is a set of steps, such as opening and removal; radius, area and threshold are tuned. Its nested score
  tunes them on the other folds, so a family gains nothing from having more parameters.
- Steps are added one at a time, the one with the largest nested gain first, and only while the gain over the family
  without it exceeds two standard errors (paired over images, clustered by group). Ties therefore go to fewer steps.
- The best of many families is partly luck. `selected_without` therefore leaves each fold out of the selection too:
  the family is selected by cross-validation within the other folds, tuned on them, and scored on the fold.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lib.masks.metrics import THRESHOLDS, pooled, ratio
from lib.masks.rules import NO_MASK, Rule
from lib.masks.statistics import SURE, Gain, membership
from lib.tuning.morphology_candidates import Steps
from lib.tuning.plateau import REACH, best_threshold
from lib.tuning.score_table import ScoreTable, sums_within
from lib.tuning.thresholds import tune

Family = tuple[str, ...]  # names of the steps, () for the threshold alone
NONE_LEFT_OUT = frozenset()  # all folds are used


class SelectedRules(NamedTuple):
    """The rules that the search selected for one class."""

    rule: Rule  # on all folds
    best_tried: Rule  # the rule with steps that gains most, selected or not
    without_part: dict[int, Rule]  # by part: on the others
    tried: list[dict]

    def reason_against(self, gain: Gain, in_sample_gain: float) -> str:
        """The reason, in words, not to adopt the steps of the rule; empty if they are adopted.

        `gain` compares each image at its `without_part` rule with the threshold alone, `in_sample_gain` all at `rule`.
        """
        if not any(rule.steps for rule in self.without_part.values()):
            return "none is selected"
        if not gain.doubt() and not self.rule.steps:
            return "some are selected without a fold, but none on all folds"
        if not gain.doubt() and in_sample_gain < 0:
            return f"the in-sample score falls by {-in_sample_gain:.4f}"
        return gain.doubt()


class StepSelection:
    """The selection of the steps of one class, by the pixel counts of all masks after each combination of steps."""

    def __init__(self, tables: Mapping[Steps, ScoreTable], folds: np.ndarray, kind: str, limit: float = SURE):
        """`tables[()]` counts the maps without steps; `folds` is (images,), `kind` threshold or triplet.

        Steps must gain more than `limit` standard errors.
        """
        self.tables, self.folds, self.kind, self.limit = tables, folds, kind, limit
        self.families: dict[Family, list[Steps]] = {}
        for steps in tables:
            self.families.setdefault(tuple(step.name for step in steps), []).append(steps)
        self._best_rules: dict[frozenset[int], dict[Family, Rule]] = {}
        self._fold_sums: dict[tuple[Steps, Rule], np.ndarray] = {}

    def best_rules(self, without: frozenset[int] = NONE_LEFT_OUT) -> dict[Family, Rule]:
        """The best rule of each family for the images outside the folds `without`."""
        if without not in self._best_rules:
            alone = tune(self.tables[()].of(self.outside(without)), self.kind)
            best = {family: self._best_of(family, alone, without) for family in self.families if family}
            self._best_rules[without] = {(): alone} | best
        return self._best_rules[without]

    def _best_of(self, family: Family, alone: Rule, without: frozenset[int]) -> Rule:
        """The sizes with the best peak and their threshold, combined with the gates of the rule without steps.

        Radius steps are counted at all thresholds, so the centre of a plateau can be preferred to an isolated peak.
        """
        steps = max(self.families[family], key=lambda steps: self._peak(steps, alone, without))
        images, table = self.outside(without), self.tables[steps]
        reach = REACH if len(table.thresholds) == len(THRESHOLDS) else 0
        threshold = best_threshold(table.emptied(self._shut(alone)).of(images), reach)
        return replace(alone, threshold=threshold, steps=steps)

    def _peak(self, steps: Steps, alone: Rule, without: frozenset[int]) -> float:
        """The best score of all thresholds. Terms are summed once per fold, and then over any set of folds."""
        key = steps, replace(alone, threshold=NO_MASK)  # the gates count
        if key not in self._fold_sums:
            images_by_fold = membership(self.folds, self.folds.max() + 1)
            table = self.tables[steps].emptied(self._shut(alone))
            self._fold_sums[key] = sums_within(table.in_parts(), images_by_fold)
        kept = ~np.isin(np.arange(self.folds.max() + 1), list(without))
        return ratio(*self._fold_sums[key][:, kept].sum(axis=1)).max()

    def _shut(self, rule: Rule) -> np.ndarray:
        return self.tables[()].shut_by(rule)

    def outside(self, without: frozenset[int]) -> np.ndarray:
        """The images that are in none of the folds `without`, (images,) bool."""
        return ~np.isin(self.folds, list(without))

    def terms(self, rule: Rule) -> np.ndarray:
        table = self.tables[rule.steps]
        return np.where(self._shut(rule), table.empty_terms(), table.terms_at(rule.threshold))

    def nested(self, family: Family, without: frozenset[int] = NONE_LEFT_OUT) -> np.ndarray:
        """A family's nested terms, (2, images outside `without`): each fold's at the rule tuned on the other folds."""
        terms, images = np.empty((2, len(self.folds))), self.outside(without)
        for fold in np.unique(self.folds[images]).tolist():
            left_out = self.folds == fold
            terms[:, left_out] = self.terms(self.best_rules(without | {fold})[family])[:, left_out]
        return terms[:, images]

    def select(self, without: frozenset[int] = NONE_LEFT_OUT) -> Family:
        """The family chosen by cross-validation within the folds outside `without`."""
        family, groups = (), self.tables[()].groups[self.outside(without)]
        while True:
            longer = [other for other in self.families if len(other) == len(family) + 1 and set(family) < set(other)]
            if not longer:
                return family
            before = self.nested(family, without)
            gains = {other: Gain.between(before, self.nested(other, without), groups) for other in longer}
            best = max(gains, key=lambda other: gains[other].mean)
            if gains[best].doubt(self.limit):
                return family
            family = best

    def selected_without(self, fold: int) -> Rule:
        """The rule selected and tuned on the other folds."""
        without = frozenset({fold})
        return self.best_rules(without)[self.select(without)]

    def selected_without_each(self, folds: Iterable[int]) -> dict[int, Rule]:
        """By fold, the rule selected and tuned on the other folds."""
        return {fold: self.selected_without(fold) for fold in folds}

    def selected(self, elsewhere: Collection[int] = ()) -> SelectedRules:
        """The rule selected on all folds, and those without each fold, but for folds that are selected `elsewhere`."""
        rules, tried = self.best_rules(), self.tried()
        best_family = next((tuple(row["steps"]) for row in tried if row["steps"]), ())
        here = [fold for fold in np.unique(self.folds).tolist() if fold not in elsewhere]
        without_part = self.selected_without_each(here)
        return SelectedRules(rules[self.select()], rules[best_family], without_part, tried)

    def tried(self) -> list[dict]:
        """A row for each family, best first: number of rules, the best rule, its gain over the threshold alone.

        The in-sample gain is that of the rule tuned on all folds; the nested gain has a standard error.
        """
        rows, rules, alone = [], self.best_rules(), self.nested(())
        for family, rule in rules.items():
            gain = Gain.between(alone, self.nested(family), self.tables[()].groups)
            in_sample_gain = pooled(*self.terms(rule)) - pooled(*self.terms(rules[()]))
            rows.append(
                {
                    "steps": list(family),
                    "rules": sum(len(self.tables[steps].thresholds) for steps in self.families[family]),
                    "rule": str(rule),
                    "in_sample_gain": float(in_sample_gain),
                    "nested_gain": gain.mean,
                    "standard_error": gain.standard_error,
                }
            )
        return sorted(rows, key=lambda row: -row["nested_gain"])
