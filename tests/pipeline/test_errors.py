"""Bad input, provoked as a user would meet it: exit code 2, one sentence that names the culprit, earlier work kept."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.base.files import atomic_path, read_json, sha256_of_file, write_json
from lib.config.schema import InferSettings
from lib.prediction.map_store import MapStore
from lib.prediction.predictor import Predictor
from lib.run.lock import HELD
from lib.run.record import sealed
from lib.training import trainer
from lib.training.batches import CropDataset
from lib.training.fold_job import FoldJob
from lib.training.state import TrainState
from tests.conftest import HEIGHT, WIDTH, write_competition
from tests.stages import REPOSITORY, SETTINGS, STAGES, Ended, Started, completed, limit_file_size, script, stage_words


def error_of(ended: Ended) -> str:
    """The sentence that a refused process printed last. Progress bars may stand before it, and nothing else."""
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    assert [line.startswith("error: ") for line in lines].count(True) == 1
    assert lines[-1].startswith("error: ")
    return lines[-1]


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def fresh(tmp_path) -> Path:
    """A folder with a competition and settings, and no run yet."""
    write_competition(tmp_path / "data" / "blobs")
    (tmp_path / "blobs.yaml").write_text(SETTINGS)
    return tmp_path


# --- 01: what is wrong with the data or the settings ------------------------------------------------------------------


def edit_table(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = folder / "data" / "blobs" / "train.csv"
    change(pd.read_csv(path, keep_default_na=False)).to_csv(path, index=False)


def set_rle(folder: Path, text: str) -> None:
    edit_table(folder, lambda table: table.assign(rle=[text, *table.rle[1:]]))


def image_of(folder: Path) -> Path:
    return folder / "data" / "blobs" / "train_images" / "train_000.png"


def png_of_zeros(path: Path, height: int, width: int) -> None:
    """A gray PNG of any size in a few bytes: one row of pixels is there, the header claims the rest."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(width + 1), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def write_masks(folder: Path) -> None:
    """Mask images instead of the table, the first one too small."""
    masks = folder / "data" / "blobs" / "masks"
    masks.mkdir()
    for number, path in enumerate(sorted((folder / "data" / "blobs" / "train_images").iterdir())):
        cv2.imwrite(str(masks / path.name), np.zeros((HEIGHT - (number == 0), WIDTH), np.uint8))


def empty_folder(folder: Path) -> None:
    for path in (folder / "data" / "blobs" / "train_images").iterdir():
        path.unlink()


def double_id(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table[:1]])


def climbing_id(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(id=["../x", *table.id[1:]])


def write_settings(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "blobs.yaml").write_text(text)


LAUGHS = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}' if n else 'ha'] * 9)}]" for n in range(12))
BAD_INPUT = {
    "missing image": (lambda folder: image_of(folder).unlink(), [], ["'train_000'", "train_images"]),
    "truncated image": (lambda folder: os.truncate(image_of(folder), 900), [], ["train_000.png", "cut short"]),
    "not an image": (lambda folder: image_of(folder).write_text("hello"), [], ["train_000.png", "not an image"]),
    "absurd size": (lambda folder: png_of_zeros(image_of(folder), 2**17, 2**17), [], ["train_000.png", "131072"]),
    "decompression bomb": (
        lambda folder: png_of_zeros(image_of(folder), 20_000, 20_000),
        ["data.max_pixels=1000000"],
        ["train_000.png", "data.max_pixels"],
    ),
    "run past the end": (
        lambda folder: set_rle(folder, f"{HEIGHT * WIDTH - 3} 5"),
        [],
        ["train.csv", "'train_000'", "past the end"],
    ),
    "huge run": (lambda folder: set_rle(folder, "1 99999999999999999999"), [], ["'train_000'", "past the end"]),
    "half a run": (lambda folder: set_rle(folder, "1 2 3"), [], ["'train_000'", "pair of start and length"]),
    "words for runs": (lambda folder: set_rle(folder, "nothing here"), [], ["'train_000'", "whole numbers"]),
    "mask of another size": (
        write_masks,
        ["data.train_masks=masks"],
        ["masks/train_000.png", f"{HEIGHT - 1} x {WIDTH}", f"{HEIGHT} x {WIDTH}"],
    ),
    "duplicate id": (lambda folder: edit_table(folder, double_id), [], ["'train_000'", "several rows", "train.csv"]),
    "climbing id": (lambda folder: edit_table(folder, climbing_id), [], ["'../x'", "train.csv"]),
    "no table": (lambda folder: (folder / "data/blobs/train.csv").unlink(), [], ["train.csv", "data.train_masks"]),
    "empty folder": (empty_folder, [], ["train_images", "no file"]),
    "no data": (lambda folder: shutil.rmtree(folder / "data"), [], ["data/blobs", "data.root"]),
    "unknown setting": (None, ["train.epoch=3"], ["'train.epoch'", "did you mean 'epochs'"]),
    "wrong type": (None, ["train.epochs=many"], ["train.epochs", "'many'"]),
    "out of range": (None, ["augment.rotate=2"], ["augment.rotate", "less than or equal to 1"]),
    "not a setting": (None, ["epochs"], ["'epochs'", "section.key=value"]),
    "climbing name": (None, ["name=../../x"], ["name", "'../../x'"]),
    "no settings": (lambda folder: (folder / "blobs.yaml").unlink(), [], ["blobs.yaml", "does not exist"]),
    "not YAML": (write_settings("data: [unclosed"), [], ["blobs.yaml", "YAML"]),
    "a list": (write_settings("- data"), [], ["blobs.yaml", "not a list"]),
    "code in YAML": (write_settings("data: !!python/object/apply:os.system ['touch broken']"), [], ["blobs.yaml"]),
    "a billion laughs": (write_settings(f"{LAUGHS}\nname: *l11"), [], ["blobs.yaml"]),
    "more folds than images": (None, ["folds.count=30"], ["folds.count", "24 groups"]),
    "a format's file is not there": (None, ["submission.format=mine.py:write"], ["mine.py", "submission.format"]),
    "runs is a file": (lambda folder: (folder / "runs").write_text(""), [], ["runs/blobs", "cannot be"]),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_stage_01_refuses(fresh, name):
    damage, overrides, words = BAD_INPUT[name]
    if damage:
        damage(fresh)
    before = contents(fresh)
    error = error_of(script(fresh, *stage_words(STAGES[0]), *overrides))
    assert all(word in error for word in words), error
    assert len(error) < 3000
    assert contents(fresh) == before
    assert not (fresh / "runs").is_dir()


def test_errors_of_01_do_not_wait_for_torch(fresh):
    image_of(fresh).write_text("hello")
    typed = "import runpy, sys; sys.argv = ['01', '--config', 'blobs.yaml']"
    run = f"try: runpy.run_path({str(REPOSITORY / '01_prepare_folds.py')!r}, run_name='__main__')"
    told = "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", f"{typed}\n{run}\n{told}"]
    done = subprocess.run(command, cwd=fresh, env=environment, capture_output=True, text=True)
    assert done.stdout.split()[-2:] == ["2", "False"], done.stderr


def test_folds_that_are_there_are_not_replaced(user):
    before = contents(user)
    error = error_of(script(user, *stage_words(STAGES[0]), "folds.count=4"))
    assert "runs/blobs/folds.csv" in error
    assert contents(user) == before


# --- 02: training -----------------------------------------------------------------------------------------------------


def in_epoch_2(act: Callable) -> None:
    """Let something happen in the first step of the second epoch: `act` takes the job and the step's losses."""
    step = trainer.train_step

    def changed(job: FoldJob, state: TrainState, loss_of: Callable, batch: dict, number: int) -> dict:
        losses = step(job, state, loss_of, batch, number)
        return act(job, losses) if (state.epoch, number) == (1, 0) else losses

    trainer.train_step = changed


def no_number() -> None:
    in_epoch_2(lambda job, losses: {name: value * float("nan") for name, value in losses.items()})


def vanishing_image() -> None:
    def act(job: FoldJob, losses: dict) -> dict:
        for path in Path("data/blobs/train_images").iterdir():
            path.unlink(missing_ok=True)
        return losses

    in_epoch_2(act)


def little_memory() -> None:
    def act(job: FoldJob, losses: dict) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    in_epoch_2(act)


def full_disk() -> None:
    in_epoch_2(lambda job, losses: limit_file_size(100_000) or losses)


def killed_worker(after: int = 2 * 4) -> None:
    """Kill the loader process after so many items of epoch 2: two batches are made while epoch 1 is validated."""
    read, of_epoch_2 = CropDataset.__getitem__, []

    def changed(self: CropDataset, key: tuple[int, int]) -> dict:
        if key[0] == 1:
            of_epoch_2.append(key)
        if len(of_epoch_2) > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, key)

    CropDataset.__getitem__ = changed


TRAINING = {
    "no number": (no_number, [], ["no longer a number in epoch 2", "fold_0/model.safetensors", "train.lr"]),
    "vanishing image": (vanishing_image, [], ["train_images/train_", "does not exist"]),
    "little memory": (little_memory, [], ["out of memory", "train.batch_size", "train.crop_size"]),
    "full disk": (full_disk, [], ["runs/blobs/fold_0/", "cannot be written"]),
    "killed worker": (killed_worker, ["train.workers=1"], ["loader process was killed", "train.workers"]),
}


def test_a_loader_process_killed_during_the_validation_is_explained(prepared):
    typed = [*stage_words(STAGES[1]), "--folds", "0", "train.workers=1"]
    assert "loader process was killed" in error_of(script(prepared, *typed, plant=partial(killed_worker, 0)))


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_that_fails_in_epoch_2_says_why_and_keeps_epoch_1(prepared, name):
    plant, overrides, words = TRAINING[name]
    images = Path(shutil.copytree(prepared / "data", prepared / "kept"))
    typed = [*stage_words(STAGES[1]), "--folds", "0", *overrides]
    error = error_of(script(prepared, *typed, plant=plant))
    assert all(word in error for word in words), error
    fold = prepared / "runs" / "blobs" / "fold_0"
    assert len(pd.read_csv(fold / "history.csv")) == 1
    assert load_file(fold / "model.safetensors")
    assert not list(prepared.rglob(".*.tmp*"))

    shutil.copytree(images, prepared / "data", dirs_exist_ok=True)  # the cause is gone: typed again, it goes on
    ended = completed(prepared, *typed)
    assert "epoch 1/2" not in ended.out
    assert len(pd.read_csv(fold / "history.csv")) == 2


def test_a_damaged_state_is_told_and_restart_helps(prepared):
    typed = [*stage_words(STAGES[1]), "--folds", "0"]
    assert script(prepared, *typed, plant=no_number).code == 2
    os.truncate(prepared / "runs/blobs/fold_0/resume/state.pt", 1000)
    assert "fold_0/resume/state.pt cannot be read" in error_of(script(prepared, *typed))
    completed(prepared, *typed, "--restart")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.encoder=resnet10"], ["model.encoder", "resnet10t"]),
        (["model.architecture=unnet"], ["model.architecture", "unet"]),
        (["model.weights=weights.pth"], ["weights.pth", "does not exist"]),
        (["model.weights=blobs.yaml"], ["blobs.yaml"]),
        (["train.precision=fp16"], ["train.precision"]),
        (["--folds", "7"], ["--folds 7", "0 to 2"]),
        (["data.channels=4"], ["data.channels"]),
        (["submission.format=mine.py:write"], ["mine.py", "submission.format"]),
    ],
)
def test_stage_02_refuses(prepared, overrides, words):
    error = error_of(script(prepared, *stage_words(STAGES[1]), *overrides))
    assert all(word in error for word in words), error
    assert not list((prepared / "runs" / "blobs").glob("fold_*/*"))


# --- 03 to 05: what does not belong together --------------------------------------------------------------------------


def swap_folds(user: Path) -> None:
    path = user / "runs" / "blobs" / "folds.csv"
    table = pd.read_csv(path)
    path.write_text(table.assign(fold=(table.fold + 1) % 3).to_csv(index=False))


def edit_weights(user: Path) -> None:
    path = user / "runs" / "blobs" / "fold_1" / "model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(path).items()}, path)


def train_anew(user: Path) -> None:
    """Other weights, with what training writes of them."""
    edit_weights(user)
    folder = user / "runs" / "blobs" / "fold_1"
    metrics = read_json(folder / "metrics.json")
    weights = {"weights_sha256": sha256_of_file(folder / "model.safetensors")}
    write_json(folder / "metrics.json", sealed(metrics | weights))


def remove_fold(user: Path) -> None:
    shutil.rmtree(user / "runs" / "blobs" / "fold_1")


def remove_folds(user: Path) -> None:
    for path in (user / "runs" / "blobs").glob("fold_*"):
        shutil.rmtree(path)


def exchange(one: Path, other: Path) -> None:
    kept = one.with_name("kept")
    one.rename(kept)
    other.rename(one)
    kept.rename(other)


def exchange_folds(user: Path) -> None:
    exchange(user / "runs/blobs/fold_0", user / "runs/blobs/fold_1")


def exchange_maps(user: Path) -> None:
    exchange(user / "runs/blobs/test/test_001.png", user / "runs/blobs/test/test_002.png")


def foreign_map(user: Path, folder: str, image_id: str) -> None:
    """In the place of a map, that of another run of the same image."""
    folder = user / "runs/blobs" / folder
    maps = MapStore(folder, ("blob",)).read(image_id)
    MapStore(folder, ("blob",), makers={image_id: "another run"}).write(image_id, 255 - maps)


def edit_threshold(user: Path) -> None:
    path = user / "runs/blobs/threshold.json"
    path.write_text(path.read_text().replace('"threshold":', '"threshold": 1'))


def edit_leak(user: Path) -> None:
    path = user / "runs/blobs/leak.json"
    path.write_text(path.read_text().replace('"nested": 0.', '"nested": 0.9', 1))


def edit_curves(user: Path) -> None:
    path = user / "runs/blobs/threshold.csv"
    path.write_text(path.read_text().replace("0.", "0.9"))


def edit_validation_score(user: Path) -> None:
    path = user / "runs/blobs/fold_1/metrics.json"
    path.write_text(path.read_text().replace('"val_dice": 0.', '"val_dice": 0.9'))


def negative(path: Path) -> None:
    cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


def replace_image(user: Path) -> None:
    negative(image_of(user))


def replace_test_image(user: Path) -> None:
    negative(user / "data/blobs/test_images/test_001.png")


def other_images(user: Path) -> None:
    for path in Path(shutil.copytree(image_of(user).parent, user / "data/blobs/other")).iterdir():
        negative(path)


def cut_weights(user: Path) -> None:
    os.truncate(user / "runs" / "blobs" / "fold_1" / "model.safetensors", 5000)


def lose_map(user: Path) -> None:
    (user / "runs" / "blobs" / "test" / "test_001.png").unlink()


def block_maps(user: Path) -> None:
    shutil.rmtree(user / "runs" / "blobs" / "oof")
    (user / "runs" / "blobs" / "oof").write_text("in the way")


def add_test_image(user: Path) -> None:
    images = user / "data" / "blobs" / "test_images"
    shutil.copy(images / "test_000.png", images / "new.png")


RESTART = "02_train.py --run runs/blobs --restart --folds"
STALE = {
    "other folds, 03": (swap_folds, STAGES[2], [], ["folds.csv", f"{RESTART} 0"]),
    "other folds, 04": (swap_folds, STAGES[3], [], ["folds.csv", f"{RESTART} 0"]),
    "other folds, 05": (swap_folds, STAGES[4], [], ["folds.csv", f"{RESTART} 0"]),
    "other folds, 02": (swap_folds, STAGES[1], [], ["folds.csv", "--restart --folds 0"]),
    "other training, 02": (None, STAGES[1], ["train.epochs=3"], ["train.epochs: 2 -> 3", "--restart --folds 0"]),
    "other training, 03": (None, STAGES[2], ["loss.terms=bce"], ["loss.terms", f"{RESTART} 0"]),
    "other reading, 04": (None, STAGES[3], ["data.rle.base=0"], ["data.rle.base: 1 -> 0", f"{RESTART} 0"]),
    "a fold removed": (remove_fold, STAGES[4], [], ["maps.fold_1", "03_oof_threshold.py"]),
    "no fold": (remove_folds, STAGES[2], [], ["no trained fold", "02_train.py --run runs/blobs"]),
    "other images": (other_images, STAGES[1], ["data.train_images=other"], ["'image train_000'", "and 21 more"]),
    "a training image replaced": (replace_image, STAGES[2], [], ["'image train_000' of the training data changed"]),
    "a test image replaced": (replace_test_image, STAGES[4], [], ["'test_001'", "04_infer.py --run runs/blobs"]),
    "folds exchanged": (exchange_folds, STAGES[2], [], ["fold_0 holds fold 1", f"{RESTART} 0"]),
    "threshold edited": (edit_threshold, STAGES[4], [], ["threshold.json is not what", "03_oof_threshold.py"]),
    "what the report shows edited": (edit_leak, STAGES[4], [], ["leak.json is not what", "03_oof_threshold.py"]),
    "curves edited": (edit_curves, STAGES[4], [], ["threshold.csv is not what", "03_oof_threshold.py"]),
    "a fold's score edited": (edit_validation_score, STAGES[2], [], ["fold_1/metrics.json is not what", "put it back"]),
    "maps exchanged": (exchange_maps, STAGES[4], [], ["'test_001', 'test_002'", "of other images", "04_infer.py"]),
    "a map of another run": (
        lambda user: foreign_map(user, "oof", "train_001"),
        STAGES[4],
        [],
        ["oof/train_001.png", "of another image or model", "03_oof_threshold.py --run runs/blobs"],
    ),
    "a test map of another run": (
        lambda user: foreign_map(user, "test", "test_001"),
        STAGES[4],
        [],
        ["'test_001'", "runs/blobs/test are absent", "04_infer.py --run runs/blobs"],
    ),
    "weights replaced": (edit_weights, STAGES[4], [], ["fold_1/model.safetensors is not what", f"{RESTART} 1"]),
    "a fold retrained": (train_anew, STAGES[4], [], ["maps.fold_1", "03_oof_threshold.py --run runs/blobs"]),
    "other views": (None, STAGES[4], ["infer.tta=flips"], ["03_oof_threshold.py --run runs/blobs"]),
    "other metric": (
        None,
        STAGES[4],
        ["threshold.metric=iou"],
        ["threshold.metric: dice -> iou", "03_oof_threshold.py"],
    ),
    "a map lost": (
        lose_map,
        STAGES[4],
        [],
        ["'test_001' in runs/blobs/test are absent", "04_infer.py --run runs/blobs"],
    ),
    "damaged weights": (cut_weights, STAGES[2], [], ["fold_1/model.safetensors is not what", f"{RESTART} 1"]),
    "a file in the way": (block_maps, STAGES[2], [], ["runs/blobs/oof", "cannot be"]),
    "a test image too many": (add_test_image, STAGES[3], [], ["'new'", "sample_submission.csv"]),
    "no run": (lambda user: shutil.rmtree(user / "runs"), STAGES[2], [], ["runs/blobs", "01_prepare_folds.py"]),
}


@pytest.mark.parametrize("name", STALE)
def test_what_does_not_belong_together_is_refused(user, name):
    damage, stage, overrides, words = STALE[name]
    if damage:
        damage(user)
    kept = ("model.safetensors", "history.csv", "metrics.json", "folds.csv", "config.yaml", "submission.csv")
    before = {path: content for path, content in contents(user).items() if path.endswith(kept)}
    error = error_of(script(user, *stage_words(stage), *overrides))
    assert all(word in error for word in words), error
    after = contents(user)
    assert all(after[path] == content for path, content in before.items())


def test_after_a_fold_is_retrained_each_stage_asks_for_the_one_before_it(user):
    train_anew(user)
    assert "03_oof_threshold.py" in error_of(script(user, *stage_words(STAGES[4])))
    before = contents(user / "runs" / "blobs" / "oof")
    completed(user, *stage_words(STAGES[2]))
    after = contents(user / "runs" / "blobs" / "oof")
    changed = {name.removesuffix(".png") for name in before if before[name] != after[name]}
    folds = pd.read_csv(user / "runs" / "blobs" / "folds.csv")
    assert changed and changed <= set(folds.id[folds.fold == 1])
    assert "04_infer.py" in error_of(script(user, *stage_words(STAGES[4])))
    completed(user, *stage_words(STAGES[3]))
    completed(user, *stage_words(STAGES[4]))


def no_prediction() -> None:
    def predict(self: Predictor, images: np.ndarray, precision: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Predictor._predict_at_once = predict


def test_old_maps_stay_until_new_ones_take_their_place(user):
    train_anew(user)
    for stage, folder in (STAGES[2], "oof"), (STAGES[3], "test"):
        before = contents(user / "runs" / "blobs" / folder)
        assert script(user, *stage_words(stage), plant=no_prediction).code == -signal.SIGKILL
        assert contents(user / "runs" / "blobs" / folder) == before
        completed(user, *stage_words(stage))
        after = contents(user / "runs" / "blobs" / folder)
        assert after.keys() == before.keys() and after != before


def test_a_map_of_another_run_is_made_again_by_its_stage(user):
    before = contents(user / "runs" / "blobs" / "oof")
    foreign_map(user, "oof", "train_001")
    completed(user, *stage_words(STAGES[2]))
    assert contents(user / "runs" / "blobs" / "oof") == before


def test_harmless_changes_are_taken(user):
    completed(user, *stage_words(STAGES[1]), "train.workers=1", "infer.batch_size=3")
    maps = {path: path.stat().st_mtime_ns for path in user.glob("runs/blobs/*/*.png")}
    completed(user, *stage_words(STAGES[2]))
    completed(user, *stage_words(STAGES[4]), "postprocess.areas=[32]")
    assert maps == {path: path.stat().st_mtime_ns for path in user.glob("runs/blobs/*/*.png")}


def test_a_stage_stopped_half_way_leaves_no_record_of_another_setting(user):
    """Settings A, then B stopped before its end, then A again: what B left must not pass for A's."""
    assert script(user, *stage_words(STAGES[2]), "threshold.metric=iou", plant=full_disk_for_records).code == 2
    assert "03_oof_threshold.py" in error_of(script(user, *stage_words(STAGES[4]), "threshold.metric=dice"))


def full_disk_for_records() -> None:
    from lib.run import record

    def write(path: Path, content: dict) -> None:
        with atomic_path(path):
            raise OSError(28, "No space left on device")

    record.write_json = write


# --- two at once, and memory ------------------------------------------------------------------------------------------


def sleeping() -> None:
    def train_folds(*_: object, **__: object) -> None:
        Path("asleep").write_text("")
        time.sleep(300)

    trainer.train_folds = train_folds


def test_the_second_process_on_a_run_is_told(user):
    training = stage_words(STAGES[1])
    sleeper = Started(user, [*training, "--folds", "0", "--restart"], sleeping)
    sleeper.wait_for(user / "asleep")
    for words in (stage_words(STAGES[0]), stage_words(STAGES[2]), training, [*training, "--folds", "0"]):
        assert "another process is at work on runs/blobs" in error_of(script(user, *words))
    completed(user, *training, "--folds", "1", "2")
    sleeper.kill()
    assert sleeper.end().code == -signal.SIGKILL
    assert script(user, *training).code == 0  # the lock died with its process
    assert not HELD  # of this process


class Tight(torch.nn.Module):
    """Logits are pixels; only `fits` images fit into memory."""

    def __init__(self, fits: int) -> None:
        super().__init__()
        self.fits = fits
        self.batches = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return images[:, :1].float() / 64 - 2


def test_prediction_halves_its_batches_until_they_fit_and_stays_there():
    random = np.random.default_rng(0)
    images = {str(number): random.integers(0, 256, (5, 6, 3), dtype=np.uint8) for number in range(20)}
    source = SimpleNamespace(image_size=lambda name: images[name].shape[:2], read_image=images.__getitem__)
    one_view = InferSettings(tta="none", batch_size=8)
    tight, roomy = Tight(fits=3), Tight(fits=20)
    found, expected = (
        dict(Predictor([network], one_view, torch.device("cpu"), "fp32").predict(source, images))
        for network in (tight, roomy)
    )
    assert found.keys() == images.keys()
    assert all(np.array_equal(found[name].maps, expected[name].maps) for name in images)
    assert [size for size in tight.batches if size > 3] == [8, 4]
    assert max(tight.batches[2:]) == 2


def little_memory_for_prediction() -> None:
    predict = Predictor._predict_at_once

    def changed(self: Predictor, images: np.ndarray, precision: str) -> tuple:
        if len(images) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
        return predict(self, images, precision)

    Predictor._predict_at_once = changed


def no_memory_for_prediction() -> None:
    def changed(self: Predictor, images: np.ndarray, precision: str) -> tuple:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    Predictor._predict_at_once = changed


def test_stage_04_goes_on_with_less_memory_or_says_what_is_too_large(user):
    maps = user / "runs" / "blobs" / "test"
    before = {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(int) for path in maps.glob("*.png")}
    shutil.rmtree(maps)
    error = error_of(script(user, *stage_words(STAGES[3]), plant=no_memory_for_prediction))
    assert "out of memory" in error and f"{HEIGHT} x {WIDTH}" in error
    completed(user, *stage_words(STAGES[3]), plant=little_memory_for_prediction)
    for name, expected in before.items():
        assert np.abs(cv2.imread(str(maps / name), cv2.IMREAD_UNCHANGED) - expected).max() <= 1
