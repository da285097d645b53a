"""Files survive a power cut: their content is on disk before their names, and these before anything that follows."""

import os
import stat

import pytest

from lib.base.errors import UserError
from lib.base.files import atomic_folder, flush_disk, write_bytes


@pytest.fixture
def done(monkeypatch) -> list[str]:
    """The calls that flush and rename, in order."""
    calls, fsync, replace = [], os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(source: str, target: str) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    return calls


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, done):
    write_bytes(tmp_path / "a" / "record.json", b"{}")
    assert done == ["file", "rename", "folder"]
    assert (tmp_path / "a" / "record.json").read_bytes() == b"{}"


def test_one_call_flushes_thousands_of_files(tmp_path, done):
    for number in range(3):
        write_bytes(tmp_path / f"{number}.png", b"map", durable=False)
    flush_disk(tmp_path)
    assert done == ["rename"] * 3


def test_a_file_that_cannot_be_renamed_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a.json", b"old")

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"a\.json cannot be written: No space left"):
        write_bytes(tmp_path / "a.json", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("before", [[], ["old.csv"]])
def test_a_folder_takes_its_place_whole_or_leaves_what_was_there(tmp_path, before):
    folder = tmp_path / "data"
    for name in before:
        folder.mkdir()
        (folder / name).touch()
    with pytest.raises(RuntimeError), atomic_folder(folder) as new:
        (new / "half.csv").touch()
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == (["data", *before] if before else [])
    with atomic_folder(folder) as new:
        (new / "whole.csv").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "whole.csv"]
