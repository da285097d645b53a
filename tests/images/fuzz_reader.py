"""The reader of csv files and run lengths on very many inputs: a right mask or a clear error, and nothing else.

    python -m tests.images.fuzz_reader [--inputs 100000]

These are the property tests of the suite, one after the other, with a share each of as many inputs as are asked for.
"""

import argparse
import os
import subprocess
import sys

from tests import REPOSITORY

SHARES = {  # those that write files take five times as long
    "masks/test_rle.py::test_any_text_is_a_mask_or_a_clear_error": 0.4,
    "masks/test_rle.py::test_any_objects_are_labels_or_a_clear_error": 0.4,
    "data/test_competition.py::test_any_table_gives_the_right_masks_or_a_clear_error": 0.1,
    "data/test_tables.py::test_any_bytes_are_a_table_or_a_clear_error": 0.1,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs in all")
    inputs = parser.parse_args().inputs
    failed = 0
    for name, share in SHARES.items():
        examples = str(round(share * inputs))
        print(f"{examples} inputs for {name}", flush=True)
        command = [sys.executable, "-m", "pytest", "--hypothesis-show-statistics", str(REPOSITORY / "tests" / name)]
        failed |= subprocess.run(command, env=os.environ | {"FUZZ_EXAMPLES": examples}).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
