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
Fold = int | str


@dataclass(frozen=True)
class RunFolder:
    """Paths inside `runs/<name>/`; nothing is created until a stage writes."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def folds(self) -> Path:
        return self.root / "folds.csv"

    @property
    def hidden_groups(self) -> Path:
        return self.root / "hidden_groups.csv"

    @property
    def features(self) -> Path:
        return self.root / "features.npz"

    @property
    def test_features(self) -> Path:
        return self.root / "test_features.npz"

    @property
    def leak(self) -> Path:
        return self.root / "leak.json"

    def fold(self, number: Fold) -> "FoldFolder":
        return FoldFolder(self.root / f"fold_{number}")

    @property
    def training_files(self) -> Path:
        return self.root / "training_files.json"

    @property
    def external(self) -> Path:
        return self.root / "external.csv"

    @property
    def external_files(self) -> Path:
        return self.root / "external_files.json"

    @property
    def test_files(self) -> Path:
        return self.root / "test_files.json"

    @property
    def resized(self) -> Path:
        return self.root / "resized"

    @property
    def oof(self) -> Path:
        return self.root / "oof"

    @property
    def oof_counts(self) -> Path:
        return self.root / "oof_counts.npz"

    @property
    def ensemble(self) -> Path:
        return self.root / "ensemble.json"

    @property
    def threshold(self) -> Path:
        return self.root / "threshold.json"

    @property
    def test(self) -> Path:
        return self.root / "test"

    @property
    def postprocess(self) -> Path:
        return self.root / "postprocess.json"

    @property
    def objects(self) -> Path:
        return self.root / "objects.json"

    @property
    def submission(self) -> Path:
        return self.root / "submission.csv"

    @property
    def unprocessed(self) -> Path:
        return self.root / "submission_unprocessed.csv"

    @property
    def before_after(self) -> Path:
        return self.root / "before_after.png"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def record(self, stage: str) -> Path:
        return self.root / f"{stage}.json"

    def command(self, stage: str, *words: object) -> str:
        """The command line that runs a stage on this run, quoted for a shell."""
        return shlex.join([f"{stage}.py", "--run", str(self.root), *map(str, words)])


@dataclass(frozen=True)
class FoldFolder:
    """Paths inside `fold_K/`, or `fold_all/`."""

    root: Path

    @property
    def weights(self) -> Path:
        return self.root / "model.safetensors"

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def history(self) -> Path:
        return self.root / "history.csv"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.json"

    @property
    def resume(self) -> Path:
        return self.root / "resume" / "state.pt"

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
