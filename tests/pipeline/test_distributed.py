"""Two processes, as torchrun starts them, against one: the same numbers, nothing lost or twice, and one that writes."""

import functools
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lib.masks import rle
from tests.by_hand import dice_by_hand
from tests.pipeline.test_errors import error_of, no_number, vanishing_image
from tests.stages import REPOSITORY, STAGES, Ended, Started, completed, copy_after_01, stage_words

# Stated in docs/distributed.md. Sums taken in another order move weights by 1e-5, and at a threshold a pixel or two.
LOSS_TOLERANCE = 1e-4
SCORE_TOLERANCE = 2e-3
SAME_WEIGHTS_TOLERANCE = 1e-4  # of the score of the same weights in batches put together otherwise


def two(folder: Path, *words: str, plant: Callable[[], None] | None = None) -> list[Ended]:
    """Run a script in two processes to their end."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = [
        Started(folder, list(words), functools.partial(become_one_of_two, number, port, plant)) for number in (0, 1)
    ]
    return [process.end() for process in started]


def become_one_of_two(number: int, port: int, plant: Callable[[], None] | None) -> None:
    """Set what torchrun sets; the second process may write no file of the run but maps."""
    import lib.base.distributed

    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    place |= {"RANK": number, "LOCAL_RANK": number}
    os.environ.update({name: str(value) for name, value in place.items()})
    importlib.reload(lib.base.distributed)
    sys.addaudithook(functools.partial(watch, number))
    if plant:
        plant()


def watch(number: int, event: str, arguments: tuple) -> None:
    """Note each map that is put in place, and stop a second process that changes anything else in the run."""
    changes = ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if not (writes or event in changes) or not str(arguments[0]).startswith("runs/"):
        return
    is_map = str(arguments[0]).endswith(".png") and Path(str(arguments[0])).parent.name in ("oof", "test")
    if number > 0 and not is_map:
        os.write(2, f"the second process: {event} {arguments}".encode())
        os.abort()
    if event == "os.rename" and is_map:
        with open(f"maps_{number}", "a") as file:
            file.write(f"{Path(arguments[1]).stem}\n")


def own_output(ended: Ended) -> str:
    """What the script printed, without the line that torch 2.10 prints where processes meet."""
    return "".join(line for line in ended.out.splitlines(keepends=True) if not line.startswith("[Gloo]"))


def cause(ended: list[Ended]) -> str:
    """The error of the process that failed first; the other one may say that it was left alone."""
    said = [error_of(process) for process in ended]
    return next(error for error in said if "another process has ended" not in error)


def histories(*folders: Path) -> list[pd.DataFrame]:
    paths = (folder / "runs" / "blobs" / "fold_0" / "history.csv" for folder in folders)
    return [pd.read_csv(path).drop(columns="images_per_second") for path in paths]


def copies(folder: Path, tmp_path: Path, count: int) -> list[Path]:
    return [Path(shutil.copytree(folder, tmp_path / str(number))) for number in range(count)]


TRAIN = [*stage_words(STAGES[1]), "--folds", "0"]


def fixed_statistics() -> None:
    """Batch norm that does not look at the batch: what each process sees of it is the one thing that differs."""
    import torch

    torch.nn.BatchNorm2d.train = lambda self, mode=True: torch.nn.Module.train(self, False)


def test_two_processes_train_as_one_with_twice_the_batch(prepared, tmp_path):
    one, both = copies(prepared, tmp_path, 2)
    completed(one, *TRAIN, "train.batch_size=8", "train.precision=fp32", plant=fixed_statistics)
    ended = two(both, *TRAIN, "train.batch_size=4", "train.precision=fp32", plant=fixed_statistics)
    assert [process.code for process in ended] == [0, 0], ended
    assert own_output(ended[1]) == ""
    expected, found = histories(one, both)
    losses = [name for name in expected if name.startswith("loss")]
    np.testing.assert_allclose(found[losses], expected[losses], atol=LOSS_TOLERANCE)
    np.testing.assert_allclose(found.val_dice, expected.val_dice, atol=SCORE_TOLERANCE)
    assert found.lr.tolist() == expected.lr.tolist()


def test_resuming_is_exact_and_one_process_alone_writes(prepared, tmp_path):
    whole, broken = copies(prepared, tmp_path, 2)
    assert [process.code for process in two(whole, *TRAIN)] == [0, 0]
    ended = two(broken, *TRAIN, plant=no_number)
    assert "no longer a number in epoch 2" in cause(ended)
    assert len(histories(broken)[0]) == 1
    ended = two(broken, *TRAIN)
    assert [process.code for process in ended] == [0, 0], ended
    assert "epoch 1/2" not in ended[0].out
    for name in ("model.safetensors", "metrics.json"):
        contents = [(folder / "runs/blobs/fold_0" / name).read_bytes() for folder in (whole, broken)]
        assert contents[0] == contents[1]
    pd.testing.assert_frame_equal(*histories(whole, broken))


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory) -> Path:
    """All folds trained by two processes, in fp32: in bf16 some processors round otherwise in other batches."""
    folder = copy_after_01(finished[0], tmp_path_factory.mktemp("trained") / "user")
    ended = two(folder, *stage_words(STAGES[1]), "train.precision=fp32")
    assert [process.code for process in ended] == [0, 0], ended
    return folder


def read_maps(folder: Path, kind: str) -> dict[str, np.ndarray]:
    paths = (folder / "runs" / "blobs" / kind).glob("*.png")
    return {path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(int) for path in paths}


def test_maps_are_shared_out_and_those_of_one_process(trained, tmp_path):
    one, both = copies(trained, tmp_path, 2)
    for stage, kind in ((STAGES[2], "oof"), (STAGES[3], "test")):
        completed(one, *stage_words(stage))
        ended = two(both, *stage_words(stage))
        assert [process.code for process in ended] == [0, 0], ended
        assert "wrote" in ended[0].out and own_output(ended[1]) == ""
        expected, found = read_maps(one, kind), read_maps(both, kind)
        assert found.keys() == expected.keys()
        assert all(np.abs(found[name] - expected[name]).max() <= 1 for name in expected)
        written = [(both / f"maps_{number}").read_text().split() for number in (0, 1)]
        assert sorted(written[0] + written[1]) == sorted(expected)
        assert abs(len(written[0]) - len(written[1])) <= 3  # at most one for each fold
        for number in (0, 1):
            (both / f"maps_{number}").unlink()
    completed(both, *stage_words(STAGES[4]))


def test_the_score_told_is_that_of_the_weights_that_were_written(trained, tmp_path):
    """The processes' averaged weights must be the same, or they would validate what nobody keeps."""
    (folder,) = copies(trained, tmp_path, 1)
    completed(folder, *stage_words(STAGES[2]))
    run = folder / "runs" / "blobs"
    maps, folds = read_maps(folder, "oof"), pd.read_csv(run / "folds.csv")
    table = pd.read_csv(folder / "data/blobs/train.csv", keep_default_na=False).set_index("id").rle
    for fold in range(3):
        ids = folds.id[folds.fold == fold]
        truths = {name: rle.decode(table[name], maps[name].shape) for name in ids}
        dice = [np.mean([dice_by_hand(maps[name] >= t, truths[name]) for name in ids]) for t in range(1, 256)]
        told = json.loads((run / f"fold_{fold}" / "metrics.json").read_text())["val_dice"]
        assert abs(max(dice) - told) < SAME_WEIGHTS_TOLERANCE


def test_more_processes_than_images_to_validate(prepared, tmp_path):
    """One fold holds a single image, so that the second process has none."""
    (folder,) = copies(prepared, tmp_path, 1)
    path = folder / "runs" / "blobs" / "folds.csv"
    table = pd.read_csv(path)
    table.assign(fold=[0, *(1 + np.arange(len(table) - 1) % 2)]).to_csv(path, index=False)
    ended = two(folder, *TRAIN, "train.epochs=1")
    assert [process.code for process in ended] == [0, 0], ended


def test_an_error_in_one_process_is_one_sentence(prepared, tmp_path):
    (folder,) = copies(prepared, tmp_path, 1)
    ended = two(folder, *TRAIN, plant=vanishing_image)
    assert "does not exist" in cause(ended)


def test_torchrun_starts_two(prepared, tmp_path):
    """The command of docs/distributed.md as it is typed."""
    typed, forked = copies(prepared, tmp_path, 2)
    words = ["--run", "runs/blobs", "--folds", "0", "train.epochs=1"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--"]
    done = subprocess.run(
        [*command, REPOSITORY / "02_train.py", *words],
        cwd=typed,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},  # where torchrun leaves a folder
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next      python 03_oof_threshold.py") == 1
    assert [process.code for process in two(forked, "02_train.py", *words)] == [0, 0]
    pd.testing.assert_frame_equal(*histories(typed, forked))
