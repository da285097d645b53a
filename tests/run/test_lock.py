"""Locks: of the whole run, of folds side by side, and what is cleared up; on Windows by msvcrt."""

import builtins
import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

from lib.base.errors import UserError
from lib.run import lock
from lib.run.folder import RunFolder
from lib.run.lock import lock_run
from tests import REPOSITORY

HOLD = """
import sys
from pathlib import Path
from lib.run.folder import RunFolder
from lib.run.lock import lock_run
lock_run(RunFolder(Path(sys.argv[1])), eval(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunFolder:
    monkeypatch.setattr(lock, "TRIES", 1)
    (tmp_path / "fold_1").mkdir()
    return RunFolder(tmp_path)


def holder(root: Path, folds: list[int] | None) -> subprocess.Popen:
    """Another process that holds the lock until its input is closed."""
    command = [sys.executable, "-c", HOLD, str(root), repr(folds)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def leave_behind(run: RunFolder) -> tuple[Path, Path]:
    """Temporary files of a killed process, beside the folds and in fold 1."""
    paths = run.root / ".config.0a1b2c3d.tmp.yaml", run.fold(1).root / ".model.0a1b2c3d.tmp.safetensors"
    for path in paths:
        path.write_text("half")
    return paths


def test_folds_side_by_side_and_nothing_beside_the_whole_run(run):
    with holder(run.root, [0]) as process:
        beside, inside = leave_behind(run)
        lock_run(run, [1, 2])
        assert beside.exists() and not inside.exists()  # the other process may be writing the first
        for folds in (None, [0], [0, 1]):
            with pytest.raises(UserError, match="another process is at work on"):
                lock_run(run, folds)
        process.stdin.close()
    lock_run(run)
    assert not beside.exists()


def test_a_training_alone_clears_the_whole_run_and_lets_others_in(run):
    beside, inside = leave_behind(run)
    lock_run(run, [1])
    assert not beside.exists() and not inside.exists()
    with holder(run.root, [0, 2]) as process:
        process.stdin.close()
    command = [sys.executable, "-c", HOLD, str(run.root), "None"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, input="")
    assert "another process is at work" in done.stderr


def test_where_there_is_no_fcntl_windows_locks_are_used(run, monkeypatch):
    locked = {}

    def locking(descriptor: int, mode: int, length: int) -> None:
        number = position[0]
        if mode == 2 and locked.setdefault(number, "this process") != "this process":
            raise PermissionError(13, "Permission denied")
        if mode == 0:
            del locked[number]

    position, held = [0], lock.HELD
    windows = types.SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=locking)
    find = builtins.__import__

    def without_fcntl(name: str, *others: object) -> object:
        if name == "fcntl":
            raise ImportError
        return find(name, *others)

    class File:
        def seek(self, number: int) -> None:
            position[0] = number

        def fileno(self) -> int:
            return 0

    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    monkeypatch.setattr(builtins, "__import__", without_fcntl)
    try:
        on_windows = importlib.reload(lock)
        assert on_windows.try_lock(File(), [0, 1])
        locked[3] = "another process"
        assert not on_windows.try_lock(File(), [2, 3])
        on_windows.unlock(File(), [0])
        assert locked == {1: "this process", 3: "another process"}
    finally:
        monkeypatch.undo()
        importlib.reload(lock).HELD = held  # which the fixture that releases the locks has, too
