"""The run folder: the paths of each stage's files, and the settings that all stages read there."""

import shlex
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from lib.base.errors import UserError, listed
from lib.base.files import read_json
from lib.config.load import load_settings

if TYPE_CHECKING:
    from lib.config.schema import Settings
    from lib.config.section import Section


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


def stages_of(settings: "Settings") -> list[str]:
    """The stages that a run goes through: an ensemble trains nothing, and 04 is for test images."""
    left_out = {"02_train"} if settings.ensemble.members else set()
    left_out |= {"04_infer"} if settings.data.test_images is None else set()
    return [stage for stage in SCRIPTS if stage not in left_out]


def starting_run(weights: str) -> RunFolder | None:
    """The run that model.weights names, where each fold starts from that run's fold of the same number; else None."""
    is_word = weights in ("imagenet", "random")  # whatever folders there are
    return RunFolder(Path(weights)) if not is_word and Path(weights).is_dir() else None


def open_run(root: Path, overrides: list[str] = ()) -> tuple[RunFolder, "Settings"]:
    """Open a run that 01 made, with its settings and any `section.key=value` on top.

    Raises UserError when the folder holds no run, or when config.yaml lacks settings that it had.
    """
    run = RunFolder(root)
    if not run.config.is_file():
        raise UserError(_without_config(run))
    settings = load_settings(run.config, overrides)
    require_all_settings(run, settings, overrides)
    return run, settings


def _without_config(run: RunFolder) -> str:
    """The error on a folder without config.yaml: it is no run, or has lost the file."""
    stage, recorded = recorded_settings(run)
    if not recorded:
        return f"{run.root} is not a run folder (no config.yaml); make one with 01_prepare_folds.py"
    return (
        f"{run.config} does not exist; write it again from what {run.record(stage)} keeps under 'settings' "
        "(JSON is YAML)"
    )


def require_all_settings(run: RunFolder, settings: "Settings", overrides: list[str]) -> None:
    """Raise UserError where config.yaml no longer has a setting that it had when the last stage ended.

    A file that was cut short would give the run defaults in silence. What an override such as
    `data.resize={factor: 0.5}` leaves out of a section is meant to have its default.
    """
    stage, recorded = recorded_settings(run)
    replaced = tuple(f"{override.partition('=')[0]}." for override in overrides)
    if missing := [name for name in _unset(settings, recorded) if not name.startswith(replaced)]:
        raise UserError(
            f"{run.config} no longer has {listed(missing)}; put back the lines that were lost, which "
            f"{run.record(stage)} keeps under 'settings' (JSON is YAML), or give the settings on the command line"
        )


def recorded_settings(run: RunFolder) -> tuple[str, dict]:
    """The stage that ended last, and the settings that config.yaml had then; ("", {}) where no record has them."""
    ended = []
    for stage in SCRIPTS:
        with suppress(UserError):  # no record, or a damaged one, which the stages that need it refuse
            content = read_json(run.record(stage))
            if isinstance(content.get("settings"), dict):
                ended.append((str(content.get("finished")), stage, content["settings"]))
    _, stage, settings = max(ended, key=itemgetter(0, 1), default=("", "", {}))
    return stage, settings


def _unset(section: "Section", recorded: dict, prefix: str = "") -> list[str]:
    """The dotted names of recorded settings that a section leaves to their defaults."""
    names = []
    for key, value in recorded.items():
        if key not in type(section).model_fields:  # no setting of this version
            continue
        if key not in section.model_fields_set:
            names.append(f"{prefix}{key}")
        elif isinstance(value, dict) and hasattr(part := getattr(section, key), "model_fields_set"):
            names += _unset(part, value, f"{prefix}{key}.")
    return names
