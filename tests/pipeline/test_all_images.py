"""One more model of all images (train.all_images): averaged into the test maps, and in no score."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.base.errors import UserError
from lib.data.competition import open_test, open_training
from lib.deploy.finished import open_finished
from lib.folds.split import read_folds
from lib.prediction.map_store import MapStore
from lib.prediction.run_maps import build_predictor
from lib.report.page import refresh_report
from lib.run import provenance
from lib.run.folder import open_run
from lib.training.fold_job import plan_fold
from tests.conftest import write_competition
from tests.stages import SETTINGS, Ended, script, stage_words


def typed(folder: Path, stage: str, *words: str) -> Ended:
    return script(folder, *stage_words(stage), *words)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, str]:
    """A run after 02 whose two folds and whose model of all images are trained, and what 02 printed."""
    folder = tmp_path_factory.mktemp("trained")
    write_competition(folder / "data" / "blobs", 12, 2)
    settings = SETTINGS.replace("count: 3", "count: 2, hidden_groups: off").replace("epochs: 2", "epochs: 1")
    (folder / "blobs.yaml").write_text(settings)
    assert typed(folder, "01_prepare_folds").code == 0
    ended = typed(folder, "02_train", "train.all_images=true", "train.keep=best")
    assert ended.code == 0, ended.err
    return folder, ended.out


def test_it_is_one_more_model_of_the_test_maps_and_of_no_score(trained, monkeypatch):
    folder, printed = trained
    monkeypatch.chdir(folder)
    assert "fold all epoch 1/1  dice not measured" in printed and "fold 0 epoch 1/1  dice 0" in printed
    run, settings = open_run(Path("runs/blobs"))
    metrics = json.loads(run.fold("all").metrics.read_text())
    assert metrics["val_dice"] is None and metrics["best"] is None and metrics["finished"]
    history = pd.read_csv(run.fold("all").history)
    assert history.val_dice.isna().all() and history.loss.notna().all()

    for stage in ("03_oof_threshold", "04_infer"):
        ended = typed(folder, stage)
        assert ended.code == 0, ended.err
        assert (
            "model of all images of runs/blobs (train.all_images); scores are of the folds' models alone" in ended.out
        )
    test, training, table = open_test(settings.data), open_training(settings.data), pd.read_csv(run.folds)
    alone = {fold: build_predictor(run, settings, test.classes, [fold]) for fold in (0, 1, "all")}
    for store, image_id, image, folds in [
        *((run.oof, row.id, training.read_image(row.id), [row.fold]) for row in table.head(4).itertuples()),
        *((run.test, image_id, test.read_image(image_id), [0, 1, "all"]) for image_id in test.ids),
    ]:
        mean = np.mean([alone[fold].predict_batch(image[None]).pixels[0].numpy() for fold in folds], axis=0)
        assert np.abs(255 * mean - MapStore(store, tuple(test.classes)).read(image_id)).max() < 0.51
    refresh_report(run, settings)
    assert "no score is of it" in run.report.read_text()
    assert open_finished(run.root).members[0].folds == (0, 1, "all")
    assert open_finished(run.root, folds=[1]).members[0].folds == (1,)


def test_maps_with_and_without_it_are_not_taken_for_each_other(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    run, settings = open_run(Path("runs/blobs"))
    without = settings.model_copy(update={"train": settings.train.model_copy(update={"all_images": False})})
    assert provenance.test_inputs(run, settings) != provenance.test_inputs(run, without)
    assert provenance.threshold_inputs(run, settings) == provenance.threshold_inputs(run, without)
    run.fold("all").root.rename("elsewhere")
    with pytest.raises(UserError, match=r"\(train.all_images\) is not trained; run 02_train.py .* --folds all"):
        provenance.test_inputs(run, settings)
    Path("elsewhere").rename(run.fold("all").root)


def test_it_is_trained_only_where_the_settings_say_so(trained):
    ended = typed(trained[0], "02_train", "--folds", "all", "train.all_images=false")
    assert ended.code == 2
    assert "--folds all: the run has folds 0 to 1, and all with train.all_images=true" in ended.err


def test_all_images_are_learned_from(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    run, settings = open_run(Path("runs/blobs"))
    data = open_training(settings.data)
    table = read_folds(run.folds, data, 2)
    job = plan_fold("all", run, table, data, settings, {}, ())
    assert sorted(job.images.pools[0].ids) == data.ids and job.images.validation == []
    assert job.seed == 2
