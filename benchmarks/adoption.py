"""How many standard errors a morphology step should gain before it is adopted: what each limit gains on new images.

    python benchmarks/adoption.py runs/NAME [--share 0.5] [--draws 40] [--limits 0 1 2 3]

Again and again a share of the groups of a run's images is drawn. Stage 05's search sees their out-of-fold maps and
adopts steps by each limit; the other images tell what the adopted rule gains over the threshold alone. The draws
overlap, so their spread is not that of independent samples.
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from experiments import markdown
from tqdm import tqdm

from lib.base.cli import run_command
from lib.data.competition import open_training
from lib.data.folds import read_folds
from lib.masks.metrics import Counts, pooled
from lib.masks.statistics import SURE
from lib.prediction.map_store import MapStore, read_pairs
from lib.run.folder import open_run
from lib.tuning.morphology_search import choose_steps, class_searches
from lib.tuning.step_selection import Block, ClassSearch


def compare(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        search = whole_search(arguments.run, Path(folder))
        random, groups = np.random.default_rng(0), search.table.groups
        rows = []
        for draw in tqdm(range(arguments.draws), desc="draws", disable=None):
            known = (random.random(groups.max() + 1) < arguments.share)[groups]
            for limit in arguments.limits:
                rows.append({"draw": draw, "limit": limit} | adopted_gain(search, known, limit))
    print(f"{len(groups)} images, a share of {arguments.share} known in each of {arguments.draws} draws")
    print(markdown(by_limit(pd.DataFrame(rows)), "limit"))


def by_limit(rows: pd.DataFrame) -> pd.DataFrame:
    """How often steps were adopted at each limit, and what that gained: mean of all draws, of those, least and most."""
    table = rows.groupby(rows.limit.map("{:g}".format))
    adopted = rows[rows.adopted].groupby(rows.limit.map("{:g}".format))
    gains = {
        "mean gain": table.gain.mean(),
        "where adopted": adopted.gain.mean(),
        "least": table.gain.min(),
        "most": table.gain.max(),
    }
    return pd.DataFrame(
        {"adopted": table.adopted.mean().map("{:.2f}".format)}
        | {name: gain.map("{:+.5f}".format) for name, gain in gains.items()}
    ).fillna("")


def whole_search(run_folder: Path, scratch: Path) -> ClassSearch:
    """The terms of all candidates on all images of the run's first class."""
    run, settings = open_run(run_folder)
    data, counts = open_training(settings.data), Counts.load(run.oof_counts)
    table = read_folds(run.folds, data, settings.folds.count)
    pairs = read_pairs(MapStore(run.oof, tuple(data.classes)), data, table.id, settings.submission.size)
    folds, groups = table.fold.to_numpy(), table.group.to_numpy()
    first, *_ = class_searches(pairs, counts, folds, groups, settings.threshold, settings.postprocess, scratch)
    return first


@dataclass(frozen=True)
class LimitedSearch(ClassSearch):
    """A search that adopts what gains more than `limit` standard errors."""

    limit: float = 1.0

    def gain(self, *terms: object) -> tuple[float, float]:
        gain, error = super().gain(*terms)
        return gain, self.limit / SURE * error


def adopted_gain(whole: ClassSearch, known: np.ndarray, limit: float) -> dict[str, object]:
    """What is adopted from the known images (bool), and what it gains on the others."""
    families = {
        family: [Block(block.steps, block.thresholds, block.terms.of(known)) for block in blocks]
        for family, blocks in whole.families.items()
    }
    search = LimitedSearch(whole.table.of(known), families, whole.folds[known], whole.rule, limit=limit)
    steps = choose_steps(search).rule.steps
    tuned = search.tuned(frozenset())
    blocks = {block.steps: block for family in whole.families.values() for block in family}
    after, before = (
        float(pooled(*whole.terms(replace(chosen, block=blocks[chosen.rule.steps]))[:, ~known]))
        for chosen in (tuned[tuple(step.name for step in steps)], tuned[()])
    )
    return {"adopted": bool(steps), "gain": after - before}


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("run", type=Path, metavar="runs/NAME", help="a run after 03_oof_threshold.py")
    command.add_argument("--share", type=float, default=0.5, help="of the groups, known to the search")
    command.add_argument("--draws", type=int, default=40)
    command.add_argument("--limits", type=float, nargs="+", default=[0, 1, 2, 3], help="standard errors")
    run_command(compare, command)
