import json

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib.base.errors import UserError
from lib.config.schema import PostprocessSettings, ThresholdSettings
from lib.masks.components import MaskStack
from lib.masks.metrics import count_images, dice
from lib.masks.rules import Rule, Step
from lib.tuning.morphology_candidates import GRID, Candidates
from lib.tuning.morphology_search import search_morphology
from lib.tuning.thresholds import choose_thresholds

ALL_STEPS = PostprocessSettings(
    steps=["opening", "closing", "dilation", "erosion", "fill", "remove", "largest", "hull"],
    radii=[2],
    areas=[3, 12],
)
FEW_STEPS = PostprocessSettings(steps=["opening", "remove", "fill"], radii=[1, 2], areas=[4, 16])


def blobs(count: int, specks: float, seed: int = 0, side: int = 40) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(id, map, truth) of smooth blobs; the map has `specks` false alarms of 2 x 2 pixels per 100 pixels."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        height = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), 5)
        truth = (height > height.std()).astype(np.uint8)
        found = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), 3)
        probability_map = 128 + 250 * (height - height.std()) / np.abs(height).max() + 400 * found
        for y, x in rng.integers(0, side - 2, (int(specks * side**2 / 100), 2)):
            probability_map[y : y + 2, x : x + 2] = 255 * (1 - truth[y, x])
        made.append((f"image{number}", np.clip(probability_map, 0, 255).astype(np.uint8)[..., None], truth[..., None]))
    return made


def search(made, settings=FEW_STEPS, threshold_settings=None, folds=None, groups=None):
    """The search on images of one class in three folds, unless said otherwise."""
    folds = np.arange(len(made)) % 3 if folds is None else folds
    groups = np.arange(len(made)) if groups is None else groups
    counts = count_images(made, ["mask"])
    thresholds = threshold_settings or ThresholdSettings()
    return search_morphology(reader(made), counts, folds, groups, thresholds, settings)


def reader(made):
    """A function that reads the pairs by their ids."""
    pairs = {pair[0]: pair for pair in made}
    return lambda ids: (pairs[image_id] for image_id in ids)


def naive_dice(made, rules: list[Rule]) -> np.ndarray:
    scores = []
    for (_, maps, truth), rule in zip(made, rules, strict=True):
        mask = rule.apply(maps[..., 0])
        size = int(mask.sum()) + int(truth.sum())
        scores.append(2 * int((mask & truth[..., 0]).sum()) / size if size else 1.0)
    return np.array(scores)


@given(seed=st.integers(0, 10**9), height=st.integers(1, 16), width=st.integers(1, 16), blur=st.floats(0, 1.5))
@example(seed=19002048, height=3, width=13, blur=0.0)  # filled components of equal area: the first is the largest
@settings(max_examples=8, deadline=None)
def test_counts_of_every_candidate_equal_applying_its_rule(seed, height, width, blur):
    rng = np.random.default_rng(seed)
    probability_map = rng.choice([0, 0, 60, 110, 128, 160, 200, 255], (height, width)).astype(np.uint8)
    if blur > 0.3:
        probability_map = cv2.GaussianBlur(probability_map, (0, 0), blur)
    truth = (rng.random((height, width)) < 0.3).astype(np.uint8)
    require_counts_of_drawn_masks(probability_map, truth, at_all=(1, 100, 128, 255), on_grid=GRID)


def require_counts_of_drawn_masks(probability_map, truth, at_all, on_grid) -> None:
    """True and false positives of every combination of steps are those of its masks, drawn at some thresholds."""
    candidates = Candidates.build(ALL_STEPS)
    tp, fp = candidates.count(probability_map, truth)
    before = 0
    for steps, thresholds in candidates.blocks:
        for threshold in at_all if len(thresholds) == 255 else on_grid:
            column = before + np.flatnonzero(thresholds == threshold)[0]
            mask = Rule(int(threshold), steps=steps).apply(probability_map)
            expected = [(mask & truth).sum(), (mask & ~truth & 1).sum()]
            assert [tp[column], fp[column]] == expected, (str(steps), threshold)
        before += len(thresholds)


@pytest.mark.parametrize("place", [np.s_[20:29, 30:44], np.s_[0:9, 0:14], np.s_[51:60, 66:80], np.s_[0:60, 70:79]])
def test_counts_of_a_map_that_is_empty_but_for_a_part_are_those_of_the_whole(place):
    """The part's blobs have holes, open to the image's border or to the empty rest, and grow with the radius steps."""
    rng = np.random.default_rng(0)
    probability_map, truth = rng.integers(0, 16, (60, 80), np.uint8), (rng.random((60, 80)) < 0.3).astype(np.uint8)
    probability_map[place] = rng.choice([0, 60, 128, 200, 255, 255], probability_map[place].shape)
    require_counts_of_drawn_masks(probability_map, truth, at_all=(1, 100), on_grid=GRID[[0, 7, 14]])


def test_an_empty_map_has_no_pixels_after_any_step():
    truth = np.ones((30, 40), np.uint8)
    candidates = Candidates.build(ALL_STEPS)
    counts = candidates.count(np.full((30, 40), 15, np.uint8), truth)
    assert not counts[:, 255 * len(candidates.radius) :].any()


def test_counts_do_not_depend_on_how_many_masks_are_counted_at_once(monkeypatch):
    _, probability_map, truth = blobs(1, specks=2)[0]
    candidates, pixels = Candidates.build(ALL_STEPS), truth.size
    at_once = candidates.count(probability_map[..., 0], truth[..., 0])
    for masks in (1, 7):
        monkeypatch.setattr("lib.tuning.morphology_candidates.BATCH_PIXELS", masks * pixels)
        in_batches = candidates.count(probability_map[..., 0], truth[..., 0])
        assert np.array_equal(at_once, in_batches)


@pytest.mark.parametrize("rows", [1, 128, 256])
def test_a_hole_joins_the_component_that_it_touches_in_many_rows(rows):
    ring = np.ones((1, rows + 2, 6), np.uint8)
    ring[0, 1:-1, 1:5] = 0
    holes, filled, part_of = MaskStack(ring, ring[0]).filled()
    assert (holes.area.tolist(), filled.area.tolist(), part_of.tolist()) == ([4 * rows], [ring.size], [0])


def test_candidates_hold_every_combination_once():
    candidates = Candidates.build(PostprocessSettings())
    combinations = [first + then for first in candidates.radius for then in candidates.component_steps]
    assert len(combinations) == len(set(combinations)) >= 200
    nothing = Candidates.build(PostprocessSettings(steps=[]))
    assert nothing.radius == nothing.component_steps == [()]


@pytest.mark.parametrize("rule", ["threshold", "triplet"])
def test_reported_scores_equal_a_naive_twin(rule):
    made = blobs(18, specks=1.5)
    result = search(made, threshold_settings=ThresholdSettings(rule=rule))
    outcome, folds = result.classes["mask"], np.arange(18) % 3
    thresholds = choose_thresholds(count_images(made, ["mask"]), folds, ThresholdSettings(rule=rule), None).classes[
        "mask"
    ]
    assert outcome.rule.steps
    nested, in_sample = thresholds.nested, thresholds.in_sample
    expected = {"nested": nested, "in_sample": in_sample, "gap": in_sample - nested}
    assert outcome.scores("before") == pytest.approx(expected)
    before, after = naive_dice(made, [thresholds.rule] * 18), naive_dice(made, [outcome.rule] * 18)
    assert outcome.scores("after")["in_sample"] == pytest.approx(after.mean(), abs=1e-6)
    assert outcome.image_gain == pytest.approx(after - before, abs=1e-6)
    assert outcome.shown == outcome.rule and result.shown_gain == pytest.approx(after - before, abs=1e-6)
    nested_after = naive_dice(made, [outcome.without_part[fold] for fold in folds])
    gains = nested_after - naive_dice(made, [thresholds.without_part[fold] for fold in folds])
    assert outcome.scores("after")["nested"] == pytest.approx(nested_after.mean(), abs=1e-6)
    assert outcome.scores("after")["gap"] == pytest.approx(after.mean() - nested_after.mean(), abs=1e-6)
    assert outcome.gain.mean == pytest.approx(gains.mean(), abs=1e-6)
    assert outcome.gain.standard_error == pytest.approx(gains.std(ddof=1) / np.sqrt(18), abs=1e-6)


def test_the_best_of_each_family_equals_trying_all_its_rules():
    made = blobs(9, specks=1.5)
    settings = PostprocessSettings(steps=["opening", "remove"], radii=[1, 2], areas=[4, 16])
    result = search(made, settings)
    tried = {tuple(row["steps"]): row for row in result.classes["mask"].tried}
    rules = {(): 255, ("opening",): 2 * 255, ("remove",): 2 * len(GRID), ("opening", "remove"): 4 * len(GRID)}
    assert {family: row["rules"] for family, row in tried.items()} == rules
    alone = naive_dice(made, [Rule(threshold_of(tried[()]))] * 9).mean()
    for steps in (
        [[("remove", 4)], [("remove", 16)]],
        [[("opening", r), ("remove", a)] for r in (1, 2) for a in (4, 16)],
    ):
        rules = [Rule(int(t), steps=tuple(Step(*step) for step in each)) for each in steps for t in GRID]
        best = max(naive_dice(made, [rule] * 9).mean() for rule in rules)
        assert tried[tuple(name for name, _ in steps[0])]["in_sample_gain"] == pytest.approx(best - alone, abs=2e-3)


def threshold_inputs(made):
    return count_images(made, ["mask"]), np.arange(len(made)) % 3, ThresholdSettings()


def threshold_of(row: dict) -> int:
    return int(row["rule"].removeprefix("t=").split(",")[0])


def test_specks_are_removed_and_the_gain_holds_on_new_images():
    made, new = blobs(30, specks=1.5), blobs(30, specks=1.5, seed=1)
    result = search(made)
    outcome = result.classes["mask"]
    assert outcome.rule.steps and outcome.gain.mean > 3 * outcome.gain.standard_error
    plain = Rule(threshold_of(next(row for row in outcome.tried if not row["steps"])))
    gain = (naive_dice(new, [outcome.rule] * 30) - naive_dice(new, [plain] * 30)).mean()
    assert gain == pytest.approx(outcome.gain.mean, abs=4 * outcome.gain.standard_error)


def test_nothing_is_adopted_where_steps_do_not_help():
    """The truth is the thresholded map itself, with a few percent of independent noise: no step can help."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(18):
        maps = rng.integers(0, 256, (24, 24, 1), dtype=np.uint8)
        made.append((f"image{number}", maps, ((maps >= 128) ^ (rng.random(maps.shape) < 0.05)).astype(np.uint8)))
    result = search(made)
    outcome = result.classes["mask"]
    assert outcome.rule == choose_thresholds(*threshold_inputs(made), None).classes["mask"].rule
    assert outcome.scores("after") == outcome.scores("before") and not outcome.image_gain.any()
    assert "no step adopted" in str(result)
    assert outcome.shown.steps and str(outcome.shown) == next(row["rule"] for row in outcome.tried if row["steps"])
    worse = naive_dice(made, [outcome.shown] * 18) - naive_dice(made, [outcome.rule] * 18)
    assert result.shown_gain == pytest.approx(worse, abs=1e-6)


def test_a_fold_does_not_influence_the_rule_it_is_scored_with():
    """Fold 1 gets specks that the others do not have: only what is selected with it changes."""
    folds = np.arange(24) % 3
    clean, specked = blobs(24, specks=0), blobs(24, specks=4)
    changed = [dirty if fold == 1 else item for fold, item, dirty in zip(folds, clean, specked, strict=True)]
    before, after = (search(each).classes["mask"] for each in (clean, changed))
    assert before.selected_without_part[1] == after.selected_without_part[1]
    assert (
        before.selected_without_part[0] != after.selected_without_part[0]
        and before.selected_without_part[2] != after.selected_without_part[2]
    )


def test_standard_errors_are_those_of_groups():
    """Every image twice: copies in one group add no certainty, copies that pass for images of their own do."""
    once, folds = blobs(18, specks=1.5), np.tile(np.arange(18) % 3, 2)
    twice = [(f"{copy}{image_id}", maps, truth) for copy in "ab" for image_id, maps, truth in once]
    counts = count_images(twice, ["mask"])
    grouped, apart = np.tile(np.arange(18), 2), np.arange(36)
    outcomes = [search(twice, folds=folds, groups=groups).classes["mask"] for groups in (grouped, apart)]
    for outcome, groups, independent in zip(outcomes, (grouped, apart), (18, 36), strict=True):
        alone = choose_thresholds(counts, folds, ThresholdSettings(), groups).classes["mask"].without_part
        before, after = (naive_dice(twice, [r[fold] for fold in folds]) for r in (alone, outcome.selected_without_part))
        gains = (after - before).reshape(-1, independent).mean(axis=0)  # of each group
        assert outcome.gain.standard_error == pytest.approx(gains.std(ddof=1) / np.sqrt(independent), abs=1e-6)
    single = search(once).classes["mask"]
    assert (outcomes[0].rule, outcomes[0].gain.mean) == (single.rule, pytest.approx(single.gain.mean))


def test_classes_are_chosen_apart():
    specked, clean = blobs(18, specks=2), blobs(18, specks=0, seed=5)
    made = [
        (image_id, np.concatenate([maps, other], axis=2), np.concatenate([truth, other_truth], axis=2))
        for (image_id, maps, truth), (_, other, other_truth) in zip(specked, clean, strict=True)
    ]
    folds, groups = np.arange(18) % 3, np.arange(18)
    counts = count_images(made, ["a", "b"])
    both = search_morphology(reader(made), counts, folds, groups, ThresholdSettings(), FEW_STEPS)
    for name, alone in ("a", specked), ("b", clean):
        assert both.classes[name].rule == search(alone).classes["mask"].rule
    assert both.classes["a"].rule.steps
    assert both.mean("after", "nested") == pytest.approx(
        np.mean([outcome.scores("after")["nested"] for outcome in both.classes.values()])
    )
    content = json.loads(json.dumps(both.to_dict()))
    assert content["after"]["nested"] == both.mean("after", "nested")
    assert Rule.from_dict(content["classes"]["a"]["rule"]) == both.classes["a"].rule


def test_pooled_metric_is_searched_by_pooled_pixels():
    made = blobs(18, specks=1.5)
    result = search(made, threshold_settings=ThresholdSettings(metric="dice_global"))
    outcome = result.classes["mask"]
    masks = [(outcome.rule.apply(maps[..., 0]), truth[..., 0]) for _, maps, truth in made]
    tp, predicted, positives = np.sum([((m & t).sum(), m.sum(), t.sum()) for m, t in masks], axis=0)
    expected = dice(tp, predicted - tp, positives - tp)
    assert outcome.rule.steps and outcome.scores("after")["in_sample"] == pytest.approx(float(expected), abs=1e-6)


def test_without_steps_nothing_is_read_and_two_folds_are_enough():
    def unreadable(ids):
        raise AssertionError("the maps were read")

    made, folds = blobs(8, specks=1), np.arange(8) % 2
    settings = PostprocessSettings(steps=[])
    counts = count_images(made, ["mask"])
    result = search_morphology(unreadable, counts, folds, np.arange(8), ThresholdSettings(), settings)
    assert (
        result.classes["mask"].rule == choose_thresholds(counts, folds, ThresholdSettings(), None).classes["mask"].rule
    )
    assert result.mean("after", "nested") == result.mean("before", "nested")


@pytest.mark.parametrize("count", [1, 2])
def test_of_few_folds_parts_are_left_out(count):
    """The scores are those of each image at the rule selected on other groups."""
    made, folds = blobs(20, specks=1.5), np.arange(20) % count
    result = search(made, folds=folds)
    outcome = result.classes["mask"]
    parts = choose_thresholds(count_images(made, ["mask"]), folds, ThresholdSettings(), None).parts
    nested = naive_dice(made, [outcome.without_part[part] for part in parts])
    assert outcome.rule.steps and outcome.scores("after")["nested"] == pytest.approx(nested.mean())


def test_user_errors():
    made = blobs(6, specks=1)
    with pytest.raises(UserError, match="at least three images"):
        search(made[:2], folds=np.arange(2))
    counts, folds = count_images(made, ["mask"]), np.arange(6) % 3
    arguments = (counts, folds, np.arange(6), ThresholdSettings(), FEW_STEPS)
    changed = [*made[:5], ("image5", 255 - made[5][1], made[5][2])]
    with pytest.raises(UserError, match="image5 is not the one counted"):
        search_morphology(reader(changed), *arguments)


def test_folds_that_a_sample_would_miss_are_searched_too(monkeypatch):
    """Six images drawn at random are of six of the ten folds at most."""
    monkeypatch.setattr("lib.tuning.morphology_search.SEARCHED", 6)
    made, folds = blobs(30, specks=1.5), np.arange(30) % 10
    outcome = search(made, folds=folds).classes["mask"]
    nested = naive_dice(made, [outcome.without_part[fold] for fold in folds])
    assert outcome.rule.steps and outcome.scores("after")["nested"] == pytest.approx(nested.mean())


@pytest.mark.parametrize("rule", ["threshold", "triplet"])
def test_of_many_images_a_sample_is_searched_and_all_are_scored(rule, monkeypatch):
    """The search reads 12 of 30 images; the scores are those of masks drawn on all."""
    monkeypatch.setattr("lib.tuning.morphology_search.SEARCHED", 12)
    made, folds, streams = blobs(30, specks=1.5), np.arange(30) % 3, []

    def read(ids):
        streams.append(list(ids))
        return reader(made)(ids)

    counts, thresholds = count_images(made, ["mask"]), ThresholdSettings(rule=rule)
    result = search_morphology(read, counts, folds, np.arange(30), thresholds, FEW_STEPS)
    assert [len(stream) for stream in streams] == [12, 30]
    outcome = result.classes["mask"]
    alone = choose_thresholds(counts, folds, thresholds, None).classes["mask"]
    assert outcome.rule.steps and outcome.before.rule == alone.rule
    assert outcome.scores("before")["nested"] == alone.nested
    assert outcome.scores("after")["in_sample"] == pytest.approx(naive_dice(made, [outcome.rule] * 30).mean())
    nested = naive_dice(made, [outcome.without_part[fold] for fold in folds])
    assert outcome.scores("after")["nested"] == pytest.approx(nested.mean())
    gains = nested - naive_dice(made, [alone.without_part[fold] for fold in folds])
    assert (outcome.gain.mean, outcome.gain.standard_error) == pytest.approx(
        (gains.mean(), gains.std(ddof=1) / np.sqrt(30))
    )
