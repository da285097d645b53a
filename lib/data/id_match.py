"""Matching the ids of masks and tables with those of images, and naming the likely mistake if they differ.

Ids must be equal, apart from differences that data.loose_ids allows. If they are not, the usual causes are tried:
another column, upper and lower case, leading zeros, text before or after the id. The error names the cause and the
setting that mends it, and does not advise to skip what did not match or to take it as empty.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from os.path import commonprefix, splitext
from typing import NamedTuple

from lib.base.errors import SHOWN, UserError, listed
from lib.config.data_settings import LONGEST_NAME
from lib.data.discovery import WILDCARD, without_suffix
from lib.data.id_texts import MAJORITY, common_start_and_end, common_template, end_after_id, finds, inside
from lib.data.tables import Table

TRIED = 100  # ids; enough to see what they have in common
MOST_CLASSES = 50
MOST_KINDS = 8  # of files for each id
MASK_WORDS = ("mask", "label", "seg", "gt", "annot", "truth", "fov", "superpixel", "contour", "overlay", "trimap")
LAST_NUMBER = re.compile(r"(.*?)(\d+)(\D*)")  # and what stands before and after it
BY_TASK = re.compile(r"task-\d+-annotation-\d+-")
REWRITTEN = re.compile(r"\d+(\.\d+)?[eE]\+\d+|\d+\.0+")  # 1.23457E+11, 7.0
AS_NUMBERS = "a spreadsheet or pandas took the ids for numbers; write the table again with its ids as text"


class Names(NamedTuple):
    """Files whose names are ids: the setting that finds them, its value, and one of them."""

    setting: str
    pattern: str
    example: str


class IdSource(NamedTuple):
    """The origin of ids that should match those of images, and the settings by which they are read."""

    table: Table | None  # if there is one
    prefix: str  # of the settings of the table's columns: `data.` or `data.sample_`
    images: Names
    masks: Names | None = None  # if the ids are names of mask files


def match_ids(ids: Iterable[str], image_ids: Collection[str], loose: Collection[str], source: str) -> dict[str, str]:
    """The image's id for each id, or the id itself if there is no such image.

    `loose` lists differences to ignore: `case`, `zeros`. Raises UserError if two ids or two images become the same.
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
            first, second = sorted([ids_of[images[0]], name])  # `ids` may be a set
            raise UserError(f"'{first}' and '{second}' of {source} are both '{images[0]}' (data.loose_ids)")
    return matched


def loosened(name: str, loose: Collection[str]) -> str:
    """The id without the differences that do not count."""
    if "case" in loose:
        name = name.casefold()
    return re.sub(r"(?<!\d)0+(?=\d)", "", name) if "zeros" in loose else name


def likely_mistake(unmatched: Collection[str], image_ids: Collection[str], source: IdSource) -> str | None:
    """The likely reason why most of the ids match no image, and the setting that mends it; None if none is found."""
    tried, images = sorted(unmatched)[:TRIED], set(image_ids)
    if not tried or not images:
        return None
    if mistake := _other_column(tried, images, source) or _loose(tried, images):
        return mistake
    for cause in (
        _class_after_the_id, _around_the_id, _around_the_file_name, _around_both, _varied_start, _after_the_file_name
    ):  # fmt: skip
        if mistake := cause(tried, images, source):
            return mistake
    return _rewritten(tried) or _numbered_by_task(tried)


def misspelt(unmatched: Collection[str], image_ids: Collection[str]) -> str | None:
    """`likely_mistake` for a table that only has an id and a value for each image: how most ids are spelt otherwise."""
    tried, images = sorted(set(unmatched))[:TRIED], set(image_ids)
    if not tried or not images or max(map(len, tried)) > LONGEST_NAME:
        return None
    if written := common_template(tried, images):
        return f"its ids have something around those of the images, as in {written}; write them as the images' names"
    if written := common_template(sorted(images)[:TRIED], set(tried)):
        return f"the images' names have something around its ids; let the images' pattern say so, as in {written}"
    return _loose(tried, images) or _rewritten(tried)


def _other_column(tried: list[str], images: set[str], source: IdSource) -> str | None:
    for name, values in (source.table or {}).items():
        cells = {without_suffix(value) for value in values[: 10 * TRIED]}
        if cells and len(cells & images) > MAJORITY * len(cells) and not cells & set(tried):
            return f"column '{name}' holds the ids of images; set {source.prefix}id_column={name}"
    return None


def _loose(tried: list[str], images: set[str]) -> str | None:
    for loose, words in ((["case"], "upper and lower case"), (["zeros"], "leading zeros")):
        of_images = {loosened(image_id, loose): image_id for image_id in images}
        pairs = [(name, of_images[key]) for name in tried if (key := loosened(name, loose)) in of_images]
        if len(pairs) > MAJORITY * len(tried):
            name, image_id = pairs[0]
            return (
                f"'{name}' and image '{image_id}' differ in {words} only, and others like them; "
                f"set data.loose_ids=[{loose[0]}]"
            )
    return None


def _class_after_the_id(tried: list[str], images: set[str], source: IdSource) -> str | None:
    """Several classes, each with rows of its own, called <id>_<class>; or mask files of several kinds."""
    ends = [end_after_id(name, images) for name in tried]
    known = sorted({end for end in ends if end})
    if not 1 < len(known) <= MOST_CLASSES or sum(end is None for end in ends) > (1 - MAJORITY) * len(tried):
        return None
    ids = {name.removesuffix(end or "") for name, end in zip(tried, ends, strict=True)}
    if len(known) == len(ids) == len(tried):  # each id and each end once: a hash, a date or the like
        return None
    names = json.dumps([end[1:] for end in known])
    advice = f"if these are classes, set data.classes to {names}"
    if source.masks:
        written = f"{{id}}{known[0][0]}{{class}}"
        as_classes = f", and {_in_path(source.masks, written)}" if finds(written, tried, images) else ""
        advice += f"{as_classes}; if not, let {source.masks.setting} name one of them, as {{id}}{known[0]}"
    return f"they are ids of images with {', '.join(known)} after them; {advice}"


def _around_the_id(tried: list[str], images: set[str], source: IdSource) -> str | None:
    """Constant text before or after the image's id, such as _mask."""
    if (written := common_template(tried, images)) is None:
        return None
    in_table = f"set {source.prefix}id_pattern={written}"
    advice = in_table if source.masks is None else _in_path(source.masks, written)
    return f"they are ids of images with something around them, as in {written}; {advice}"


def _around_the_file_name(tried: list[str], images: set[str], source: IdSource) -> str | None:
    """Constant text before or after the id in the names of the image files, such as _sat."""
    if (written := common_template(sorted(images)[:TRIED], set(tried))) is None:
        return None
    return f"the images' names have something around the ids, as in {written}; {_in_path(source.images, written)}"


def _around_both(tried: list[str], images: set[str], source: IdSource) -> str | None:
    """Constant text around the ids of images and of masks, as in {id}_training and {id}_manual1."""
    names = sorted(images)[:TRIED]
    of_images, of_masks = common_start_and_end(names), common_start_and_end(tried)
    if of_images[0] == of_masks[0]:
        of_images, of_masks = ("", of_images[1]), ("", of_masks[1])
    ids = {inside(name, of_images) for name in names} & {inside(name, of_masks) for name in tried}
    if source.masks is None or len(ids) <= max(MAJORITY * len(tried), 1):
        return None
    image, mask = "{id}".join(of_images), "{id}".join(of_masks)
    numbers = [re.findall(r"\d+", text) for text in (image, mask)]
    if all(numbers) and numbers[0] != numbers[1]:  # frame000 of each video, and frame008
        return None
    return (
        f"the same ids are in the images' names, as in {image}, and in the masks', as in {mask}; "
        f"{_in_path(source.images, image)}, and {_in_path(source.masks, mask)}"
    )


def _varied_start(tried: list[str], images: set[str], source: IdSource) -> str | None:
    """Another text before each id, as in 3f2a-{id}, which Label Studio puts before the names of uploaded files.

    Where the same texts stand before several ids they may be classes.
    """
    signs = Counter(
        sign for name in tried for sign in {*re.findall(r"[\W_]", name)} if name.partition(sign)[2] in images
    )
    if not signs or signs.most_common(1)[0][1] <= max(MAJORITY * len(tried), 1):
        return None
    sign = signs.most_common(1)[0][0]
    before = sorted({name.partition(sign)[0] for name in tried if name.partition(sign)[2] in images})
    if 1 < len(before) <= min(MOST_CLASSES, len(tried) - 1):
        written = f"{{class}}{sign}{{id}}"
        in_table = f"{source.prefix}id_pattern to {written}"
        where = in_table if source.masks is None else _in_path(source.masks, written)
        return (
            f"they are ids of images with {', '.join(f'{name}{sign}' for name in before)} before them; if these are "
            f"classes, set data.classes to {json.dumps(before)}, and {where}"
        )
    written = f"*{sign}{{id}}"
    if not finds(written, tried, images):
        return None
    setting = f"{source.prefix}id_pattern={written}"
    advice = f"set {setting}" if source.masks is None else _in_path(source.masks, written)
    return f"they are ids of images with another text before each, as in '{tried[0]}'; {advice}"


def _after_the_file_name(tried: list[str], images: set[str], source: IdSource) -> str | None:
    """Several images of each id, as {id}_rgb and {id}_depth, or another text after each, such as a hash."""
    names, ids = sorted(images)[:TRIED], set(tried)
    ends = [end for name in names if (end := end_after_id(name, ids))]
    if len(ends) <= max(MAJORITY * len(names), 1):
        return None
    kinds = sorted(set(ends))
    if len(kinds) <= MOST_KINDS and len(ends) > len(kinds):
        return (
            f"the images' names are the ids with {', '.join(kinds)} after them; let {source.images.setting} = "
            f"'{source.images.pattern}' name one of them, as {{id}}{kinds[0]}"
        )
    written = f"{{id}}{commonprefix(ends)}*"
    if not finds(written, names, ids):
        return None
    return f"the images' names have another text after each id, as in '{names[0]}'; {_in_path(source.images, written)}"


def _rewritten(tried: list[str]) -> str | None:
    """Ids that a program has rewritten as numbers."""
    numbers = [name for name in tried if REWRITTEN.fullmatch(name)]
    return f"{listed(numbers)}: {AS_NUMBERS}" if len(numbers) > MAJORITY * len(tried) else None


def _numbered_by_task(tried: list[str]) -> str | None:
    """Masks as Label Studio calls them, which does not say of which image they are."""
    if sum(BY_TASK.match(name) is not None for name in tried) <= MAJORITY * len(tried):
        return None
    return (
        f"Label Studio called '{tried[0]}' by the number of its task; its JSON export tells the image of each task: "
        "rename the masks after their images, as docs/inputs.md shows, and set data.train_masks"
    )


def why_without_mask(
    bare: Collection[str], others: Collection[str], source: IdSource, images_without_mask: str
) -> str | None:
    """The likely mistake behind images without a mask, which data.images_without_mask would hide; None without one.

    `bare` are ids of images without a mask, `others` those with one.
    """
    if source.table and (first := next((name for name in map(without_suffix, source.table) if name in bare), None)):
        return f"the table's first line must name the columns, but has '{first}', the id of an image"
    if images_without_mask == "skip":
        return None
    further = [(name, end) for name in bare if (end := _after_another(name, others))]
    if images_without_mask == "empty":
        further = [(name, end) for name, end in further if any(word in end.lower() for word in MASK_WORDS)]
    if len(further) <= MAJORITY * len(bare):
        return None
    ends = ", ".join(f"{{id}}{end}" for end in sorted({end for _, end in further})[:SHOWN])
    return (
        f"their names are those of other images with something appended: {ends}; if they are masks or the like, let "
        f"{source.images.setting} = '{source.images.pattern}' or data.train_masks say so, or name them in data.exclude"
    )


def _after_another(name: str, ids: Collection[str]) -> str | None:
    """The text after one of the ids in a name, such as _mask_1 but not _1; None if there is no such id."""
    ends = (name[place.start() :] for place in re.finditer(r"[\W_]", name))
    return next((end for end in ends if name.removesuffix(end) in ids and re.search(r"[^\W\d_]", end)), None)


def _in_path(names: Names, written: str) -> str:
    """Advice to give the files of a folder, or of a pattern, such names."""
    if WILDCARD.search(names.pattern):
        return f"let {names.setting} = '{names.pattern}' say so"
    suffix = splitext(names.example)[1]
    return f"set {names.setting} to a pattern such as {names.pattern.rstrip('/')}/{written}{suffix}"
