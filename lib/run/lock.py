"""One stage at a time on a run. The kernel releases a lock when its process exits, even by SIGKILL."""

import errno
import time
from collections.abc import Iterable
from typing import IO

from lib.base.distributed import is_first
from lib.base.errors import UserError
from lib.base.files import remove_leftovers
from lib.run.folder import RunFolder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

HELD = []  # the open lock files; closing one would release its locks
EVERYTHING = range(64)  # byte K of `.lock` stands for fold K; folds.count is at most 50
BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  # what the systems say where another process holds the lock
TRIES, PAUSE = 20, 0.05  # seconds; a process that starts beside this one holds all bytes for a moment


def lock_run(run: RunFolder, folds: list[int] | None = None) -> None:
    """Keep other processes off the run, or off some folds of it, until this process ends; then clear up.

    Folds may be trained side by side, and nothing else may: a stage that needs the whole run locks all bytes. Neither
    fcntl's locks (lockf, unlike flock) nor those of Windows pass to loader processes, which outlive a killed stage for
    some seconds. Under torchrun the first process locks for all.

    What a killed stage left half-written is removed, beside the folds only while no other process is at work on the
    run. Raises UserError when another process is.
    """
    if not is_first():
        return
    file = (run.root / ".lock").open("a+b")
    HELD.append(file)
    mine = EVERYTHING if folds is None else folds
    for _ in range(TRIES):
        if try_lock(file, mine):
            break
        time.sleep(PAUSE)
    else:
        raise UserError(f"another process is at work on {run.root}; wait until it is done, or stop it")
    if folds is None:
        remove_leftovers(run.root)
        return
    for fold in folds:
        remove_leftovers(run.fold(fold).root)
    others = [number for number in EVERYTHING if number not in folds]
    if try_lock(file, others):
        remove_leftovers(run.root, deep=False)
        unlock(file, others)


def try_lock(file: IO[bytes], numbers: Iterable[int]) -> bool:
    """Lock these bytes of the file, which need not exist; lock none and return False where another process has one."""
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
    """Release these bytes."""
    for number in numbers:
        if fcntl:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, number)
        else:
            file.seek(number)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
