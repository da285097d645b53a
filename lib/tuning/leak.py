"""The leak between folds: how much lower the score is on images as new to the models as the test images are.

A validation image with a sibling among the training images scores higher than an image of a new scene. So the nested
score is computed once more with weights that favour the training images that are as far from the other folds as the
test images are from the training images. A distance is 1 - cosine of the features of lib/folds/features.py.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from lib.base.errors import UserError, plural
from lib.base.files import sha256_of_json, write_json
from lib.config.schema import Settings
from lib.data.competition import TrainingData, open_test
from lib.folds.kept_features import image_features
from lib.folds.likeness import nearest, unit_vectors
from lib.masks.metrics import pooled, ratio
from lib.masks.statistics import bootstrap_interval, group_members, group_numbers
from lib.run.folder import RunFolder
from lib.tuning.threshold_result import ThresholdResult

MATCHED, MATCHED_SHARE = 10, 0.05  # training images that represent a test image: number, or share if it is more
LARGEST_BEYOND = 0.5  # share of the test images further than any training image, above which no score is given
FEWEST_GROUPS = 5  # groups of matched images, below which no score is given
LISTED_PAIRS = 8  # pairs of images stored for the report
COPIES = 1e-4  # median distance between copies, up to rounding; how many times as far others are means nothing
APART = 0.6  # balanced accuracy from which distances count as separating siblings from strangers


@dataclass(frozen=True)
class Distances:
    """The distance of each image to the nearest one of others, and the number of that one."""

    to_nearest: np.ndarray  # (images,) 0 to 2
    nearest: np.ndarray  # (images,) number of the nearest image

    @classmethod
    def of(
        cls, vectors: np.ndarray, others: np.ndarray, labels: tuple[np.ndarray, np.ndarray] | None = None
    ) -> "Distances":
        """Distances of unit vectors to others; given `labels` of both, only to others with a different label."""
        labels = labels or (np.zeros(len(vectors)), np.ones(len(others)))
        indices, similarity = nearest(vectors, others, labels)
        return cls(1 - similarity, indices)


@dataclass(frozen=True)
class NewScenes:
    """The score to expect on images as far from the training images as the test images are."""

    score: float | None  # None: no score can be predicted
    interval: tuple[float, float] | None  # 95 %
    why_not: str  # the reason, "" if there is a score
    beyond: float  # share of the test images that are further than any training image
    median_distance: tuple[float, float]  # of training images to other folds, of test images to the training images
    far_images: dict[int, int]  # by fold: images at least as far as the median test image


@dataclass(frozen=True)
class Siblings:
    """Test images by whether they are as near to a training image as images of one group are to each other."""

    limit: float  # distance up to which two images count as siblings
    like: int  # test images within the limit
    unlike: int  # the others


def matching_weights(training: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (images,) that give the training images the distribution of distances of the test images.

    The training images with the most similar distances represent a test image. Second result: the share of test images
    that are further than any training image.
    """
    count = min(len(training), max(MATCHED, round(MATCHED_SHARE * len(training))))
    order = np.argsort(training, kind="stable")
    ordered, weights = training[order], np.zeros(len(training))
    for distance in test:
        rank = int(np.searchsorted(ordered, distance))
        low, high = max(0, rank - count), min(len(ordered), rank + count)
        near = low + np.argsort(np.abs(ordered[low:high] - distance), kind="stable")[:count]
        weights[order[near]] += 1 / count
    return weights, float((test > ordered[-1]).mean())


def expect_on_new_scenes(
    terms: Sequence[np.ndarray],
    training: np.ndarray,
    test: np.ndarray,
    folds: np.ndarray,
    groups: np.ndarray,
    repeats: int,
) -> NewScenes:
    """The score at the test images' distances; `terms` are each class's nested terms (2, images), see `Metric.terms`.

    `training` and `test` are distances, `folds` and `groups` are those of the training images. The interval draws
    groups with replacement.
    """
    weights, beyond = matching_weights(training, test)
    median = float(np.median(test))
    far = {int(fold): int((training[folds == fold] >= median).sum()) for fold in np.unique(folds)}
    medians = (float(np.median(training)), median)
    used = len(np.unique(groups[weights > 0]))
    why_not = ""
    if beyond > LARGEST_BEYOND:
        why_not = f"{beyond:.0%} of the test images are further from the training images than these from other folds"
    elif used < FEWEST_GROUPS:
        why_not = f"images as far from the other folds as the test images come from only {plural(used, 'group')}"
    if why_not:
        return NewScenes(None, None, why_not, beyond, medians, far)
    numerator, denominator = (weights[:, None] * np.stack([term[part] for term in terms], axis=1) for part in (0, 1))
    score = float(pooled(numerator, denominator).mean())
    return NewScenes(score, bootstrap_interval(numerator, denominator, groups, repeats), "", beyond, medians, far)


def count_siblings(vectors: np.ndarray, groups: np.ndarray, test: np.ndarray) -> Siblings | None:
    """Count the test images that resemble a training group, and those that resemble none, by their distances.

    The limit is the distance that best separates images of one group from images of different groups (balanced
    accuracy). None where no group has two images, or where the distances do not separate groups.
    """
    within = _within_groups(vectors, groups)
    if len(within) == 0 or len(np.unique(groups)) < 2:
        return None
    numbers = group_numbers(groups)  # compared five times as fast as names
    across = Distances.of(vectors, vectors, (numbers, numbers)).to_nearest
    limits = np.unique(np.concatenate([within, across]))
    accuracy = (
        np.searchsorted(np.sort(within), limits, side="right") / len(within)
        + 1
        - np.searchsorted(np.sort(across), limits, side="right") / len(across)
    ) / 2
    if accuracy.max() < APART:
        return None
    limit = float(limits[accuracy.argmax()])
    like = int((test <= limit).sum())
    return Siblings(limit, like, len(test) - like)


def _within_groups(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The distance of each image to the nearest other image of its group, for groups of two or more."""
    distances = []
    for members in group_members(groups):
        if len(members) > 1:
            numbers = np.arange(len(members))
            distances.append(Distances.of(vectors[members], vectors[members], (numbers, numbers)).to_nearest)
    return np.concatenate(distances) if distances else np.empty(0)


def describe_leak(new: NewScenes, siblings: Siblings | None, nested: float, test_count: int) -> str:
    of_training, of_test = new.median_distance
    if of_training > COPIES:
        compared = (
            f"are {of_test / of_training:.1f} times as far from their nearest training image as images left out of "
            f"training are from theirs (median distances {of_test:.3f} and {of_training:.3f})"
        )
    else:
        compared = (
            f"have a median distance of {of_test:.3f} to their nearest training image, images left out of training one "
            f"of {of_training:.3f} to theirs"
        )
    lines = [f"leak      the {test_count} test images {compared}"]
    if siblings:
        lines.append(
            f"          {siblings.like} of them are as close to a training image as images of one group are to each "
            f"other, {siblings.unlike} are not"
        )
    if new.score is None:
        lines.append(f"          no score can be predicted for images this far away: {new.why_not}")
        return "\n".join(lines)
    low, high = new.interval
    lines.append(
        f"          score to expect at that distance: {new.score:.4f} (95 % {low:.4f} to {high:.4f}); on all images, "
        f"nested: {nested:.4f}"
    )
    if none := [str(fold) for fold, count in new.far_images.items() if count == 0]:
        lines.append(f"          fold {', '.join(none)} has no image as far away as half of the test images")
    return "\n".join(lines)


def to_dict(new: NewScenes, siblings: Siblings | None, nested: float) -> dict:
    return {"nested": nested, "new_scenes": asdict(new), "siblings": asdict(siblings) if siblings else None}


def measure_leak(
    run: RunFolder,
    settings: Settings,
    data: TrainingData,
    table: pd.DataFrame,
    trained: list[int],
    result: ThresholdResult,
) -> str:
    """Measure the leak of a run's out-of-fold maps, write leak.json, and return the lines to print.

    `table` holds all images; `result` those in the `trained` folds, in the same order. Without features or test images
    nothing is written, and the line says why.
    """
    run.leak.unlink(missing_ok=True)
    if settings.data.test_images is None:
        return "leak      not measured: there are no test images (data.test_images)"
    try:
        test_data = open_test(settings.data)
        if not test_data.ids:
            return "leak      not measured: there are no test images yet (data.test_images)"
        features = image_features(run.features, data).astype(np.float32)[np.searchsorted(data.ids, table.id)]
        test_features = image_features(run.test_features, test_data).astype(np.float32)
    except UserError as error:
        return f"leak      not measured: {error}"
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    vectors, test_vectors = (unit_vectors(some, mean, deviation) for some in (features, test_features))
    ids, folds, groups = table.id.tolist(), table.fold.to_numpy(), table.group.to_numpy()
    training, test = Distances.of(vectors, vectors, (folds, folds)), Distances.of(test_vectors, vectors)
    scored = table.fold.isin(trained).to_numpy()
    terms = [choice.nested_terms for choice in result.classes.values()]
    new = expect_on_new_scenes(
        terms, training.to_nearest[scored], test.to_nearest, folds[scored], groups[scored], settings.threshold.bootstrap
    )
    siblings, nested = count_siblings(vectors, groups, test.to_nearest), result.mean("nested")
    scores = np.mean([ratio(*term) for term in terms], axis=0)
    content = to_dict(new, siblings, nested)
    content["leaks"] = nearest_pairs(ids, ids, training, scored, scores)
    everything = np.ones(len(test.nearest), bool)
    content["test"] = nearest_pairs(test_data.ids, ids, test, everything)
    content["test_ids"] = sha256_of_json(test_data.ids)
    write_json(run.leak, content)
    return describe_leak(new, siblings, nested, len(test.nearest))


def nearest_pairs(
    ids: list[str], others: list[str], distances: Distances, chosen: np.ndarray, scores: np.ndarray | None = None
) -> dict[str, list[dict]]:
    """Pairs (image, nearest of the others) with the smallest and the largest distances, with scores if given."""
    numbers = np.flatnonzero(chosen)
    score_of = dict(zip(numbers.tolist(), scores.tolist(), strict=True)) if scores is not None else {}
    order = numbers[np.argsort(distances.to_nearest[numbers], kind="stable")]

    def row(number: int) -> dict:
        pair = {"id": ids[number], "nearest": others[distances.nearest[number]]}
        return pair | {"distance": float(distances.to_nearest[number]), "score": score_of.get(number)}

    nearest_first, furthest_first = (numbers.tolist()[:LISTED_PAIRS] for numbers in (order, order[::-1]))
    return {"nearest": list(map(row, nearest_first)), "furthest": list(map(row, furthest_first))}
