"""The reader of csv files and run lengths on very many inputs: a right mask or a clear error, and nothing else.

    python tests/fuzz_reader.py [--inputs 100000]

These are the property tests of the suite with as many inputs as are asked for, shared out over them.
"""

import argparse
import os
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
FUZZED = (
    "test_rle.py::test_any_text_is_a_mask_or_a_clear_error",
    "test_rle.py::test_any_objects_are_labels_or_a_clear_error",
    "test_data.py::test_any_table_gives_the_right_masks_or_a_clear_error",
    "test_tables.py::test_any_bytes_are_a_table_or_a_clear_error",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs in all")
    inputs = parser.parse_args().inputs
    os.environ["FUZZ_EXAMPLES"] = str(-(-inputs // len(FUZZED)))  # read when the tests are imported
    import pytest

    print(f"{os.environ['FUZZ_EXAMPLES']} inputs for each of {len(FUZZED)} properties")
    return pytest.main(["-q", "--hypothesis-show-statistics", *(str(TESTS / name) for name in FUZZED)])


if __name__ == "__main__":
    sys.exit(main())
