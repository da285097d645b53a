"""Tables whose scores are planted, to try decisions on numbers made by hand."""

from dataclasses import dataclass, replace

import numpy as np

from lib.masks.metrics import Metric
from lib.tuning.score_table import ScoreTable


@dataclass(frozen=True)
class PlantedTable(ScoreTable):
    """A table of image scores that no pixel counts need to make; its empty masks score what the first column does."""

    image_scores: np.ndarray = None  # (images, thresholds)

    def of(self, images: np.ndarray) -> "PlantedTable":
        return replace(super().of(images), image_scores=self.image_scores[images])

    def terms(self, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        return self.image_scores[:, columns], np.ones_like(self.image_scores[:, columns])


def planted_table(image_scores: np.ndarray, thresholds: np.ndarray | None = None) -> PlantedTable:
    """A table with these scores (images, thresholds), every image a group of its own."""
    none, images = np.zeros(image_scores.shape, int), np.arange(len(image_scores))
    thresholds = np.arange(1, image_scores.shape[1] + 1) if thresholds is None else thresholds
    return PlantedTable(Metric(), thresholds, none, none, 0 * images + 1, images, image_scores=image_scores)
