"""The reader of csv files and run lengths on very many inputs: a right mask or a clear error, and nothing else.

    python tests/fuzz_reader.py [--inputs 100000]

These are the property tests of the suite, one after the other, with a share each of as many inputs as are asked for.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
SHARES = {  # those that write files take five times as long
    "test_rle.py::test_any_text_is_a_mask_or_a_clear_error": 0.4,
    "test_rle.py::test_any_objects_are_labels_or_a_clear_error": 0.4,
    "test_data.py::test_any_table_gives_the_right_masks_or_a_clear_error": 0.1,
    "test_tables.py::test_any_bytes_are_a_table_or_a_clear_error": 0.1,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs in all")
    inputs = parser.parse_args().inputs
    failed = 0
    for name, share in SHARES.items():
        examples = str(round(share * inputs))
        print(f"{examples} inputs for {name}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-show-statistics", str(TESTS / name)]
        failed |= subprocess.run(command, env=os.environ | {"FUZZ_EXAMPLES": examples}).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
