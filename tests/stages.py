"""Running the five scripts as processes that start at once: torch is imported once, and each process is a fork of that.

The processes are those a user starts in all that matters here: own memory, own exit code, own output, and they can be
killed. What is typed for real is in test_end_to_end.py.
"""

import contextlib
import multiprocessing
import os
import resource
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

from tests import REPOSITORY

STAGES = ("01_prepare_folds", "02_train", "03_oof_threshold", "04_infer", "05_postprocess")
HEAVY = [
    "lib.training.trainer",
    "lib.prediction.run_maps",
    "lib.report.figures",
    "lib.tuning.morphology_search",
    "lib.submission.write",
    "lib.tuning.step_selection",
]
TOO_LONG = 300  # seconds; machines may be busy
LEFT_OUT = b"left out"
SETTINGS = """
data: {root: data/blobs, classes: [blob]}
folds: {count: 3}
model: {encoder: test_resnet, weights: random, decoder_channels: [16, 8, 8, 8, 8]}
train: {epochs: 2, batch_size: 4, lr: 0.003, workers: 0}
infer: {tta: none}
postprocess: {steps: [fill, remove], areas: [16, 64]}
"""

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of so small a network more threads only get in each other's way
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(HEAVY)


@dataclass
class Ended:
    """The end of a process: its exit code (negative: the signal that killed it) and its output."""

    code: int
    out: str
    err: str


class Started:
    """A script that is running in `folder`, without pictures. `plant` is called in its process before it begins."""

    def __init__(self, folder: Path, words: list[str], plant: Callable[[], None] | None = None) -> None:
        with contextlib.chdir(REPOSITORY):  # where the fork server finds lib/ to import
            forkserver.ensure_running()
        self.files = [folder / f".{number}.{time.monotonic_ns()}" for number in (1, 2)]
        self.process = _context.Process(target=_run, args=(folder, words, self.files, plant))
        self.process.start()

    def wait_for(self, path: Path) -> None:
        """Return once the process has made that file."""
        deadline = time.monotonic() + TOO_LONG
        while not path.exists():
            assert self.process.is_alive() and time.monotonic() < deadline, f"{path.name} does not appear"
            time.sleep(0.01)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and to all that it started."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:  # it has only just begun, or it has ended
            self.process.kill()

    def end(self) -> Ended:
        self.process.join(TOO_LONG)
        if self.process.is_alive():
            self.kill()
            self.process.join()
        out, err = (path.read_text(errors="replace") if path.is_file() else "" for path in self.files)
        for path in self.files:
            path.unlink(missing_ok=True)
        return Ended(self.process.exitcode, out, err)


def script(folder: Path, *words: str, plant: Callable[[], None] | None = None) -> Ended:
    """Run a script to its end."""
    return Started(folder, list(words), plant).end()


def completed(folder: Path, *words: str, plant: Callable[[], None] | None = None) -> Ended:
    """Run a script that must succeed."""
    ended = script(folder, *words, plant=plant)
    assert ended.code == 0, f"{' '.join(map(str, words))}\n{ended.out}{ended.err}"
    return ended


def stage_words(stage: str) -> list[str]:
    """The words to type for a stage of the run `blobs`."""
    return [f"{stage}.py", *(["--config", "blobs.yaml"] if stage == STAGES[0] else ["--run", "runs/blobs"])]


def leave_out_pictures(patch: Callable[[object, str, object], None] = setattr) -> None:
    """Let pages and pictures be files of two words, put in place as ever.

    They take most of a stage's time, and no stage reads them. test_end_to_end.py and tests/report make real ones.
    """
    from lib.base.files import write_bytes
    from lib.report import figures, page

    patch(page, "refresh_report", lambda run, settings: write_bytes(run.report, LEFT_OUT))
    patch(figures, "plot_thresholds", lambda result, path: write_bytes(path, LEFT_OUT))
    patch(figures, "plot_before_after", lambda *arguments: write_bytes(arguments[-1], LEFT_OUT))


def _run(folder: Path, words: list[str], files: list[Path], plant: Callable[[], None] | None) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored in what a shell starts with &
    multiprocessing.set_start_method("fork", force=True)  # as in a process that is typed, not as in this one's parent
    for number, path in zip((1, 2), files, strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    sys.path.insert(0, str(REPOSITORY))
    sys.argv = words
    leave_out_pictures()
    if plant:
        plant()
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(REPOSITORY / words[0]), run_name="__main__")


def limit_file_size(size: int) -> None:
    """No file may grow beyond `size` bytes from here on: the nearest to a full disk that needs no other disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def run_all(folder: Path) -> dict[str, float]:
    """Run the five stages undisturbed; the seconds of each."""
    seconds = {}
    for stage in STAGES:
        started = time.monotonic()
        completed(folder, *stage_words(stage))
        seconds[stage] = time.monotonic() - started
    return seconds


def copy_after_01(finished: Path, folder: Path) -> Path:
    """The data, the settings, and what 01 wrote of a finished run, in a folder of their own."""
    written = {"config.yaml", "folds.csv", "duplicates.csv", "features.npz", "training_files.json", f"{STAGES[0]}.json"}
    shutil.copytree(finished / "data", folder / "data")
    shutil.copy(finished / "blobs.yaml", folder)
    (folder / "runs" / "blobs").mkdir(parents=True)
    for name in written:
        shutil.copy2(finished / "runs" / "blobs" / name, folder / "runs" / "blobs")
    return folder


def kill_at_random(folder: Path, stage: str, moments: Iterable[float]) -> int:
    """Start a stage again and again and kill it after so many seconds; how often it was not done before."""
    killed = 0
    for moment in moments:
        started = Started(folder, stage_words(stage))
        started.process.join(moment)
        started.kill()
        ended = started.end()
        assert ended.code in (0, -signal.SIGKILL), ended.err
        killed += ended.code != 0
    return killed


def kill_at_rename(number: int, after: bool) -> None:
    """Let this process be killed just before or after it puts its file of that number (from 0) in place."""
    replace, count = os.replace, 0

    def changed(source: Path, target: Path) -> None:
        nonlocal count
        if count == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if count == number and after:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    os.replace = changed


def final_files(folder: Path) -> dict[str, bytes]:
    """The files of a finished run by their names, all but those that hold times; of history.csv all other columns."""
    root = folder / "runs" / "blobs"
    with_times = {".lock", "report.html", *(f"{stage}.json" for stage in STAGES)}
    files = {}
    for path in root.rglob("*"):
        if path.name == "history.csv":
            lines = [line.split(",") for line in path.read_text().splitlines()]
            timed = lines[0].index("images_per_second")
            files[str(path.relative_to(root))] = str([line[:timed] + line[timed + 1 :] for line in lines]).encode()
        elif path.is_file() and path.name not in with_times:
            files[str(path.relative_to(root))] = path.read_bytes()
    return files
