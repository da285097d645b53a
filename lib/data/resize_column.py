"""The values of data.resize.column: a number above 0 for each image, such as the size of its pixels."""

import math
from pathlib import Path

from lib.base.errors import UserError
from lib.config.data_settings import DataSettings
from lib.config.resize_settings import LARGEST_FACTOR
from lib.data.image_column import Files, masks_table_column, named_table_column
from lib.data.mask_index import is_rle_table, read_masks_table
from lib.data.tables import Table


def values_of_training(settings: DataSettings, files: Files, masks_table: Table | None = None) -> dict[str, float]:
    """The value of each training image, from data.resize_csv or the csv of run lengths; {} without a column.

    `masks_table` is the csv of run lengths, if it has been read. Raises UserError for an image without a value.
    """
    column, path = settings.resize.column, table_of_training(settings)
    if column is None:
        return {}
    if path is None:
        raise UserError(f"data.resize.column = {column} needs the csv that holds it; set data.resize_csv")
    if settings.resize_csv:
        texts = named_table_column(path, "data.resize_csv", column, "data.resize.column", files, settings)
    else:
        table = masks_table or read_masks_table(settings, "data.train_masks")
        texts = masks_table_column(table, column, "data.resize.column", files, settings)
    return _as_numbers(texts, path, settings)


def values_of_test(settings: DataSettings, files: Files) -> dict[str, float]:
    """The value of each test image, from data.resize_test_csv; {} without a column. Raises UserError likewise."""
    column, path = settings.resize.column, table_of_test(settings)
    if column is None:
        return {}
    if path is None:
        raise UserError(
            f"data.resize.column = {column} needs a value for each test image, too; set data.resize_test_csv to the "
            "csv that holds them and the images' ids"
        )
    texts = named_table_column(path, "data.resize_test_csv", column, "data.resize.column", files, settings)
    return _as_numbers(texts, path, settings)


def table_of_training(settings: DataSettings) -> Path | None:
    """The csv with the values of the training images."""
    if settings.resize_csv:
        return settings.root / settings.resize_csv
    return settings.root / settings.train_masks if is_rle_table(settings.train_masks) else None


def table_of_test(settings: DataSettings) -> Path | None:
    """The csv with the values of the test images."""
    return settings.root / settings.resize_test_csv if settings.resize_test_csv else None


def _as_numbers(texts: dict[str, str], path: Path, settings: DataSettings) -> dict[str, float]:
    numbers = {}
    for image_id, text in texts.items():
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise UserError(f"{path}: {settings.resize.column} of '{image_id}' is '{text}', not a number above 0")
        if number / settings.resize.to > LARGEST_FACTOR:
            raise UserError(
                f"{path}: {settings.resize.column} of '{image_id}' is {text}, so that the image would be enlarged "
                f"{number / settings.resize.to:.0f} times, more than {LARGEST_FACTOR:.0f}; are the units of "
                f"data.resize.to = {settings.resize.to} those of the column?"
            )
        numbers[image_id] = number
    return numbers
