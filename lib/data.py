"""A competition's data as it lies on disk: ids, images, masks, groups and the sample submission.

Opening reads the tables and lists the files; images and masks are read when asked for. The objects are cheap to
pickle compared with what they describe, so that loader processes can hold a copy.
"""

import fnmatch
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lib.config import DataSettings
from lib.errors import UserError
from lib.images import image_size, read_image, read_mask_image
from lib.layout import PLACEHOLDER, clean_id, fill, find_files, make_id
from lib.rle import decode
from lib.tables import column, read_table

RLE_COLUMN_HINTS = ("rle", "encod", "predicted", "annotation", "segmentation")
SHOWN = 3  # how many ids or files an error lists


class Images:
    """Images by id. `ids` are sorted, and safe as file names."""

    def __init__(self, settings: DataSettings, pattern: str, setting: str):
        self.settings = settings
        self.classes = settings.classes
        self.parts: dict[str, dict[str, str]] = {}  # what the pattern's placeholders stand for, by id
        self.files: dict[str, list[str]] = defaultdict(list)
        for parts, path in find_files(settings.root, pattern, setting):
            id = make_id(settings.image_id, parts, path)
            if not _is_excluded(id, settings):
                self.files[id].append(path)
                self.parts[id] = parts
        ...
