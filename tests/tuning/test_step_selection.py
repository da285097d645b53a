"""The selection of steps on gains that are planted by hand: 12 images in 3 folds, four in each."""

import numpy as np
import pytest

from lib.masks.metrics import THRESHOLDS, Metric
from lib.masks.rules import Step
from lib.masks.statistics import Terms
from lib.tuning.morphology_search import choose_steps
from lib.tuning.step_selection import Block, ClassSearch, Family
from lib.tuning.thresholds import ScoreTable

FOLDS = np.repeat([0, 1, 2], 4)
REMOVE, FILL, BOTH = ("remove",), ("fill",), ("fill", "remove")


def search_of(gains: dict[Family, np.ndarray]) -> ClassSearch:
    """Families of one rule each, whose images score .5 plus the gain; the threshold alone scores .5 throughout."""
    tp = np.full((12, 255), 30)  # as many false alarms, and as many misses: a Dice of .5
    table = ScoreTable(Metric(), tp, tp, 2 * tp[:, 0], np.arange(12))
    families = {(): [Block((), THRESHOLDS, table.terms)]}
    for family, gain in gains.items():
        steps = tuple(Step(name, 16) for name in family)
        terms = Terms.of_arrays(0.5 + np.asarray(gain)[:, None], np.ones((12, 1)))
        families[family] = [Block(steps, np.array([128]), terms)]
    return ClassSearch(table, families, FOLDS, "threshold")


def gain_of(mean: float, error: float) -> np.ndarray:
    """Gains with that mean and standard error, the same in every fold."""
    pattern = np.tile([1.0, -1.0, 1.0, -1.0], 3)
    return mean + pattern * error * np.sqrt(12) / pattern.std(ddof=1)


@pytest.mark.parametrize(("gain", "adopted"), [(2.01, REMOVE), (1.99, ()), (0, ()), (-3, ())])
def test_a_step_is_adopted_when_its_gain_exceeds_two_standard_errors(gain, adopted):
    search = search_of({REMOVE: gain_of(0.01 * gain, 0.01)})
    assert search.gain(search.nested(REMOVE), search.nested(())) == pytest.approx((0.01 * gain, 0.01))
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
    assert [search.selected_without(fold).rule.steps for fold in (0, 1, 2)] == [(Step("remove", 16),)] * 2 + [()]
    assert search.procedure()[0] == pytest.approx(np.where(FOLDS == 2, 0.5, 0.49))
    assert search.select() == REMOVE  # by its gain in all folds together
    outcome = choose_steps(search)
    assert outcome.rule.steps == () and outcome.after == outcome.before
    assert outcome.gain == pytest.approx(-0.01 * 8 / 12)


def test_the_search_as_a_whole_must_gain_enough_too():
    """Fold 0 gains, but is scored without the step, as the noisy others do not select it; left out, they just gain."""
    search = search_of({REMOVE: np.where(FOLDS == 0, 0.4, np.tile([0.1, -0.08], 6))})
    outcome = choose_steps(search)
    assert search.select() == REMOVE
    assert [bool(rule.steps) for rule in outcome.without_fold.values()] == [False, True, True]
    assert outcome.gain == pytest.approx(0.01 * 8 / 12) and outcome.standard_error > outcome.gain
    assert outcome.rule.steps == () and outcome.after == outcome.before
