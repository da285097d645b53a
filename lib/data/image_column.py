"""A value for each image from a column of a table, such as its group or the size of its pixels."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from lib.base.errors import UserError, listed
from lib.config.data_settings import DataSettings
from lib.data.discovery import without_suffix
from lib.data.id_match import loosened, match_ids, misspelt
from lib.data.rle_table import is_pandas_index, row_keys, training_columns
from lib.data.tables import Table, column, read_table

NO_VALUE = ("", "nan")  # pandas writes a missing value as either

Files = dict[str, list[str]]  # by id


def named_table_column(
    path: Path, path_setting: str, name: str, setting: str, files: Files, settings: DataSettings
) -> dict[str, str]:
    """The column `name` of a table of ids or paths: its value for each id of `files`, sorted.

    `path_setting` and `setting` are the settings of the path and the column. The ids are in the column that names all
    images, whichever other one it is. Raises UserError if several do in different rows, or if an image has no value or
    two.
    """
    table = read_table(path, path_setting)
    values = column(table, name, path, setting)
    return _by_image(_ids_of_rows(table, name, path, files, settings), values, name, path, files, settings)


def _ids_of_rows(table: Table, of_values: str, path: Path, files: Files, settings: DataSettings) -> list[str]:
    """The ids in the column that names all images; if none does, in the one that names most.

    It is not the one of the values: patients called 1, 2, 3 are not the images 1, 2, 3.
    """
    wanted = {loosened(image_id, settings.loose_ids) for image_id in files}
    others = [name for name in table if name != of_values] or [of_values]
    ids_of = {name: [_id_in(text) for text in table[name]] for name in others}
    named = {
        name: len(wanted & {loosened(text, settings.loose_ids) for text in ids})
        for name, ids in ids_of.items()
        if not is_pandas_index(table, name)
    }
    naming = [name for name, count in named.items() if count == len(wanted)]
    if other := next((name for name in naming[1:] if ids_of[name] != ids_of[naming[0]]), None):
        raise UserError(
            f"{path}: column '{naming[0]}' names all images, and so does column '{other}', in other rows; keep only "
            "the column of the ids"
        )
    most = max(named, key=named.get, default=None)
    if most is None or not named[most]:
        mistakes = (misspelt(ids, files) for ids in ids_of.values())
        shown = f"column '{most}' has {listed(sorted({*ids_of[most]}))}" if named else "the others only number its rows"
        hint = next(filter(None, mistakes), shown)
        raise UserError(f"{path} has no column of the images' ids, such as {listed(sorted(files)[:1])}: {hint}")
    return ids_of[most]


def _id_in(text: str) -> str:
    """The id in a cell that holds it alone, with a suffix, or at the end of a path."""
    return unicodedata.normalize("NFC", without_suffix(re.split(r"[/\\]", text)[-1]))


def masks_table_column(table: Table, name: str, setting: str, files: Files, settings: DataSettings) -> dict[str, str]:
    """`named_table_column` for the csv of run lengths, which may hold several rows per image."""
    path = settings.root / settings.train_masks
    return _by_image(_ids_of_masks(table, settings), column(table, name, path, setting), name, path, files, settings)


def images_of_rows(table: Table, files: Files, settings: DataSettings) -> list[str]:
    """The image's id for each row of the csv of run lengths; the row's own id where there is no such image."""
    keys = _ids_of_masks(table, settings)
    image_of = match_ids(set(keys), files, settings.loose_ids, str(settings.root / settings.train_masks))
    return [image_of[key] for key in keys]


def _ids_of_masks(table: Table, settings: DataSettings) -> list[str]:
    """The id in each row of the csv of run lengths, as the row has it."""
    keys = row_keys(table, settings.root / settings.train_masks, training_columns(settings), settings.classes)
    return [image_id for image_id, _ in keys]


def is_missing(value: str) -> bool:
    """Whether a cell holds no value."""
    return value.lower() in NO_VALUE


def shared_by_rows(images: Iterable[str], values: Iterable[str]) -> dict[str, str] | None:
    """The value that all rows of an image share, by image; None if the rows of one differ."""
    value_of: dict[str, str] = {}
    for image_id, value in zip(images, values, strict=True):
        if value_of.setdefault(image_id, value) != value:
            return None
    return value_of


def _by_image(
    keys: list[str], values: Iterable[str], name: str, path: Path, files: Files, settings: DataSettings
) -> dict[str, str]:
    value_of, image_of = {}, match_ids(set(keys), files, settings.loose_ids, str(path))
    for key, value in zip(keys, values, strict=True):
        image_id = image_of[key]
        if value_of.setdefault(image_id, value) != value:
            raise UserError(f"{path} has more than one {name} for '{image_id}': '{value_of[image_id]}' and '{value}'")
    if missing := [image_id for image_id in sorted(files) if is_missing(value_of.get(image_id, ""))]:
        mistake = misspelt(value_of.keys() - files.keys(), missing)
        written = f" (its cell is {text})" if (text := value_of.get(missing[0])) else ""
        raise UserError(f"{path} has no {name} for {listed(missing)}{written}{f': {mistake}' if mistake else ''}")
    return {image_id: value_of[image_id] for image_id in sorted(files)}
