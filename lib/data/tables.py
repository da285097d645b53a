"""Reading the csv files of a competition: every value is text, exactly as written."""

import csv
from pathlib import Path

from lib.base.errors import UserError

Table = dict[str, list[str]]  # columns by name, every value as text

csv.field_size_limit(2**31 - 1)  # one field holds the run lengths of a whole mask


def read_table(path: Path, setting: str) -> Table:
    """Columns of a csv file by name, as text without surrounding blanks; no value is taken for a number or as missing.

    Raises UserError naming the file and the line when it is absent (then also the `setting` that points to it), not
    UTF-8, has no header, two columns of one name, or a row with more or fewer values than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [_checked_row(row, header, path, reader.line_num) for row in reader if row]
    except FileNotFoundError:
        raise UserError(f"table {path} does not exist ({setting})") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a csv file in UTF-8: {error}") from None
    if not header:
        raise UserError(f"{path} is empty; its first line must name the columns")
    if len(set(header)) < len(header):
        raise UserError(f"{path} has two columns of the same name: {', '.join(header)}")
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return {name: list(values) for name, values in zip(header, columns, strict=True)}


def column(table: Table, name: str, path: Path, setting: str) -> list[str]:
    """The column that a setting names. Raises UserError that lists the columns when there is none."""
    if name not in table:
        raise UserError(f"{path} has no column '{name}' ({setting}); its columns are: {', '.join(table)}")
    return table[name]


def _checked_row(row: list[str], header: list[str], path: Path, line: int) -> list[str]:
    if len(row) != len(header):
        raise UserError(f"{path}, line {line}: {len(row)} values, but {len(header)} columns ({', '.join(header)})")
    return [value.strip() for value in row]
