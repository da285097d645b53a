"""A table that is larger than memory should be: written by rows, read by columns."""

import os
import tempfile
from pathlib import Path

import numpy as np

from lib.base.errors import UserError

ROWS = 256  # written at once: so many rows are in memory, and a column is in pieces of so many numbers


class DiskTable:
    """Numbers in float32 in a file without a name, which is gone with the process.

    Rows come in any order. Each ROWS of them are written column by column, so that some columns are one piece of each.
    """

    def __init__(self, folder: Path, columns: int):
        self.folder, self.columns = folder, columns
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (open as long as the table is there)
        self._blocks: list[tuple[int, np.ndarray]] = []  # where each begins in the file, and the numbers of its rows
        self._waiting: dict[int, np.ndarray] = {}

    def write(self, number: int, row: np.ndarray) -> None:
        """Add row `number`, (columns,). Raises UserError when the disk is full."""
        self._waiting[number] = row
        if len(self._waiting) == ROWS:
            self._write_block()

    def read(self, columns: slice) -> np.ndarray:
        """Some columns of all rows, which are numbered without gaps from 0, float32 (rows, columns)."""
        if self._waiting:
            self._write_block()
        width = columns.stop - columns.start
        values = np.empty((sum(len(numbers) for _, numbers in self._blocks), width), np.float32, order="F")
        for offset, numbers in self._blocks:
            column_bytes = len(numbers) * values.itemsize
            self._file.seek(offset + columns.start * column_bytes)
            piece = np.frombuffer(self._file.read(width * column_bytes), np.float32)
            values[numbers] = piece.reshape(width, -1).T
        return values

    def _write_block(self) -> None:
        numbers, block = np.array(list(self._waiting)), np.stack(list(self._waiting.values()), axis=1)
        self._blocks.append((self._file.seek(0, os.SEEK_END), numbers))
        self._waiting.clear()
        try:
            self._file.write(block.astype(np.float32, copy=False).tobytes())
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"cannot write to {self.folder}: {error.strerror}; the search for morphology keeps there "
                f"{4 * self.columns / 1000:.0f} KB of scores for each image and class while it runs"
            ) from None
