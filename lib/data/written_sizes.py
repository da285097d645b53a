"""The sizes of images by the csv of their run lengths, where it has columns of heights and widths."""

import re

from lib.config.data_settings import DataSettings
from lib.data.image_column import images_of_rows, shared_by_rows
from lib.data.tables import Table
from lib.masks.resize import Size

COLUMN = r"(ima?ge?_?)?{}"  # height, Height, image_height, img_height, ImageHeight


def written_sizes(table: Table, files: dict[str, list[str]], settings: DataSettings) -> dict[str, Size]:
    """(height, width) of each image by the table; none where it has no such columns, or they hold something else.

    The size of a box, for instance, differs from row to row of an image.
    """
    names = [
        [name for name in table if re.fullmatch(COLUMN.format(kind), name, re.IGNORECASE)]
        for kind in ("height", "width")
    ]
    if list(map(len, names)) != [1, 1]:
        return {}
    images = images_of_rows(table, files, settings)
    columns = [shared_by_rows(images, table[name]) for (name,) in names]
    if None in columns or not all(text.isdecimal() and int(text) for column in columns for text in column.values()):
        return {}
    heights, widths = columns
    return {image_id: (int(heights[image_id]), int(widths[image_id])) for image_id in heights if image_id in files}
