"""Round trip: out-of-fold masks, whose truth is known, are written as a submission, read back and scored.

Each image's masks become rows of a csv file, like those of a test image, and are decoded and scored against its truth.
The score must equal the one reported when the rules were chosen: so what is uploaded is what was scored.
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
from lib.masks.metrics import Pair, planes, pooled
from lib.masks.objects import Rules, score_terms
from lib.prediction.map_store import MapReader, masks_by
from lib.submission.write import decode_rows, encode_rows, grouped_texts, with_texts

RLE_COLUMN = 2  # after id and class
TOLERANCE = 1e-9  # rounding, as sums are taken in another order


def round_trip_score(stream: Iterable[Pair], rules: Rules, settings: Settings, store: MapReader | None = None) -> float:
    """The score of out-of-fold maps, from a stream of (id, map, truth), as the submission file would carry them.

    The truth is a mask uint8 0/1, or for submission.rows = instance objects int32, (height, width, classes). `store`
    holds the images' presence, which rules may require. Raises UserError if a mask does not come back as it was.
    """

    def measure(pair: Pair) -> np.ndarray:
        image_id, maps, truth = pair
        masks = masks_by(rules, maps, store, image_id)
        decoded = through_a_file(image_id, masks, settings)
        if not np.array_equal(decoded, masks):
            raise UserError(
                f"the masks of training image '{image_id}' do not come back from a submission; this is a bug"
            )
        of_classes = zip(planes(decoded), planes(truth), strict=True)
        terms = [score_terms(mask, of_truth, settings) for mask, of_truth in of_classes]
        return np.stack(terms, axis=1)

    measured = prefetched(measure, stream, ahead=2 * THREADS)
    numerator, denominator = np.stack([terms for _, terms in progress("round trip", measured)], axis=1)
    return float(pooled(numerator, denominator).mean())


def require_reported(score: float, reported: float) -> None:
    """Raise UserError unless the round trip gives the score that was reported."""
    if abs(score - reported) > TOLERANCE:
        raise UserError(
            f"written as a submission the out-of-fold masks score {score:.6f}, but {reported:.6f} was reported; this "
            "is a bug, so do not upload the submission"
        )


def through_a_file(image_id: str, masks: np.ndarray, settings: Settings) -> np.ndarray:
    """The masks or objects (height, width, classes) of an image, written as a csv file's rows and read back."""
    file = io.StringIO()
    for class_index, (name, plane) in enumerate(zip(settings.data.classes, planes(masks), strict=True)):
        row = SubmissionRow(image_id, class_index, (image_id, name, ""))
        csv.writer(file).writerows(with_texts(row, encode_rows(plane, settings), RLE_COLUMN))
    file.seek(0)
    rows = grouped_texts(csv.reader(file), RLE_COLUMN)
    return np.stack([decode_rows(texts, masks.shape[:2], settings) for _, texts in rows], axis=2)
