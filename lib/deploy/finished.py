"""A finished run or a bundle: the models and rules to predict other images with.

Nothing is written, so the folder may be read-only.
"""

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lib.base.errors import UserError, plural
from lib.base.files import read_json, sha256_of_file
from lib.config.schema import Settings
from lib.masks.objects import Rules
from lib.run.folder import Fold, RunFolder, open_run
from lib.run.members import require_no_ensemble
from lib.run.provenance import all_images_model, models_to_average, require_stage, require_thresholds
from lib.run.record import require_same
from lib.run.settings_by_stage import SUBMISSION, counted
from lib.submission.final import final_rules_file, read_final_rules

MANIFEST = "manifest.json"  # in a bundle, and in no run
OF_MODELS = {"data": ("classes", "channels"), "model": None}  # settings, None: all, that models are trained with
SHARED = ("infer.", "data.root=", "data.resize_csv=", "data.resize_test_csv=")  # overrides that members take over


@dataclass(frozen=True)
class Member:
    """A run and the weight of its maps, each of which is the average of the models of some folds."""

    run: RunFolder
    settings: Settings
    folds: tuple[Fold, ...]
    weight: float

    @property
    def weight_files(self) -> list[Path]:
        return [self.run.fold(fold).weights for fold in self.folds]


@dataclass(frozen=True)
class FinishedRun:
    """`members` is the run itself, or the runs of an ensemble that have a weight."""

    run: RunFolder
    settings: Settings
    members: list[Member]
    rules: Rules
    rules_file: Path

    def __str__(self) -> str:
        """The models and rules used, for messages."""
        models = sum(len(member.folds) for member in self.members)
        runs = f" of {len(self.members)} runs" if len(self.members) > 1 else ""
        return f"{plural(models, 'model')}{runs}, rules of {self.rules_file}"

    @cached_property
    def weight_hashes(self) -> list[list[str]]:
        return [[sha256_of_file(path) for path in member.weight_files] for member in self.members]


def open_finished(
    root: Path, overrides: list[str] = (), folds: list[int] | None = None, rules_by_hand: Path | None = None
) -> FinishedRun:
    """Open a run or a bundle, with the models of `folds`, or else of all trained folds.

    Overrides of `infer`, and of the paths of tables, also apply to the members of an ensemble. `rules_by_hand`, the
    rules.json of lib.tools.submit, replaces the rules that 05 chose. Raises UserError if nothing is trained, if no rule
    has been chosen, if a run's rules were chosen with other models, or if a bundle's weights or rules are not those
    that were exported.
    """
    run, settings = open_run(root, overrides)
    run_settings, is_bundle = open_run(root)[1], (root / MANIFEST).is_file()
    _require_trained(settings, run_settings, root)
    if is_bundle and rules_by_hand:
        raise UserError(f"{root} is a bundle, which keeps its rules; export its run with --rules")
    if is_bundle:
        settings = _with_path_of_function(settings, run_settings, root)
    else:
        made_from = require_thresholds(run, run_settings)
        all_images_model(run, run_settings)
    members = _open_members(run, settings, overrides, folds, root if is_bundle else Path())
    rules_file = rules_by_hand or _rules_file(run, settings)
    finished = FinishedRun(run, settings, members, read_final_rules(rules_file, settings), rules_file)
    if is_bundle:
        _require_whole(finished)
    elif rules_by_hand:
        command = shlex.join(["python", "-m", "lib.tools.submit", str(root), "--out", str(rules_by_hand.parent)])
        again = f"run {command} again, with its rules"
        require_same(rules_by_hand, made_from, again)
    elif rules_file != run.threshold:
        require_stage(run, "05_postprocess", made_from | {"rules": counted(run_settings, SUBMISSION)})
    return finished


def _require_trained(settings: Settings, run_settings: Settings, root: Path) -> None:
    """Raise UserError for overrides of what the models were trained with, such as the order of the classes."""
    for section, names in OF_MODELS.items():
        was, now = (getattr(each, section) for each in (run_settings, settings))
        for name in names or type(was).model_fields:
            if getattr(was, name) != getattr(now, name):
                raise UserError(
                    f"the models of {root} were trained with {section}.{name}={getattr(was, name)}, which cannot be "
                    f"changed to {getattr(now, name)} here"
                )


def _with_path_of_function(settings: Settings, run_settings: Settings, root: Path) -> Settings:
    """The settings with the bundle's own submission.format = FILE.py:FUNCTION as a path into the bundle."""
    format = settings.submission.format
    if ":" not in format or format != run_settings.submission.format:
        return settings
    return settings.model_copy(
        update={"submission": settings.submission.model_copy(update={"format": f"{root / format}"})}
    )


def _open_members(
    run: RunFolder, settings: Settings, overrides: list[str], folds: list[int] | None, base: Path
) -> list[Member]:
    """The runs that predict; the paths of an ensemble's members are relative to `base`."""
    if not settings.ensemble.members:
        return [Member(run, settings, _models(run, settings, folds), 1.0)]
    shared = [override for override in overrides if override.startswith(SHARED)]
    opened = [open_run(base / path, shared) for path in settings.ensemble.members]
    require_no_ensemble(opened)
    weights = read_json(run.ensemble)["weights"].values()
    return [
        Member(member, member_settings, _models(member, member_settings, folds), weight)
        for (member, member_settings), weight in zip(opened, weights, strict=True)
        if weight > 0
    ]


def _models(run: RunFolder, settings: Settings, folds: list[int] | None) -> tuple[Fold, ...]:
    """The models of the folds asked for, or all that there are. Raises UserError for a fold without a model."""
    trained = [fold for fold in models_to_average(run, settings) if run.fold(fold).metrics.is_file()]
    if missing := [str(fold) for fold in folds or () if fold not in trained]:
        there = ", ".join(map(str, trained))
        raise UserError(f"fold {', '.join(missing)} of {run.root} has no model; it has those of fold {there}")
    return tuple(fold for fold in trained if not folds or fold in folds)


def _rules_file(run: RunFolder, settings: Settings) -> Path:
    """The file of the rules chosen by 05, or by 03 if 05 has not run."""
    path = final_rules_file(run, settings)
    if path.is_file():
        return path
    if path == run.objects:
        raise UserError(
            f"{path} does not exist; 05_postprocess.py with submission.rows=instance makes it in a run, and "
            "lib.tools.export copies it"
        )
    return run.threshold


def _require_whole(finished: FinishedRun) -> None:
    """Raise UserError unless the weights and rules used are those that the manifest of the bundle lists."""
    root, used = finished.run.root, {finished.rules_file: sha256_of_file(finished.rules_file)}
    for member, hashes in zip(finished.members, finished.weight_hashes, strict=True):
        used |= dict(zip(member.weight_files, hashes, strict=True))
    listed = read_json(root / MANIFEST)["files"]
    for path, digest in used.items():
        if listed.get(path.relative_to(root).as_posix()) != digest:
            raise UserError(f"{path} is not the file that {root / MANIFEST} lists; export the run again")
