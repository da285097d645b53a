"""A table on disk against an array in memory."""

import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.base.errors import UserError
from lib.tuning.disk_table import ROWS, DiskTable


@given(rows=st.sampled_from([1, 3, ROWS - 1, ROWS, 2 * ROWS + 7]), columns=st.integers(1, 40), data=st.data())
@settings(max_examples=20, deadline=None)
def test_columns_read_are_those_of_the_rows_written_in_any_order(rows, columns, data, tmp_path_factory):
    expected = np.random.default_rng(rows).normal(size=(rows, columns)).astype(np.float32)
    table = DiskTable(tmp_path_factory.mktemp("table"), columns)
    for number in data.draw(st.permutations(range(rows))):
        table.write(number, expected[number])
    start = data.draw(st.integers(0, columns - 1))
    stop = data.draw(st.integers(start + 1, columns))
    for _ in range(2):  # a second time, once nothing waits to be written
        assert np.array_equal(table.read(slice(start, stop)), expected[:, start:stop])


def test_no_file_is_left_in_the_folder(tmp_path):
    table = DiskTable(tmp_path, 5)
    for number in range(ROWS):
        table.write(number, np.zeros(5, np.float32))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path):
    class Full:
        def seek(self, *place: int) -> int:
            return 0

        def write(self, content: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    table = DiskTable(tmp_path, 10_000)
    table._file = Full()
    table.write(0, np.zeros(10_000, np.float32))
    with pytest.raises(UserError, match="No space left on device.*40 KB of scores for each image"):
        table.read(slice(0, 1))
