"""The submission rehearsed where the truth is known: out-of-fold maps go the way of the test maps, and are scored.

Each image's masks are written as rows of a csv file, read back, decoded and scored against its truth. The score must
be the one that was told when the rules were chosen: then what is uploaded is what was scored.
"""

import csv
import io
from collections.abc import Iterable

import numpy as np

from lib.base.errors import UserError
from lib.base.prefetch import THREADS, prefetched
from lib.base.progress import progress
from lib.config.schema import Settings
from lib.data.sample_submission import SubmissionRow
from lib.masks.metrics import Metric, count_mask, pooled
from lib.masks.objects import match_objects, object_score
from lib.masks.rules import apply_rules
from lib.submission.write import Rules, decode_rows, encode_rows, grouped_texts, with_texts

RLE_COLUMN = 2  # after id and class
TOLERANCE = 1e-6  # the search for morphology keeps its terms in float32

Pair = tuple[str, np.ndarray, np.ndarray]  # id, map, truth (a mask, or objects), all classes


def rehearse(stream: Iterable[Pair], rules: Rules, settings: Settings) -> float:
    """The score of out-of-fold maps, from a stream of (id, map, truth), as the submission file would carry them.

    The truth is a mask uint8 0/1, or for submission.rows = instance objects int32, (height, width, classes). Raises
    UserError when a mask does not come back as it was.
    """
    metric = Metric.of(settings.threshold)

    def measure(pair: Pair) -> np.ndarray:
        image_id, maps, truth = pair
        found = apply_rules(rules, maps)
        read = through_a_file(image_id, found, settings)
        if not np.array_equal(read, found):
            raise UserError(
                f"the masks of training image '{image_id}' do not come back from a submission; this is a bug"
            )
        return np.stack([_terms(read[..., c], truth[..., c], metric, settings) for c in range(len(rules))], axis=1)

    measured = prefetched(measure, stream, ahead=2 * THREADS)
    numerator, denominator = np.stack([terms for _, terms in progress("rehearsal", measured)], axis=1)
    return float(pooled(numerator, denominator).mean())


def require_told(rehearsed: float, told: float) -> None:
    """Raise UserError unless the rehearsal gives the score that was told."""
    if abs(rehearsed - told) > TOLERANCE:
        raise UserError(
            f"written as a submission the out-of-fold masks score {rehearsed:.6f}, but {told:.6f} was told; this is a "
            "bug, so do not upload the submission"
        )


def through_a_file(image_id: str, found: np.ndarray, settings: Settings) -> np.ndarray:
    """The masks or objects (height, width, classes) of an image, written as a csv file's rows and read back."""
    layers = [np.ascontiguousarray(layer) for layer in np.moveaxis(found, 2, 0)]
    names = [(image_id, name, "") for name in settings.data.classes]
    rows = [SubmissionRow(image_id, index, values) for index, values in enumerate(names)]
    file = io.StringIO()
    for row, layer in zip(rows, layers, strict=True):
        csv.writer(file).writerows(with_texts(row, encode_rows(layer, settings), RLE_COLUMN))
    file.seek(0)
    masks = grouped_texts(csv.reader(file), RLE_COLUMN)
    return np.stack([decode_rows(texts, found.shape[:2], settings) for _, texts in masks], axis=2)


def _terms(found: np.ndarray, truth: np.ndarray, metric: Metric, settings: Settings) -> tuple[float, float]:
    """Numerator and denominator of one image and class, whose means or pools are the score."""
    if settings.submission.rows == "instance":
        return object_score(match_objects(found, truth), settings.objects), 1.0
    return metric.terms(*count_mask(found, truth))
