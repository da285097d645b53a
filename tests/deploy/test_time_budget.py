"""Views, then folds are dropped, as many as the time left asks for; times by a clock that the test turns."""

import pytest

from lib.deploy.time_budget import CAREFUL, TimeBudget, ViewsAndFolds, choices_of


def budget(seconds: float | None, members: list[tuple[str, int]], pixels: int = 1000) -> tuple[TimeBudget, list[float]]:
    now = [100.0]
    made = TimeBudget(seconds, members, 100.0, lambda: now[0], pixels=pixels, all_pixels=pixels)
    return made, now


def test_views_are_dropped_before_folds():
    choices = choices_of([("d4", 3)])
    assert list(map(str, choices)) == [
        "all views and folds",
        "views flips",
        "views hflip",
        "views none",
        "views none and 2 folds",
        "views none and 1 fold",
    ]
    assert [used.passes([("d4", 3)]) for used in choices] == [24, 12, 6, 3, 2, 1]


def test_a_member_with_fewer_views_and_folds_keeps_them():
    members = [("hflip", 2), ("flips", 5)]
    assert [used.passes(members) for used in choices_of(members)] == [24, 14, 7, 6, 5, 4, 2]


def test_without_a_limit_nothing_is_dropped():
    made, now = budget(None, [("flips", 5)])
    made.spent(10, ViewsAndFolds(), 1e9)
    now[0] += 1e9
    assert made.choose() == ViewsAndFolds()


@pytest.mark.parametrize(
    ("seconds_left", "chosen"),
    [
        (20 * 0.9 * CAREFUL + 0.1, ViewsAndFolds()),  # 900 pixels, 20 passes each, a millisecond a pass
        (10 * 0.9 * CAREFUL + 0.1, ViewsAndFolds("hflip")),
        (5 * 0.9 * CAREFUL + 0.1, ViewsAndFolds("none")),
        (2 * 0.9 * CAREFUL + 0.1, ViewsAndFolds("none", 2)),
        (0.1, ViewsAndFolds("none", 1)),  # too short for all, but a start
        (0, None),
    ],
)
def test_the_first_choice_that_fits_is_taken(seconds_left, chosen):
    made, now = budget(100, [("flips", 5)])
    assert made.choose() == ViewsAndFolds()  # nothing is measured yet
    made.spent(100, ViewsAndFolds(), 100 * 20 * 0.001)
    now[0] += 100 - seconds_left
    assert made.choose() == chosen


def test_time_for_writing_is_kept_back():
    made, now = budget(100, [("none", 1)])
    made.writing = 0.05  # 50 s for the 1000 pixels
    now[0] += 51
    assert made.choose() is None
