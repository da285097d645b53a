"""Predict other images with a finished run: each is predicted once, and its map is stored under its inputs.

A map's file is named by the SHA-256 of the models, the prediction settings and the image's bytes. So a map is never
taken for that of another image with the same id, an interrupted command resumes where it stopped, and nothing is
deleted.
"""

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.base.distributed import own_share, wait_for_all
from lib.base.files import sha256_of_file, sha256_of_json
from lib.base.prefetch import THREADS, prefetched
from lib.base.progress import progress
from lib.data.competition import TestData
from lib.data.image_index import listed_as
from lib.data.images import Images
from lib.data.network_input import as_network_sees
from lib.data.resize_column import values_of_test
from lib.data.unreadable import naming_the_setting
from lib.deploy.finished import FinishedRun, Member
from lib.deploy.time_budget import TimeBudget, ViewsAndFolds
from lib.masks.metrics import planes
from lib.model.device import best_device
from lib.prediction.ensemble import average_predictions
from lib.prediction.map_store import MapStore, Prediction, predicted_masks
from lib.prediction.predictor import OutOfMemory, Predictor, predict_own_size
from lib.prediction.run_maps import build_predictor, common_precision, trained_precisions
from lib.submission.write import encode_rows

PART_PIXELS = 1 << 24  # of maps, over all classes, predicted before they are written
TIMED_PIXELS = 1 << 22  # the same with a time limit: views and folds are chosen again after each part
SMALLEST_WINDOW = 256
TABLES = {"train_masks", "sample_submission", "resize_csv", "resize_test_csv"}
PLACES = {"root", "train_images", "external", "test_images", *TABLES}  # of data; they change no test pixel


@dataclass(frozen=True)
class Maps:
    """The maps of test images by id, all 0 for an image that has none."""

    store: MapStore
    names: dict[str, str]  # of the images' maps in the store
    sizes: dict[str, tuple[int, int]]  # height, width

    @property
    def are_exclusive(self) -> bool:
        """Whether a pixel is of one class at most."""
        return self.store.are_exclusive

    def read(self, image_id: str) -> np.ndarray:
        """The map uint8 (height, width, classes) of an image."""
        if image_id in self.names:
            return self.store.read(self.names[image_id])
        return np.zeros((*self.sizes[image_id], len(self.store.classes)), np.uint8)

    def presence(self, image_id: str) -> np.ndarray | None:
        """The presence of each class in an image, uint8 (classes,), where it is predicted."""
        if image_id in self.names:
            return self.store.presence(self.names[image_id])
        return np.zeros(len(self.store.classes), np.uint8)


@dataclass(frozen=True)
class MapFiles:
    """The files of the test images' maps: one for each choice of views and folds."""

    store: MapStore
    names: dict[str, dict[ViewsAndFolds, str]]  # by id, the most views and folds first

    def existing(self, image_id: str) -> str | None:
        """The name of the existing map of the most views and folds."""
        return next((name for name in self.names[image_id].values() if self.store.has(name)), None)

    def write(
        self, part: list[str], used: ViewsAndFolds, of_members: list[dict[str, Prediction]], weights: list[float]
    ) -> None:
        """Write the weighted averages of the members' predictions."""

        def write(image_id: str) -> None:
            average = average_predictions([of_member[image_id] for of_member in of_members], weights)
            self.store.write(self.names[image_id][used], *average)

        for _ in prefetched(write, part, ahead=THREADS):
            pass


class MemberPredictor:
    """Predicts with the networks of one member of a finished run."""

    def __init__(self, whole: Predictor) -> None:
        self.whole = whole
        self.infer = whole.settings

    @classmethod
    def of(cls, member: Member, classes: list[str]) -> "MemberPredictor":
        return cls(build_predictor(member.run, member.settings, classes, member.folds))

    def predict(self, images: Images, ids: list[str], used: ViewsAndFolds) -> dict[str, Prediction]:
        """The predictions of some images by id.

        If an image does not fit into memory, it and all later ones are predicted in smaller windows. Raises UserError
        if not even the smallest window fits.
        """
        predictions = {}
        while missing := [image_id for image_id in ids if image_id not in predictions]:
            infer = self.infer.model_copy(update={"tta": used.tta(self.infer.tta)})
            count = used.count(len(self.whole.networks))
            networks, names = self.whole.networks[:count], self.whole.names[:count]
            predictor = Predictor(networks, infer, self.whole.device, self.whole.precision, names)
            try:
                predictions.update(predict_own_size(predictor, images, missing))
            except OutOfMemory:
                if self.infer.window == SMALLEST_WINDOW:
                    raise
                window = max(SMALLEST_WINDOW, self.infer.window // 512 * 256)
                print(f"out of memory: from here on in windows of {window} pixels", flush=True)
                self.infer = self.infer.model_copy(update={"window": window})
            self.infer = self.infer.model_copy(update={"batch_size": predictor.batch_size})
        return predictions


@naming_the_setting()
def predict_images(finished: FinishedRun, data: TestData, folder: Path, hours: float | None, started: float) -> Maps:
    """Predict the test images into `folder`, and return their maps; existing maps are kept.

    With `hours`, which count from `started` on the monotonic clock, views and folds are dropped as TimeBudget says.
    Several processes share the images; all return once every map is there.
    """
    store = MapStore(folder, tuple(data.classes), data.settings.are_exclusive)
    members = [(member.settings.infer.tta, len(member.folds)) for member in finished.members]
    budget = TimeBudget(hours and 3600 * hours, members, started, time.monotonic)
    files = MapFiles(store, map_names(finished, data, budget.choices))
    share = own_share(data.ids)  # of all images: those without a map change as soon as another process has begun
    missing = [id for id in share if not files.existing(id)]
    if len(missing) < len(share):
        print(f"{len(share) - len(missing)} maps of these images exist already", flush=True)
    if missing:
        _predict_missing(finished, data, missing, files, budget)
    wait_for_all()
    there = {id: name for id in data.ids if (name := files.existing(id))}
    return Maps(store, there, {id: data.image_size(id) for id in data.ids})


def member_images(finished: FinishedRun, data: TestData) -> list[Images]:
    """The test images, as each member reads them."""
    sources = []
    for member in finished.members:
        of_member = member.settings.data
        values = values_of_test(of_member, data.files)
        sources.append(Images(listed_as(of_member, data.settings), data.files, values, data.unreadable))
    return sources


def map_names(
    finished: FinishedRun, data: TestData, choices: list[ViewsAndFolds]
) -> dict[str, dict[ViewsAndFolds, str]]:
    """The name of each image's map by each choice of views and folds, by id."""
    made_by = {used: sha256_of_json(_made_by(finished, used)) for used in choices}
    sources = member_images(finished, data)

    def names(image_id: str) -> dict[ViewsAndFolds, str]:
        content = "".join(sha256_of_file(Path(path)) for path in data.files[image_id])
        for images in sources:
            if images.resize_values:
                content += f" {images.resize_values[image_id]}"
            if images.neighbours:
                content += "".join(sha256_of_file(Path(path)) for path in images.neighbours.files_of(image_id))
        return {used: hashlib.sha256((made_by[used] + content).encode()).hexdigest() for used in choices}

    return dict(prefetched(names, data.ids))


def _made_by(finished: FinishedRun, used: ViewsAndFolds) -> list[dict]:
    """The inputs of each member's maps, apart from the image."""
    device, made_by = best_device(), []
    for member, hashes in zip(finished.members, finished.weight_hashes, strict=True):
        infer, trained = member.settings.infer, trained_precisions(member.run, member.settings, member.folds, device)
        made_by.append(
            {
                "weights": hashes[: used.count(len(hashes))],
                "infer": infer.model_dump(exclude={"batch_size"}) | {"tta": used.tta(infer.tta)},
                "data": member.settings.data.model_dump(mode="json", exclude=PLACES),
                "precision": common_precision(trained, device),
                "weight": member.weight,
            }
        )
    return made_by


def _predict_missing(
    finished: FinishedRun, data: TestData, missing: list[str], files: MapFiles, budget: TimeBudget
) -> None:
    """Predict the images part by part, each by as many views and folds as the remaining time allows."""
    predictors = [MemberPredictor.of(member, data.classes) for member in finished.members]
    sources = member_images(finished, data)
    weights = [member.weight for member in finished.members]
    pixels = {id: math.prod(data.image_size(id)) for id in data.ids}
    by_networks = [as_network_sees(source) for source in sources]
    seen = {id: sum(math.prod(each.image_size(id)) for each in by_networks) / len(by_networks) for id in missing}
    budget.pixels, budget.all_pixels = sum(seen.values()), sum(pixels.values())
    largest = PART_PIXELS if budget.seconds is None else TIMED_PIXELS
    last = budget.choices[0]
    with progress("maps", total=len(missing)) as bar:
        for part in _parts(missing, pixels, largest // len(data.classes)):
            began, used = time.monotonic(), budget.choose()
            if used is None:
                return
            if used != last:
                bar.write(f"{bar.n} of {len(missing)} images predicted; to end in time, continuing with {used}")
            predictions = [
                predictor.predict(source, part, used) for predictor, source in zip(predictors, sources, strict=True)
            ]
            files.write(part, used, predictions, weights)
            budget.spent(sum(seen[id] for id in part), used, time.monotonic() - began)
            if budget.seconds is not None and not budget.writing:
                budget.writing = _seconds_of_writing(finished, predictions[0][part[0]])
            last = used
            bar.update(len(part))


def _parts(ids: list[str], pixels: dict[str, int], largest: int) -> Iterator[list[str]]:
    """Split the ids, in order, into parts of at most `largest` pixels, or of one image."""
    part, total = [], 0
    for image_id in ids:
        if part and total + pixels[image_id] > largest:
            yield part
            part, total = [], 0
        part.append(image_id)
        total += pixels[image_id]
    if part:
        yield part


def _seconds_of_writing(finished: FinishedRun, prediction: Prediction) -> float:
    """Seconds per pixel for masks and run lengths, measured on one thread."""
    began = time.monotonic()
    for plane in planes(predicted_masks(prediction, finished.rules, finished.settings)):
        encode_rows(plane, finished.settings)
    return (time.monotonic() - began) / math.prod(prediction.maps.shape[:2])
