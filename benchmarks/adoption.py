"""The standard errors that a morphology step should gain to be adopted: the gain on new images for each limit.

    python benchmarks/adoption.py runs/NAME [--share 0.5] [--draws 40] [--limits 0 1 2 3]

Each draw takes a random share of the groups of a run's images. Stage 05's search sees their out-of-fold maps and adopts
steps by each limit; the other images show the gain of the adopted rule over the threshold alone. The draws overlap, so
their spread is not that of independent samples.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from experiments import markdown
from tqdm import tqdm

from lib.base.cli import plain_parser, run_command
from lib.data.competition import open_training
from lib.folds.split import read_folds
from lib.masks.metrics import Counts, pooled
from lib.masks.statistics import Gain, group_numbers
from lib.prediction.map_store import MapStore, read_pairs
from lib.run.folder import open_run
from lib.tuning.morphology_search import search_steps
from lib.tuning.step_selection import SelectedRules, StepSelection
from lib.tuning.thresholds import choose_thresholds


def compare(arguments: argparse.Namespace) -> None:
    search = whole_search(arguments.run)
    random, groups = np.random.default_rng(0), search.tables[()].groups
    rows = []
    for draw in tqdm(range(arguments.draws), desc="draws", disable=None):
        known = (random.random(groups.max() + 1) < arguments.share)[groups]
        for limit in arguments.limits:
            rows.append({"draw": draw, "limit": limit} | adopted_gain(search, known, limit))
    print(f"{len(groups)} images, a share of {arguments.share} known in each of {arguments.draws} draws")
    print(markdown(by_limit(pd.DataFrame(rows)), "limit"))


def by_limit(rows: pd.DataFrame) -> pd.DataFrame:
    """The adoptions at each limit, and their gain: mean of all draws, of the adopting ones, smallest, largest."""
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


def whole_search(run_folder: Path) -> StepSelection:
    """The counts of all candidates on the run's images, or the sample that 05 searches, for its first class."""
    run, settings = open_run(run_folder)
    data, counts = open_training(settings.data), Counts.load(run.oof_counts)
    table = read_folds(run.folds, data, settings.folds.count)
    read = partial(read_pairs, MapStore(run.oof, tuple(data.classes)), data, size=settings.submission.size)
    folds, groups = table.fold.to_numpy(), group_numbers(table.group.to_numpy())
    chosen = choose_thresholds(counts, folds, settings.threshold, groups)
    return search_steps(read, counts, chosen, 0, groups, settings.postprocess)


def adopted_gain(whole: StepSelection, known: np.ndarray, limit: float) -> dict[str, object]:
    """Whether a step is adopted on the known images, and its gain on the others."""
    tables = {steps: table.of(known) for steps, table in whole.tables.items()}
    search = StepSelection(tables, whole.folds[known], whole.kind, limit)
    selected, alone = search.selected(), search.best_rules()[()]
    in_sample_gain = float(pooled(*search.terms(selected.rule)) - pooled(*search.terms(alone)))
    reason = selected.reason_against(procedure_gain(search, selected), in_sample_gain)
    rule = alone if reason else selected.rule
    after, before = (float(pooled(*whole.terms(each)[:, ~known])) for each in (rule, alone))
    return {"adopted": bool(rule.steps), "gain": after - before}


def procedure_gain(search: StepSelection, selected: SelectedRules) -> Gain:
    """The nested gain of selecting and tuning: each image at the rule selected without its fold."""
    terms = np.empty((2, len(search.folds)))
    for fold, rule in selected.without_part.items():
        left_out = search.folds == fold
        terms[:, left_out] = search.terms(rule)[:, left_out]
    return Gain.between(search.nested(()), terms, search.tables[()].groups)


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME", help="a run after 03_oof_threshold.py")
    command.add_argument("--share", type=float, default=0.5, help="of the groups, known to the search")
    command.add_argument("--draws", type=int, default=40)
    command.add_argument("--limits", type=float, nargs="+", default=[0, 1, 2, 3], help="standard errors")
    run_command(compare, command)
