"""The index of the training masks: for each image and class, the run lengths or the mask files that make up its mask.

The index is matched with the images as data.images_without_mask and data.masks_without_image say. Run lengths stay in
memory as text; mask files are only listed.
"""

from collections import defaultdict
from pathlib import Path

from lib.base.errors import UserError, listed
from lib.config.schema import DataSettings
from lib.data.discovery import WILDCARD, find_files, is_excluded, make_id
from lib.data.rle_table import class_index_of, guess_rle_column, row_keys
from lib.data.tables import Table, column, read_table

Masks = dict[str, list[list[str]]]  # by id and class: run lengths or mask files, all of them together being the mask


def is_table(masks: str) -> bool:
    """Whether a setting points to run lengths and not to mask images."""
    return masks.lower().endswith(".csv")


def read_masks_table(settings: DataSettings, setting: str) -> Table:
    """The csv of run lengths that data.train_masks names; one table of all files where it is a pattern."""
    if not WILDCARD.search(settings.train_masks):
        return read_table(settings.root / settings.train_masks, setting)
    whole: Table = {}
    for _, path in find_files(settings.root, settings.train_masks, setting):
        table = read_table(Path(path), setting)
        if whole and whole.keys() != table.keys():
            raise UserError(f"{path} has the columns {', '.join(table)}, but the table before it {', '.join(whole)}")
        for name, values in table.items():
            whole.setdefault(name, []).extend(values)
    return whole


def index_masks(settings: DataSettings, table: Table | None) -> Masks:
    """The masks of all ids but the excluded ones, from the table, or from mask files where there is no table."""
    if table is None:
        return _masks_from_files(settings)
    return _masks_from_table(table, settings.root / settings.train_masks, settings)


def _masks_from_table(table: Table, path: Path, settings: DataSettings) -> Masks:
    """Run lengths by id and class, of all ids in the table but the excluded ones."""
    rle_name = settings.rle_column or guess_rle_column(list(table), settings, path)
    texts = column(table, rle_name, path, "data.rle_column")
    masks: Masks = defaultdict(lambda: [[] for _ in settings.classes])
    for (image_id, class_index), text in zip(row_keys(table, path, settings), texts, strict=True):
        if not is_excluded(image_id, settings):
            masks[image_id][class_index].append(text)
    _check_single(masks, settings, f"rows in {path}")
    return dict(masks)


def _masks_from_files(settings: DataSettings) -> Masks:
    """Mask files by id and class, of all ids but the excluded ones."""
    pattern = settings.train_masks
    if len(settings.classes) > 1 and "{class}" not in pattern:
        raise UserError(
            f"data.train_masks = '{pattern}' must say where the {{class}} stands, as in masks/{{class}}/{{id}}.png"
        )
    masks: Masks = defaultdict(lambda: [[] for _ in settings.classes])
    for parts, path in find_files(settings.root, pattern, "data.train_masks"):
        image_id = make_id(settings.image_id, parts, path)
        if not is_excluded(image_id, settings):
            masks[image_id][class_index_of(parts.get("class", settings.classes[0]), settings, path)].append(path)
    _check_single(masks, settings, "mask files")
    return dict(masks)


def _check_single(masks: Masks, settings: DataSettings, what: str) -> None:
    """Raises UserError when an image and class has several masks and the settings do not say that it may."""
    if settings.instances:
        return
    if several := [image_id for image_id, pieces in masks.items() if max(map(len, pieces)) > 1]:
        raise UserError(
            f"{listed(several)} have several {what}; set data.instances=true if each is an object of the image"
        )


def match_masks(masks: Masks, files: dict[str, list[str]], settings: DataSettings) -> Masks:
    """The masks of the images that are there, as data.images_without_mask and data.masks_without_image say."""
    source = settings.root / settings.train_masks
    if settings.masks_without_image == "error" and (lost := sorted(masks.keys() - files.keys())):
        raise UserError(
            f"masks {listed(lost)} of {source} have no image in {settings.root / settings.train_images}; "
            "set data.masks_without_image=skip if that is right"
        )
    if settings.images_without_mask == "empty":
        nothing = [[] for _ in settings.classes]
        return {image_id: masks.get(image_id, nothing) for image_id in files}
    matched = {image_id: masks[image_id] for image_id in files if image_id in masks}
    bare = [image_id for image_id in files if image_id not in masks] if settings.images_without_mask == "error" else []
    if bare := bare + [image_id for image_id, pieces in matched.items() if not all(pieces)]:
        raise UserError(
            f"images {listed(sorted(bare))} have no mask in {source}, or not for every class; "
            "set data.images_without_mask=empty (or skip) if that is right"
        )
    if not matched:
        raise UserError(f"no image in {settings.root / settings.train_images} has a mask in {source}")
    return matched
