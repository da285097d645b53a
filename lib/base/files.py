"""Atomic files, written under a temporary name and renamed; and fingerprints of files."""

import ctypes
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lib.base.errors import UserError

CHUNK_BYTES = 1 << 20


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    The temporary name keeps the suffix of `path`, since image and table writers choose the format by it. A durable file
    survives a power cut once the block has ended; that costs milliseconds, so thousands of files are written without it
    and followed by one `flush_disk`. Raises UserError when the file cannot be written: a full disk, a read-only folder.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            _flush_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; it takes its place if the block succeeds, and is removed otherwise.

    A folder that is there already is removed once the new one has its name.
    """
    new, old = (folder.with_name(f".{folder.name}.{state}.tmp") for state in ("new", "old"))
    for left_over in (new, old):
        shutil.rmtree(left_over, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder to disk. Windows has no such call and needs none (NTFS)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def flush_disk(folder: Path) -> None:
    """Flush everything written so far to the disk that holds `folder`: one call for thousands of files.

    On Linux only that file system is flushed (syncfs), elsewhere all of them, and on Windows none.
    """
    if sys.platform == "linux":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            ctypes.CDLL(None).syncfs(descriptor)
        finally:
            os.close(descriptor)
    elif hasattr(os, "sync"):
        os.sync()


def remove_leftovers(folder: Path, deep: bool = True) -> None:
    """Remove the temporary files of killed processes from the folder, and from its subfolders if `deep`."""
    for path in list(folder.rglob(".*.tmp*") if deep else folder.glob(".*.tmp*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a whole file or leave the old one untouched."""
    with atomic_path(path, durable) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 file or leave the old one untouched."""
    write_bytes(path, content.encode("utf-8"))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises UserError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def write_json(path: Path, content: object) -> None:
    """Write JSON, indented for people."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict:
    """Read a JSON object that a stage wrote. Raises UserError when it is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (no JSON object); remove it and run the stage that writes it again")
    return content


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_json(content: object) -> str:
    """Hexadecimal SHA-256 of a JSON-serialisable value, independent of key order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
