"""The cost of kills: each stage is killed at random moments, many times; the run must end as if nothing had happened.

    python -m tests.pipeline.kills [--kills 60] [--seed 0]

One run is left alone. In another, each stage is started and killed (SIGKILL, with all that it started) at random
moments, four times at most, and then typed once more to its end. Its files must be those of the first run to the byte,
but for what holds times. It is done anew until it has had its share of the kills. Images, network and training are
tiny, so that many kills fall between, into and right after writes.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.conftest import write_competition
from tests.stages import SETTINGS, Ended, final_files, kill_at_random, script, stage_words

REACH = 0.7  # of a stage's time: the latest moment of a kill
IN_A_ROW = 4
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
    whole, killed, before = (folder / name for name in ("whole", "killed", "before"))
    write_competition(whole / "data" / "blobs")
    (whole / "blobs.yaml").write_text(SETTINGS)
    shutil.copytree(whole, killed)  # with the times of the files, which the notes of 01 and 04 hold
    script(whole, *stage_words("01_prepare_folds"))  # the first process waits for the imports
    print(f"{'stage':18}{'seconds':>8}{'killed':>8}{'done':>6}   files that differ")
    failed = False
    for stage, share in SHARES.items():
        started = time.monotonic()
        require_done(script(whole, *stage_words(stage)))
        seconds = time.monotonic() - started
        expected = final_files(whole)
        shutil.copytree(killed, before)
        count, done, wrong = 0, 0, set()
        while count < kills * share:
            if done:
                shutil.rmtree(killed)
                shutil.copytree(before, killed)
            count += kill_at_random(killed, stage, random.uniform(0, REACH * seconds, IN_A_ROW))
            require_done(script(killed, *stage_words(stage)))
            done += 1
            found = final_files(killed)
            wrong |= {name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)}
        print(f"{stage:18}{seconds:8.1f}{count:8}{done:6}   {', '.join(sorted(wrong)) or 'none'}", flush=True)
        shutil.rmtree(before)
        failed |= bool(wrong)
    sys.exit(failed)


def require_done(ended: Ended) -> None:
    if ended.code != 0:
        sys.exit(ended.err)


if __name__ == "__main__":
    main()
