"""Stages 03 and 04: which maps are missing or made by older models, and predicting just those."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd
from tqdm import tqdm

from lib.base.distributed import is_first, own_share, wait_for_all
from lib.base.files import read_json, sha256_of_json, write_json
from lib.base.progress import progress
from lib.config.schema import Settings
from lib.data.competition import TestData, TrainingData
from lib.data.input_files import compare_test_images, write_known
from lib.prediction.map_store import MapStore
from lib.run.folder import Fold, RunFolder
from lib.run.provenance import map_inputs, test_inputs, test_models, trained_folds

if TYPE_CHECKING:  # torch, which a stage that has nothing to predict does without
    import torch

    from lib.prediction.predictor import Predictor


def missing_maps(store: MapStore, makers: dict[str, list[str]], fingerprints: dict[str, str]) -> dict[str, list[str]]:
    """This process's share of each maker's (a model's) ids whose map is absent or damaged, after removing what another
    model made.

    `made_from.json` beside the maps holds the fingerprints. It is written after the removal and before any prediction,
    so a kill at any moment leaves no map under a wrong fingerprint. Of several processes the first does it. Shares are
    of all ids, not of the missing ones, which the processes may see to differ once one of them has begun to predict.
    """
    path = store.folder / "made_from.json"
    if is_first():
        recorded = read_json(path) if path.is_file() else {}
        for maker, ids in makers.items():
            if recorded.get(maker) != fingerprints[maker]:
                for image_id in ids:
                    store.remove(image_id)
        write_json(path, fingerprints)
    wait_for_all()
    return {maker: [id for id in own_share(ids) if not store.has(id)] for maker, ids in makers.items()}


def missing_test_maps(run: RunFolder, data: TestData, fingerprint: str) -> tuple[MapStore, list[str]]:
    """This process's share of the test images whose map is absent, damaged, of other models or of another image.

    What is known of the images is written, too, after the removal and before any prediction.
    """
    store = MapStore(run.test, tuple(data.classes))
    if is_first():
        known, changed = compare_test_images(run, data)
        for image_id in changed:
            store.remove(image_id)
        write_known(run.test_files, known)
    return store, missing_maps(store, {"ensemble": data.ids}, {"ensemble": fingerprint})["ensemble"]


def predict_out_of_fold(run: RunFolder, settings: Settings, data: TrainingData, table: pd.DataFrame) -> MapStore:
    """Predict every image of the trained folds with the one model that did not see it; maps already there are kept.

    Several processes share out the images, and all of them return when all maps are there.
    """
    fingerprints = map_inputs(run, settings)
    store = MapStore(run.oof, tuple(data.classes))
    folds = trained_folds(run, settings)
    missing = missing_maps(
        store, {f"fold_{fold}": table.id[table.fold == fold].tolist() for fold in folds}, fingerprints
    )
    with progress("out-of-fold maps", total=sum(map(len, missing.values()))) as bar:
        for fold, ids in zip(folds, missing.values(), strict=True):
            if ids:
                _predict(run, settings, data, [fold], ids, store, bar)
    wait_for_all()
    return store


def predict_test(run: RunFolder, settings: Settings, data: TestData) -> MapStore:
    """Predict every test image with the average of the trained models; maps already there are kept.

    Several processes share out the images, and all of them return when all maps are there.
    """
    fingerprint = sha256_of_json(test_inputs(run, settings))
    store, missing = missing_test_maps(run, data, fingerprint)
    with progress("test maps", total=len(missing)) as bar:
        if missing:
            _predict(run, settings, data, test_models(run, settings), missing, store, bar)
    wait_for_all()
    return store


def _predict(
    run: RunFolder,
    settings: Settings,
    data: TrainingData | TestData,
    folds: list[Fold],
    ids: list[str],
    store: MapStore,
    bar: tqdm,
) -> None:
    from lib.model.device import give_back_memory
    from lib.prediction.predictor import predict_to_store

    for _ in predict_to_store(build_predictor(run, settings, data.classes, folds), data, ids, store):
        bar.update()
    give_back_memory()  # to the report, which may read a large image


def build_predictor(run: RunFolder, settings: Settings, classes: list[str], folds: Iterable[Fold]) -> "Predictor":
    """The average of the models of some folds, or of all images, on the best device there is."""
    from lib.model.device import best_device, keep_freed_memory
    from lib.model.folded_norms import with_folded_norms
    from lib.model.network import load_weights
    from lib.prediction.predictor import Predictor

    device = best_device()
    keep_freed_memory(device)
    folds = list(folds)
    weights = (run.fold(fold).weights for fold in folds)
    networks = [
        with_folded_norms(load_weights(path, settings.model, len(classes), settings.data.network_channels))
        for path in weights
    ]
    names, precision = [f"fold {fold}" for fold in folds], precision_of(run, settings, folds, device)
    if (trained := trained_precisions(run, folds)) not in ({precision}, {None}) and is_first():
        print(f"note      trained in {' and '.join(map(str, trained))}, predicted in {precision} on this {device.type}")
    return Predictor(networks, settings.infer, device, precision, names)


def precision_of(run: RunFolder, settings: Settings, folds: list[int], device: "torch.device") -> str:
    """The precision that the folds were trained in; fp32 where they differ or the device does not compute in theirs.

    train.precision=auto may have meant another one on the machine that trained.
    """
    from lib.model.device import computes_in, resolve_precision

    trained = trained_precisions(run, folds)
    if trained == {None}:  # by a version that did not record it
        return resolve_precision(settings.train.precision, device)
    if len(trained) == 1 and computes_in(*trained, device):
        return trained.pop()
    return "fp32"


def trained_precisions(run: RunFolder, folds: list[int]) -> set[str | None]:
    """The precisions that the folds were trained in; None for one by a version that did not record it."""
    return {read_json(run.fold(fold).metrics).get("precision") for fold in folds}
