"""What each file of a run was made from, so that no stage uses what does not belong together."""

import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from lib.base.distributed import is_first
from lib.base.errors import UserError
from lib.base.files import read_json, sha256_of_file, sha256_of_json, write_json
from lib.config.schema import Settings, save_settings
from lib.run.folder import RunFolder, open_run
from lib.run.members import open_members

PACKAGES = ("torch", "timm", "segmentation-models-pytorch", "albumentations", "numpy", "pandas")
READING = {"train_masks", "classes", "rle_column", "rle", "instances", "channels", "plane", "value_range"}  # of data


class StageRecord:
    """`<stage>.json`: the command, what the stage was made from, versions and seconds. The clock starts here.

    Where there is a record, the stage's files are whole and belong together. Of several processes the first writes it.
    """

    def __init__(self, run: RunFolder, stage: str) -> None:
        self.run = run
        self.path = run.record(stage)
        self.started = time.monotonic()

    def begin(self, settings: Settings) -> None:
        """Keep the settings and forget the last record: from here on the stage writes its files."""
        if is_first():
            self.path.unlink(missing_ok=True)
            save_settings(settings, self.run.config)

    def write(self, made_from: dict) -> float:
        """Write the record once the stage's files are whole; return the seconds the stage took."""
        seconds = time.monotonic() - self.started
        if not is_first():
            return seconds
        content = {
            "command": " ".join(sys.argv),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "made_from": made_from,
        }
        write_json(self.path, content)
        return seconds


def training_inputs(run: RunFolder, settings: Settings) -> dict:
    """What a fold's model is made from: the folds (and by them the images) and the settings that shape the weights."""
    sections = settings.model_dump(
        mode="json",
        include={"data": READING, "model": True, "loss": True, "train": True},
        exclude={"train": {"workers", "tracker", "cache_mb"}},
    )
    folds = fingerprint(run.folds, "run 01_prepare_folds.py")
    pseudo = pseudo_inputs(settings.train.pseudo_labels) if settings.train.pseudo_labels else None
    return {"folds.csv": folds, **sections, "augment": settings.augment.strengths, "pseudo_labels": pseudo}


def pseudo_inputs(root: Path) -> str:
    """Fingerprint of a run's test maps and thresholds. Raises UserError unless the run has gone through 04."""
    run, settings = open_run(root)
    if settings.train.pseudo_labels:
        raise UserError(f"{root} has learned from pseudo-labels itself; name a run without (train.pseudo_labels)")
    return sha256_of_json([require_maps(run, settings), require_thresholds(run, settings)])


def require_trained(run: RunFolder, settings: Settings) -> dict[str, str]:
    """Fingerprint of each fold's weights. Raises UserError unless all folds are trained on these folds and settings."""
    folds = range(settings.folds.count)
    missing = [str(fold) for fold in folds if not run.fold(fold).metrics.is_file()]
    if missing:
        raise UserError(
            f"fold {', '.join(missing)} is not trained; run 02_train.py --run {run.root} --folds {' '.join(missing)}"
        )
    made_from = training_inputs(run, settings)
    for fold in folds:
        remedy = f"run 02_train.py --run {run.root} --restart --folds {fold}"
        require_same(run.fold(fold).metrics, made_from, remedy)
    return {f"fold_{fold}": sha256_of_file(run.fold(fold).weights) for fold in folds}


def map_inputs(run: RunFolder, settings: Settings) -> dict[str, str]:
    """Fingerprint of what each fold's maps are made from: its weights and the way of predicting, or the members."""
    if settings.ensemble.members:
        return ensemble_inputs(run, settings)
    way = settings.infer.model_dump(exclude={"batch_size"})
    return {fold: sha256_of_json([digest, way]) for fold, digest in require_trained(run, settings).items()}


def ensemble_inputs(run: RunFolder, settings: Settings) -> dict[str, str]:
    """Fingerprint of what an ensemble's maps are made from, the same for all folds: the members' maps and the weights.

    Raises UserError when a member is not trained, or its folds are no longer the ensemble's.
    """
    own, members = fingerprint(run.folds, "run 01_prepare_folds.py"), {}
    for member, member_settings in open_members(settings):
        if fingerprint(member.folds, "run 01_prepare_folds.py") != own:
            raise UserError(f"{member.root} now has other folds than {run.root}; make the ensemble anew with 01")
        members[str(member.root)] = map_inputs(member, member_settings)
    score = settings.threshold.model_dump(include={"metric", "beta"}) | {"size": settings.submission.size}
    everything = sha256_of_json([members, settings.ensemble.weights, score])
    return {f"fold_{fold}": everything for fold in range(settings.folds.count)}


def test_inputs(run: RunFolder, settings: Settings) -> dict:
    """What the test maps are made from: all folds' models and the test images."""
    return {"maps": map_inputs(run, settings), "test_images": settings.data.test_images}


def threshold_inputs(run: RunFolder, settings: Settings) -> dict:
    """What threshold.json is made from: the out-of-fold maps, the size they are scored at, the threshold settings."""
    sections = settings.model_dump(mode="json", include={"threshold": True, "submission": {"size"}})
    return {"maps": map_inputs(run, settings), **sections}


def require_thresholds(run: RunFolder, settings: Settings) -> dict:
    """What threshold.json was made from. Raises UserError unless that is the run's present state."""
    remedy = f"run 03_oof_threshold.py --run {run.root}"
    made_from = threshold_inputs(run, settings)
    fingerprint(run.threshold, remedy)
    fingerprint(run.record("03_oof_threshold"), remedy)
    require_same(run.record("03_oof_threshold"), made_from, remedy)
    return made_from


def require_maps(run: RunFolder, settings: Settings) -> dict:
    """What the test maps were made from. Raises UserError unless they are all there and of the present models."""
    remedy = f"run 04_infer.py --run {run.root}"
    made_from = test_inputs(run, settings)
    fingerprint(run.record("04_infer"), remedy)
    require_same(run.record("04_infer"), made_from, remedy)
    return made_from


def fingerprint(path: Path, remedy: str) -> str:
    """SHA-256 of a file that an earlier stage wrote. Raises UserError with the remedy when it is absent."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; {remedy}")
    return sha256_of_file(path)


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
