"""data.resize in stages and tools: images of twice the size at a half are the small ones, but for the maps' size.

Also progressive resizing, an ensemble of two resolutions, and a bundle that finds the factors of hidden images.
"""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lib.data.competition import open_test
from lib.deploy.apply import predict_images
from lib.deploy.bundle import write_bundle
from lib.deploy.finished import open_finished
from lib.masks import rle
from lib.run.folder import open_run
from tests.conftest import write_competition
from tests.stages import STAGES, completed, script

SETTINGS = """
folds: {count: 2, near_duplicates: false, hidden_groups: "off"}
model: {encoder: resnet10t, weights: random, decoder_channels: [16, 8, 8, 8, 8]}
train: {epochs: 1, batch_size: 4, lr: 0.003, workers: 0}
infer: {tta: none}
postprocess: {steps: [remove], areas: [16]}
"""
DOUBLED = "data: {root: data/doubled, classes: [blob], resize: {column: pixel_size, to: 2}, resize_test_csv: test.csv}"


def doubled(array: np.ndarray) -> np.ndarray:
    return np.kron(array, np.ones((2, 2), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run on small images, and one on the same images at twice the size that the network sees at a half."""
    folder = tmp_path_factory.mktemp("resolution")
    small, large = write_competition(folder / "data" / "small", training=12, test=3), folder / "data" / "doubled"
    shutil.copytree(small, large)
    for path in large.rglob("*.png"):
        cv2.imwrite(str(path), doubled(cv2.imread(str(path), 0)))
    table = pd.read_csv(large / "train.csv", keep_default_na=False)
    table["rle"] = [rle.encode(doubled(rle.decode(text, (48, 64)))) for text in table.rle]
    table.assign(pixel_size=1).to_csv(large / "train.csv", index=False)
    (large / "test.csv").write_text("id,pixel_size\n" + "".join(f"test_{number:03d},1.0\n" for number in range(3)))
    (folder / "small.yaml").write_text("data: {root: data/small, classes: [blob]}" + SETTINGS)
    (folder / "half.yaml").write_text(DOUBLED + SETTINGS)
    run(folder, "small", stages=STAGES[:3])
    run(folder, "half")
    return folder


def run(folder: Path, name: str, *overrides: str, stages: tuple[str, ...] = STAGES) -> list[str]:
    """Run the stages; what they print."""
    printed = []
    for stage in stages:
        source = ["--config", f"{name}.yaml"] if stage == STAGES[0] else ["--run", f"runs/{name}"]
        ended = completed(folder, f"{stage}.py", *source, *overrides)
        printed.append(ended.out)
    return printed


def test_only_the_size_of_the_maps_differs(folder):
    small, half = (folder / "runs" / name for name in ("small", "half"))
    for fold in ("fold_0", "fold_1"):
        assert (small / fold / "model.safetensors").read_bytes() == (half / fold / "model.safetensors").read_bytes()
    paths = sorted((small / "oof").glob("*.png"))
    assert len(paths) == 12
    for path in paths:
        seen, found = (cv2.imread(str(root / "oof" / path.name), cv2.IMREAD_UNCHANGED) for root in (small, half))
        assert seen.shape == (48, 64) and found.shape == (96, 128)
        np.testing.assert_array_equal(found, cv2.resize(seen, (128, 96), interpolation=cv2.INTER_LINEAR))
    assert {cv2.imread(str(path), 0).shape for path in (half / "test").glob("*.png")} == {(96, 128)}
    submitted = pd.read_csv(half / "submission.csv", keep_default_na=False)
    assert all(rle.decode(text, (96, 128)).shape == (96, 128) for text in submitted.rle)
    assert not (half / "resized").exists()


def test_another_resolution_is_another_model(folder):
    ended = script(folder, "02_train.py", "--run", "runs/half", "data.resize={factor: 0.25}")
    assert ended.code == 2 and "resize" in ended.err
    ended = script(folder, "03_oof_threshold.py", "--run", "runs/half", "data.resize.to=1")
    assert ended.code == 2 and "resize" in ended.err


def test_a_changed_value_of_a_test_image_is_predicted_anew(folder):
    table, maps = folder / "data" / "doubled" / "test.csv", sorted((folder / "runs" / "half" / "test").glob("*.png"))
    before, content = [path.stat().st_mtime_ns for path in maps], table.read_text()
    try:
        table.write_text(content.replace("test_001,1.0", "test_001,1.5"))
        run(folder, "half", stages=("04_infer",))
        after = [path.stat().st_mtime_ns for path in maps]
        assert [old != new for old, new in zip(before, after, strict=True)] == [False, True, False]
        training = folder / "data" / "doubled" / "train.csv"
        kept = training.read_text()
        training.write_text(kept.replace(",1\n", ",2\n", 1))
        ended = script(folder, "02_train.py", "--run", "runs/half")
        training.write_text(kept)
        assert ended.code == 2 and "pixel_size train_000" in ended.err
    finally:
        table.write_text(content)
        run(folder, "half", stages=("04_infer",))


def test_a_run_starts_from_one_at_lower_resolution_and_both_are_averaged(folder):
    (folder / "whole.yaml").write_text(DOUBLED.replace("to: 2", "to: 1") + SETTINGS)
    run(folder, "whole", "model.weights=runs/half", stages=STAGES[:2])
    assert "fold 0 of runs/half" in (folder / "runs" / "whole" / "fold_0" / "metrics.json").read_text()
    (folder / "both.yaml").write_text("ensemble: {members: [runs/half, runs/whole]}")
    run(folder, "both", "infer.tta=none", stages=(STAGES[0], *STAGES[2:4]))
    for part in ("oof", "test"):
        for path in (folder / "runs" / "both" / part).glob("*.png"):
            half, whole, both = (
                cv2.imread(str(folder / "runs" / name / part / path.name), cv2.IMREAD_UNCHANGED).astype(float)
                for name in ("half", "whole", "both")
            )
            assert np.abs(both - (half + whole) / 2).max() <= 0.5


def test_a_bundle_resizes_hidden_images_by_their_own_column(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    write_bundle(open_finished(Path("runs/half")), tmp_path / "bundle", as_float16=False, wheels=False)
    hidden = tmp_path / "hidden"
    shutil.copytree(folder / "data" / "doubled" / "test_images", hidden / "test_images")
    shutil.copyfile(folder / "data" / "doubled" / "sample_submission.csv", hidden / "sample_submission.csv")
    image = cv2.imread(str(hidden / "test_images" / "test_002.png"), 0)
    cv2.imwrite(str(hidden / "test_images" / "test_002.png"), cv2.resize(image, None, fx=0.5, fy=0.5))
    rows = "test_000,1\ntest_001,1\ntest_002,2\n"
    (hidden / "test.csv").write_text(f"id,pixel_size\n{rows}")

    def predicted(out: Path) -> list[np.ndarray]:
        finished = open_finished(tmp_path / "bundle", [f"data.root={hidden}"])
        data = open_test(finished.settings.data)
        maps = predict_images(finished, data, out, hours=None, started=0.0)
        return [maps.read(image_id) for image_id in data.ids]

    first, second, third = predicted(tmp_path / "maps")
    _, settings = open_run(Path("runs/half"))
    for found, name in ((first, "test_000"), (second, "test_001")):
        expected = cv2.imread(f"runs/half/test/{name}.png", cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found[..., 0], expected)
    assert third.shape == (48, 64, 1) and settings.data.resize.to == 2
    (hidden / "test.csv").write_text("id,pixel_size\n" + rows.replace("test_001,1", "test_001,0.5"))
    again = predicted(tmp_path / "maps")
    assert not np.array_equal(again[1], second) and np.array_equal(again[0], first)
