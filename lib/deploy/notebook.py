"""The notebook of a bundle: finds the bundle and the competition's data, predicts, and shows the file to submit."""

import json
from pathlib import Path

from lib.base.files import write_text
from lib.config.data_settings import DataSettings
from lib.config.schema import Settings
from lib.data.discovery import WILDCARD
from lib.submission.outputs import SUBMISSIONS

INTRODUCTION = """# {name}: predict the test set

Add this bundle and the competition as inputs, switch the internet off, and run all cells. The last one shows the file
that is submitted. Every step stops the notebook where it fails, and no older file is left to be submitted.
"""

FIND = """from pathlib import Path
import json, shutil, subprocess, sys, tempfile

INPUT, WORKING = Path("/kaggle/input"), Path("/kaggle/working")
NEEDED = {needed}  # what the competition's folder has in it; hidden test images may be absent until the submission

for name in {files}:  # an older one must not be submitted if a step below fails
    (WORKING / name).unlink(missing_ok=True)


def folder_with(*names):
    for depth in range(1, 6):
        for path in sorted(INPUT.glob("/".join(["*"] * depth))):
            if path.is_dir() and all((path / name).exists() for name in names):
                return path


BUNDLE = folder_with("manifest.json", "apply.py", "lib")
DATA = NEEDED and (folder_with(*NEEDED) or folder_with(*NEEDED[:1]))
if not (BUNDLE and DATA):
    raise FileNotFoundError(
        f"below {{INPUT}} there is no bundle, or no folder with {{NEEDED}}; add it as an input, or write into NEEDED a "
        "name that only the competition's folder has in it"
    )
print(BUNDLE, DATA, sep="\\n")
"""

INSTALL = """wheels = [str(path) for path in (BUNDLE / "wheels").glob("*.whl")]
if wheels:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *wheels], check=True)
"""

PREDICT = """import torch

WORK = Path(tempfile.gettempdir()) / "prediction"
gpus = torch.cuda.device_count()
several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}"] if gpus > 1 else []
SETTINGS = [f"data.root={DATA}", "data.unreadable_test_images=empty"]
command = [sys.executable, *several, str(BUNDLE / "apply.py"), "--out", str(WORK), "--hours", "8.5", *SETTINGS]
subprocess.run(command, check=True)
done = json.loads((WORK / "written.json").read_text(encoding="utf-8"))
OUTPUT = WORKING / Path(done["written"][0]).name
shutil.copyfile(done["written"][0], OUTPUT)
"""

SHOW = """print(done)
print(OUTPUT, OUTPUT.stat().st_size, "bytes")
print(*OUTPUT.read_bytes()[:500].decode(errors="replace").splitlines(), sep="\\n")
"""


def write_notebook(path: Path, settings: Settings) -> None:
    cells = [
        _cell("markdown", INTRODUCTION.format(name=settings.name)),
        _cell("code", FIND.format(needed=needed(settings.data), files=sorted(SUBMISSIONS))),
        _cell("code", INSTALL),
        _cell("code", PREDICT),
        _cell("code", SHOW),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    write_text(path, json.dumps(content, indent=1) + "\n")


def needed(data: DataSettings) -> list[str]:
    """The names that identify the folder of a competition: its sample, and the first folder of its test images."""
    first = (data.test_images or "").split("/")[0]
    return [name for name in (data.sample_submission, first) if name and not WILDCARD.search(name)]


def _cell(kind: str, source: str) -> dict:
    extra = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": source.strip().splitlines(keepends=True), **extra}
