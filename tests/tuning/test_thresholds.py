import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.base.errors import UserError
from lib.base.files import write_json
from lib.config.schema import ThresholdSettings
from lib.masks.metrics import Metric, count_images
from lib.masks.rules import NO_MASK, Gate, Rule, apply_rules, read_rules
from lib.masks.statistics import Gain, bootstrap_interval, influence, standard_error
from lib.tuning import gate_search
from lib.tuning.gate_search import largest_errors
from lib.tuning.score_table import ScoreTable
from lib.tuning.thresholds import best_threshold, choose_thresholds, plateau, tune
from lib.tuning.triplet import best_gate
from tests.tuning.planted import planted_table

METRICS = ["dice", "dice_global", "iou", "iou_sweep", "f_beta"]


def images(count: int, classes: int = 1, seed: int = 0) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Noisy maps of random truths, every fourth truth empty."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        truth = (rng.random((8, 9, classes)) < (0.4 if number % 4 else 0)).astype(np.uint8)
        noisy = truth * 110 + rng.normal(60, 50, truth.shape) + rng.normal(0, 20)
        made.append((f"image{number}", np.clip(noisy, 0, 255).astype(np.uint8), truth))
    return made


def naive_score(made, rules: list, metric: str, index: int = 0) -> float:
    """The metric of one class's masks, written from scratch; `rules` holds one rule per image."""
    pairs = [
        (rule.apply(maps[..., index]), truth[..., index]) for (_, maps, truth), rule in zip(made, rules, strict=True)
    ]
    if metric == "dice_global":
        return 2 * sum((m & t).sum() for m, t in pairs) / sum(m.sum() + t.sum() for m, t in pairs)
    scores = []
    for mask, truth in pairs:
        both, either = int((mask & truth).sum()), int((mask | truth).sum())
        if either == 0:
            scores.append(1.0)
        elif metric == "dice":
            scores.append(2 * both / (both + either))
        elif metric == "iou":
            scores.append(both / either)
        elif metric == "iou_sweep":
            scores.append(sum(20 * both > k * either for k in range(10, 20)) / 10)
        else:  # F2, five times recall's weight
            scores.append(5 * both / (4 * int(truth.sum()) + int(mask.sum())))
    return float(np.mean(scores))


def single_table(made, metric: str = "dice"):
    return ScoreTable.of_class(count_images(made, ["a"]), 0, Metric(metric, 2.0), np.arange(len(made)))


def table_of_curve(curve: np.ndarray, images: int = 30, noise: float = 0.0):
    """A table whose scores are exactly `curve`, with independent noise of that size at every threshold."""
    deviation = np.random.default_rng(0).normal(0, noise, (images, len(curve)))
    return planted_table(curve + deviation - deviation.mean(axis=0))


@pytest.mark.parametrize("rule", ["threshold", "triplet"])
@pytest.mark.parametrize("metric", METRICS)
def test_scores_equal_a_naive_twin(metric, rule):
    made, folds = images(24), np.arange(24) % 3
    settings = ThresholdSettings(metric=metric, beta=2, rule=rule, bootstrap=100)
    result = choose_thresholds(count_images(made, ["a"]), folds, settings, None)
    choice = result.classes["a"]
    assert choice.in_sample == pytest.approx(naive_score(made, [choice.rule] * 24, metric))
    assert choice.nested == pytest.approx(naive_score(made, [choice.without_part[fold] for fold in folds], metric))
    assert choice.at_half == pytest.approx(naive_score(made, [Rule(128)] * 24, metric))
    assert choice.all_empty == pytest.approx(naive_score(made, [Rule(1, Gate(255, 1000))] * 24, metric))
    for threshold in (1, 90, 255):
        swept = Rule(threshold, choice.rule.gate)
        assert choice.curve[threshold - 1] == pytest.approx(naive_score(made, [swept] * 24, metric))
        left_out = [made[row] for row in np.flatnonzero(folds == 1)]
        assert choice.fold_curves[1][threshold - 1] == pytest.approx(naive_score(left_out, [swept] * 8, metric))


@pytest.mark.parametrize("rule", ["threshold", "triplet"])
def test_a_fold_does_not_influence_the_rule_it_is_scored_with(rule):
    """Changing all of fold 1 changes the rules tuned on it, and not the one tuned without it."""
    made, folds = images(30), np.arange(30) % 3
    changed = [
        (image_id, maps // 3 if fold == 1 else maps, truth)
        for fold, (image_id, maps, truth) in zip(folds, made, strict=True)
    ]
    before, after = (
        choose_thresholds(count_images(each, ["a"]), folds, ThresholdSettings(rule=rule), None).classes["a"]
        for each in (made, changed)
    )
    assert before.without_part[1] == after.without_part[1]
    assert before.without_part[0] != after.without_part[0] and before.without_part[2] != after.without_part[2]
    assert before.rule != after.rule
    subset = [item for fold, item in zip(folds, made, strict=True) if fold != 1]
    assert before.without_part[1] == tune(single_table(subset), rule)


def test_folds_weigh_by_their_images():
    """Nine images of fold 0 score 1 at any threshold, the one of fold 1 scores 0: the nested score is .9, not .5."""
    full, empty = np.ones((4, 4, 1), np.uint8), np.zeros((4, 4, 1), np.uint8)
    made = [(str(number), full * 255, full) for number in range(9)] + [("9", full * 255, empty)]
    result = choose_thresholds(count_images(made, ["a"]), np.array([0] * 9 + [1]), ThresholdSettings(), None)
    assert result.mean("nested") == pytest.approx(0.9)


def test_classes_are_tuned_apart_and_averaged():
    made, folds = images(24, classes=2), np.arange(24) % 3
    made = [(image_id, maps // np.array([1, 2], np.uint8), truth) for image_id, maps, truth in made]
    both = choose_thresholds(count_images(made, ["a", "b"]), folds, ThresholdSettings(), None)
    for index, name in enumerate("ab"):
        alone = [(image_id, maps[..., [index]], truth[..., [index]]) for image_id, maps, truth in made]
        choice = choose_thresholds(count_images(alone, [name]), folds, ThresholdSettings(), None).classes[name]
        assert both.classes[name].rule == choice.rule and both.classes[name].nested == choice.nested
    assert both.mean("nested") == pytest.approx(np.mean([both.classes[name].nested for name in "ab"]))
    assert both.classes["a"].rule.threshold > both.classes["b"].rule.threshold
    assert both.interval[0] <= both.mean("nested") <= both.interval[1]


def test_a_fold_whose_probabilities_are_unlike_the_others_is_named():
    truth = np.zeros((10, 10, 1), np.uint8)
    truth[2:7, 3:8] = 1
    tops = [240] * 4 + [200] * 4 + [100] * 4  # of the maps of three folds; a sixth of it outside the truth
    made = [(str(n), np.where(truth, top, top // 6).astype(np.uint8), truth) for n, top in enumerate(tops)]
    result = choose_thresholds(count_images(made, ["a"]), np.repeat([0, 1, 2], 4), ThresholdSettings(), None)
    # without fold 2 the thresholds 41 to 200 are perfect; their middle empties its masks, which 17 to 100 make perfect
    assert result.classes["a"].foreign_folds() == {2: (17, 1.0, 0.0)}
    assert "fold 2 scores 0.0000 at t=120" in str(result)
    parts = choose_thresholds(count_images(made, ["a"]), np.repeat([0, 1], 6), ThresholdSettings(), None)
    assert "stand in for folds" in str(parts) and "warning" not in str(parts)  # parts of one fold have one model
    alike = choose_thresholds(count_images(made[:8], ["a"]), np.repeat([0, 1], 4), ThresholdSettings(), None)
    assert "warning" not in str(alike)


@pytest.mark.parametrize("folds", [1, 2])
def test_of_few_folds_parts_of_whole_groups_are_left_out(folds):
    """Each image is scored at a rule tuned on images of other groups."""
    made, groups = images(40), np.arange(40) // 2
    counts = count_images(made, ["a"])
    result = choose_thresholds(counts, np.arange(40) % folds, ThresholdSettings(), groups)
    choice = result.classes["a"]
    assert len(set(result.parts)) == 5 and all(len(set(result.parts[groups == group])) == 1 for group in range(20))
    for part, rule in choice.without_part.items():
        others = [item for item, other in zip(made, result.parts, strict=True) if other != part]
        table = ScoreTable.of_class(count_images(others, ["a"]), 0, Metric(), groups[result.parts != part])
        assert rule == tune(table, "threshold")
    assert choice.nested == pytest.approx(
        naive_score(made, [choice.without_part[part] for part in result.parts], "dice")
    )
    assert "parts of the images stand in for folds" in str(result)


def test_a_single_image_has_no_nested_score():
    with pytest.raises(UserError, match="at least two images"):
        choose_thresholds(count_images(images(1), ["a"]), np.zeros(1, int), ThresholdSettings(), None)


def test_of_tied_thresholds_the_middle_is_taken_where_each_fold_is_one_group():
    """Without one of the two groups the other is alone, and tells no standard error."""
    truth = np.zeros((10, 10, 1), np.uint8)
    truth[2:7, 3:8] = 1
    tops = [(240, 20), (250, 30)] * 4  # inside and outside of the truth
    made = [(str(n), np.where(truth, *values).astype(np.uint8), truth) for n, values in enumerate(tops)]
    folds = np.repeat([0, 1], 4)
    choice = choose_thresholds(count_images(made, ["a"]), folds, ThresholdSettings(), folds).classes["a"]
    assert {rule.threshold for rule in choice.without_part.values()} == {(31 + 240) // 2}
    single = ScoreTable.of_class(count_images(made, ["a"]), 0, Metric(), np.zeros(8, int))
    assert tune(single, "threshold").threshold == (31 + 240) // 2


# ---- no mask at all


def mostly_empty(with_object: int, empty: int = 40):
    """Every map has false alarms of the highest value; the objects are missed."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(empty + with_object):
        truth = np.zeros((12, 12, 1), np.uint8)
        truth[2:6, 2:6] = number >= empty
        maps = np.where(rng.random((12, 12, 1)) < 0.1, 255, 0).astype(np.uint8)
        made.append((f"image{number}", np.where(truth, 0, maps).astype(np.uint8), truth))
    order = rng.permutation(len(made))
    return [made[index] for index in order]


@pytest.mark.parametrize("rule", ["threshold", "triplet"])
def test_no_mask_at_all_is_chosen_where_it_scores_best(rule, tmp_path):
    made, folds = mostly_empty(with_object=3), np.arange(43) % 4
    result = choose_thresholds(count_images(made, ["a"]), folds, ThresholdSettings(rule=rule), None)
    choice = result.classes["a"]
    assert choice.rule == Rule(NO_MASK) and str(choice.rule) == "no mask at all"
    assert choice.nested == choice.in_sample == choice.all_empty == pytest.approx(40 / 43)
    assert not choice.rule.apply(made[0][1][..., 0]).any()
    assert "no mask at all scores 0.9302, more than any threshold" in str(result)
    assert ("threshold.rule=triplet" in str(result)) == (rule == "threshold")  # no advice to do what is done
    write_json(tmp_path / "threshold.json", result.to_dict())
    assert read_rules(tmp_path / "threshold.json", ["a"]) == {"a": Rule(NO_MASK)}
    assert "every mask of the submission is empty" in result.to_dict()["classes"]["a"]["about_no_mask"]


def test_no_mask_at_all_is_chosen_for_its_class_alone():
    empty, other = mostly_empty(with_object=2, empty=28), images(30)
    made = [
        (
            image_id,
            np.concatenate([maps, np.pad(others, ((0, 4), (0, 3), (0, 0)))], axis=2),
            np.concatenate([truth, np.pad(other_truth, ((0, 4), (0, 3), (0, 0)))], axis=2),
        )
        for (image_id, maps, truth), (_, others, other_truth) in zip(empty, other, strict=True)
    ]
    result = choose_thresholds(count_images(made, ["none", "some"]), np.arange(30) % 3, ThresholdSettings(), None)
    assert result.classes["none"].rule.is_empty and not result.classes["some"].rule.is_empty
    masks = apply_rules({name: choice.rule for name, choice in result.classes.items()}, made[1][1])
    assert not masks[..., 0].any() and masks[..., 1].any()


def test_what_adds_nothing_to_an_empty_submission_is_said():
    """Objects are found in as many images as empty ones have false alarms."""
    full, none = np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8, 1), np.uint8)
    full[2:6, 2:6] = 1
    kinds = [(full * 255, full)] * 7 + [(full * 255, none)] * 6 + [(none, none)] * 20
    made = [(str(number), *kinds[number]) for number in np.random.default_rng(0).permutation(33)]
    result = choose_thresholds(count_images(made, ["a"]), np.arange(33) % 3, ThresholdSettings(), None)
    choice = result.classes["a"]
    assert not choice.rule.is_empty and choice.in_sample > choice.all_empty
    assert "adds nothing to an empty submission" in str(result)
    clear = choose_thresholds(count_images(images(24), ["a"]), np.arange(24) % 3, ThresholdSettings(), None)
    assert "no mask at all" not in str(clear) and clear.classes["a"].about_no_mask() == ""


@pytest.mark.parametrize("metric", ["dice", "dice_global", "f_beta"])
def test_a_class_that_no_image_holds_is_said_to_be_one(metric):
    made = [(image_id, maps, np.concatenate([truth, 0 * truth], axis=2)) for image_id, maps, truth in images(12)]
    made = [(image_id, np.concatenate([maps, maps], axis=2), truth) for image_id, maps, truth in made]
    result = choose_thresholds(
        count_images(made, ["a", "b"]), np.arange(12) % 3, ThresholdSettings(metric=metric), None
    )
    assert "no image that is scored holds this class" in result.classes["b"].about_no_mask()
    assert "holds this class" not in result.classes["a"].about_no_mask()


def test_a_rule_that_no_mask_at_all_beats_on_the_folds_left_out_is_said_to_score_less():
    choice = choose_thresholds(count_images(images(12), ["a"]), np.arange(12) % 3, ThresholdSettings(), None).classes[
        "a"
    ]

    def said(mean: float, error: float) -> str:
        return replace(choice, over_no_mask=Gain(mean, error, 12)).about_no_mask()

    assert ", more than t=" in said(-0.3, 0.1) and "(nested -0.3000 ± 0.1000 over it)" in said(-0.3, 0.1)
    assert ", about as much as t=" in said(-0.05, 0.1) and ", about as much as t=" in said(0.1, 0.1)
    assert said(0.11, 0.1) == ""
    of_one_group = [said(mean, np.nan) for mean in (-0.1, 0.0, 0.1)]  # without an error
    assert ", more than t=" in of_one_group[0] and "as much as" in of_one_group[1] and of_one_group[2] == ""


# ---- the centre of the plateau


def test_a_plateau_is_preferred_to_a_lone_peak_that_the_images_cannot_tell_from_it():
    curve = np.full(255, 0.5)
    curve[80:120] = 0.8
    curve[200] = 0.801
    assert best_threshold(table_of_curve(curve, noise=0.2)) == pytest.approx(100, abs=10)


def test_a_peak_that_the_images_do_tell_from_the_rest_stays():
    curve = np.full(255, 0.5)
    curve[80:120] = 0.8
    curve[200] = 0.9
    assert best_threshold(table_of_curve(curve, noise=0.01)) == 201


@pytest.mark.parametrize(
    ("low", "high", "middle"), [(1, 255, 128), (81, 120, 100), (1, 30, 10), (201, 255, 233), (255, 255, 255)]
)
def test_the_middle_of_equal_thresholds_is_taken(low, high, middle):
    """A plateau that reaches the end of the scale is taken to go on beyond it."""
    curve = np.full(255, 0.5)
    curve[low - 1 : high] = 0.8
    assert best_threshold(table_of_curve(curve)) == middle
    assert plateau(table_of_curve(curve), middle) == (low, high)


def test_plateau_is_the_run_within_two_standard_errors_of_the_paired_difference():
    rng = np.random.default_rng(0)
    difference = rng.normal(0, 1, 50)
    difference -= difference.mean()
    error = difference.std(ddof=1) / np.sqrt(50)
    lost = np.array([2.1, 1.9, 0, 1.9, 2.1, 0]) * error
    scores = 10 + rng.normal(0, 100, (50, 1)) - lost - np.outer(difference, lost > 0)
    assert plateau(planted_table(scores), 3) == (2, 4)


@given(seed=st.integers(0, 10**6), metric=st.sampled_from(METRICS))
@settings(max_examples=30, deadline=None)
def test_the_chosen_threshold_costs_less_than_half_a_standard_error(seed, metric):
    table = single_table(images(16, seed=seed), metric)
    values = influence(*table.terms(slice(255)))
    chosen, peak = tune(table, "threshold").threshold - 1, int(np.argmax(values.mean(axis=0)))
    lost = values[:, peak] - values[:, chosen]
    assert lost.mean() <= 0.5 * lost.std(ddof=1) / np.sqrt(16) + 1e-12


# ---- standard errors and the bootstrap


def test_standard_error_of_independent_images_is_the_textbook_one():
    values = np.random.default_rng(0).normal(size=(40, 3))
    assert standard_error(values, np.arange(40)) == pytest.approx(values.std(axis=0, ddof=1) / np.sqrt(40))


def test_repeating_every_image_in_its_group_adds_no_certainty():
    values = np.random.default_rng(0).normal(size=40)
    error = standard_error(np.tile(values, 5), np.tile(np.arange(40), 5))
    assert error == pytest.approx(standard_error(values, np.arange(40)))
    assert standard_error(np.tile(values, 5), np.arange(200)) < 0.5 * error
    assert np.isnan(standard_error(values, np.zeros(40, int)))


def test_influence_has_the_score_as_mean_and_the_bootstrap_spread_of_a_ratio():
    rng = np.random.default_rng(0)
    denominator = rng.uniform(1, 9, 300)
    numerator = denominator * rng.uniform(0, 1, 300)
    values = influence(numerator, denominator)
    assert values.mean() == pytest.approx(numerator.sum() / denominator.sum())
    drawn = rng.integers(300, size=(4000, 300))
    ratios = numerator[drawn].sum(axis=1) / denominator[drawn].sum(axis=1)
    assert standard_error(values, np.arange(300)) == pytest.approx(ratios.std(), rel=0.1)


def test_bootstrap_interval_is_the_normal_one_for_many_images_and_wider_for_groups():
    rng = np.random.default_rng(0)
    scores = np.repeat(rng.normal(0.7, 0.1, 200), 2)[:, None]
    ones, groups = np.ones_like(scores), np.repeat(np.arange(200), 2)
    low, high = bootstrap_interval(scores, ones, groups, repeats=2000)
    error = 1.96 * float(standard_error(scores[:, 0], groups))
    assert (low, high) == pytest.approx((scores.mean() - error, scores.mean() + error), abs=0.002)
    narrow_low, narrow_high = bootstrap_interval(scores, ones, np.arange(400), repeats=2000)
    assert (high - low) / (narrow_high - narrow_low) == pytest.approx(np.sqrt(2), rel=0.1)
    assert bootstrap_interval(scores, ones, groups, repeats=2000) == (low, high)


def test_bootstrap_of_equal_scores_is_a_point():
    scores = np.full((20, 2), 0.25)
    assert bootstrap_interval(scores, np.ones_like(scores), np.arange(20), repeats=100) == (0.25, 0.25)


# ---- the triplet


@pytest.mark.parametrize("metric", METRICS)
def test_gate_equals_trying_every_triplet(metric, monkeypatch):
    """Where none but the best counts; maps of few distinct values, so that a loop over all tops and bottoms ends."""
    monkeypatch.setattr(gate_search, "TOLERANCE", 0)
    levels = np.array([0, 40, 90, 140, 200, 255], np.uint8)
    made = [(i, levels[np.digitize(maps, [30, 80, 130, 180, 230])], truth) for i, maps, truth in images(12, seed=3)]
    gates = [None, *(Gate(int(top), area) for top in levels[1:] for area in (1, 2, 4, 8, 16, 32, 64))]
    rules = [Rule(int(b), gate) for gate in gates for b in levels[1:] if gate is None or b <= gate.top]
    best = max(naive_score(made, [rule] * 12, metric) for rule in [*rules, Rule(NO_MASK)])
    table = single_table(made, metric)
    gate = best_gate(table)
    numerator, denominator = table.emptied(table.shut_by(Rule(1, gate))).terms(slice(255))
    reached = (numerator.sum(axis=0) / denominator.sum(axis=0))[: gate.top if gate else 255].max()
    assert reached == pytest.approx(best)


@pytest.mark.parametrize(("objects", "alarms", "tops"), [(3, 2, range(110, 181)), (6, 0, [96])])
def test_a_triplet_is_chosen_from_a_plateau_unless_a_peak_stands_out(objects, alarms, tops):
    """At a top of 96 some objects are found that are lost at 97 to 200, and some empty images get a mask."""
    full = np.zeros((10, 10, 1), np.uint8)
    full[2:8, 2:8] = 1
    made = []
    for there, levels in ((True, [96] * objects + [200] * 12), (False, [96] * alarms + [95] * 12)):
        for level in levels:
            maps = full * 60
            maps[4:6, 4:6] = level
            made.append((str(len(made)), maps, full * there))
    gate = best_gate(single_table(made))
    assert gate.top in tops and gate.area <= 4


@pytest.mark.parametrize("metric", ["dice", "dice_global"])
def test_the_largest_error_is_exact_if_groups_are_of_copies_and_else_too_large(metric):
    random = np.random.default_rng(0)
    copies = single_table(images(8, seed=1), metric).of(np.repeat(np.arange(8), 3))
    mixed = replace(copies, groups=random.permutation(copies.groups))
    highest, peak = np.repeat(random.integers(0, 256, 8), 3), copies.terms_at(100)
    score = peak[0].sum() / peak[1].sum()
    for level, threshold in [(1, 60), (128, 100), (200, 30)]:
        changed = peak - copies.emptied(highest < level).terms_at(threshold)
        lost = (changed[0] - score * changed[1]) / peak[1].mean()
        for table in (copies, mixed):
            sums = np.array([lost[table.groups == group].sum() for group in range(8)])
            by_hand = np.sqrt(8 / 7 * (sums**2).sum()) / 24
            error = largest_errors(table, [highest], peak)[0, level - 1, threshold - 1]
            assert error == pytest.approx(by_hand) if table is copies else error > by_hand


def test_triplet_empties_images_without_an_object():
    """Empty truths carry a faint false alarm: only a gate keeps the objects' faint rims and drops the alarms."""
    full = np.zeros((10, 10, 1), np.uint8)
    full[2:8, 2:8] = 1
    with_object, without = full * 60, full * 60
    with_object[4:6, 4:6] = 230
    made = [(str(i), with_object, full) for i in range(6)] + [(f"e{i}", without, full * 0) for i in range(6)]
    folds = np.arange(12) % 3
    plain = choose_thresholds(count_images(made, ["a"]), folds, ThresholdSettings(), None)
    triplet = choose_thresholds(count_images(made, ["a"]), folds, ThresholdSettings(rule="triplet"), None)
    rule = triplet.classes["a"].rule
    assert triplet.mean("nested") == 1 and plain.mean("nested") < 0.7
    assert 61 <= rule.gate.top <= 230 and rule.gate.area <= 4 and rule.threshold <= 60


@pytest.mark.parametrize(("seed", "sign"), [(0, -1), (2, 0), (9, 1)])
def test_a_triplet_is_compared_with_a_threshold_alone(seed, sign):
    """Maps that do not tell empty images from others: three numbers gain on the images they were chosen on."""
    rng = np.random.default_rng(seed)
    square = np.zeros((8, 8, 1), np.uint8)
    square[2:6, 2:6] = 1
    maps = [(rng.integers(0, 120, square.shape) + square * 100).astype(np.uint8) for _ in range(24)]
    counts = count_images([(str(i), found, square * (i % 3 > 0)) for i, found in enumerate(maps)], ["a"])
    kinds = [ThresholdSettings(rule=kind) for kind in ("threshold", "triplet")]
    alone, triplet = (choose_thresholds(counts, np.arange(24) // 8, kind, None) for kind in kinds)
    gain = triplet.mean("nested") - alone.mean("nested")
    assert np.sign(gain) == sign and triplet.mean("in_sample") >= alone.mean("in_sample")
    assert triplet.classes["a"].over_threshold.mean == pytest.approx(gain, abs=1e-12)
    assert f"triplet, nested {gain:+.4f}" in str(triplet) and "triplet, nested" not in str(alone)
    assert ("try threshold.rule=threshold" in str(triplet)) == (gain < 0)
    assert triplet.to_dict()["classes"]["a"]["gain_over_threshold"] == pytest.approx(gain, abs=1e-12)
    assert "gain_over_threshold" not in alone.to_dict()["classes"]["a"]


# ---- what is written


def test_threshold_files(tmp_path):
    made, folds = images(24, classes=2), np.arange(24) % 3
    result = choose_thresholds(count_images(made, ["a", "b"]), folds, ThresholdSettings(rule="triplet"), None)
    write_json(tmp_path / "threshold.json", result.to_dict())
    result.write_curves(tmp_path / "threshold.csv")
    content = json.loads((tmp_path / "threshold.json").read_text())
    assert content["gap"] == pytest.approx(content["in_sample"] - content["nested"])
    chosen = {name: choice.rule for name, choice in result.classes.items()}
    assert read_rules(tmp_path / "threshold.json", ["a", "b"]) == chosen
    exchanged = content | {"classes": dict(reversed(content["classes"].items()))}  # as an editor may sort the keys
    write_json(tmp_path / "sorted.json", exchanged)
    assert list(read_rules(tmp_path / "sorted.json", ["a", "b"]).items()) == list(chosen.items())
    rows = list(csv.DictReader((tmp_path / "threshold.csv").open()))
    assert len(rows) == 2 * 255 and list(rows[0]) == ["class", "threshold", "score", "fold_0", "fold_1", "fold_2"]
    row = next(row for row in rows if row["class"] == "b" and row["threshold"] == "77")
    assert float(row["score"]) == pytest.approx(result.classes["b"].curve[76], abs=1e-6)
    assert float(row["fold_2"]) == pytest.approx(result.classes["b"].fold_curves[2][76], abs=1e-6)
    assert f"{content['nested']:.4f}" in str(result)


def test_a_file_without_rules_is_a_user_error(tmp_path):
    (tmp_path / "threshold.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="threshold.json is damaged"):
        read_rules(tmp_path / "threshold.json", ["a"])


@pytest.mark.parametrize(
    "rule",
    [{"threshold": 0}, {"threshold": 300}, {"threshold": 0.5}, {"threshold": "100"}, {"steps": [{"name": "magic"}]}]
    + [{"gate": {"top": -1, "area": 3}}, {"gate": {"height": 3}}, {"steps": None}],
)
def test_rules_that_make_no_sense_are_a_user_error(tmp_path, rule):
    content = {"classes": {"a": {"rule": Rule(100).to_dict() | rule}}}
    write_json(tmp_path / "threshold.json", content)
    with pytest.raises(UserError, match="threshold.json holds no rules"):
        read_rules(tmp_path / "threshold.json", ["a"])
    with pytest.raises(UserError, match="threshold.json holds no rules"):
        read_rules(tmp_path / "threshold.json", ["b"])


def test_groups_widen_the_interval_and_may_be_names():
    made, folds = images(40), np.arange(40) % 4
    doubled = [(f"{copy}{image_id}", maps, truth) for copy in "ab" for image_id, maps, truth in made]
    counts, names = count_images(doubled, ["a"]), np.array([f"patient {i}" for i in range(40)] * 2)
    alone = choose_thresholds(counts, np.tile(folds, 2), ThresholdSettings(), None)
    grouped = choose_thresholds(counts, np.tile(folds, 2), ThresholdSettings(), names)
    assert np.ptp(grouped.interval) > 1.2 * np.ptp(alone.interval)
