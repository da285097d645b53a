"""Records: the inputs and files of a stage or a fold, kept as JSON beside its files and checked by later stages."""

import csv
import platform
import shlex
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from lib.base.distributed import is_first
from lib.base.errors import UserError, or_none
from lib.base.files import flush_disk, read_json, sha256_of_file, sha256_of_json, write_json
from lib.config.check import save_settings
from lib.config.load import load_settings
from lib.config.schema import Settings
from lib.run.folder import SCRIPTS, RunFolder, recorded_settings
from lib.run.settings_by_stage import default_values

PACKAGES = ("torch", "timm", "segmentation-models-pytorch", "albumentations", "numpy", "pandas")
# not in the records of earlier versions, where they count as unchanged
ADDED_KEYS = ("training_files", "fold", "left_out_images", "best_epoch_by", "weights_file")
DIGEST_LENGTH = 64
SECTION_LENGTH = 40
SEAL = "content_sha256"
SPEED = "images_per_second"  # a column of history.csv


def history_digest(path: Path) -> str:
    """SHA-256 of the rows of history.csv without the speed, in which no two trainings are equal."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{name: value for name, value in row.items() if name != SPEED} for row in csv.DictReader(file)]
    return sha256_of_json(rows)


class StageRecord:
    """`<stage>.json`: the command, the inputs of the stage, versions and seconds. The clock starts here.

    If there is a record, the files of the stage are whole and belong together. Only the first process writes it.
    """

    def __init__(self, run: RunFolder, stage: str) -> None:
        self.run = run
        self.path = run.record(stage)
        self.started = time.monotonic()
        self.settings: dict = {}
        self.before: dict = {}  # the record of the last command

    def begin(self, settings: Settings) -> None:
        """Save the settings, print those that changed, and remove the last record: the stage starts to write."""
        self.settings = settings.model_dump(mode="json")
        if is_first():
            for line in setting_changes(self.run, settings):
                print(f"setting   {line} is now the run's setting")
            self.before = or_none(read_json, self.path) or {}
            self.path.unlink(missing_ok=True)
            save_settings(settings, self.run.config)

    def write(self, made_from: dict, files: list[Path] = (), uploads: list[Path] = ()) -> float:
        """Write the record once the stage's files are whole; return the seconds this command took.

        The record has the seconds of all commands with the same inputs since the last one that was interrupted: a
        command that finds everything done leaves what the work took, and folds may be trained one by one.
        `files` are those that later stages read and check: their SHA-256 is kept. So is that of `uploads`, which no
        stage reads, for whoever shows or scores them.
        """
        seconds = time.monotonic() - self.started
        if not is_first():
            return seconds
        is_continued = sha256_of_json(self.before.get("made_from")) == sha256_of_json(made_from)
        content = {
            "command": shlex.join(sys.argv),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds + (self.before.get("seconds", 0) if is_continued else 0), 2),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "made_from": made_from,
            "settings": self.settings,
            "wrote": {path.name: sha256_of_file(path) for path in files},
            "uploads": {path.name: sha256_of_file(path) for path in uploads},
        }
        flush_disk(self.run.root)  # once for all maps, so that the record does not survive a power cut without them
        write_json(self.path, content)
        return seconds


def stage_records(run: RunFolder) -> dict[str, dict]:
    """The record of each stage that has one."""
    return {stage: read_json(run.record(stage)) for stage in SCRIPTS if run.record(stage).is_file()}


def sealed(content: dict) -> dict:
    """The content of a JSON file with a digest of itself, so that damage and edits are noticed."""
    unsealed = {key: value for key, value in content.items() if key != SEAL}
    return unsealed | {SEAL: sha256_of_json(unsealed)}


def is_intact(content: dict) -> bool:
    """Whether a sealed content is as it was written; true without a seal, as by earlier versions."""
    return SEAL not in content or content == sealed(content)


def setting_changes(run: RunFolder, settings: Settings) -> list[str]:
    """Settings that differ from those when the last stage ended, as 'train.epochs 30 -> 50'; none in a first run.

    So changes are named that were made on the command line and in config.yaml alike.
    """
    if not run.config.is_file():
        return []
    _, recorded = recorded_settings(run)
    after = settings.model_dump(mode="json")
    before = _filled(recorded or load_settings(run.config).model_dump(mode="json"), after)
    return [line for key in after for line in _changes(key, before[key], after[key], " ")]


def fingerprint(path: Path, remedy: str) -> str:
    """SHA-256 of a file that an earlier stage wrote. Raises UserError with the remedy if it is absent."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; {remedy}")
    return sha256_of_file(path)


def require_same(recorded: Path, made_from: dict, remedy: str) -> None:
    """Raise UserError unless the JSON file `recorded` says it was made from exactly `made_from`."""
    before = read_json(recorded).get("made_from")
    if not isinstance(before, dict):
        raise UserError(f"{recorded} does not say what it was made from; {remedy}")
    if changed := differences(before, made_from):
        raise UserError(f"{recorded} was made from other inputs ({'; '.join(changed[:3])}); {remedy}")


def require_written(recorded: Path, remedy: str) -> None:
    """Raise UserError unless the files that a stage wrote beside its record are those it recorded."""
    for name, digest in read_json(recorded).get("wrote", {}).items():
        path = recorded.with_name(name)
        if fingerprint(path, remedy) != digest:
            raise UserError(f"{path} is not what {recorded.stem} wrote (damaged or edited); {remedy}")


def is_upload(recorded: Path, path: Path) -> bool:
    """Whether a file to upload is as its stage wrote it. Records by earlier versions do not say; they count as yes."""
    uploads = read_json(recorded).get("uploads")
    return uploads is None or uploads.get(path.name) == sha256_of_file(path)


def differences(before: dict, after: dict) -> list[str]:
    """Differences between two `made_from`, as 'key: before -> after'.

    A setting that is not in `before` had its default: the version that wrote it did not have the setting. Settings that
    no longer count are ignored.
    """
    defaults, lines = default_values(), []
    if "training_files" in after and "training_files" not in before and "data" in after:
        defaults["data"] = after["data"]  # earlier versions recorded only some settings of data
    for key, value in after.items():
        if key in defaults:
            known = _filled(before.get(key, {}), defaults[key])
            value = {name: known.get(name) for name in value}, value
        else:
            value = before.get(key, value if key in ADDED_KEYS else None), value
        lines += _changes(key, *value)
    return lines


def _filled(values: object, defaults: object) -> object:
    """Settings, also nested ones, with the defaults of those that are missing."""
    if not isinstance(values, dict) or not isinstance(defaults, dict):
        return values
    return defaults | {name: _filled(value, defaults.get(name)) for name, value in values.items()}


def _changes(key: str, before: object, after: object, separator: str = ": ") -> list[str]:
    """One line for each value that differs; keys of nested mappings are joined by dots."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted(before.keys() | after.keys())
        pairs = [(f"{key}.{name}", before.get(name), after.get(name)) for name in names]
        return [line for pair in pairs for line in _changes(*pair, separator)]
    return [] if before == after else [f"{key}{separator}{_shown(before)} -> {_shown(after)}"]


def _shown(value: object) -> str:
    """A value for a message; a digest, and a section that is new or gone, are cut to their first characters."""
    text = str(value)
    if isinstance(value, dict) and len(text) > SECTION_LENGTH:
        return f"{text[:SECTION_LENGTH]}..."
    return f"{text[:8]}..." if len(text) == DIGEST_LENGTH and text.isalnum() else text
