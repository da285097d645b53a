"""The presence gate: which presence is asked for, what that gains, and when it is adopted."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lib.base.errors import UserError
from lib.base.files import write_json
from lib.config.schema import PostprocessSettings, ThresholdSettings
from lib.masks.metrics import Counts, Metric, count_images
from lib.masks.objects import ObjectRule, Split
from lib.masks.rules import Gate, Rule, Step, apply_rules, read_rules
from lib.tuning import gate_search
from lib.tuning.gate_search import gated_scores
from lib.tuning.morphology_search import search_morphology
from lib.tuning.presence import best_presence, separation
from lib.tuning.score_table import ScoreTable
from lib.tuning.thresholds import choose_thresholds
from tests.by_hand import dice_by_hand
from tests.tuning.test_thresholds import images

LEVELS = np.arange(1, 256)


def with_presence(made, *classes: np.ndarray) -> Counts:
    """The counts of the images, and the presence of each class in them."""
    names = [f"class{number}" for number in range(len(classes))]
    return replace(count_images(made, names), presence=np.stack(classes, axis=1).astype(np.uint8))


def false_alarms(count: int, classes: int = 1) -> tuple[list, np.ndarray]:
    """Images of which two in three are empty, with maps that find as much in those as in the others; which are not."""
    random, made = np.random.default_rng(5), []
    is_there = np.arange(count) % 3 == 0
    for number in range(count):
        blob = (random.random((8, 9, classes)) < 0.4).astype(np.uint8)
        maps = np.clip(blob * 120 + random.normal(60, 20, blob.shape), 0, 255).astype(np.uint8)
        made.append((f"image{number}", maps, blob * is_there[number]))
    return made, is_there


def score_by_hand(metric: str, made, rules: list[Rule], presence: np.ndarray, class_index: int = 0) -> float:
    """The metric of one class, written from scratch; rules and presence are one for each image."""
    pairs = []
    for (_, maps, truth), rule, of_image in zip(made, rules, presence.tolist(), strict=True):
        mask = maps[..., class_index] >= rule.threshold
        if rule.gate and (maps[..., class_index] >= rule.gate.top).sum() < rule.gate.area:
            mask[:] = False
        if rule.presence is not None and of_image < rule.presence:
            mask[:] = False
        pairs.append((mask, truth[..., class_index] == 1))
    if metric == "dice_global":
        return 2 * sum((m & t).sum() for m, t in pairs) / sum(m.sum() + t.sum() for m, t in pairs)
    return float(np.mean([dice_by_hand(*pair) for pair in pairs]))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("metric", ["dice", "dice_global"])
def test_the_presence_is_chosen_among_all_pairs_with_a_threshold(metric, seed, monkeypatch):
    made, random = images(16, seed=seed), np.random.default_rng(seed)
    there = np.array([truth.any() for *_, truth in made])
    presence = np.clip(random.normal(np.where(there, 150, 110), 50), 0, 255).astype(int)
    table = ScoreTable.of_class(with_presence(made, presence), 0, Metric(metric), np.arange(16))

    by_hand = np.empty((255, 255))
    for threshold in LEVELS:
        masks = [maps[..., 0] >= threshold for _, maps, _ in made]
        truths = [truth[..., 0] == 1 for *_, truth in made]
        hits = np.array([2 * (m & t).sum() for m, t in zip(masks, truths, strict=True)])
        open_size = np.array([m.sum() + t.sum() for m, t in zip(masks, truths, strict=True)])
        shut_size = np.array([t.sum() for t in truths])
        is_open = presence >= LEVELS[:, None]  # (asked, images)
        found, size = np.where(is_open, hits, 0), np.where(is_open, open_size, shut_size)
        if metric == "dice_global":
            by_hand[:, threshold - 1] = found.sum(axis=1) / size.sum(axis=1)
        else:
            by_hand[:, threshold - 1] = np.where(size == 0, 1, found / np.maximum(size, 1)).mean(axis=1)
    np.testing.assert_allclose(gated_scores(table, [table.presence])[0], by_hand, atol=1e-12)

    alone = max(table.scores().max(), score_by_hand(metric, made, [Rule(256)] * 16, presence))
    asked, column = best_presence(table), int(np.unravel_index(by_hand.argmax(), by_hand.shape)[1])
    if by_hand.max() <= alone + 1e-12:
        assert asked is None
        return
    assert by_hand[asked - 1].max() >= by_hand.max() - 0.1
    assert by_hand[asked - 1, column] > table.scores()[column]
    monkeypatch.setattr(gate_search, "TOLERANCE", 0)  # none but the best counts
    assert by_hand[best_presence(table) - 1].max() == pytest.approx(by_hand.max())


def test_of_presences_that_do_equally_well_the_middle_is_asked_for():
    made, there = false_alarms(30)
    presence = np.where(there, 200, 100)
    table = ScoreTable.of_class(with_presence(made, presence), 0, Metric(), np.arange(30))
    # 101 to 200 are one plateau; of it, 119 to 186 have no other level within .3 logits.
    assert best_presence(table) == 152
    assert best_presence(replace(table, presence=np.full(30, 255, np.uint8))) is None
    assert best_presence(replace(table, presence=None)) is None


@pytest.mark.parametrize("kind", ["threshold", "triplet"])
@pytest.mark.parametrize("metric", ["dice", "dice_global"])
def test_a_presence_that_tells_empty_images_is_adopted_and_scored_as_by_hand(metric, kind, tmp_path):
    made, there = false_alarms(36)
    presence, folds = np.where(there, 220, 40) + np.arange(36) % 7, np.arange(36) // 3 % 3
    presence[::9] = 120
    settings = ThresholdSettings(metric=metric, rule=kind, bootstrap=100)
    result = choose_thresholds(with_presence(made, presence), folds, settings, None)
    choice, alone = result.classes["class0"], choose_thresholds(count_images(made, ["class0"]), folds, settings, None)
    assert choice.rule.presence is not None and choice.presence.reason_against == ""
    assert choice.in_sample == pytest.approx(score_by_hand(metric, made, [choice.rule] * 36, presence))
    nested = score_by_hand(metric, made, [choice.without_part[fold] for fold in folds], presence)
    assert choice.nested == pytest.approx(nested)
    assert choice.presence.nested == pytest.approx((alone.mean("nested"), nested))
    assert choice.curve[choice.rule.threshold - 1] == pytest.approx(choice.in_sample)
    assert f"empty where presence < {choice.rule.presence}" in str(result) and "; adopted" in str(result)
    write_json(tmp_path / "threshold.json", result.to_dict())
    assert read_rules(tmp_path / "threshold.json", ["class0"]) == {"class0": choice.rule}


def test_a_presence_that_tells_nothing_is_refused_with_the_reason_and_changes_nothing():
    made, _ = false_alarms(36)
    presence, folds = np.random.default_rng(0).integers(0, 256, 36), np.arange(36) // 3 % 3
    result = choose_thresholds(with_presence(made, presence), folds, ThresholdSettings(bootstrap=100), None)
    alone = choose_thresholds(count_images(made, ["class0"]), folds, ThresholdSettings(bootstrap=100), None)
    choice, before = result.classes["class0"], alone.classes["class0"]
    assert choice.presence.reason_against and choice.presence.reason_against in str(result)
    assert choice.rule == before.rule and choice.without_part == before.without_part
    assert np.array_equal(choice.nested_terms, before.nested_terms) and result.interval == alone.interval
    without = result.to_dict()
    assert without["classes"]["class0"].pop("presence")["reason_against"]
    assert without == alone.to_dict()


def test_presence_is_tried_with_the_maps_of_one_fold_too():
    made, there = false_alarms(40)
    result = choose_thresholds(
        with_presence(made, np.where(there, 200, 20)), np.zeros(40, int), ThresholdSettings(), None
    )
    choice = result.classes["class0"]
    rules = [choice.without_part[part] for part in result.parts.tolist()]
    assert choice.rule.presence is not None
    assert choice.nested == pytest.approx(score_by_hand("dice", made, rules, np.where(there, 200, 20)))


def test_each_class_has_a_presence_of_its_own_and_one_that_is_never_there_has_none():
    made, there = false_alarms(36, classes=2)
    for _, maps, truth in made:
        truth[..., 1], maps[0, 0, 1] = 0, 255
    folds, told = np.arange(36) // 3 % 3, np.where(there, 220, 30)
    result = choose_thresholds(with_presence(made, told, told), folds, ThresholdSettings(bootstrap=100), None)
    first, second = result.classes.values()
    assert first.rule.presence is not None
    assert second.rule.is_empty and second.rule.presence is None and second.presence.area is None
    assert second.presence.reason_against and second.nested == 1
    rules = {name: choice.rule for name, choice in result.classes.items()}
    masks = apply_rules(rules, made[0][1], np.array([first.rule.presence, 255], np.uint8))
    shut = apply_rules(rules, made[0][1], np.array([first.rule.presence - 1, 255], np.uint8))
    assert masks[..., 0].any() and not masks[..., 1].any() and not shut.any()


def test_morphology_starts_from_the_gate_and_scores_are_those_of_the_masks():
    made, there = false_alarms(24)
    presence = np.where(there, 220, 40)
    counts, folds, groups = with_presence(made, presence), np.arange(24) // 3 % 3, np.arange(24)
    settings = PostprocessSettings(steps=["opening", "remove"], radii=[1], areas=[2, 4])
    by_id = {image_id: (image_id, maps, truth) for image_id, maps, truth in made}
    read = partial(map, by_id.__getitem__)
    outcome = search_morphology(read, counts, folds, groups, ThresholdSettings(bootstrap=100), settings).classes[
        "class0"
    ]
    assert outcome.before.rule.presence is not None
    assert all(f"presence < {outcome.before.rule.presence}" in row["rule"] for row in outcome.tried)

    def scored(rules: list[Rule]) -> float:
        return np.mean(
            [
                dice_by_hand(rule.apply(maps[..., 0], of_image), truth[..., 0])
                for rule, (_, maps, truth), of_image in zip(rules, made, presence, strict=True)
            ]
        )

    assert outcome.scores("after")["in_sample"] == pytest.approx(scored([outcome.rule] * 24))
    assert float(outcome.shown_terms[0].mean()) == pytest.approx(scored([outcome.shown] * 24))
    without_part = scored([outcome.selected_without_part[fold] for fold in folds])
    assert outcome.gain.mean == pytest.approx(without_part - outcome.scores("before")["nested"])


@pytest.mark.parametrize("seed", range(5))
def test_the_separation_is_the_share_of_pairs_in_the_right_order(seed):
    random = np.random.default_rng(seed)
    presence, there = random.integers(0, 12, 30), random.random(30) < 0.4
    pairs = [(present > absent) + (present == absent) / 2 for present in presence[there] for absent in presence[~there]]
    assert separation(presence, there) == pytest.approx(np.mean(pairs))
    assert separation(presence, np.ones(30, bool)) is None


def test_a_rule_that_asks_for_presence_is_never_applied_without_it():
    maps = np.full((3, 4), 200, np.uint8)
    rule = Rule(100, Gate(150, 2), (Step("largest"),), presence=37)
    assert str(rule) == "t=100, empty where presence < 37, empty unless 2 px >= 150, largest only"
    assert Rule.from_dict(rule.to_dict()) == rule and "presence" not in Rule(100).to_dict()
    assert rule.apply(maps, 37).all() and not rule.apply(maps, 36).any()
    objects = ObjectRule(rule, Split("depth", 2))
    assert objects.apply(maps, 37).all() and not objects.apply(maps, 36).any()
    for needy in (rule, objects):
        with pytest.raises(UserError, match="asks for presence"):
            needy.apply(maps)
    with pytest.raises(ValueError, match="levels"):
        Rule.from_dict(rule.to_dict() | {"presence": 0})
