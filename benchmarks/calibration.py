"""Does the nested score predict the test score better than the in-sample one? Measured on held-out cells of the demo.

    python benchmarks/calibration.py WORK [--seeds 0 1 2 3 4] [--parts 0 1 2 3 4]

One test set cannot answer: easy or hard cells shift the scores of all runs alike. So the world's cells are held out in
five parts, each once; each part is the test set of runs with several fold seeds. A stopped command continues when it is
typed again. Needs the demo's data (`make demo` writes them).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from experiments import Run, data_folder, finish, finished_variants, markdown, parser, result_folder, write_held_out

from lib.base.cli import run_command
from lib.base.files import read_json
from lib.tools.blue_marble import CELL
from lib.tools.blue_marble import TEST_SHARE as PARTS

ESTIMATES = {  # what a run claims: where its result has it, and the test score that it speaks of
    "threshold, in-sample": ("in_sample", "test_before"),
    "threshold, nested": ("nested", "test_before"),
    "threshold and morphology, in-sample": ("postprocess.after.in_sample", "test_after"),
    "threshold and morphology, nested": ("postprocess.after.nested", "test_after"),
}


def calibration(arguments) -> None:
    source, work = data_folder(arguments), arguments.work.resolve()
    parts = arguments.parts
    folders = {part: hold_out_part(source, part, work / "data" / f"part_{part}") for part in parts}
    runs = [
        Run(f"part{part}", seed, arguments.config.resolve(), folders[part], overrides, test=True)
        for seed in arguments.seeds
        for part in parts
        for number in [seed * PARTS + part]  # no two runs share their folds
        for overrides in [(*arguments.overrides, f"folds.seed={number}", f"train.seed={number}")]
    ]
    finish(runs, work, arguments.parallel)
    claims = read_claims(finished_variants(runs, work), work)
    print(markdown(errors(claims), "claim"))
    print()
    print(markdown(by_part(claims), "held-out part"))


def hold_out_part(source: Path, part: int, folder: Path) -> Path:
    """Write the demo's data with another fifth of the cells as test images (links); part 0 is the demo's own."""
    if folder.is_dir():
        return folder
    train, solution = (pd.read_csv(source / f"{name}.csv", dtype=str) for name in ("train", "solution"))
    tiles = pd.concat([train[["id", "rle"]], solution[["id", "rle"]]]).sort_values("id", ignore_index=True)
    tiles["group"] = tiles.id.str.rpartition("_")[0]
    held_out = tiles.group.map(part_of_cell) == part
    write_held_out(source, folder, tiles, held_out)
    return folder


def part_of_cell(name: str) -> int:
    """The fifth that a cell such as n30w090 belongs to: within one, cells are a knight's move apart, as in the demo."""
    south = int(name[1:3]) * (1 if name[0] == "n" else -1)
    west = int(name[4:7]) * (1 if name[3] == "e" else -1)
    return ((180 + west) // CELL + 2 * (90 + south) // CELL) % PARTS


def read_claims(variants: dict[str, list[str]], work: Path) -> pd.DataFrame:
    """One row per run: part, run, and the value and test score of each estimate."""
    rows = []
    for part, names in variants.items():
        for name in names:
            result = read_json(result_folder(name, work) / "result.json")
            row = {"part": part, "run": name}
            for estimate, places in ESTIMATES.items():
                row[estimate], row[f"{estimate}: test"] = (look_up(result, place) for place in places)
            rows.append(row)
    return pd.DataFrame(rows)


def look_up(content: dict, dotted: str) -> float:
    """The value at a dotted key."""
    for key in dotted.split("."):
        content = content[key]
    return content


def errors(claims: pd.DataFrame, repeats: int = 2000) -> pd.DataFrame:
    """For each estimate its mean difference from the test score, the mean absolute difference, and the correlation.

    Intervals (95 %) draw parts, then runs within them: the runs of one part share their test images.
    """
    rows = {}
    for estimate in ESTIMATES:
        draws = [difference_measures(claims.loc[chosen], estimate) for chosen in resampled(claims.part, repeats)]
        low, high = np.nanquantile(draws, [0.025, 0.975], axis=0)
        values = difference_measures(claims, estimate)
        rows[estimate] = {
            name: f"{value:{sign}.4f} [{from_:{sign}.4f}, {to:{sign}.4f}]"
            for name, sign, value, from_, to in zip(
                ("claim - test", "absolute difference", "correlation"), "+-+", values, low, high, strict=True
            )
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def difference_measures(claims: pd.DataFrame, estimate: str) -> tuple[float, float, float]:
    """Mean difference claim - test, mean absolute difference, and correlation over the runs."""
    claimed, test = claims[estimate].to_numpy(), claims[f"{estimate}: test"].to_numpy()
    varies = len(claims) > 2 and claimed.std() > 0 and test.std() > 0
    correlation = np.corrcoef(claimed, test)[0, 1] if varies else np.nan
    return (claimed - test).mean(), np.abs(claimed - test).mean(), correlation


def resampled(parts: pd.Series, repeats: int, seed: int = 0) -> list[np.ndarray]:
    """Row labels of bootstrap samples: parts with replacement, then runs with replacement within each."""
    rng = np.random.default_rng(seed)
    rows = {part: parts.index[parts == part].to_numpy() for part in parts.unique()}
    names = list(rows)
    return [
        np.concatenate([rng.choice(rows[names[number]], len(rows[names[number]])) for number in drawn])
        for drawn in rng.integers(len(names), size=(repeats, len(names)))
    ]


def by_part(claims: pd.DataFrame) -> pd.DataFrame:
    """Means over the runs of each part, as text."""
    columns = list(ESTIMATES) + [f"{estimate}: test" for estimate in list(ESTIMATES)[1::2]]
    means = claims.groupby("part", sort=False)[columns].mean()
    means.insert(0, "runs", claims.groupby("part", sort=False).size().astype(str))
    return means.map(lambda value: value if isinstance(value, str) else f"{value:.4f}")


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("--parts", type=int, nargs="+", default=list(range(PARTS)), metavar="K")
    command.set_defaults(seeds=list(range(5)))
    run_command(calibration, command)
