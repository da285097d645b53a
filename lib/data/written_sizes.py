"""The sizes of images by the csv of their run lengths, where it has columns of heights and widths."""

import re

from lib.config.data_settings import DataSettings
from lib.data.id_match import match_ids
from lib.data.rle_table import row_keys, training_columns
from lib.data.tables import Table
from lib.masks.resize import Size

COLUMN = r"(ima?ge?_?)?{}"  # height, Height, image_height, img_height, ImageHeight


def written_sizes(table: Table, files: dict[str, list[str]], settings: DataSettings) -> dict[str, Size]:
    """(height, width) of each image by the table; none where it has no such columns, or they hold something else.

    The size of a box, for instance, differs from row to row of an image.
    """
    names = [name for kind in ("height", "width") for name in table if re.fullmatch(COLUMN.format(kind), name, re.I)]
    if len(names) != 2:
        return {}
    path = settings.root / settings.train_masks
    keys = [image_id for image_id, _ in row_keys(table, path, training_columns(settings), settings.classes)]
    image_of = match_ids(set(keys), files, settings.loose_ids, str(path))
    sizes: dict[str, Size] = {}
    for key, *texts in zip(keys, *(table[name] for name in names), strict=True):
        if not all(text.isdecimal() and int(text) for text in texts):
            return {}
        size = int(texts[0]), int(texts[1])
        if sizes.setdefault(image_of[key], size) != size:
            return {}
    return {image_id: size for image_id, size in sizes.items() if image_id in files}
