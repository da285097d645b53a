"""A run in memory gives the masks that would be submitted."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from lib.config.check import check_settings
from lib.deploy import loaded_run
from lib.deploy.finished import FinishedRun, Member
from lib.deploy.loaded_run import LoadedRun
from lib.masks.rules import Rule
from lib.prediction.map_store import Prediction, to_map
from lib.run.folder import RunFolder

PROBABILITIES = np.zeros((4, 6, 2), np.float32)
PROBABILITIES[:, :3] = 0.8, 0.6  # of classes a and b, left
PROBABILITIES[:, 3:] = 0.2, 0.9  # right


def load(monkeypatch, masks: str, **submission) -> LoadedRun:
    """A run of two classes whose only model always gives PROBABILITIES."""
    predictor = SimpleNamespace(predict_image=lambda image: Prediction(to_map(PROBABILITIES)))
    monkeypatch.setattr(loaded_run, "build_predictor", lambda *_: predictor)
    data = {"classes": {"a": 1, "b": 2} if masks == "values" else ["a", "b"], "train_masks": "masks/{id}.png"}
    if masks == "files":
        data["train_masks"] = "masks/{class}/{id}.png"
    settings = check_settings({"name": "two", "data": data, "submission": submission}, Path("two.yaml"))
    run = RunFolder(Path("runs/two"))
    rules = {"a": Rule(128), "b": Rule(128)}
    return LoadedRun(FinishedRun(run, settings, [Member(run, settings, (0,), 1.0)], rules, run.threshold))


def test_of_classes_that_exclude_each_other_only_the_likeliest_is_left(monkeypatch):
    image = np.zeros((4, 6, 3), np.uint8)
    left, right = np.split(load(monkeypatch, "values").predict(image), 2, axis=1)
    assert (left == [1, 0]).all() and (right == [0, 1]).all()
    left, right = np.split(load(monkeypatch, "files").predict(image), 2, axis=1)
    assert (left == [1, 1]).all() and (right == [0, 1]).all()


def test_masks_have_the_size_of_the_submission(monkeypatch):
    run, image = load(monkeypatch, "values", size=[2, 2]), np.zeros((4, 6, 3), np.uint8)
    assert run.predict(image)[0].tolist() == [[1, 0], [0, 1]]
    assert run.predict_map(image).shape == (4, 6, 2)
