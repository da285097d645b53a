"""The member runs of an ensemble."""

from pathlib import Path

from lib.base.errors import UserError
from lib.base.files import write_bytes
from lib.config.schema import Settings
from lib.run.folder import RunFolder, open_run, starting_run


def open_members(settings: Settings) -> list[tuple[RunFolder, Settings]]:
    """Open the runs of an ensemble. Raises UserError if one is not a run, or an ensemble itself."""
    for path in settings.ensemble.members:
        require_present(path, "ensemble.members")
    members = [open_run(path) for path in settings.ensemble.members]
    require_no_ensemble(members)
    return members


def runs_with_models(run: RunFolder, settings: Settings) -> list[tuple[RunFolder, Settings]]:
    """The run itself or, for an ensemble, its members."""
    return open_members(settings) if settings.ensemble.members else [(run, settings)]


def require_present(root: Path, setting: str) -> None:
    """Raise UserError where a run that a setting names has gone: 01 would make another one, not bring it back."""
    if not root.is_dir():
        raise UserError(
            f"{setting}: {root} does not exist in {Path.cwd()}; put the run back, or name the folder it is in now"
        )


def require_no_ensemble(members: list[tuple[RunFolder, Settings]]) -> None:
    """Raise UserError where a member is an ensemble itself."""
    if nested := [member.root for member, settings in members if settings.ensemble.members]:
        raise UserError(f"{nested[0]} is an ensemble itself; name its members instead (ensemble.members)")


def require_test_images(settings: Settings) -> None:
    """Raise UserError where a member of an ensemble that predicts test images has none."""
    for member, member_settings in open_members(settings):
        if settings.data.test_images is not None and member_settings.data.test_images is None:
            again = member.command("04_infer", f"data.test_images={settings.data.test_images}")
            raise UserError(f"data.test_images of {member.root} is not set, so it has no maps to average; run {again}")


def runs_built_upon(root: Path) -> set[Path]:
    """The folders of the run at `root`, its members, and the runs that these learned from or began with; resolved."""
    found, waiting = set(), [root]
    while waiting:
        run = RunFolder(waiting.pop())
        if run.root.resolve() not in found and run.config.is_file():
            found.add(run.root.resolve())
            _, settings = open_run(run.root)
            first = starting_run(settings.model.weights)
            waiting += [*settings.ensemble.members, *filter(None, [settings.train.pseudo_labels, first and first.root])]
    return found


def adopt_folds(run: RunFolder, settings: Settings) -> Settings:
    """Copy the members' folds to an ensemble; return its settings with their data and folds.

    Raises UserError if the members' folds differ, or if the settings contain what the members decide.
    """
    if taken := sorted(settings.model_fields_set & {"data", "folds"}):
        raise UserError(f"an ensemble has its members' {' and '.join(taken)}; leave these out of its settings")
    (first_run, first), *others = open_members(settings)
    content = first_run.folds.read_bytes()
    for member, member_settings in others:
        if member.folds.read_bytes() != content or member_settings.data.classes != first.data.classes:
            raise UserError(
                f"{member.root} has other folds or classes than {first_run.root}, so their maps cannot be averaged; "
                "train it on the same folds"
            )
    if run.folds.is_file() and run.folds.read_bytes() != content:
        raise UserError(f"{run.folds} has other folds than the members; choose another name or remove {run.root}")
    write_bytes(run.folds, content)
    return settings.model_copy(update={"data": first.data, "folds": first.folds})
