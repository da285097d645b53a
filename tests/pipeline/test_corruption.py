"""Each file of a finished run is deleted, cut, overwritten, edited or exchanged: every stage is then typed once more.

Either they end with the files that were there before, or one of them stops with one sentence. The damages rotate over
the files, so that each file meets one and each kind of damage all kinds of files; `python -m
tests.pipeline.test_corruption` does all damages to all files.
"""

import importlib
import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lib.base.cli import silence
from lib.base.errors import UserError
from lib.run.lock import HELD
from lib.run.stage import opened
from tests.conftest import write_competition
from tests.stages import SETTINGS, leave_out_pictures

STAGES = {
    "02_train": "train",
    "03_oof_threshold": "cross_validate_threshold",
    "04_infer": "infer",
    "05_postprocess": "postprocess",
}
RUN = Path("runs/blobs")
WITH_TIMES = {".lock", "report.html", "01_prepare_folds.json", *(f"{stage}.json" for stage in STAGES)}
UNREAD = {"duplicates.csv", "features.npz"}  # by later stages
UNREAD |= {f"fold_{fold}/{name}" for fold in range(3) for name in ("config.yaml", "history.csv")}
SMALL = "\n".join(
    [
        SETTINGS.replace("epochs: 2", "epochs: 1, crop_size: 32").replace("steps: [fill, remove]", "steps: [remove]"),
        "threshold: {bootstrap: 100}",
    ]
)


def delete(path: Path, sibling: Path) -> None:
    path.unlink()


def cut(path: Path, sibling: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path, sibling: Path) -> None:
    os.truncate(path, 0)


def zero_tail(path: Path, sibling: Path) -> None:
    content = path.read_bytes()
    keep = len(content) * 2 // 3
    path.write_bytes(content[:keep] + bytes(len(content) - keep))


def flip_bit(path: Path, sibling: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def exchange(path: Path, sibling: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(sibling.read_bytes())
    sibling.write_bytes(content)


DAMAGES = (delete, cut, empty, zero_tail, flip_bit, exchange)


def contents(root: Path) -> dict[str, bytes]:
    """The files of the run but those that hold times."""
    files = {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in WITH_TIMES}


def damaged_files(root: Path) -> list[tuple[Path, Path]]:
    """One file of each kind, and a sibling to exchange it with: of the folds and maps the first two of each."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    pairs = []
    for path in files:
        alike = [other for other in files if other != path and other.suffix == path.suffix]
        namesakes = [other for other in alike if other.name == path.name or other.parent == path.parent != root]
        is_first = not any(other < path for other in namesakes if other.parent != root)
        if is_first:
            pairs.append((path, (namesakes or alike or files)[0]))
    return pairs


def run_stage(name: str) -> None:
    arguments = Namespace(run=RUN, config=Path("blobs.yaml"), overrides=[], folds=None, restart=False)
    if name == "01_prepare_folds":
        del arguments.run
    function = {"01_prepare_folds": "prepare_folds", **STAGES}[name]
    try:
        getattr(importlib.import_module(name), function)(*opened(arguments), arguments)
    finally:
        while HELD:
            HELD.pop().close()


def make_run(folder: Path) -> None:
    write_competition(folder / "data" / "blobs", training=12, test=3)
    (folder / "blobs.yaml").write_text(SMALL)
    for name in ("01_prepare_folds", *STAGES):
        run_stage(name)


def outcome(path: Path, sibling: Path, damage: Callable, whole: Path) -> str:
    """The result of damaging a file: 'the same', or the sentence of the stage that stopped."""
    before = contents(whole)
    shutil.rmtree(RUN)
    shutil.copytree(whole, RUN)
    damage(RUN / path.relative_to(whole), RUN / sibling.relative_to(whole))
    try:
        for name in STAGES:
            run_stage(name)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return str(error)
    after = contents(RUN)
    wrong = [name for name in before if before[name] != after.get(name) and name not in UNREAD]
    assert not wrong, f"{damage.__name__} {path}: {wrong}"
    return "the same"


@pytest.fixture
def in_folder(tmp_path, monkeypatch) -> Path:
    """A finished run in the present folder, and a copy of it."""
    monkeypatch.chdir(tmp_path)
    leave_out_pictures(monkeypatch.setattr)
    make_run(tmp_path)
    return Path(shutil.copytree(RUN, "whole"))


def test_the_corruption_of_any_file_ends_with_the_same_files_or_one_sentence(in_folder, capsys):
    pairs = damaged_files(in_folder)
    names = {str(path.relative_to(in_folder)) for path, _ in pairs}
    assert {"config.yaml", "folds.csv", "fold_0/model.safetensors", "fold_0/metrics.json", "threshold.json"} <= names
    assert {"oof_counts.npz", "oof/train_000.png", "test/test_000.png", "03_oof_threshold.json"} <= names
    outcomes = {}
    for number, (path, sibling) in enumerate(pairs):
        damage = DAMAGES[number % len(DAMAGES)]
        outcomes[path.name, damage.__name__] = outcome(path, sibling, damage, in_folder)
    refused = [text for text in outcomes.values() if text != "the same"]
    assert len(refused) >= 2 and len(outcomes) - len(refused) > 5  # both happen


def main() -> None:
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        leave_out_pictures()
        make_run(Path(folder))
        whole = Path(shutil.copytree(RUN, "whole"))
        for path, sibling in damaged_files(whole):
            for damage in DAMAGES:
                try:
                    with silence():
                        text = outcome(path, sibling, damage, whole)
                except Exception as error:
                    text = f"WRONG: {type(error).__name__}: {error}"
                print(f"{damage.__name__:10} {path.relative_to(whole)}: {text}", flush=True)


if __name__ == "__main__":
    main()
