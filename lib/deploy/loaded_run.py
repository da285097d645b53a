"""A finished run in memory, for notebooks and programs: an image goes in, a mask comes out."""

from pathlib import Path

import numpy as np

from lib.base.errors import UserError
from lib.data.resizing import network_size
from lib.deploy.finished import FinishedRun, open_finished
from lib.masks.resize import resized
from lib.prediction.ensemble import average_predictions
from lib.prediction.map_store import Prediction, predicted_masks
from lib.prediction.run_maps import build_predictor


class LoadedRun:
    """The models and rules of a run after 03, or of a bundle, on the best device there is.

    `classes` names the last axis of the arrays that it returns.
    """

    def __init__(self, finished: FinishedRun) -> None:
        self.settings, self.rules = finished.settings, finished.rules
        self.classes = finished.settings.data.classes
        self.weights = [member.weight for member in finished.members]
        self.resizes = [member.settings.data.resize for member in finished.members]
        self.predictors = [
            build_predictor(member.run, member.settings, self.classes, member.folds) for member in finished.members
        ]

    @classmethod
    def open(cls, root: Path, folds: list[int] | None = None) -> "LoadedRun":
        """Load a run, or only the models of `folds`. Raises UserError if nothing is trained or no rule is chosen."""
        return cls(open_finished(root, folds=folds))

    def predict(self, image: np.ndarray, resize_value: float | None = None) -> np.ndarray:
        """Masks uint8 0/1 (height, width, classes) of an image uint8 (height, width, channels), or (height, width).

        They are the masks that would be submitted: at submission.size if it is set; of classes that exclude each other
        only the likeliest at each pixel. With submission.rows=instance: objects, numbered from 1, background 0.
        `resize_value` is the image's value in data.resize.column, for a run that has one.
        """
        return predicted_masks(self.predict_image(image, resize_value), self.rules, self.settings)

    def predict_map(self, image: np.ndarray, resize_value: float | None = None) -> np.ndarray:
        """Probabilities uint8, 0 to 255 (height, width, classes), averaged over models and views."""
        return self.predict_image(image, resize_value).maps

    def predict_image(self, image: np.ndarray, resize_value: float | None = None) -> Prediction:
        """Maps and, where the models have a head for it, presence, averaged over models and views.

        Raises UserError for an image of another type or number of channels than the run was trained on, or if the run
        needs a `resize_value` and gets none.
        """
        image = image[..., None] if image.ndim == 2 else image
        channels = self.settings.data.network_channels
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
            raise UserError(
                f"the image is {image.dtype} {image.shape}, but the run takes uint8 (height, width, {channels})"
            )
        if resize_value is None and (columns := [resize.column for resize in self.resizes if resize.column]):
            raise UserError(f"the run resizes images by their {columns[0]}; give it as resize_value")
        size, predictions = image.shape[:2], []
        for predictor, resize in zip(self.predictors, self.resizes, strict=True):
            seen = resized(image, network_size(resize, size, resize_value))
            predictions.append(predictor.predict_image(seen).at_size(size))
        return average_predictions(predictions, self.weights)
