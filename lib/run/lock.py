"""One stage at a time on a run. The kernel gives a lock back when its process ends, however it ends."""

import errno
import fcntl

from lib.base.distributed import is_first
from lib.base.errors import UserError
from lib.base.files import remove_leftovers
from lib.run.folder import RunFolder

HELD = []  # the open lock files; closing one would give its lock back


def lock_run(run: RunFolder, folds: list[int] | None = None) -> None:
    """Keep other processes off the run, or off some folds of it, until this process ends; then clear up.

    Byte K of `.lock` stands for fold K, and a stage that needs the whole run locks all bytes: folds may be trained side
    by side, and nothing else may. fcntl's locks, unlike flock's, are not inherited by loader processes, which outlive
    a killed stage for some seconds. Under torchrun the first process locks for all.

    What a killed stage left half-written is removed. Raises UserError when another process is at work.
    """
    if not is_first():
        return
    file = (run.root / ".lock").open("a")
    HELD.append(file)
    try:
        for start, length in [(0, 0)] if folds is None else [(fold, 1) for fold in folds]:  # length 0: to the end
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise UserError(f"another process is at work on {run.root}; wait until it is done, or stop it") from None
    for folder in [run.root] if folds is None else [run.fold(fold).root for fold in folds]:
        remove_leftovers(folder)
