"""Bundles: a finished run as one folder that predicts anywhere, for a Kaggle data set or a colleague.

    config.yaml, postprocess.json or objects.json       settings and rules
    fold_K/model.safetensors                            of the folds exported; of an ensemble below members/N/
    lib/, apply.py                                      the code that prediction needs
    wheels/                                             if asked: packages that the Kaggle image lacks
    notebook.ipynb                                      finds its inputs and predicts them
    manifest.json                                       versions, how the weights are stored, SHA-256 of each file

Weights are stored as float16 if the caller asks for it (lib/deploy/float16.py).
"""

import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from safetensors.torch import save

import lib
from lib.base.errors import UserError
from lib.base.files import atomic_folder, sha256_of_file, write_bytes, write_json, write_text
from lib.config.check import save_settings
from lib.config.schema import EnsembleSettings, Settings
from lib.deploy.finished import MANIFEST, FinishedRun, Member
from lib.deploy.float16 import rounded
from lib.deploy.notebook import write_notebook
from lib.model.weight_files import read_tensors
from lib.run.folder import RunFolder
from lib.submission.final import final_rules_file

# the packages of lib/ that prediction needs
PACKAGES = ("base", "config", "run", "masks", "model", "images", "data", "prediction", "submission", "deploy")
NEEDED_PACKAGES = ("torch", "timm", "segmentation-models-pytorch", "numpy", "opencv-python-headless", "pydantic")
KAGGLE_LACKS = "segmentation-models-pytorch"  # the package that the Kaggle image lacks
UPLOAD = "dataset-metadata.json"  # the user's, for Kaggle's command line: name and owner of the data set
SCRIPT = '''"""Predict with this bundle: python apply.py --out FOLDER data.root=FOLDER; --help says more."""

from pathlib import Path

from lib.tools.apply import main

main(Path(__file__).resolve().parent)
'''


def write_bundle(finished: FinishedRun, folder: Path, as_float16: bool, wheels: bool) -> int:
    """Write the bundle, in place of an older one if there is one; return its size in bytes.

    Raises UserError where the wheels cannot be fetched, or as `require_free` does.
    """
    require_free(folder)
    with atomic_folder(folder) as new:
        _write_runs(finished, new, as_float16)
        _copy_code(new)
        if wheels:
            _download(new / "wheels")
        write_notebook(new / "notebook.ipynb", finished.settings)
        if (folder / UPLOAD).is_file():
            shutil.copyfile(folder / UPLOAD, new / UPLOAD)
        files = sorted(path for path in new.rglob("*") if path.is_file())
        write_json(
            new / MANIFEST,
            {
                "run": finished.settings.name,
                "folds": [list(member.folds) for member in finished.members],
                "weights": "float16" if as_float16 else "float32",
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": installed_versions(),
                "files": {path.relative_to(new).as_posix(): sha256_of_file(path) for path in files},
            },
        )
        return sum(path.stat().st_size for path in new.rglob("*") if path.is_file())


def require_free(folder: Path) -> None:
    """Raise UserError if the folder holds anything other than a bundle; only bundles are replaced."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} exists and is not a bundle; choose another --out")


def installed_versions() -> dict[str, str | None]:
    """Python's and the packages' versions; None for one that is not installed."""
    installed = {"python": platform.python_version()}
    for name in NEEDED_PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = None
    return installed


def _write_runs(finished: FinishedRun, new: Path, as_float16: bool) -> None:
    settings = finished.settings
    if len(finished.members) == 1:  # of an ensemble, too: where all weight is one member's
        (member,) = finished.members
        _write_weights(member, RunFolder(new), as_float16)
        parts = {name: getattr(member.settings, name) for name in ("data", "model", "train", "infer")}
        settings = settings.model_copy(update={**parts, "ensemble": EnsembleSettings()})
    else:
        members = [f"members/{number}" for number in range(len(finished.members))]
        for path, member in zip(members, finished.members, strict=True):
            _write_weights(member, RunFolder(new / path), as_float16)
            save_settings(member.settings, RunFolder(new / path).config)
        weights = {path: member.weight for path, member in zip(members, finished.members, strict=True)}
        write_json(RunFolder(new).ensemble, {"weights": weights})
        ensemble = settings.ensemble.model_copy(update={"members": members, "weights": "equal"})
        settings = settings.model_copy(update={"ensemble": ensemble})
    save_settings(_with_own_function(settings, new), RunFolder(new).config)
    by_class = {name: {"rule": rule.to_dict()} for name, rule in finished.rules.items()}
    write_json(final_rules_file(RunFolder(new), settings), {"classes": by_class})


def _write_weights(member: Member, target: RunFolder, as_float16: bool) -> None:
    for fold, path in zip(member.folds, member.weight_files, strict=True):
        tensors = read_tensors(path)
        if as_float16:
            tensors = {name: rounded(tensor) for name, tensor in tensors.items()}
        write_bytes(target.fold(fold).weights, save(tensors))
        shutil.copyfile(member.run.fold(fold).metrics, target.fold(fold).metrics)  # the precision of training


def _with_own_function(settings: Settings, new: Path) -> Settings:
    """The settings with the file of submission.format = FILE.py:FUNCTION copied into the bundle."""
    file, colon, function = settings.submission.format.rpartition(":")
    if not colon:
        return settings
    shutil.copyfile(file, new / Path(file).name)
    submission = settings.submission.model_copy(update={"format": f"{Path(file).name}:{function}"})
    return settings.model_copy(update={"submission": submission})


def _copy_code(new: Path) -> None:
    """Copy the packages of lib/ that prediction needs, the command, and the script that starts it."""
    source = Path(lib.__file__).parent
    modules = [path for package in PACKAGES for path in (source / package).rglob("*.py")]
    for path in [source / "__init__.py", source / "tools" / "__init__.py", source / "tools" / "apply.py", *modules]:
        target = new / "lib" / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    write_text(new / "apply.py", SCRIPT)


def _download(folder: Path) -> None:
    """The wheel that the Kaggle image lacks, of the version installed here."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    ended = subprocess.run(
        [*command, "--dest", str(folder), f"{KAGGLE_LACKS}=={version(KAGGLE_LACKS)}"], capture_output=True, text=True
    )
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or ["pip printed no error"])[-1]
        raise UserError(f"the wheel of {KAGGLE_LACKS} cannot be fetched ({reason}); export without --wheels")
