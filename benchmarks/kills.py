"""What kills cost: each stage is killed at random moments, many times, and the run must end as if nothing had happened.

    python benchmarks/kills.py [--kills 60] [--seed 0]

One run is left alone. In another, each stage is started and killed (SIGKILL, with all that it started) as often as its
share of the kills says, at moments spread evenly over the time that the stage takes undisturbed, and then typed once
more. Every file of the two runs must be the same to the byte, but for those that hold times. Images, network and
training are tiny, so that most kills fall between, into and right after writes.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from conftest import write_competition  # noqa: E402
from stages import SETTINGS, final_files, kill_at_random, run_all, script, stage_words  # noqa: E402

SHARES = {"01_prepare_folds": 0.1, "02_train": 0.4, "03_oof_threshold": 0.2, "04_infer": 0.15, "05_postprocess": 0.15}


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--kills", type=int, default=60)
    command.add_argument("--seed", type=int, default=0)
    arguments = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        survive(Path(folder), arguments.kills, np.random.default_rng(arguments.seed))


def survive(folder: Path, kills: int, random: np.random.Generator) -> None:
    """Print a row for each stage; leave with 1 when a file differs."""
    whole, killed = (folder / name for name in ("whole", "killed"))
    for place in (whole, killed):
        write_competition(place / "data" / "blobs")
        (place / "blobs.yaml").write_text(SETTINGS)
    run_all(whole)  # to warm up: the first process waits for the imports
    shutil.rmtree(whole / "runs")
    seconds = run_all(whole)
    print(f"{'stage':18}{'seconds':>8}{'starts':>8}{'killed':>8}{'then to the end':>17}")
    total = 0
    for stage, share in SHARES.items():
        moments = random.uniform(0, seconds[stage], round(kills * share))
        count = kill_at_random(killed, stage, moments)
        started = time.monotonic()
        ended = script(killed, *stage_words(stage))
        if ended.code != 0:
            sys.exit(f"{stage} ended with {ended.code}: {ended.err}")
        rest = time.monotonic() - started
        print(f"{stage:18}{seconds[stage]:8.1f}{len(moments):8}{count:8}{rest:15.1f} s", flush=True)
        total += count
    expected, found = final_files(whole), final_files(killed)
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    print(f"{total} kills; of {len(expected)} files {len(wrong)} differ {' '.join(wrong[:10])}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
