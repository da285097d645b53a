"""Export a finished run as a bundle: a folder to upload as a Kaggle data set, or to share.

    python -m lib.tools.export runs/NAME [--out bundles/NAME] [--folds 0 1] [--wheels]

reads    the run's settings, models and rules, and for float16 some training images
writes   bundles/NAME/: weights, settings, rules, code, a notebook, manifest.json (wheels need internet access)
next     upload the folder and its notebook.ipynb

Weights are stored as float16, half the size, unless that changes more than --limit of the mask pixels of out-of-fold
images.
"""

import argparse
import shlex
from pathlib import Path

from lib.base.cli import StageSummary, parser, run_command


def export(arguments: argparse.Namespace) -> StageSummary:
    import time

    from lib.deploy.bundle import require_free, write_bundle
    from lib.deploy.finished import open_finished

    started = time.monotonic()
    finished = open_finished(arguments.run, arguments.overrides, arguments.folds, arguments.rules)
    folder = arguments.out or Path("bundles") / finished.settings.name
    require_free(folder)
    print(finished, flush=True)
    as_float16 = may_be_float16(finished, arguments)
    size = write_bundle(finished, folder, as_float16, arguments.wheels)
    print(f"{folder}: {size / 1e6:.1f} MB, weights as {'float16' if as_float16 else 'float32'}")
    if not arguments.wheels:
        print("note      Kaggle's image lacks segmentation-models-pytorch; --wheels adds it to the bundle")
    apply = shlex.quote(str(folder / "apply.py"))
    next_command = f"upload {folder} as a data set, or: python {apply} --out FOLDER data.root=FOLDER"
    return StageSummary([folder], next_command, time.monotonic() - started, {"bytes": size, "float16": as_float16})


def may_be_float16(finished, arguments: argparse.Namespace) -> bool:
    """True if weights are stored as float16: as --weights says, or as measured."""
    from lib.base.errors import UserError
    from lib.deploy.float16 import check_float16

    if arguments.weights != "auto":
        return arguments.weights == "float16"
    try:
        check = check_float16(finished)
    except UserError as error:
        print(f"float16 is not measured ({error}), so weights stay float32; --weights float16 skips the measurement")
        return False
    print(f"{check} ({check.share:.4%}, limit {arguments.limit:.4%})")
    return check.share <= arguments.limit


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME", help="a run after 05, or after 03")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="default: bundles/NAME")
    command.add_argument("--folds", type=int, nargs="+", metavar="K", help="only these folds' models")
    command.add_argument("--rules", type=Path, metavar="FILE", help="rules set by hand: rules.json of lib.tools.submit")
    command.add_argument("--weights", choices=["auto", "float16", "float32"], default="auto", help="default: measured")
    command.add_argument("--limit", type=float, default=0.001, help="share of mask pixels float16 may change")
    command.add_argument("--wheels", action="store_true", help="add the package that the Kaggle image lacks")
    run_command(export, command)
