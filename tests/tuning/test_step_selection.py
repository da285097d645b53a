"""The selection of steps on gains that are planted by hand: 12 images in 3 folds, four in each."""

import numpy as np
import pytest

from lib.masks.rules import Rule, Step
from lib.masks.statistics import Gain
from lib.tuning.step_selection import Family, SelectedRules, StepSelection
from tests.tuning.planted import planted_table

FOLDS = np.repeat([0, 1, 2], 4)
REMOVE, FILL, BOTH = ("remove",), ("fill",), ("fill", "remove")


def search_of(gains: dict[Family, np.ndarray]) -> StepSelection:
    """Families of one rule each, whose images score .5 plus the gain; the threshold alone scores .5 throughout."""
    tables = {(): planted_table(np.full((12, 255), 0.5))}
    for family, gain in gains.items():
        steps = tuple(Step(name, 16) for name in family)
        tables[steps] = planted_table(0.5 + np.asarray(gain)[:, None], np.array([128]))
    return StepSelection(tables, FOLDS, "threshold")


def procedure(search: StepSelection) -> Gain:
    """The nested gain of selecting and tuning."""
    terms = np.empty((2, 12))
    for fold in range(3):
        terms[:, fold == FOLDS] = search.terms(search.selected_without(fold))[:, fold == FOLDS]
    return Gain.between(search.nested(()), terms, np.arange(12))


def gain_of(mean: float, error: float) -> np.ndarray:
    """Gains with that mean and standard error, the same in every fold."""
    pattern = np.tile([1.0, -1.0, 1.0, -1.0], 3)
    return mean + pattern * error * np.sqrt(12) / pattern.std(ddof=1)


@pytest.mark.parametrize(("gain", "adopted"), [(2.01, REMOVE), (1.99, ()), (0, ()), (-3, ())])
def test_a_step_is_adopted_when_its_gain_exceeds_two_standard_errors(gain, adopted):
    search = search_of({REMOVE: gain_of(0.01 * gain, 0.01)})
    measured = Gain.between(search.nested(()), search.nested(REMOVE), np.arange(12))
    assert (measured.mean, measured.standard_error) == pytest.approx((0.01 * gain, 0.01))
    assert search.select() == adopted


def test_a_second_step_must_gain_over_the_first():
    first, little = gain_of(0.1, 0.01), gain_of(0.01, 0.02)
    assert search_of({REMOVE: first, BOTH: first}).select() == REMOVE
    assert search_of({REMOVE: first, BOTH: first + little}).select() == REMOVE
    assert search_of({REMOVE: first, BOTH: first + 3 * little}).select() == REMOVE
    assert search_of({REMOVE: first, BOTH: first + gain_of(0.05, 0.02)}).select() == BOTH


def test_the_step_that_gains_most_comes_first():
    families = {REMOVE: gain_of(0.1, 0.01), FILL: gain_of(0.2, 0.01), BOTH: gain_of(0.15, 0.01)}
    assert search_of(families).select() == FILL


def test_each_fold_is_scored_with_the_family_selected_without_it():
    """Only fold 2 gains: the other two reject the step when it is left out, so it earns what it gains nowhere."""
    lone = np.where(FOLDS == 2, 0.4, -0.01)
    search = search_of({REMOVE: lone})
    assert [search.selected_without(fold).steps for fold in (0, 1, 2)] == [(Step("remove", 16),)] * 2 + [()]
    assert search.select() == REMOVE  # by its gain in all folds together
    assert procedure(search).mean == pytest.approx(-0.01 * 8 / 12)
    assert search.selected().reason_against(procedure(search), 0.1) == "nothing is gained"


def test_the_search_as_a_whole_must_gain_enough_too():
    """Fold 0 gains, but is scored without the step, as the noisy others do not select it; left out, they just gain."""
    search = search_of({REMOVE: np.where(FOLDS == 0, 0.4, np.tile([0.1, -0.08], 6))})
    selected, gain = search.selected(), procedure(search)
    assert selected.rule.steps == (Step("remove", 16),)
    assert [bool(rule.steps) for rule in selected.without_part.values()] == [False, True, True]
    assert gain.mean == pytest.approx(0.01 * 8 / 12) and gain.standard_error > gain.mean
    assert "less than 2 standard errors" in selected.reason_against(gain, 0.1)


@pytest.mark.parametrize(
    ("scored_differently", "in_sample_gain", "reason"),
    [(12, 0.01, ""), (5, 0.0, ""), (4, 0.01, "4 groups of images would score"), (12, -0.018, "falls by 0.0180")],
)
def test_a_small_standard_error_is_not_enough(scored_differently, in_sample_gain, reason):
    """A gain of .01 with next to no error, in so many of twelve images."""
    before, after = np.full((2, 12), 0.5), np.full((2, 12), 0.5)
    before[1] = after[1] = 1
    after[0, :scored_differently] += 0.01
    gain = Gain.between(before, after, np.arange(12))
    rule = Rule(128, steps=(Step("largest"),))
    against = SelectedRules(rule, rule, {0: rule}, []).reason_against(gain, in_sample_gain)
    assert reason in against and bool(reason) == bool(against)


def test_what_is_selected_only_without_folds_is_not_adopted_and_the_reason_is_given():
    steps = Rule(128, steps=(Step("largest"),))
    selected = SelectedRules(Rule(128), steps, {0: steps, 1: Rule(128), 2: steps}, [])
    assert "none on all folds" in selected.reason_against(Gain(0.0017, 0.0005, 12), 0.0)


def test_the_gain_of_a_single_group_is_of_unknown_certainty():
    gain = Gain.between(np.stack([np.zeros(8), np.ones(8)]), np.ones((2, 8)), np.zeros(8, int))
    assert np.isnan(gain.standard_error) and "images are of one group" in gain.doubt()
