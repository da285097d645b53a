"""The run folder: where each stage's files are, and the records that tell whether they belong together."""

import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from lib.config import Settings, check_settings, read_yaml, save_settings, with_overrides
from lib.errors import UserError
from lib.files import read_json, sha256_of_file, write_json

PACKAGES = ("torch", "timm", "segmentation-models-pytorch", "albumentations", "numpy", "pandas")


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

    def fold(self, number: int) -> "FoldFolder":
        return FoldFolder(self.root / f"fold_{number}")

    @property
    def oof(self) -> Path:
        return self.root / "oof"

    @property
    def oof_counts(self) -> Path:
        return self.root / "oof_counts.npz"

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
    def submission(self) -> Path:
        return self.root / "submission.csv"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def record(self, stage: str) -> Path:
        return self.root / f"{stage}.json"


@dataclass(frozen=True)
class FoldFolder:
    """Paths inside `fold_K/`."""

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


def open_run(root: Path, overrides: list[str] = ()) -> tuple[RunFolder, Settings]:
    """Open a run that 01 made, with its settings and any `section.key=value` on top.

    Raises UserError when the folder holds no run. The overrides are kept in the run's config.yaml.
    """
    run = RunFolder(root)
    if not run.config.is_file():
        raise UserError(f"{root} is not a run folder (no config.yaml); make one with 01_prepare_folds.py")
    content = read_yaml(run.config)
    settings = check_settings(with_overrides(content, overrides), source=run.config)
    if overrides:
        save_settings(settings, run.config)
    return run, settings


class StageRecord:
    """What a stage was made from: command, settings, input fingerprints, versions and seconds."""

    def __init__(self, run: RunFolder, stage: str, made_from: dict) -> None:
        self.path = run.record(stage)
        self.started = time.monotonic()
        self.content = {"command": " ".join(sys.argv), "made_from": made_from}

    def write(self, **results: object) -> float:
        """Write `<stage>.json` once the stage's files are whole; return the seconds the stage took."""
        seconds = time.monotonic() - self.started
        self.content |= results
        self.content |= {
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        }
        write_json(self.path, self.content)
        return seconds


def fingerprint(path: Path, remedy: str) -> str:
    """SHA-256 of a file that an earlier stage wrote. Raises UserError with the remedy when it is absent."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; {remedy}")
    return sha256_of_file(path)


def training_inputs(run: RunFolder, settings: Settings) -> dict:
    """What a fold's model is made from: the folds (and by them the images) and the settings that shape the weights."""
    sections = settings.model_dump(mode="json", include={"model", "augment", "loss", "train"})
    del sections["train"]["workers"]
    return {"folds.csv": fingerprint(run.folds, "run 01_prepare_folds.py"), **sections}


def differences(before: dict, after: dict, prefix: str = "") -> list[str]:
    """Dotted keys whose values differ between two nested mappings, as 'key: before -> after'."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old} -> {new}")
    return found


def require_same(recorded: Path, made_from: dict, remedy: str) -> None:
    """Raise UserError unless the JSON file `recorded` says it was made from exactly `made_from`."""
    changed = differences(read_json(recorded).get("made_from", {}), made_from)
    if changed:
        raise UserError(f"{recorded} was made from other inputs ({'; '.join(changed[:3])}); {remedy}")
