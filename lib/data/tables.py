"""Tables: reading those of a competition, csv or parquet, every value as text exactly as written; writing csv."""

import csv
import gzip
import re
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from lib.base.errors import UserError, one_line, plural
from lib.base.files import write_text

if TYPE_CHECKING:
    from pandas import DataFrame

TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
DELIMITERS = (",", "\t", ";")
QUOTED = re.compile(r'"[^"]*"')
OTHER_SEPARATORS = re.compile(r"[|: ]")
SEPARATOR_LINE = re.compile(r"sep=(.)\s*")

Table = dict[str, list[str]]  # columns by name, every value as text

csv.field_size_limit(2**31 - 1)  # one field holds the run lengths of a whole mask


def read_table(path: Path, setting: str, most: int | None = None) -> Table:
    """Columns of a table by name, as text without surrounding blanks; no value is taken for a number or as missing.

    `most` is the number of rows to read of a csv file (None: all).

    Values are separated by commas, tabs or semicolons, whichever alone stands in the first line, or by what Excel's
    line `sep=;` says. Raises UserError naming the file and the line when it is absent (then also the `setting` that
    points to it), neither UTF-8 nor UTF-16 with a byte order mark, has no header, one that other characters separate,
    two columns of one name, or a row with more or fewer values than the header.
    """
    if path.name.lower().endswith(".parquet"):
        return _read_parquet(path, setting)
    try:
        with _open(path) as file:
            first = file.readline()
            separator_line = SEPARATOR_LINE.fullmatch(first)
            first = file.readline() if separator_line else first
            delimiter = separator_line[1] if separator_line else _delimiter(first)
            reader = csv.reader(chain([first], file), delimiter=delimiter, skipinitialspace=True, strict=True)
            header = _checked_header(next(reader, []), first, path)
            rows = [_checked_row(row, header, path, reader.line_num) for row in islice(reader, most) if row]
    except FileNotFoundError:
        raise UserError(f"table {path} does not exist ({setting})") from None
    except UnicodeError as error:
        raise UserError(f"{path} is not a csv file in UTF-8: {error}; save it again as UTF-8") from None
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise UserError(f"{path} is not a csv file: {error}") from None
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return {name: list(values) for name, values in zip(header, columns, strict=True)}


def write_table(path: Path, table: "DataFrame", float_format: str | None = None) -> None:
    """Write a csv file atomically, the same on every system."""
    write_text(path, table.to_csv(index=False, lineterminator="\n", float_format=float_format))


def column(table: Table, name: str, path: Path, setting: str) -> list[str]:
    """The column that a setting names. Raises UserError that lists the columns when there is none."""
    if name not in table:
        raise UserError(f"{path} has no column '{name}' ({setting}); its columns are: {', '.join(table)}")
    return table[name]


def _open(path: Path) -> TextIO:
    """The text of a table: UTF-16 where it begins with its mark, as Excel writes "Unicode text", else UTF-8."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rb") as file:
        encoding = "utf-16" if file.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig"
    return opened(path, "rt", encoding=encoding, newline="")


def _delimiter(first_line: str) -> str:
    """The character that separates the names of the columns; a comma if several could."""
    plain = QUOTED.sub("", first_line)
    present = [delimiter for delimiter in DELIMITERS if delimiter in plain]
    return present[0] if len(present) == 1 else ","


def _checked_header(names: list[str], first_line: str, path: Path) -> list[str]:
    header = [name.strip() for name in names]
    if not any(header):
        state = "begins with a blank line" if first_line else "is empty"
        raise UserError(f"{path} {state}; its first line must name the columns")
    if len(header) == 1 and OTHER_SEPARATORS.search(header[0]):
        raise UserError(f"{path} has one column, '{header[0]}'; separate the values by commas, tabs or semicolons")
    if len(set(header)) < len(header):
        raise UserError(f"{path} has two columns of the same name: {', '.join(header)}")
    return header


def _checked_row(row: list[str], header: list[str], path: Path, line: int) -> list[str]:
    if len(row) != len(header):
        counted = f"{plural(len(row), 'value')}, but {plural(len(header), 'column')}"
        raise UserError(f"{path}, line {line}: {counted} ({', '.join(header)})")
    return [value.strip() for value in row]


def _read_parquet(path: Path, setting: str) -> Table:
    """A missing value becomes a blank, a list of numbers their text with spaces between them."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise UserError(f"{path} is a parquet file, which needs one more package: pip install pyarrow") from None
    try:
        columns = pyarrow.parquet.read_table(path).to_pydict()
    except FileNotFoundError:
        raise UserError(f"table {path} does not exist ({setting})") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path} is not a parquet file: {one_line(error)}") from None
    return {name.strip(): [_as_text(value) for value in values] for name, values in columns.items()}


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_as_text, value))
    return "" if value is None or value != value else str(value).strip()  # not equal to itself: NaN
