import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.base.errors import UserError
from lib.base.files import read_json, write_bytes, write_json
from lib.checks.inspection import inspect_all
from lib.config.check import save_settings
from lib.config.data_settings import DataSettings
from lib.config.load import load_settings
from lib.config.schema import FoldSettings, Settings
from lib.data.competition import open_training
from lib.data.input_files import note_training_files
from lib.folds.split import assign_folds, image_table, write_folds
from lib.masks.metrics import Metric, count_images
from lib.masks.rules import Rule
from lib.prediction.map_store import MapStore, read_pairs
from lib.prediction.run_maps import open_oof_maps
from lib.report.galleries import most_changed
from lib.run.folder import RunFolder
from lib.run.provenance import threshold_inputs, training_inputs
from lib.run.record import StageRecord
from lib.tools.compare import (
    ScoredRun,
    border_band,
    compare,
    describe_difference,
    mask_scores,
    score_table,
)
from lib.tuning.thresholds import choose_thresholds
from tests import REPOSITORY

masks = arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(2)), elements=st.integers(0, 1))


def finish_run(root: Path, competition: Path, noise: float, folds: int = 3, **data: object) -> Path:
    """A run as 01 to 03 leave it, with maps that are the blurred truth plus noise."""
    data_settings = DataSettings(root=competition, **data)
    settings = Settings(name=root.name, data=data_settings, folds=FoldSettings(count=folds))
    run = RunFolder(root)
    save_settings(settings, run.config)
    data = open_training(data_settings)
    facts = inspect_all(data).facts
    groups = {fact.id: f"group_{number // 2}" for number, fact in enumerate(facts)}
    table = assign_folds(image_table(facts, groups, data.classes), folds, seed=0)
    write_folds(table, data.classes, run.folds)
    note_training_files(run, data, {})
    for fold in range(folds):
        write_bytes(run.fold(fold).weights, f"weights {root.name} {fold}".encode())
        write_json(run.fold(fold).metrics, {"made_from": training_inputs(run, settings)})
    store, random = open_oof_maps(run, settings, table, threshold_inputs(run, settings)), np.random.default_rng(0)
    for image_id in data.ids:
        soft = cv2.GaussianBlur(data.read_mask(image_id).astype(float), (0, 0), 2).reshape(48, 64, 1)
        soft += noise * cv2.GaussianBlur(random.standard_normal((48, 64)), (0, 0), 3)[..., None]
        store.write(image_id, np.clip(255 * soft, 0, 255).astype(np.uint8))
    counts = count_images(read_pairs(store, data, table.id, None), data.classes)
    counts.save(run.oof_counts)
    result = choose_thresholds(counts, table.fold.to_numpy(), settings.threshold, table.group.to_numpy())
    write_json(run.threshold, result.to_dict())
    StageRecord(run, "03_oof_threshold").write(threshold_inputs(run, settings))
    return root


@pytest.fixture
def two_runs(tmp_path, competition) -> tuple[Path, Path]:
    return finish_run(tmp_path / "poor", competition, 3.0), finish_run(tmp_path / "good", competition, 0.5)


def compared(*runs: Path, out: Path) -> dict:
    compare(Namespace(runs=list(runs), out=out))
    return read_json(out / "compare.json")["against"]


def test_scores_are_the_nested_ones_and_the_better_run_wins(two_runs, tmp_path, capsys, monkeypatch):
    poor, good = two_runs
    note = "lib.tools.compare.notes_on_scores"
    monkeypatch.setattr(note, lambda run, settings: "said of good\n" if run.root == good else "")
    found = compared(poor, good, out=tmp_path / "out")["good"]
    for measure in ("dice", "iou", "boundary_iou"):
        assert found[measure]["difference"] > 0.05
        low, high = found[measure]["interval"]
        assert 0 < low < found[measure]["difference"] < high
        assert found[measure]["better"] > 5 * found[measure]["worse"]
    # Stage 03 has the nested Dice from pixel counts; here it comes from the masks themselves.
    assert found["dice"]["baseline"] == pytest.approx(read_json(poor / "threshold.json")["nested"])
    assert found["dice"]["challenger"] == pytest.approx(read_json(good / "threshold.json")["nested"])

    table = pd.read_csv(tmp_path / "out/compare.csv")
    means = table.groupby("run")[["dice", "iou", "boundary_iou"]].mean()
    for measure in means:
        assert means[measure]["good"] - means[measure]["poor"] == pytest.approx(found[measure]["difference"], abs=1e-5)
    by_fold = table.pivot_table(index="fold", columns="run", values="dice")
    for fold, difference in found["dice"]["by_fold"].items():
        assert by_fold["good"][int(fold)] - by_fold["poor"][int(fold)] == pytest.approx(difference, abs=1e-5)

    picture = cv2.imread(str(tmp_path / "out/compare_good.png"))
    assert picture.shape[0] > picture.shape[1] / 2
    said = capsys.readouterr().out
    assert "good against poor" in said and said.count("said of good") == 1


def test_swapping_the_runs_turns_the_signs():
    one, other = np.random.default_rng(0).random((2, 30, 1, 3))
    table = pd.DataFrame({"id": range(30), "fold": 0, "group": [str(number) for number in range(30)]})
    ahead, back = (describe_difference(*pair, table, 200)["dice"] for pair in ((one, other), (other, one)))
    assert ahead["difference"] == pytest.approx(-back["difference"])
    assert ahead["interval"] == pytest.approx([-limit for limit in back["interval"][::-1]])
    assert (ahead["better"], ahead["worse"]) == (back["worse"], back["better"])


def test_equal_runs_do_not_differ(tmp_path, competition):
    runs = [finish_run(tmp_path / name, competition, 2.0) for name in ("one", "same")]
    found = compared(*runs, out=tmp_path / "one")["same"]
    for measure in found.values():
        assert (measure["difference"], measure["interval"]) == (0, [0, 0])
        assert (measure["better"], measure["worse"]) == (0, 0)
    assert (tmp_path / "one/compare_same.png").is_file()


def test_runs_that_do_not_belong_together_are_refused(two_runs, tmp_path, competition):
    poor, good = two_runs
    other = finish_run(tmp_path / "other", competition, 1.0, folds=4)
    with pytest.raises(UserError, match="other/folds.csv differs"):
        compared(poor, other, out=tmp_path)
    with pytest.raises(UserError, match="two of the runs are called poor"):
        compared(poor, poor, out=tmp_path)
    with pytest.raises(UserError, match="at least two"):
        compared(poor, out=tmp_path)
    (good / "fold_0/model.safetensors").write_bytes(b"trained again")
    with pytest.raises(UserError, match="fold_0.*run 03_oof_threshold.py --run .*good"):
        compared(poor, good, out=tmp_path)
    (good / "oof_counts.npz").unlink()
    with pytest.raises(UserError, match="oof_counts.npz does not exist; run 03"):
        compared(poor, good, out=tmp_path)


def test_command_line_answers_in_one_sentence(tmp_path):
    command = [sys.executable, "-m", "lib.tools.compare", str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "not a run folder" in done.stderr and "Traceback" not in done.stderr


@given(masks, st.data())
def test_measures_against_sets_of_pixels(mask, data):
    truth = data.draw(arrays(np.uint8, mask.shape, elements=st.integers(0, 1)))
    scores = mask_scores(mask, truth)
    for layer in range(2):
        a, b = (set(map(tuple, np.argwhere(m[..., layer]))) for m in (mask, truth))
        bands = [{p for p in pixels if touches_outside(p, pixels)} for pixels in (a, b)]
        expected = [
            2 * len(a & b) / (len(a) + len(b)) if a | b else 1,
            len(a & b) / len(a | b) if a | b else 1,
            len(bands[0] & bands[1]) / len(bands[0] | bands[1]) if bands[0] | bands[1] else 1,
        ]
        np.testing.assert_allclose(scores[layer], expected)


def touches_outside(pixel: tuple[int, int], pixels: set[tuple[int, int]]) -> bool:
    """Whether one of the eight neighbours is not in the set: the band of a small mask, 1 px wide."""
    return any((pixel[0] + down, pixel[1] + right) not in pixels for down in (-1, 0, 1) for right in (-1, 0, 1))


def test_band_is_two_percent_of_the_diagonal():
    full = np.ones((120, 160, 1), np.uint8)  # diagonal 200
    assert border_band(full).sum() == 120 * 160 - 112 * 152
    assert border_band(full)[:4].all() and not border_band(full)[4:-4, 4:-4].any()


def test_description_by_hand():
    table = pd.DataFrame({"id": list("abcd"), "fold": [0, 0, 1, 1], "group": list("wxyz")})
    baseline = np.full((4, 2, 3), 0.5)
    challenger = baseline.copy()
    challenger[:, 0, 0] = [0.7, 0.5, 0.3, 0.9]  # Dice of the first of two classes
    found = describe_difference(baseline, challenger, table, repeats=200)
    assert found["dice"]["difference"] == pytest.approx(0.05)
    assert (found["dice"]["better"], found["dice"]["worse"]) == (2, 1)
    assert found["dice"]["by_fold"] == pytest.approx({0: 0.05, 1: 0.05})
    assert found["iou"]["difference"] == 0


def test_interval_counts_a_group_once():
    random = np.random.default_rng(0)
    difference = random.normal(0, 0.1, 20).repeat(10)
    scores = np.zeros((200, 1, 3))
    table = pd.DataFrame({"id": range(200), "fold": 0, "group": [str(n) for n in range(200)]})
    single = describe_difference(scores, scores + difference[:, None, None], table, 500)["dice"]["interval"]
    table["group"] = [str(number // 10) for number in range(200)]
    grouped = describe_difference(scores, scores + difference[:, None, None], table, 500)["dice"]["interval"]
    assert np.ptp(grouped) == pytest.approx(np.sqrt(10) * np.ptp(single), rel=0.25)


def test_most_changed_rises_then_falls():
    difference = np.zeros((12, 2))
    difference[[1, 3, 5, 7, 9], [0, 1, 0, 1, 0]] = [0.1, 0.5, 0.3, 0.2, 0.4]
    difference[[2, 4], [0, 1]] = [-0.1, -0.2]
    assert most_changed(difference, 4) == [[(3, 1), (9, 0), (5, 0), (7, 1)], [(4, 1), (2, 0)]]
    assert most_changed(np.zeros((3, 1)), 4) == [[], []]


def test_each_class_and_fold_has_its_rule(tmp_path):
    store = MapStore(tmp_path, ("cat", "dog"))
    store.write("x", np.full((4, 5, 2), 100, np.uint8))
    store.write("y", store.read("x"))
    rules = [{"cat": Rule(100), "dog": Rule(101)}, {"cat": Rule(101), "dog": Rule(100)}]
    run = ScoredRun("run", store, dict(zip("xy", rules, strict=True)), Metric(), {})
    assert run.predict("x").mean(axis=(0, 1)).tolist() == [1, 0]
    assert run.predict("y").mean(axis=(0, 1)).tolist() == [0, 1]


def test_score_table_has_a_row_for_each_run_class_and_image():
    runs = [ScoredRun(name, None, {}, Metric(), {}) for name in ("a", "b")]
    data = type("Data", (), {"classes": ["cat", "dog"]})
    table = pd.DataFrame({"id": ["x", "y", "z"], "fold": [0, 1, 0], "group": ["g", "g", "h"]})
    scores = np.arange(2 * 3 * 2 * 3, dtype=float).reshape(2, 3, 2, 3)
    rows = score_table(runs, scores, data, table).set_index(["run", "class", "id"])
    assert len(rows) == 12
    assert rows.loc[("b", "dog", "y"), ["dice", "iou", "boundary_iou"]].tolist() == scores[1, 1, 1].tolist()
    assert rows.loc[("b", "dog", "y"), "fold"] == 1


def test_runs_scored_at_different_sizes_are_refused(two_runs, tmp_path):
    poor, good = two_runs
    settings = load_settings(good / "config.yaml", ["submission.size=[24, 32]"])
    save_settings(settings, good / "config.yaml")
    with pytest.raises(UserError, match=r"good is scored at another submission.size than .*poor"):
        compared(poor, good, out=tmp_path)


@pytest.mark.parametrize("behind", [0, 1])
def test_a_run_with_models_of_fewer_folds_is_named(two_runs, tmp_path, behind):
    (two_runs[behind] / "fold_1/metrics.json").unlink()
    command = rf"02_train\.py --run .*{two_runs[behind].name} --folds 1, and then 03"
    with pytest.raises(UserError, match=f"has models of fold .*, so their scores are of other images; run {command}"):
        compared(*two_runs, out=tmp_path)


def test_runs_that_read_other_masks_are_refused_though_their_folds_are_equal(tmp_path, competition):
    """Pixels numbered along the rows instead of down the columns: other masks, of the same areas."""
    columns = finish_run(tmp_path / "columns", competition, 1.0)
    rows = finish_run(tmp_path / "rows", competition, 1.0, rle={"order": "row"}, doubtful_rle="read")
    assert (columns / "folds.csv").read_bytes() == (rows / "folds.csv").read_bytes()
    with pytest.raises(UserError, match="the true mask of 'train_.*' in rows is not that of the baseline"):
        compared(columns, rows, out=tmp_path)
