"""Time limit of prediction: how many views and folds the remaining time allows.

Views are dropped first (from d4 to flips, hflip and none), then the models of the highest-numbered folds until one is
left. The time of a pass over a pixel is measured as the images are predicted. If even one view of one model does not
fit, the remaining images get no map, and their masks are empty.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lib.base.errors import plural
from lib.prediction.predictor import TTA_VIEWS

VIEWS = {name: len(views) for name, views in TTA_VIEWS.items()}
CAREFUL = 1.1  # the remaining images are assumed to be this much slower than the last ones


@dataclass(frozen=True)
class ViewsAndFolds:
    """The most views and folds of each member; None: all."""

    views: str | None = None
    folds: int | None = None

    def tta(self, of_member: str) -> str:
        """The views of a member whose settings say `of_member`."""
        return of_member if self.views is None else min(of_member, self.views, key=VIEWS.__getitem__)

    def count(self, trained: int) -> int:
        """The number of folds used of those `trained`."""
        return trained if self.folds is None else min(trained, self.folds)

    def passes(self, members: list[tuple[str, int]]) -> int:
        """Passes of a pixel through the networks; `members` holds the views and the number of folds of each member."""
        return sum(VIEWS[self.tta(views)] * self.count(folds) for views, folds in members)

    def __str__(self) -> str:
        parts = [f"views {self.views}"] if self.views else []
        parts += [plural(self.folds, "fold")] if self.folds else []
        return " and ".join(parts) or "all views and folds"


def choices_of(members: list[tuple[str, int]]) -> list[ViewsAndFolds]:
    """The choices of a time budget, from everything to one view of one fold."""
    most_views = max(VIEWS[views] for views, _ in members)
    most_folds = max(folds for _, folds in members)
    fewer_views = [ViewsAndFolds(views) for views in ("flips", "hflip", "none") if VIEWS[views] < most_views]
    return [ViewsAndFolds(), *fewer_views, *(ViewsAndFolds("none", folds) for folds in range(most_folds - 1, 0, -1))]


@dataclass
class TimeBudget:
    """Chooses the views and folds for each part of the images; without `seconds` always all."""

    seconds: float | None
    members: list[tuple[str, int]]  # views and number of folds of each
    started: float  # by the clock
    clock: Callable[[], float]
    pixels: float = 0  # still to be predicted, as the networks see them
    all_pixels: int = 0  # of which masks are to be written
    writing: float = 0.0  # seconds per pixel for the masks
    per_pass: float = 0.0  # seconds per pixel and pass, in the last part

    def __post_init__(self) -> None:
        self.choices = choices_of(self.members)

    def choose(self) -> ViewsAndFolds | None:
        """The first choice that fits into the remaining time, else the last; None if no time is left."""
        if self.seconds is None:
            return self.choices[0]
        left = self.seconds - (self.clock() - self.started) - self.writing * self.all_pixels
        if left <= 0:
            return None
        for used in self.choices:
            if CAREFUL * self.per_pass * used.passes(self.members) * self.pixels <= left:
                return used
        return self.choices[-1]

    def spent(self, pixels: int, used: ViewsAndFolds, seconds: float) -> None:
        """Record how long a part of the images took."""
        self.per_pass = seconds / (pixels * used.passes(self.members))
        self.pixels -= pixels
