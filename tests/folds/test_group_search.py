"""Stage 01 on data with hidden groups: the folds, what is printed, how it is undone and how it is written down."""

import argparse
import hashlib
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lib.config.load import load_settings
from lib.folds import group_sample
from lib.run.stage import opened
from tests import REPOSITORY
from tests.folds.test_duplicates import textured
from tests.folds.test_overlaps import texture


@pytest.fixture
def scenes(tmp_path, monkeypatch) -> Path:
    """Eight large textures, cut into six crops each that do not overlap; the ids name the texture."""
    folder = tmp_path / "data" / "train_images"
    folder.mkdir(parents=True)
    rows = []
    for scene in range(8):
        whole = textured(scene, height=160, width=240)
        tint = np.random.default_rng(scene).uniform(0.3, 1.0, 3)
        whole = cv2.GaussianBlur((whole * tint).astype(np.uint8), (0, 0), 0.5 + scene / 3)
        for number in range(6):
            row, column = divmod(number, 3)
            crop = whole[80 * row : 80 * row + 80, 80 * column : 80 * column + 80]
            cv2.imwrite(str(folder / f"scan{scene:03d}_{number}.png"), crop)
            rows.append({"id": f"scan{scene:03d}_{number}", "rle": "1 50"})
    pd.DataFrame(rows).to_csv(tmp_path / "data" / "train.csv", index=False)
    (tmp_path / "demo.yaml").write_text("data: {root: data}\nfolds: {count: 4}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(*overrides: str) -> pd.DataFrame:
    arguments = argparse.Namespace(config=Path("demo.yaml"), overrides=list(overrides))
    run, settings = opened(arguments)
    importlib.import_module("01_prepare_folds").prepare_folds(run, settings, arguments)
    return pd.read_csv(run.folds)


def test_folds_are_grouped_by_what_is_found_and_it_can_be_undone_or_written_down(scenes, capsys):
    table = prepare("name=found")
    printed = capsys.readouterr().out
    assert (table.groupby(table.id.str[:7]).fold.nunique() == 1).all() and table.group.nunique() == 8
    assert "folds are grouped by 8 groups by the first field of the id" in printed
    assert 'data.group="id:([^_]+)"' in printed and "folds.hidden_groups=warn" in printed

    warned = prepare("name=warned", "folds.hidden_groups=warn")
    printed = capsys.readouterr().out
    assert "folds could be grouped by 8 groups" in printed
    assert "its folds would hold 12 to 12 images, 2 to 2 groups, 0.78 to 0.78 % mask" in printed  # 50 of 6400 pixels
    off = prepare("name=plain", "folds.hidden_groups=off")
    assert "hidden" not in capsys.readouterr().out
    assert warned.equals(off) and off.group.nunique() == 48
    assert not (scenes / "runs/plain/features.npz").exists() and (scenes / "runs/found/features.npz").is_file()

    by_rule = prepare("name=rule", "data.group=id:([^_]+)")
    by_table = prepare("name=table", "data.group_csv=../runs/found/hidden_groups.csv", "data.group=candidate_1")
    assert by_rule.fold.equals(table.fold) and by_table.fold.equals(table.fold)
    assert "hidden" not in capsys.readouterr().out


def test_test_images_with_an_id_of_a_training_group_are_counted(scenes, capsys):
    (scenes / "data/test_images").mkdir()
    for name in ("scan000_8", "scan007_8", "scan008_0", "other"):
        cv2.imwrite(str(scenes / f"data/test_images/{name}.png"), textured(99, height=80, width=80))
    prepare("name=found", "data.sample_submission=null")
    assert "2 of 4 test images are of these groups, by their ids" in capsys.readouterr().out


def test_yaml_s_off_is_no_boolean(scenes):
    Path("demo.yaml").write_text("folds: {hidden_groups: off}\n")
    assert load_settings(Path("demo.yaml"), []).folds.hidden_groups == "off"


def rename_images(names: list[str]) -> None:
    """Give the images of data/train_images other ids, in the order of their ids."""
    table = pd.read_csv("data/train.csv")
    for old, new in zip(table.id, names, strict=True):
        Path(f"data/train_images/{old}.png").rename(f"data/train_images/{new}.png")
    table.assign(id=names).to_csv("data/train.csv", index=False)


def test_tiles_of_a_photo_are_grouped_whatever_their_ids(scenes, capsys):
    names = [f"img_{number:02d}" for number in np.random.default_rng(0).permutation(48)]
    rename_images(names)
    scene_of = dict(zip(names, np.arange(48) // 6, strict=True))
    table = prepare("name=mosaics")
    printed = capsys.readouterr().out
    assert "48 of 48 images continue another one at a border, as the tiles of one photo do: 8 scenes" in printed
    assert "folds are grouped by them" in printed and "folds.hidden_groups=warn" in printed
    scene = table.id.map(scene_of)
    assert table.groupby("group").id.count().eq(6).all() and scene.groupby(table.group).nunique().eq(1).all()
    assert set(table.group) <= set(names)

    warned = prepare("name=warned", "folds.hidden_groups=warn")
    assert "folds could be grouped by them" in capsys.readouterr().out and warned.group.nunique() == 48
    used = prepare("name=used", "data.group_csv=../runs/warned/hidden_groups.csv", "data.group=mosaics")
    assert used.fold.groupby(scene).nunique().eq(1).all()


@pytest.mark.parametrize("of_same_photos", [True, False])
def test_tiles_are_not_grouped_if_the_test_set_is_of_the_same_photos(of_same_photos, scenes, capsys):
    """Every third tile is a test image; or the test images are tiles of other photos."""
    rename_images([f"img_{number:02d}" for number in np.random.default_rng(0).permutation(48)])
    table, folder = pd.read_csv("data/train.csv"), Path("data/test_images")
    folder.mkdir()
    if of_same_photos:
        is_test = np.arange(48) % 3 == 1
        for image_id in table.id[is_test]:
            Path(f"data/train_images/{image_id}.png").rename(folder / f"{image_id}.png")
        table[~is_test].to_csv("data/train.csv", index=False)
    else:
        for seed in range(12):
            cv2.imwrite(str(folder / f"other_{seed}.png"), texture(seed, 80))
    settings = "data: {root: data, sample_submission: null}\nfolds: {count: 4}\n"
    Path("demo.yaml").write_text(settings)
    prepare("name=tiles")
    printed = capsys.readouterr().out
    told = re.search(r"(\d+) of (\d+) test images continue a training image", printed)
    if of_same_photos:
        assert int(told[1]) > 10 and told[2] == "16"
        assert f"folds are not grouped by them: {told[0]}, so the test set is of the same photos" in printed
    else:
        assert told[0].startswith("0 of 12") and "folds are grouped by them" in printed


def test_a_single_mosaic_is_no_reason_to_group(scenes, capsys):
    """All tiles are of one photo: folds by it cannot be made."""
    whole = texture(0, 480)
    rename_images([f"img_{number:02d}" for number in np.random.default_rng(0).permutation(48)])
    for number, path in enumerate(sorted(Path("data/train_images").iterdir())):
        row, column = divmod(number * 29 % 48, 8)
        cv2.imwrite(str(path), whole[80 * row : 80 * row + 80, 60 * column : 60 * column + 60])
    table = prepare("name=one")
    assert "folds are not grouped by them: " in capsys.readouterr().out and table.group.nunique() == 48


def test_a_handful_of_images_is_not_compared_and_the_setting_that_groups_them_is_named(scenes, capsys):
    table = pd.read_csv("data/train.csv")
    for seed, image_id in enumerate(table.id):
        path = Path(f"data/train_images/{image_id}.png")
        cv2.imwrite(str(path), texture(seed, 80)) if seed < 18 else path.unlink()
    table[:18].to_csv("data/train.csv", index=False)
    folds = prepare("name=few")
    printed = capsys.readouterr().out
    assert "groups were not looked for: 18 images are too few to compare, 20 are needed" in printed
    assert (
        '3 groups by the first field of the id, if these are scenes: data.group="id:([^_]+)" folds.count=3' in printed
    )
    assert "no groups" not in printed and folds.group.nunique() == 18


def test_only_what_was_tested_is_said_to_be_no_more_alike(scenes, capsys):
    for seed, path in enumerate(sorted(Path("data/train_images").iterdir())):
        cv2.imwrite(str(path), texture(seed, 80))
    prepare("name=named")
    assert (
        "no groups: by the first field of the id, field 2 of the id, the running number at" in capsys.readouterr().out
    )
    rename_images([hashlib.sha256(str(number).encode()).hexdigest()[:8] + "x" for number in range(48)])
    prepare("name=hashed")
    printed = capsys.readouterr().out
    assert "no groups: " in printed and "field of the id" not in printed


def test_independent_images_are_not_grouped(scenes):
    """No groups, and the folds are those without a search."""
    for seed, path in enumerate(sorted(Path("data/train_images").iterdir())):
        cv2.imwrite(str(path), texture(seed, 80))
    rename_images([f"img_{number:02d}" for number in range(48)])
    assert prepare("name=shuffled").equals(prepare("name=plain", "folds.hidden_groups=off"))


@pytest.mark.parametrize(("mode", "absent"), [("off", "torch"), ("auto", "timm")])
def test_01_loads_no_package_that_it_can_do_without(mode, absent, competition):
    """Loading torch, and timm on top of it, takes longer than all else that 01 does for a small data set."""
    (competition / "settings.yaml").write_text(f"data: {{root: {competition}}}\nfolds: {{hidden_groups: '{mode}'}}\n")
    code = (
        "import importlib, sys; from pathlib import Path; from lib.config.load import load_settings; "
        "from lib.run.folder import RunFolder; "
        "script = importlib.import_module('01_prepare_folds'); settings = load_settings(Path('settings.yaml'), []); "
        f"script.prepare_folds(RunFolder(Path('run')), settings, None); sys.exit('{absent}' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], cwd=competition, env=environment, check=True)
    assert (competition / "run" / "folds.csv").is_file()


def test_a_sample_of_the_images_finds_the_same_groups(scenes, monkeypatch, capsys):
    """As of many images; the features of all are then left to 03."""
    table = prepare("name=all")
    for limit in ("LARGEST", "DRAWN"):
        monkeypatch.setattr(group_sample, limit, 40)
    for image in Path("data/train_images").iterdir():  # no order that would have all images compared
        image.rename(image.with_stem(f"{image.stem[:7]}_{hashlib.sha256(image.stem.encode()).hexdigest()[:6]}x"))
    masks = pd.DataFrame({"id": sorted(path.stem for path in Path("data/train_images").iterdir()), "rle": "1 50"})
    masks.to_csv("data/train.csv", index=False)
    capsys.readouterr()
    sampled = prepare("name=sampled")
    printed = capsys.readouterr().out
    assert "folds are grouped by 8 groups by the first field of the id" in printed
    assert re.search(r"\(\d\d of 48 images were compared in", printed)
    assert set(sampled.group) == set(table.group)
    assert not Path("runs/sampled/features.npz").exists()


def write_windows(tmp_path: Path, step: int) -> dict[str, int]:
    """Nine windows of each of 6 scenes, 192 wide and `step` apart, named by hashes; the scene of each."""
    folder = tmp_path / "data" / "train_images"
    folder.mkdir(parents=True)
    scene_of = {}
    for scene in range(6):
        whole = texture(scene)
        for row in range(3):
            for column in range(3):
                name = hashlib.sha256(f"{scene} {row} {column}".encode()).hexdigest()[:12]
                scene_of[name] = scene
                window = whole[step * row : step * row + 192, step * column : step * column + 192]
                cv2.imwrite(str(folder / f"{name}.png"), window)
    pd.DataFrame({"id": list(scene_of), "rle": "1 50"}).to_csv(tmp_path / "data" / "train.csv", index=False)
    (tmp_path / "demo.yaml").write_text("data: {root: data}\nfolds: {count: 3}\n")
    return scene_of


def test_overlapping_crops_with_hashes_as_ids_are_a_warning_and_can_be_used(tmp_path, monkeypatch, capsys):
    """Not grouped unasked, and grouped by one line."""
    scene_of = write_windows(tmp_path, step=80)
    monkeypatch.chdir(tmp_path)
    warned = prepare("name=warned")
    printed = capsys.readouterr().out
    assert "warning   54 of 54 images share pixels with another one, at another place: 6 scenes" in printed
    assert warned.group.nunique() == 54
    used = prepare("name=used", "data.group_csv=../runs/warned/hidden_groups.csv", "data.group=overlaps")
    assert used.groupby(used.id.map(scene_of)).fold.nunique().eq(1).all()


def test_crops_that_overlap_some_and_continue_others_are_one_scene(tmp_path, monkeypatch, capsys):
    """At half their size from each other every second one continues the first."""
    scene_of = write_windows(tmp_path, step=96)
    monkeypatch.chdir(tmp_path)
    table = prepare("name=both")
    assert "54 of 54 images continue or overlap another one" in capsys.readouterr().out
    scene = table.id.map(scene_of)
    assert table.group.nunique() == 6 and table.group.groupby(scene).nunique().eq(1).all()
