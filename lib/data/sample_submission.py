"""The sample submission: the columns and rows that a submission must have, in their order."""

import re
from typing import NamedTuple

from lib.base.errors import UserError, has, listed
from lib.config.data_settings import DataSettings
from lib.data.discovery import WILDCARD
from lib.data.id_match import IdSource, Names, likely_mistake, match_ids, why_without_mask
from lib.data.mask_index import is_rle_table, read_masks_table
from lib.data.number_shift import shifted_numbers
from lib.data.rle_table import (
    CLASS,
    class_columns,
    guess_rle_column,
    id_texts,
    row_keys,
    sample_columns,
    training_columns,
)
from lib.data.tables import Table, column, read_table


class SubmissionRow(NamedTuple):
    """A row to be written: its image and class, and its values, the run lengths still to be filled in."""

    id: str
    class_index: int
    values: tuple[str, ...]


class SampleSubmission(NamedTuple):
    """Columns, the indices of those with run lengths, and a row for each image and class, in order of appearance."""

    names: list[str]
    rle_columns: list[int]  # one, or where an image has one row for all classes one of each class
    rows: list[SubmissionRow]
    table: Table | None  # None without a sample
    class_name: str = "class"  # of the column of classes, if there is one


def read_sample(settings: DataSettings) -> SampleSubmission:
    """The sample that data.sample_submission names; without one, the default columns of a submission."""
    if settings.sample_submission is None:
        names = ["id", *(["class"] if len(settings.classes) > 1 else []), "rle"]
        return SampleSubmission(names, [len(names) - 1], [], None)
    path = settings.root / settings.sample_submission
    table = read_table(path, "data.sample_submission")
    columns, names = sample_columns(settings, table), list(table)
    rle_names = class_columns(table, columns, settings.classes)
    class_count = max(1, len(rle_names))  # in a row
    if not rle_names:
        rle_names = [columns.rle or guess_rle_column(names, columns, path)]
        column(table, rle_names[0], path, "data.sample_rle_column")
    rows = {}
    values_of_rows = zip(*table.values(), strict=True)
    for (image_id, first), values in zip(row_keys(table, path, columns, settings.classes), values_of_rows, strict=True):
        for class_index in range(first, first + class_count):
            rows.setdefault((image_id, class_index), SubmissionRow(image_id, class_index, values))
    rle_columns = [names.index(name) for name in rle_names]
    return SampleSubmission(names, rle_columns, list(rows.values()), table, columns.class_name or "class")


def match_sample(sample: SampleSubmission, files: dict[str, list[str]], settings: DataSettings) -> list[SubmissionRow]:
    """The sample's rows by the ids of the test images; a row for each image and class where it has none.

    Raises UserError when images and sample do not belong together, listing the first ids and the count.
    """
    if not sample.rows:
        return rows_of_all(sorted(files), sample, settings.classes, _written_ids(settings))
    path = f"{settings.root / settings.sample_submission} (data.sample_submission)"
    image_of = match_ids({row.id for row in sample.rows}, files, settings.loose_ids, path)
    rows = [row._replace(id=image_of[row.id]) for row in sample.rows]
    absent = sorted(set(image_of.values()) - files.keys())
    surplus = sorted(files.keys() - set(image_of.values()))
    images = settings.root / settings.test_images
    example = next(iter(files.values()))[0]
    source = IdSource(sample.table, "data.sample_", Names("data.test_images", settings.test_images, example))
    if mistake := (absent and shifted_numbers(set(image_of.values()), files)) or likely_mistake(
        absent, surplus, source
    ):
        raise UserError(f"{listed(absent)} of {path} {has(absent)} no image in {images}: {mistake}")
    if len(absent) == len(set(image_of.values())):
        raise UserError(
            f"no id of {path} has an image in {images}: the ids are {listed(absent)}, the images {listed(surplus)}; "
            "set data.test_images or data.sample_id_column so that they agree (or does data.exclude leave all out?)"
        )
    if absent and settings.unreadable_test_images == "error":
        them = "it" if len(absent) == 1 else "them"
        raise UserError(
            f"{listed(absent)} of {path} {has(absent)} no image in {images}, or data.exclude leaves {them} out; "
            "data.unreadable_test_images=empty gives such images an empty mask"
        )
    if surplus and settings.test_images_without_row == "error":
        mistake = why_without_mask(surplus, files.keys() - {*surplus}, source, "error")
        remedy = f": {mistake}" if mistake else "; leave them out (data.test_images_without_row=skip)"
        raise UserError(f"{path} has no row for {listed(surplus, 'test image')}{remedy}")
    return rows


def masks_without_row(rows: list[SubmissionRow], classes: list[str]) -> str | None:
    """A sentence on masks that are not submitted because the sample has no row for them."""
    wanted = len({row.id for row in rows}) * len(classes)
    absent = wanted - len({(row.id, row.class_index) for row in rows})
    if not absent:
        return None
    return (
        f"the sample has no row for {absent} of {wanted} masks, an image and a class each, so these are not submitted; "
        "if they should be, let data.sample_submission name a copy that holds the first line only"
    )


def suffix_doubt(settings: DataSettings) -> str | None:
    """A sentence on ids that have an image's suffix in the training table and none in the submission.

    A sample without rows does not say how the submission spells them.
    """
    may_differ = settings.sample_submission and not settings.sample_id_pattern and is_rle_table(settings.train_masks)
    if not may_differ or read_sample(settings).rows:
        return None
    table, columns = read_masks_table(settings, "data.train_masks"), training_columns(settings)
    path = settings.train_masks
    if (first := next(row_keys(table, path, columns, settings.classes), None)) is None:
        return None
    (image_id, _), text = first, id_texts(table, path, columns)[0]
    suffix = re.match(r"\.\w+?(?=_|$)", text.partition(image_id)[2])
    if suffix is None:
        return None
    return (
        f"the sample has no rows, so the submission spells ids as '{image_id}', where {path} has '{text}'; if that is "
        f"wrong, set data.sample_id_pattern={{id}}{suffix[0]}"
    )


def _written_ids(settings: DataSettings) -> str:
    """What the submission has in its id column, if the sample has no rows: {id}, or around it what the settings say."""
    has_class = settings.sample_submission and CLASS in settings.id_pattern
    return settings.sample_id_pattern or (settings.id_pattern if has_class else "{id}")


def rows_of_all(ids: list[str], sample: SampleSubmission, classes: list[str], pattern: str) -> list[SubmissionRow]:
    """A row for each image and class: the class in a column of its own if there is one, else as <id>_<class>.

    `pattern` says what is written around an id, as in {id}.jpg, and may say where the class stands, as in {class}_{id}.
    Raises UserError for one that does not, as */{id}.
    """
    if WILDCARD.search(pattern.replace("{id}", "").replace(CLASS, "")):
        raise UserError(
            f"the sample has no rows, so data.sample_id_pattern must say what stands around each id, and '{pattern}' "
            "does not; give the sample its rows"
        )
    rows, names = [], sample.names
    is_plain_id = CLASS in pattern or len(classes) in (1, len(sample.rle_columns)) or sample.class_name in names
    for image_id in ids:
        for class_index, name in enumerate(classes):
            written = pattern.replace(CLASS, name).replace("{id}", image_id)
            known = {names[0]: written if is_plain_id else f"{written}_{name}", sample.class_name: name}
            rows.append(SubmissionRow(image_id, class_index, tuple(known.get(column, "") for column in names)))
    return rows
