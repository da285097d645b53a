"""The run folder: the paths of each stage's files."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib.base.errors import UserError
from lib.config.load import load_settings

if TYPE_CHECKING:
    from lib.config.schema import Settings


ALL = "all"  # in place of a fold's number: the model of all images (train.all_images)
SCRIPTS = ("01_prepare_folds", "02_train", "03_oof_threshold", "04_infer", "05_postprocess")

Fold = int | str


def _below_root(*names: str) -> property:
    """A path below `root`."""
    return property(lambda folder: folder.root.joinpath(*names))


@dataclass(frozen=True)
class RunFolder:
    """Paths inside `runs/<name>/`, in the order in which the stages write them; nothing is created here."""

    root: Path

    config = _below_root("config.yaml")
    folds = _below_root("folds.csv")
    duplicates = _below_root("duplicates.csv")
    hidden_groups = _below_root("hidden_groups.csv")
    features = _below_root("features.npz")
    training_files = _below_root("training_files.json")
    external = _below_root("external.csv")
    external_files = _below_root("external_files.json")
    resized = _below_root("resized")
    oof = _below_root("oof")
    oof_counts = _below_root("oof_counts.npz")
    ensemble = _below_root("ensemble.json")
    threshold = _below_root("threshold.json")
    leak = _below_root("leak.json")
    test = _below_root("test")
    test_files = _below_root("test_files.json")
    test_features = _below_root("test_features.npz")
    postprocess = _below_root("postprocess.json")
    objects = _below_root("objects.json")
    submission = _below_root("submission.csv")
    unprocessed = _below_root("submission_unprocessed.csv")
    before_after = _below_root("before_after.png")
    report = _below_root("report.html")

    def fold(self, number: Fold) -> "FoldFolder":
        return FoldFolder(self.root / f"fold_{number}")

    def record(self, stage: str) -> Path:
        return self.root / f"{stage}.json"

    def command(self, stage: str, *words: object) -> str:
        """The command line that runs a stage on this run, quoted for a shell."""
        return shlex.join([f"{stage}.py", "--run", str(self.root), *map(str, words)])


@dataclass(frozen=True)
class FoldFolder:
    """Paths inside `fold_K/`, or `fold_all/`."""

    root: Path

    weights = _below_root("model.safetensors")
    config = _below_root("config.yaml")
    history = _below_root("history.csv")
    metrics = _below_root("metrics.json")
    resume = _below_root("resume", "state.pt")

    @property
    def is_done(self) -> bool:
        """True once training has ended; until then there is a folder to resume from."""
        return self.metrics.is_file() and not self.resume.parent.exists()

    def begin_anew(self) -> None:
        """Let the fold be trained from the beginning; its files stay until the first epoch replaces them."""
        self.resume.unlink(missing_ok=True)
        self.resume.parent.mkdir(parents=True, exist_ok=True)


def open_run(root: Path, overrides: list[str] = ()) -> tuple[RunFolder, "Settings"]:
    """Open a run that 01 made, with its settings and any `section.key=value` on top.

    Raises UserError when the folder holds no run.
    """
    run = RunFolder(root)
    if not run.config.is_file():
        raise UserError(f"{root} is not a run folder (no config.yaml); make one with 01_prepare_folds.py")
    return run, load_settings(run.config, overrides)
