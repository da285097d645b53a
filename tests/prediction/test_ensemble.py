"""Ensembles of runs: the five stages on two members, weights and worth against plain loops, and what is refused."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lib.base.files import read_json, sha256_of_file, write_json
from lib.config.load import load_settings
from lib.data.competition import TrainingData, open_training
from lib.prediction.ensemble import AveragedMaps, average, average_predictions, find_weights, trials, weights_of_images
from lib.prediction.map_store import MapStore, Prediction, read_presence
from lib.run.record import sealed
from lib.tools.summary import summarise
from lib.tuning.member_scores import score_members
from lib.tuning.thresholds import best_threshold
from tests.conftest import write_competition
from tests.stages import SETTINGS, STAGES, completed, script
from tests.tuning.planted import planted_table

NAMES = ["runs/first", "runs/second"]
BOTH = f"ensemble: {{members: [{', '.join(NAMES)}]}}\ninfer: {{tta: none}}\npostprocess: {{steps: [fill]}}\n"


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> Path:
    """Two trained members without maps, and an ensemble that has gone through all five stages."""
    folder = tmp_path_factory.mktemp("user")
    write_competition(folder / "data" / "blobs", training=12, test=3)
    (folder / "blobs.yaml").write_text(SETTINGS)
    (folder / "both.yaml").write_text(BOTH)
    for seed, name in enumerate(NAMES):
        own = [f"name={Path(name).name}", f"train.seed={seed}", "train.epochs=1"]
        completed(folder, f"{STAGES[0]}.py", "--config", "blobs.yaml", *own)
        completed(folder, f"{STAGES[1]}.py", "--run", name)
    completed(folder, f"{STAGES[0]}.py", "--config", "both.yaml", "ensemble.weights=search")
    said = completed(folder, f"{STAGES[1]}.py", "--run", "runs/both").out
    assert "nothing to train" in said and "python 03_oof_threshold.py --run runs/both" in said
    for stage in STAGES[2:]:
        completed(folder, f"{stage}.py", "--run", "runs/both")
    return folder


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_maps_are_the_members_maps_averaged_with_the_weights_told(user):
    run = user / "runs" / "both"
    found = json.loads((run / "ensemble.json").read_text())
    assert list(found["weights"]) == NAMES
    folds = pd.read_csv(run / "folds.csv").set_index("id").fold
    for image_id, fold in folds.items():
        members = [read(user / name / "oof" / f"{image_id}.png").astype(float) for name in NAMES]
        expected = sum(w * one for w, one in zip(found["of_part"][str(fold)], members, strict=True))
        assert np.abs(read(run / "oof" / f"{image_id}.png") - expected).max() <= 0.51
    for path in (run / "test").glob("*.png"):
        used = {name: weight for name, weight in found["weights"].items() if weight}
        expected = sum(weight * read(user / name / "test" / path.name).astype(float) for name, weight in used.items())
        assert np.abs(read(path) - expected).max() <= 0.51
    assert len(pd.read_csv(run / "submission.csv")) == 3


def test_03_05_and_compare_tell_one_nested_score(user, monkeypatch):
    run = user / "runs" / "both"
    nested = read_json(run / "threshold.json")["nested"]
    assert read_json(run / "ensemble.json")["nested"] == nested
    assert read_json(run / "postprocess.json")["before"]["nested"] == nested
    completed(user, f"{STAGES[2]}.py", "--run", NAMES[0])
    completed(user, "-m", "lib.tools.compare", NAMES[0], "runs/both", "--out", "compared")
    told = read_json(user / "compared" / "compare.json")["against"]["both"]["dice"]["challenger"]
    assert told == pytest.approx(nested, abs=1e-9)


def test_the_summary_names_the_members(user, monkeypatch, capsys):
    monkeypatch.chdir(user)
    summarise(Namespace(run=Path("runs/both"), solution=user / "data" / "blobs" / "solution.csv"))
    said = capsys.readouterr().out
    assert all(name in said for name in NAMES) and "submission.csv" in said


def test_a_member_with_other_weights_makes_the_later_stages_refuse(user, tmp_path):
    folder = tmp_path / "user"
    shutil.copytree(user, folder)
    weights = folder / NAMES[0] / "fold_1" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1  # a late bit of the last number, so that the network still predicts
    weights.write_bytes(content)
    metrics = weights.with_name("metrics.json")  # as if it had been trained anew
    write_json(metrics, sealed(read_json(metrics) | {"weights_sha256": sha256_of_file(weights)}))
    for stage in STAGES[3:]:
        refused = script(folder, f"{stage}.py", "--run", "runs/both")
        assert refused.code == 2 and "03_oof_threshold.py --run runs/both" in refused.err
    completed(folder, f"{STAGES[2]}.py", "--run", "runs/both")
    completed(folder, f"{STAGES[3]}.py", "--run", "runs/both")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["ensemble.members=[runs/first, runs/other]"], "runs/other has other folds or classes than runs/first"),
        (["ensemble.members=[runs/first, runs/both]"], "runs/both is an ensemble itself"),
        (["ensemble.members=[runs/first, runs/none]"], "ensemble.members: runs/none does not exist"),
        (["ensemble.members=[runs/first, runs/first]"], "none of them twice"),
        (["ensemble.weights=[1, 2, 3]"], "3 numbers for 2 members"),
        (["folds.count=4"], "leave these out"),
    ],
)
def test_what_cannot_be_averaged_is_refused_in_one_sentence(user, overrides, sentence):
    if not (user / "runs" / "other").exists():
        own = ["name=other", "folds.seed=5", "folds.count=4"]
        completed(user, f"{STAGES[0]}.py", "--config", "blobs.yaml", *own)
    refused = script(user, f"{STAGES[0]}.py", "--config", "both.yaml", "name=refused", *overrides)
    assert refused.code == 2
    assert sentence in refused.err and refused.err.count("\n") == 1


@pytest.fixture
def planted(competition, tmp_path) -> tuple[TrainingData, list[MapStore], pd.DataFrame]:
    """Three members' maps: the truth with noise of growing strength, the last one noise alone."""
    (tmp_path / "plain.yaml").write_text(f"data: {{root: {competition}}}")
    data = open_training(load_settings(tmp_path / "plain.yaml").data)
    random = np.random.default_rng(0)
    stores = [MapStore(tmp_path / str(number), tuple(data.classes)) for number in range(3)]
    for image_id in data.ids:
        truth = data.read_mask(image_id)
        for store, signal, noise in zip(stores, (90, 60, 0), (50, 60, 80), strict=True):
            maps = 128 + signal * (truth - 0.5) + random.normal(0, noise, truth.shape)
            store.write(image_id, np.clip(maps, 0, 255).astype(np.uint8))
    return data, stores, pd.DataFrame({"id": data.ids, "fold": np.arange(len(data.ids)) % 3, "group": data.ids})


def test_presence_is_averaged_with_the_weights_of_the_maps(planted):
    data, stores, table = planted
    random = np.random.default_rng(1)
    told = {(number, i): int(random.integers(256)) for number in range(3) for i in data.ids}
    for number, store in enumerate(stores[:2]):
        for i in data.ids:
            store.write(i, store.read(i), np.array([told[number, i]], np.uint8))
    of_part = {"0": (0.25, 0.75, 0.0), "1": (1.0, 0.0, 0.0), "2": (0.5, 0.5, 0.0)}
    found = read_presence(AveragedMaps(stores, weights_of_images(of_part, table), False), data.ids)
    for row, i, fold in zip(found[:, 0].tolist(), table.id, table.fold, strict=True):
        assert row == np.rint(sum(of_part[str(fold)][number] * told[number, i] for number in (0, 1)))
    with_third = weights_of_images(of_part | {"1": (0.5, 0.0, 0.5)}, table)  # the third has no presence
    assert read_presence(AveragedMaps(stores, with_third, False), data.ids) is None
    maps = np.zeros((2, 2, 1), np.uint8)
    both = [Prediction(maps, np.array([10], np.uint8)), Prediction(maps, None)]
    assert average_predictions(both, [0.5, 0.5]).presence is None and average_predictions(both[:1], [1.0]) is both[0]


def dice_of(data, stores, image_id: str, row: tuple) -> list[float]:
    """Dice of an averaged map at each threshold, by plain loops."""
    truth = data.read_mask(image_id)[..., 0] > 0
    maps = [store.read(image_id)[..., 0].astype(np.float32) for store in stores]
    mean = np.rint(sum(np.float32(w) * of_member for w, of_member in zip(row, maps, strict=True)))
    scores = []
    for t in range(1, 256):
        mask = mean >= t
        size = mask.sum() + truth.sum()
        scores.append(2 * (mask & truth).sum() / size if size else 1.0)
    return scores


def test_weights_of_a_fold_are_those_that_score_best_on_the_others(planted, tmp_path):
    data, stores, table = planted
    table = table[:9]
    (tmp_path / "three.yaml").write_text("ensemble: {members: [a, b, c], weights: search}")
    found = find_weights(stores, load_settings(tmp_path / "three.yaml"), data, table)
    together, without = trials("search", 3)
    curves = {row: {i: np.array(dice_of(data, stores, i, row)) for i in table.id} for row in together}
    for fold in range(3):
        others = table.id[table.fold != fold]
        for rows, chosen in (together, found["of_part"]), (without[1], found["of_part_without"]["b"]):
            best = {row: np.mean([curves[row][i] for i in others], axis=0).max() for row in rows}
            assert best[chosen[str(fold)]] == pytest.approx(max(best.values()))


def members_scored(planted, tmp_path, monkeypatch, weights: str) -> dict:
    """The content of ensemble.json for the planted members, called a, b and c."""
    data, stores, table = planted
    (tmp_path / "three.yaml").write_text(f"ensemble: {{members: [a, b, c], weights: {weights}}}")
    settings = load_settings(tmp_path / "three.yaml")
    members = [(Namespace(oof=store.folder), None) for store in stores]
    monkeypatch.setattr("lib.prediction.ensemble.open_members", lambda settings: members)
    found = find_weights(stores, settings, data, table)
    return score_members(found, nested_of(planted, found["of_part"]), settings, data, table)


def nested_of(planted, of_part: dict) -> float:
    """The nested score of averaged maps by plain loops: for each fold all maps have the weights found without it."""
    data, stores, table = planted
    folds, nested = table.fold.to_numpy(), []
    for fold in range(3):
        scores = planted_table(np.array([dice_of(data, stores, i, of_part[str(fold)]) for i in table.id]))
        threshold = best_threshold(scores.of(folds != fold))
        nested.extend(scores.of(folds == fold).terms_at(threshold)[0])
    return float(np.mean(nested))


def test_worth_is_scored_as_any_run_is(planted, tmp_path, monkeypatch):
    found = members_scored(planted, tmp_path, monkeypatch, "[2, 1, 1]")
    assert found["weights"] == {"a": 0.5, "b": 0.25, "c": 0.25}
    every = ["0", "1", "2"]
    assert found["alone"]["b"] == pytest.approx(nested_of(planted, dict.fromkeys(every, (0, 1, 0))))
    assert found["without"]["b"] == pytest.approx(nested_of(planted, dict.fromkeys(every, (2 / 3, 0, 1 / 3))))


def test_the_search_finds_who_is_worth_what(planted, tmp_path, monkeypatch):
    found = members_scored(planted, tmp_path, monkeypatch, "search")
    first, second, noise = found["weights"].values()
    assert first > second > 0 and noise <= 1 / 6
    assert found["nested"] > found["alone"]["a"] > found["alone"]["b"] > found["alone"]["c"]
    assert found["without"]["a"] < found["without"]["b"] < found["nested"]


def test_an_average_of_equal_runs_scores_what_each_of_them_does(planted, tmp_path, monkeypatch):
    data, stores, table = planted
    found = members_scored((data, stores[:1] * 3, table), tmp_path, monkeypatch, "equal")
    scores = [*found["alone"].values(), *found["without"].values()]
    assert scores == pytest.approx([found["nested"]] * 6, abs=1e-12)


def test_every_weighting_is_tried_once_and_adds_up_to_one():
    for members in (2, 3, 4, 5):
        together, without = trials("search", members)
        assert len(set(together)) == len(together)
        assert np.allclose(np.sum(together, axis=1), 1)
        assert all(row[member] == 0 for member in range(members) for row in without[member])
    assert trials([3, 1], 2)[0] == [(0.75, 0.25)]
    assert average([np.full((1, 1, 1), 10, np.uint8), np.full((1, 1, 1), 21, np.uint8)], (0.5, 0.5))[0, 0, 0] == 16
