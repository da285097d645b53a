"""A finished run in memory, for notebooks and programs: an image goes in, a mask comes out."""

from pathlib import Path

import numpy as np

from lib.base.errors import UserError
from lib.masks.rules import apply_rules
from lib.prediction.ensemble import average_predictions
from lib.prediction.map_store import Prediction, decided
from lib.prediction.run_maps import build_predictor
from lib.submission.finished import FinishedRun, open_finished


class LoadedRun:
    """The models and rules of a run after 03, or of a bundle, on the best device there is.

    `classes` names the last axis of what it returns.
    """

    def __init__(self, finished: FinishedRun) -> None:
        self.settings, self.rules = finished.settings, finished.rules
        self.classes = finished.settings.data.classes
        self.weights = [member.weight for member in finished.members]
        self.predictors = [
            build_predictor(member.run, member.settings, self.classes, member.folds) for member in finished.members
        ]

    @classmethod
    def open(cls, root: Path, folds: list[int] | None = None) -> "LoadedRun":
        """Load a run, or of `folds` only. Raises UserError where nothing is trained or no rule is chosen."""
        return cls(open_finished(root, folds=folds))

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Masks uint8 0/1 (height, width, classes) of an image uint8 (height, width, channels), or (height, width).

        They are those that would be submitted: of the size of submission.size where it is set, and of classes that
        exclude each other only the likeliest of each pixel. With submission.rows=instance: objects, numbered from 1,
        and 0 for the background.
        """
        maps = decided(self.predict_map(image), self.settings.submission.size, self.settings.data.are_exclusive)
        return apply_rules(self.rules, maps)

    def predict_map(self, image: np.ndarray) -> np.ndarray:
        """Probabilities uint8, 0 to 255 (height, width, classes), averaged over models and views."""
        return self.predict_image(image).maps

    def predict_image(self, image: np.ndarray) -> Prediction:
        """Maps and, where the models have a head for it, presence, averaged over models and views.

        Raises UserError for an image of another type or number of channels than the run was trained on.
        """
        image = image[..., None] if image.ndim == 2 else image
        channels = self.settings.data.channels
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
            raise UserError(
                f"the image is {image.dtype} {image.shape}, but the run takes uint8 (height, width, {channels})"
            )
        return average_predictions([predictor.predict_image(image) for predictor in self.predictors], self.weights)
