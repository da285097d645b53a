"""The group of each training image (data.group): from a column, the id, a part of the path or the DICOM header."""

import re
from pathlib import Path

from lib.base.errors import UserError
from lib.config.data_settings import DataSettings
from lib.data.discovery import PLACEHOLDER, fill
from lib.data.image_column import masks_table_column, named_table_column
from lib.data.tables import Table
from lib.images.dicom import dicom_field

ID_GROUP = "id:"  # before a regular expression whose brackets hold the parts of an id that make up its group
GROUP, NO_GROUPS = "group", "none"  # a column that counts without data.group, and what data.group leaves it with
DICOM_GROUP = "dicom:"  # before the keyword of a header's element, such as PatientID


def read_groups(
    settings: DataSettings, masks_table: Table | None, files: dict[str, list[str]], parts: dict[str, dict[str, str]]
) -> dict[str, str] | None:
    """The group of each id, sorted by id; None without data.group, data.group_csv and a column `group` of the masks,
    and with data.group=none.

    `masks_table` is the csv of run lengths, if there is one, and `parts` are those of the files' names by id. Raises
    UserError where an image has no group or two.
    """
    name, ids = settings.group, sorted(files)
    if name == NO_GROUPS:
        return None
    if name and name.startswith(DICOM_GROUP):
        return {image_id: dicom_field(Path(files[image_id][0]), name.removeprefix(DICOM_GROUP)) for image_id in ids}
    if name and name.startswith(ID_GROUP):
        return {image_id: group_in_id(name, image_id) for image_id in ids}
    if name and PLACEHOLDER.search(name):
        return {image_id: fill(name, parts[image_id], "data.group") for image_id in ids}
    if settings.group_csv:
        path = settings.root / settings.group_csv
        return named_table_column(path, "data.group_csv", name or GROUP, "data.group", files, settings)
    if masks_table is not None and name:
        return masks_table_column(masks_table, name, "data.group", files, settings)
    if masks_table is not None and GROUP in masks_table:
        try:
            return masks_table_column(masks_table, GROUP, "data.group", files, settings)
        except UserError as error:
            raise UserError(f"{error}; set data.group=none if this column means something else") from None
    if name:
        raise UserError(f"data.group = '{name}' is a column, but no table holds it; set data.group_csv")
    return None


def group_in_id(rule: str, image_id: str) -> str:
    """The text in the brackets of `id:REGEX`, matched at the beginning of an id; several brackets are joined by "_".

    Raises UserError for what is no regular expression with brackets, and for an id that it does not match.
    """
    try:
        expression = re.compile(rule.removeprefix(ID_GROUP))
    except re.error as error:
        raise UserError(f"data.group = '{rule}' is not a regular expression: {error}") from None
    if expression.groups == 0:
        raise UserError(f"data.group = '{rule}' has no brackets around the part that is the group, as in id:([^_]+)")
    match = expression.match(image_id)
    parts = [] if match is None else [part for part in match.groups() if part]
    if not parts:
        raise UserError(f"data.group = '{rule}' finds no group in the id '{image_id}'")
    return "_".join(parts)
