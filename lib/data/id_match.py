"""Whose mask or row is it? Matching the ids of masks and tables with those of images, and naming likely mistakes.

Ids must be the same, but for what data.loose_ids allows. Where they are not, the usual causes are looked for: another
column, upper and lower case, leading zeros, something before or after the id. What is found is named with the setting
that mends it, and no advice is given then to leave out or to take as empty what did not match.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from lib.base.errors import UserError, listed
from lib.data.discovery import WILDCARD, without_suffix
from lib.data.tables import Table

TRIED = 100  # ids; enough to see what they have in common
MOST = 0.5  # share of the ids tried that a cause must explain


class Source(NamedTuple):
    """Where ids come from that should be those of images, and the settings that say how they are read."""

    table: Table | None  # if there is one
    prefix: str  # of the settings of the table's columns: `data.` or `data.sample_`
    images: tuple[str, str]  # setting of the images' files and its value
    masks: str = ""  # the value of data.train_masks where the names of files are the ids


def match_ids(ids: Iterable[str], image_ids: Collection[str], loose: Collection[str], source: str) -> dict[str, str]:
    """The image's id for each id, or the id itself where there is no such image.

    `loose` names differences that do not count: `case`, `zeros`. Raises UserError where two ids or two images become
    one by that.
    """
    if not loose:
        return {name: name for name in ids}
    images_of = defaultdict(list)
    for image_id in image_ids:
        images_of[loosened(image_id, loose)].append(image_id)
    matched, ids_of = {}, {}
    for name in ids:
        images = [name] if name in image_ids else images_of.get(loosened(name, loose), [name])
        if len(images) > 1:
            raise UserError(f"'{name}' of {source} may be images {listed(sorted(images))} (data.loose_ids)")
        matched[name] = images[0]
        if ids_of.setdefault(images[0], name) != name:
            raise UserError(f"'{ids_of[images[0]]}' and '{name}' of {source} are both '{images[0]}' (data.loose_ids)")
    return matched


def loosened(name: str, loose: Collection[str]) -> str:
    """The id without the differences that do not count."""
    if "case" in loose:
        name = name.casefold()
    return re.sub(r"(?<!\d)0+(?=\d)", "", name) if "zeros" in loose else name


def likely_mistake(unmatched: Collection[str], image_ids: Collection[str], source: Source) -> str | None:
    """Why most of the ids that are no image's are none, and the setting that mends it; None if no cause is found."""
    tried, images = sorted(unmatched)[:TRIED], set(image_ids)
    if not tried or not images:
        return None
    for cause in (_other_column, _loose, _around_the_id, _around_the_file_name):
        if found := cause(tried, images, source):
            return found
    return None


def _other_column(tried: list[str], images: set[str], source: Source) -> str | None:
    for name, values in (source.table or {}).items():
        cells = {without_suffix(value) for value in values[: 10 * TRIED]}
        if cells and len(cells & images) > MOST * len(cells) and not cells & set(tried):
            return f"column '{name}' holds the ids of images; set {source.prefix}id_column={name}"
    return None


def _loose(tried: list[str], images: set[str], source: Source) -> str | None:
    for loose, words in ((["case"], "upper and lower case"), (["zeros"], "leading zeros")):
        of_images = {loosened(image_id, loose): image_id for image_id in images}
        pairs = [(name, of_images[key]) for name in tried if (key := loosened(name, loose)) in of_images]
        if len(pairs) > MOST * len(tried):
            name, image_id = pairs[0]
            return (
                f"'{name}' and image '{image_id}' differ in {words} only, and others like them; "
                f"set data.loose_ids=[{loose[0]}]"
            )
    return None


def _around_the_id(tried: list[str], images: set[str], source: Source) -> str | None:
    """Something constant before or after the image's id, such as _mask."""
    if (written := _common_template(tried, images)) is None:
        return None
    in_table = f"set {source.prefix}id_pattern={written}"
    advice = in_table if not source.masks else _in_path("data.train_masks", source.masks, written)
    return f"they are ids of images with something around them, as in {written}; {advice}"


def _around_the_file_name(tried: list[str], images: set[str], source: Source) -> str | None:
    """Something constant before or after the id in the names of the image files, such as _sat."""
    if (written := _common_template(sorted(images)[:TRIED], set(tried))) is None:
        return None
    return f"the images' names have something around the ids, as in {written}; {_in_path(*source.images, written)}"


def _in_path(setting: str, path: str, written: str) -> str:
    """Advice to give the files of a folder, or of a pattern, such names."""
    if WILDCARD.search(path):
        return f"let {setting} = '{path}' say so"
    return f"set {setting} to a pattern such as {path.rstrip('/')}/{written}.png"


def _common_template(longer: list[str], shorter: set[str]) -> str | None:
    """How most of `longer` are made of one of `shorter`, as {id}_mask; None where they are not, or by digits only."""
    counts = Counter()
    for name in longer:
        lengths = range(len(name) - 1, 0, -1)
        places = ((start, start + length) for length in lengths for start in range(len(name) - length + 1))
        if place := next(((start, end) for start, end in places if name[start:end] in shorter), None):
            counts[name[: place[0]], name[place[1] :]] += 1
    (before, after), count = counts.most_common(1)[0] if counts else (("", ""), 0)
    if count <= max(MOST * len(longer), 1) or (before + after).isdigit():
        return None
    return f"{before}{{id}}{after}"
