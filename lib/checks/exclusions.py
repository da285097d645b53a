"""Patterns of data.exclude that leave nothing out: most likely mistyped."""

from collections.abc import Iterator

from lib.base.errors import UserError
from lib.config.data_settings import DataSettings
from lib.data.discovery import find_files, is_excluded, make_id
from lib.data.image_index import id_template
from lib.data.mask_index import index_masks, is_rle_table, read_masks_table


def unused_exclusions(settings: DataSettings) -> list[str]:
    """The patterns of data.exclude that match no training image, test image or mask."""
    unused = {pattern: settings.model_copy(update={"exclude": [pattern]}) for pattern in settings.exclude}
    for names in _names(settings):
        unused = {pattern: alone for pattern, alone in unused.items() if not any(is_excluded(n, alone) for n in names)}
        if not unused:
            break
    return list(unused)


def _names(settings: DataSettings) -> Iterator[list[str]]:
    """The ids of training images, of test images and of masks, each only if it is asked for."""
    yield _image_ids(settings, settings.train_images, "data.train_images")
    if settings.test_images:
        yield _image_ids(settings, settings.test_images, "data.test_images")
    table = read_masks_table(settings, "data.train_masks") if is_rle_table(settings.train_masks) else None
    yield list(index_masks(settings, table))


def _image_ids(settings: DataSettings, pattern: str, setting: str) -> list[str]:
    template, of_template = id_template(settings, setting)
    try:
        files = find_files(settings.root, pattern, setting)
        return [make_id(template, parts, path, of_template) for parts, path in files]
    except UserError:  # test images may be hidden until the submission
        return []
