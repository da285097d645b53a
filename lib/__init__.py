"""Segmentation from images to submission. In a notebook: `from lib import load_run`."""

import os

# OpenMP's threads spin while they wait for each other, up to 300,000 turns. Beside other programs they spin on cores
# that the awaited thread needs: training and prediction took 2 to 8 times as long as with short spins, which cost
# nothing measurable on free cores. libgomp reads this when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def load_run(root, folds=None):
    """Load the run or bundle in the folder `root`, or some of its `folds`; see LoadedRun for what it predicts."""
    from pathlib import Path

    from lib.deploy.loaded_run import LoadedRun  # torch, which takes seconds to load

    return LoadedRun.open(Path(root), folds)
