"""Segmentation from images to submission. In a notebook: `from lib import load_run`."""


def load_run(root, folds=None):
    """Load the run or bundle in the folder `root`, or some of its `folds`; see LoadedRun for what it predicts."""
    from pathlib import Path

    from lib.submission.loaded_run import LoadedRun  # torch, which takes seconds to load

    return LoadedRun.open(Path(root), folds)
