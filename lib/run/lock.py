"""One stage at a time on a run. The kernel releases a lock when its process exits, even by SIGKILL."""

import errno
import time
from collections.abc import Iterable
from typing import IO

from lib.base.distributed import is_first
from lib.base.errors import UserError
from lib.base.files import remove_leftovers
from lib.run.folder import ALL, Fold, RunFolder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

HELD = []  # the open lock files; closing one would release its locks
ALL_BYTES = range(64)  # byte K of `.lock` is the lock of fold K; folds.count is at most 50
BYTE_OF_ALL = 63  # the lock of the model of all images
BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  # errors where another process holds the lock
TRIES, PAUSE = 20, 0.05  # seconds; a process starting at the same time holds all bytes for a moment


def lock_run(run: RunFolder, folds: list[Fold] | None = None) -> None:
    """Lock the run, or some folds of it, until this process ends; then remove half-written files of killed stages.

    Different folds may be trained at the same time; a stage that needs the whole run locks all bytes. Loader processes,
    which outlive a killed stage for some seconds, do not inherit the locks of fcntl (lockf, unlike flock) or Windows.
    Under torchrun the first process locks for all.

    Files outside the folds are removed only if no other process works on the run. Raises UserError if the lock is held
    by another process.
    """
    if not is_first():
        return
    file = (run.root / ".lock").open("a+b")
    HELD.append(file)
    wanted = ALL_BYTES if folds is None else [BYTE_OF_ALL if fold == ALL else fold for fold in folds]
    for _ in range(TRIES):
        if try_lock(file, wanted):
            break
        time.sleep(PAUSE)
    else:
        raise UserError(f"another process is at work on {run.root}; wait until it is done, or stop it")
    if folds is None:
        remove_leftovers(run.root)
        return
    for fold in folds:
        remove_leftovers(run.fold(fold).root)
    others = [number for number in ALL_BYTES if number not in wanted]
    if try_lock(file, others):
        remove_leftovers(run.root, deep=False)
        unlock(file, others)


def try_lock(file: IO[bytes], numbers: Iterable[int]) -> bool:
    """Lock these bytes of the file, which need not exist; lock none and return False if another process holds one."""
    locked = []
    try:
        for number in numbers:
            if fcntl:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            else:
                file.seek(number)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            locked.append(number)
    except OSError as error:
        if error.errno not in BUSY:
            raise
        unlock(file, locked)
        return False
    return True


def unlock(file: IO[bytes], numbers: Iterable[int]) -> None:
    for number in numbers:
        if fcntl:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, number)
        else:
            file.seek(number)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
