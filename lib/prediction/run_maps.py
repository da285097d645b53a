"""Stages 03 and 04: which maps are missing, or of older models or images, and predicting just those."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from tqdm import tqdm

from lib.base.distributed import is_first, own_share, wait_for_all
from lib.base.files import read_json, sha256_of_json
from lib.base.progress import progress
from lib.config.schema import Settings
from lib.data.competition import TestData, TrainingData, open_test
from lib.data.images import Images
from lib.data.input_files import image_digests, known_test_images, write_known
from lib.data.unreadable import naming_the_setting
from lib.prediction.map_store import MapStore
from lib.run.folder import Fold, RunFolder
from lib.run.members import open_members
from lib.run.provenance import models_to_average, require_maps, test_inputs, threshold_inputs, trained_folds

if TYPE_CHECKING:  # torch, which a stage that has nothing to predict does without
    import torch

    from lib.prediction.predictor import Predictor


def open_oof_maps(run: RunFolder, settings: Settings, table: pd.DataFrame, made_from: dict) -> MapStore:
    """The out-of-fold maps that were made from what `made_from`, the result of threshold_inputs, names.

    The images count beside the models: where one was replaced, training anew gives its own fold the same weights.
    """
    maker = {fold: sha256_of_json([maps, made_from["training_files"]]) for fold, maps in made_from["maps"].items()}
    fold_of = dict(zip(table.id, table.fold, strict=True))
    makers = {image_id: maker.get(f"fold_{fold}") for image_id, fold in fold_of.items()}
    return MapStore(run.oof, tuple(settings.data.classes), settings.data.are_exclusive, makers)


def open_test_maps(run: RunFolder, settings: Settings, data: TestData, made_from: dict) -> MapStore:
    """The test maps that were made from the present images and from what `made_from`, the result of test_inputs, names.

    An ensemble's are made from the images as its members read them; members without a weight do not count.
    """
    sources, weights = [(run, data)], None
    if settings.ensemble.members:
        weights = list(read_json(run.ensemble)["weights"].values())
        members = zip(open_members(settings), weights, strict=True)
        sources = [
            (member, open_test(member_settings.data)) for (member, member_settings), weight in members if weight > 0
        ]
    digests = [image_digests(known_test_images(*source), source[1]) for source in sources]
    models = sha256_of_json([made_from, weights])
    makers = {id: sha256_of_json([models, *(of.get(id) for of in digests)]) for id in data.ids}
    return MapStore(run.test, tuple(settings.data.classes), settings.data.are_exclusive, makers)


def open_predicted(run: RunFolder, settings: Settings) -> tuple[TestData, MapStore]:
    """The test images and their maps. Raises UserError unless 04 has predicted all of them as they are now."""
    made_from, test = require_maps(run, settings), open_test(settings.data)
    store = open_test_maps(run, settings, test, made_from)
    store.require(test.ids)
    if test.warning:
        print(f"warning   {test.warning}")
    return test, store


def own_missing(store: MapStore, ids: list[str]) -> list[str]:
    """Those of this process's share of the images whose maps must be made.

    Shares are of all images, not of the missing ones, which the processes may see to differ once one has begun.
    """
    return [image_id for image_id in own_share(ids) if not store.has(image_id)]


def predict_out_of_fold(run: RunFolder, settings: Settings, data: TrainingData, table: pd.DataFrame) -> MapStore:
    """Predict every image of the trained folds with the one model that did not see it; maps already there are kept.

    Several processes share out the images, and all of them return when all maps are there.
    """
    store = open_oof_maps(run, settings, table, threshold_inputs(run, settings))
    folds = trained_folds(run, settings)
    missing = {fold: own_missing(store, table.id[table.fold == fold].tolist()) for fold in folds}
    with progress("out-of-fold maps", total=sum(map(len, missing.values()))) as bar:
        for fold, ids in missing.items():
            if ids:
                _predict(build_predictor(run, settings, data.classes, [fold]), data, ids, store, bar)
    wait_for_all()
    return store


@naming_the_setting()
def predict_test(run: RunFolder, settings: Settings, data: TestData) -> MapStore:
    """Predict every test image with the average of the trained models; maps already there are kept.

    Several processes share out the images, and all of them return when all maps are there.
    """
    if is_first():
        write_known(run.test_files, known_test_images(run, data))  # from which the others read it
    wait_for_all()
    store = open_test_maps(run, settings, data, test_inputs(run, settings))
    missing = own_missing(store, data.ids)
    with progress("test maps", total=len(missing)) as bar:
        if missing:
            predictor = build_predictor(run, settings, data.classes, models_to_average(run, settings))
            _predict(predictor, data, missing, store, bar)
    wait_for_all()
    return store


def _predict(predictor: "Predictor", data: Images, ids: list[str], store: MapStore, bar: tqdm) -> None:
    from lib.model.device import give_back_memory
    from lib.prediction.predictor import predict_to_store

    for _ in predict_to_store(predictor, data, ids, store):
        bar.update()
    give_back_memory()  # to the report, which may read a large image


def build_predictor(run: RunFolder, settings: Settings, classes: list[str], folds: Sequence[Fold]) -> "Predictor":
    """The average of the models of some folds, or of all images, on the best device there is."""
    from lib.model.device import best_device, keep_freed_memory
    from lib.model.folded_norms import fold_norms
    from lib.model.network import load_networks
    from lib.prediction.predictor import Predictor

    device = best_device()
    keep_freed_memory(device)
    weights = [run.fold(fold).weights for fold in folds]
    networks = load_networks(weights, settings.model, len(classes), settings.data.network_channels)
    for network in networks:
        fold_norms(network)
    trained = trained_precisions(run, settings, folds, device)
    precision = common_precision(trained, device)
    if precision == "fp32" and trained != {"fp32"} and is_first():
        print(f"note      trained in {' and '.join(sorted(trained))}, predicted in fp32 on this {device.type}")
    return Predictor(networks, settings.infer, device, precision, [f"fold {fold}" for fold in folds])


def common_precision(trained: set[str], device: "torch.device") -> str:
    """The precision for predicting with models trained in these, by `prediction_precision`; fp32 if theirs differ."""
    from lib.model.device import prediction_precision

    each = {prediction_precision(precision, device) for precision in trained}
    return each.pop() if len(each) == 1 else "fp32"


def trained_precisions(run: RunFolder, settings: Settings, folds: Sequence[Fold], device: "torch.device") -> set[str]:
    """The precisions that the folds were trained in; the setting's on this device for one that did not record it."""
    from lib.model.device import resolve_precision

    recorded = {read_json(run.fold(fold).metrics).get("precision") for fold in folds}
    return {precision or resolve_precision(settings.train.precision, device) for precision in recorded}
