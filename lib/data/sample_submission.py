"""The sample submission: the columns and rows that a submission must have, in their order."""

from typing import NamedTuple

from lib.config.schema import DataSettings
from lib.data.rle_table import guess_rle_column, row_keys
from lib.data.tables import read_table


class SubmissionRow(NamedTuple):
    """A row to be written: the image and class it is about, and its values, the run lengths still to be filled in."""

    id: str
    class_index: int
    values: tuple[str, ...]


def read_sample_rows(settings: DataSettings) -> tuple[list[str], list[SubmissionRow]]:
    """Columns of the sample submission and one row for each image and class in it, in the order they come first."""
    if settings.sample_submission is None:
        return ["id", *(["class"] if len(settings.classes) > 1 else []), "rle"], []
    path = settings.root / settings.sample_submission
    table = read_table(path, "data.sample_submission")
    # A sample may lack the columns that train.csv calls otherwise; then they are found as in a table without settings.
    absent = [field for field in ("id_column", "class_column") if getattr(settings, field) not in table]
    settings = settings.model_copy(update=dict.fromkeys(absent))
    rows = {}
    values_of_rows = zip(*table.values(), strict=True)
    for (image_id, class_index), values in zip(row_keys(table, path, settings), values_of_rows, strict=True):
        rows.setdefault((image_id, class_index), SubmissionRow(image_id, class_index, values))
    return list(table), list(rows.values())


def sample_rle_column(columns: list[str], settings: DataSettings) -> str:
    if settings.rle_column in columns:
        return settings.rle_column
    return guess_rle_column(columns, settings, settings.sample_submission)


def rows_of_all(ids: list[str], columns: list[str], settings: DataSettings) -> list[SubmissionRow]:
    """A row for each image and class: the class in a column of its own if there is one, else as <id>_<class>."""
    rows = []
    class_name = settings.class_column or "class"
    for image_id in ids:
        for index, name in enumerate(settings.classes):
            key = image_id if len(settings.classes) == 1 or class_name in columns else f"{image_id}_{name}"
            known = {columns[0]: key, class_name: name}
            rows.append(SubmissionRow(image_id, index, tuple(known.get(column, "") for column in columns)))
    return rows
