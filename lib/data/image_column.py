"""A value for each image from a column of a table, such as its group or the size of its pixels."""

from collections.abc import Iterable
from pathlib import Path

from lib.base.errors import UserError, listed
from lib.config.data_settings import DataSettings
from lib.data.discovery import clean_id
from lib.data.id_match import IdSource, likely_mistake, match_ids
from lib.data.rle_table import row_keys, training_columns
from lib.data.tables import Table, column, read_table

Files = dict[str, list[str]]  # by id


def named_table_column(
    path: Path, path_setting: str, name: str, setting: str, files: Files, settings: DataSettings
) -> dict[str, str]:
    """The column `name` of a table whose first column holds ids or paths: its value for each id of `files`, sorted.

    `path_setting` and `setting` are the settings of the path and the column. Raises UserError if an image has no value
    or two.
    """
    table = read_table(path, path_setting)
    keys = [clean_id(text.rpartition("/")[2], path) for text in next(iter(table.values()))]
    return _by_image(keys, column(table, name, path, setting), name, path, files, settings)


def masks_table_column(table: Table, name: str, setting: str, files: Files, settings: DataSettings) -> dict[str, str]:
    """`named_table_column` for the csv of run lengths, which may hold several rows per image."""
    path = settings.root / settings.train_masks
    keys = [image_id for image_id, _ in row_keys(table, path, training_columns(settings), settings.classes)]
    return _by_image(keys, column(table, name, path, setting), name, path, files, settings)


def _by_image(
    keys: list[str], values: Iterable[str], name: str, path: Path, files: Files, settings: DataSettings
) -> dict[str, str]:
    value_of, image_of = {}, match_ids(set(keys), files, settings.loose_ids, str(path))
    for key, value in zip(keys, values, strict=True):
        image_id = image_of[key]
        if value_of.setdefault(image_id, value) != value:
            raise UserError(f"{path} has more than one {name} for '{image_id}': '{value_of[image_id]}' and '{value}'")
    if missing := [image_id for image_id in sorted(files) if not value_of.get(image_id)]:
        source = IdSource(None, "data.", ("data.train_images", settings.train_images))
        mistake = likely_mistake(value_of.keys() - files.keys(), missing, source)
        raise UserError(f"{path} has no {name} for {listed(missing)}{f': {mistake}' if mistake else ''}")
    return {image_id: value_of[image_id] for image_id in sorted(files)}
