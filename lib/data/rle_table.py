"""A table of run lengths: the image and class that each row is about, and the column that holds the run lengths."""

from collections.abc import Iterator
from pathlib import Path

from lib.base.errors import UserError
from lib.config.schema import DataSettings
from lib.data.discovery import clean_id
from lib.data.tables import Table, column

RLE_COLUMN_HINTS = ("rle", "encod", "predicted", "annotation", "segmentation")


def row_keys(table: Table, path: Path, settings: DataSettings) -> Iterator[tuple[str, int]]:
    """Id and class index of each row. Without a class column, the id column holds <id>_<class> if there are several."""
    ids = column(table, settings.id_column or next(iter(table)), path, "data.id_column")
    if settings.class_column:
        names = column(table, settings.class_column, path, "data.class_column")
        for image_id, name in zip(ids, names, strict=True):
            yield clean_id(image_id, path), class_index_of(name, settings, path)
    elif len(settings.classes) == 1:
        for image_id in ids:
            yield clean_id(image_id, path), 0
    else:
        for text in ids:
            image_id, index = _split_class(text, settings, path)
            yield clean_id(image_id, path), index


def _split_class(text: str, settings: DataSettings, path: Path) -> tuple[str, int]:
    """The two halves of <id>_<class>; a class may itself hold underscores, and the longest that fits is taken."""
    for name in sorted(settings.classes, key=len, reverse=True):
        if text.endswith(f"_{name}"):
            return text[: -len(name) - 1], settings.classes.index(name)
    raise UserError(
        f"{path}: '{text[:80]}' ends in none of the classes {settings.classes}; "
        "set data.classes, or data.class_column if a column holds the class"
    )


def class_index_of(name: str, settings: DataSettings, source: Path | str) -> int:
    if name not in settings.classes:
        raise UserError(f"{source} has the class '{name}', which is not one of data.classes: {settings.classes}")
    return settings.classes.index(name)


def guess_rle_column(columns: list[str], settings: DataSettings, path: Path | str) -> str:
    """The column of the run lengths: by its name, or the only one beside the ids and classes."""
    id_name = settings.id_column if settings.id_column in columns else columns[0]
    others = [name for name in columns if name not in (id_name, settings.class_column)]
    likely = [name for name in others if any(hint in name.lower() for hint in RLE_COLUMN_HINTS)]
    for candidates in (likely, others):
        if len(candidates) == 1:
            return candidates[0]
    raise UserError(f"{path}: set data.rle_column to the column of the run lengths, one of: {', '.join(columns)}")
