"""Does the presence gate help? Runs with a presence head, each scored with and without the gate on the same maps.

    python benchmarks/presence.py WORK --config configs/NAME.yaml [section.key=value ...]
    python benchmarks/presence.py WORK --only presence --seeds 0 1 ...     without the runs that have no head

Both nested scores of a row are of one run: the rules with and without the gate are tuned on the other folds. The runs
without a head show how much the head's loss costs, or helps, the masks. A stopped command continues when it is typed
again.
"""

from pathlib import Path

import pandas as pd
from experiments import finish, finished_variants, markdown, parser, result_folder, runs_of

from lib.base.cli import run_command
from lib.base.files import read_json

VARIANTS = {"presence": ("model.presence=1",), "no_head": ()}


def compare(arguments) -> None:
    runs = runs_of(arguments, VARIANTS)
    finish(runs, arguments.work, arguments.parallel)
    rows = [
        row
        for names in finished_variants(runs, arguments.work).values()
        for name in names
        for row in rows_of(name, arguments.work)
    ]
    print(markdown(pd.DataFrame(rows).set_index("run"), "run"))


def rows_of(name: str, work: Path) -> list[dict[str, str]]:
    """A row of the table for each class of a run."""
    classes, rows = read_json(result_folder(name, work) / "result.json")["classes"], []
    for class_name, choice in classes.items():
        trial = choice.get("presence")
        without, with_gate = trial["nested"] if trial else (choice["nested"], None)
        rows.append(
            {
                "run": name if len(classes) == 1 else f"{name}, {class_name}",
                "all empty": f"{choice['all_empty']:.4f}",
                "nested without gate": f"{without:.4f}",
                "with gate": "" if with_gate is None else f"{with_gate:.4f}",
                "gain": f"{trial['gain']:+.4f} ± {trial['standard_error']:.4f}" if trial else "",
                "AUC of presence": f"{trial['area']:.4f}" if trial and trial["area"] is not None else "",
                "adopted": ("no: " + trial["reason_against"] if trial["reason_against"] else "yes") if trial else "",
                "rule": choice["rule"]["name"],
            }
        )
    return rows


if __name__ == "__main__":
    run_command(compare, parser(__doc__))
