"""Image files that a pattern leaves out because of their suffix: most likely images or masks like the others."""

import os
from collections import Counter
from collections.abc import Iterator

from lib.base.errors import or_none, plural
from lib.config.data_settings import DataSettings
from lib.data.discovery import WILDCARD, files_beside, find_files, is_excluded
from lib.data.mask_index import is_table
from lib.images.reading import SUFFIXES


def left_out_lines(settings: DataSettings) -> list[str]:
    """A warning for each pattern in whose folders there are image files of other suffixes that no setting reads."""
    patterns = dict(_patterns(settings))
    found = {setting: or_none(_found, settings, pattern, setting) for setting, pattern in patterns.items()}
    seen, lines = {path for paths in found.values() for path in paths or ()}, []
    for setting, pattern in patterns.items():
        folders, _, last = pattern.rpartition("/")
        if found[setting] is None or not WILDCARD.search(pattern):  # a folder's images are read whatever their suffix
            continue
        if setting.endswith("masks") and settings.other_classes == "skip":  # they may have suffixes of their own
            continue
        unread = dict(_images_beside(settings, pattern, seen))
        counts = Counter(suffix for suffix in unread.values() if suffix != os.path.splitext(last)[1])
        seen |= unread.keys()
        if counts:
            counted = ", ".join(plural(count, f"{suffix} file") for suffix, count in counts.most_common())
            lines.append(
                f"warning   not read in {settings.root / folders}: {counted}; {setting} = '{pattern}' leaves them out: "
                "if they are like the others, let it end in .* or rename them"
            )
    return lines


def _patterns(settings: DataSettings) -> Iterator[tuple[str, str]]:
    """The folders and patterns of images and mask files by their settings."""
    for name in ("train_images", "train_masks", "test_images", "compare_masks"):
        pattern = getattr(settings, name)
        if pattern and not (name.endswith("masks") and is_table(pattern)):
            yield f"data.{name}", pattern


def _images_beside(settings: DataSettings, pattern: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    """The other image files in a pattern's folders, and their suffixes; without those that data.exclude names."""
    for path in files_beside(settings.root, pattern):
        name, suffix = os.path.splitext(os.path.basename(path))
        if path not in seen and suffix.lower() in SUFFIXES and not is_excluded(name, settings):
            yield path, suffix


def _found(settings: DataSettings, pattern: str, setting: str) -> list[str]:
    return [path for _, path in find_files(settings.root, pattern, setting)]
