"""Views, then folds are dropped, as many as the time left asks for; times by a clock that the test turns."""

import pytest

from lib.deploy.time_budget import CAREFUL, Level, TimeBudget, levels_of


def budget(seconds: float | None, members: list[tuple[str, int]], pixels: int = 1000) -> tuple[TimeBudget, list[float]]:
    now = [100.0]
    made = TimeBudget(seconds, members, 100.0, lambda: now[0], pixels=pixels, all_pixels=pixels)
    return made, now


def test_views_are_dropped_before_folds():
    levels = levels_of([("d4", 3)])
    assert list(map(str, levels)) == [
        "all views and folds",
        "views flips",
        "views hflip",
        "views none",
        "views none and 2 folds",
        "views none and 1 fold",
    ]
    assert [level.passes([("d4", 3)]) for level in levels] == [24, 12, 6, 3, 2, 1]


def test_a_member_with_fewer_views_and_folds_keeps_them():
    members = [("hflip", 2), ("flips", 5)]
    assert [level.passes(members) for level in levels_of(members)] == [24, 14, 7, 6, 5, 4, 2]


def test_without_a_limit_nothing_is_dropped():
    made, now = budget(None, [("flips", 5)])
    made.spent(10, Level(), 1e9)
    now[0] += 1e9
    assert made.level() == Level()


@pytest.mark.parametrize(
    ("seconds_left", "level"),
    [
        (20 * 0.9 * CAREFUL + 0.1, Level()),  # 900 pixels, 20 passes each, a millisecond a pass
        (10 * 0.9 * CAREFUL + 0.1, Level("hflip")),
        (5 * 0.9 * CAREFUL + 0.1, Level("none")),
        (2 * 0.9 * CAREFUL + 0.1, Level("none", 2)),
        (0.1, Level("none", 1)),  # too short for all, but a start
        (0, None),
    ],
)
def test_the_first_level_that_fits_is_taken(seconds_left, level):
    made, now = budget(100, [("flips", 5)])
    assert made.level() == Level()  # nothing is measured yet
    made.spent(100, Level(), 100 * 20 * 0.001)
    now[0] += 100 - seconds_left
    assert made.level() == level


def test_time_for_writing_is_kept_back():
    made, now = budget(100, [("none", 1)])
    made.writing = 0.05  # 50 s for the 1000 pixels
    now[0] += 51
    assert made.level() is None
