"""The index of the images: the files of each id, and the parts of their paths."""

import os
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

from lib.base.errors import SHOWN, UserError, has, listed, plural
from lib.config.data_settings import DataSettings
from lib.data.discovery import find_files, is_excluded, make_id, without_parts
from lib.data.name_patterns import PLACEHOLDER, compile_pattern
from lib.images.unread_kinds import packed

LISTING = ("root", "train_images", "test_images", "image_id", "exclude")  # settings that decide which images there are
LETTER = re.compile(r"[^\W\d_]")
OWN_TEMPLATE = {"data.test_images": "test_id", "data.train_masks": "mask_id", "data.compare_masks": "mask_id"}


def listed_as(settings: DataSettings, other: DataSettings) -> DataSettings:
    """Settings that read images as `settings` do, but list those of `other`."""
    return settings.model_copy(update={name: getattr(other, name) for name in LISTING})


class ListedImages(NamedTuple):
    """The images of a pattern."""

    files: dict[str, list[str]]  # by id
    parts: dict[str, dict[str, str]]  # what the pattern's placeholders stand for, by id
    excluded: set[str]  # ids that data.exclude leaves out, in neither of these


def require_images(settings: DataSettings, pattern: str, setting: str) -> None:
    """Raise UserError if there is no data folder, or no file in it that the pattern matches."""
    if not settings.root.is_dir():
        raise UserError(f"the data folder {settings.root} does not exist (data.root){packed(settings.root)}")
    next(find_files(settings.root, pattern, setting))


def id_template(settings: DataSettings, setting: str) -> tuple[str, str]:
    """The template of the ids of the images or mask files that a setting lists, and the setting that holds it."""
    name = OWN_TEMPLATE.get(setting, "image_id")
    template = getattr(settings, name)
    return (settings.image_id, "data.image_id") if template is None else (template, f"data.{name}")


def list_images(
    settings: DataSettings, pattern: str, setting: str, mask_files: Collection[str] = frozenset()
) -> ListedImages:
    """List the files of each image, without those in `mask_files`, a set of paths.

    In a folder that holds images and masks, `{id}.png` matches the masks `{id}_mask.png` as well. Raises UserError if
    there is no image, or if one has more or fewer files than is set.
    """
    require_images(settings, pattern, setting)
    files, parts_of, excluded, planes = defaultdict(list), {}, set(), defaultdict(list)
    template = id_template(settings, setting)
    for parts, path in find_files(settings.root, pattern, setting):
        if path in mask_files:
            continue
        image_id = make_id(template[0], parts, path, template[1])
        if is_excluded(image_id, settings):
            excluded.add(image_id)
            continue
        files[image_id].append(path)
        parts_of[image_id] = parts
        if settings.plane_files:
            planes[image_id].append(_plane_of(path, parts, pattern, template[0]))
    _check_number_of_files(files, parts_of, settings, pattern, setting)
    _check_planes(planes, setting)
    if not files and not excluded:
        raise UserError(
            f"{setting} = '{pattern}' and data.train_masks = '{settings.train_masks}' find the same files; let "
            "data.train_masks name what only the masks' names contain, as in {id}_mask.png or {id}.json"
        )
    if not files:
        raise UserError(f"data.exclude leaves no image of {setting} = '{pattern}'")
    return ListedImages(dict(files), parts_of, excluded)


def _check_number_of_files(
    files: dict[str, list[str]], parts_of: dict[str, dict[str, str]], settings: DataSettings, pattern: str, setting: str
) -> None:
    """Raise UserError if images have several files without data.plane_files, or with it too few or too many."""
    wanted = settings.channels if settings.plane_files else 1
    odd = sorted(image_id for image_id, paths in files.items() if len(paths) != wanted)
    if not odd:
        return
    first, reading = ", ".join(files[odd[0]][: SHOWN + 1]), ""
    template = f"data.{OWN_TEMPLATE.get(setting, 'image_id')}"
    if re.search(r"\}[^/]*[{*]", pattern.removesuffix(".*")):  # then names may be divided in several ways
        values = " and ".join(f"{{{part}}} is '{value}'" for part, value in parts_of[odd[0]].items())
        reading = (
            f"; in {os.path.basename(files[odd[0]][-1])} {values}, as parts of {setting} = '{pattern}' are as short as "
            f"possible: if that is wrong, give each piece of the names a part, and put the id together in {template}, "
            "as in {a}_{b}"
        )
    if settings.plane_files:
        raise UserError(
            f"{listed(odd, 'image')} {has(odd)} a different number of files from data.channels = {settings.channels}: "
            f"{first} (data.plane_files: each file is one plane; save R, G and B as a file each){reading}"
        )
    raise UserError(
        f"{plural(len(odd), 'id')} {has(odd)} several files, such as {listed(odd[:1])}: {first}; let "
        f"{template} tell them apart, as in {{folder}}_{{id}} with {setting} = .../{{folder}}/{{id}}.png, or set "
        f"data.plane_files=true if they are the planes of one image{reading}"
    )


def _plane_of(path: str, parts: dict[str, str], pattern: str, template: str) -> str:
    """The parts of a path that distinguish a file from the others of its image: name and parts, without the id."""
    of_id = PLACEHOLDER.findall(template)
    name = without_parts(os.path.basename(path), pattern.rsplit("/", 1)[-1], parts, of_id)
    return " ".join([name, *(value for part, value in parts.items() if part not in of_id)])


def _check_planes(planes: dict[str, list[str]], setting: str) -> None:
    """Raise UserError if the files of two images are not the same planes, such as other bands."""
    first = next(iter(planes), None)
    if other := next((image_id for image_id in planes if planes[image_id] != planes[first]), None):
        odd = next(pair for pair in zip(planes[first], planes[other], strict=True) if pair[0] != pair[1])
        raise UserError(
            f"the files of '{first}' and '{other}' are not the same planes: '{odd[0]}' of one stands where '{odd[1]}' "
            f"of the other does; let {setting} say which are planes (data.plane_files)"
        )


def refuse_masks(files: dict[str, list[str]], settings: DataSettings) -> None:
    """Raise UserError if images are named like the training masks, each beside one whose name begins alike.

    `test/{id}.png` finds the masks `test/7_GT.png`, too, where data.train_masks is `train/{id}_GT.png`, and
    `testA_{id}.png` finds `testA_7_GT.png` where it is `train_{id}_GT.png`.
    """
    segment = settings.train_masks.rsplit("/", 1)[-1]
    if (first := PLACEHOLDER.search(segment)) is None:
        return
    start, rest = segment[: first.start()], segment[first.start() :]
    if LETTER.search(PLACEHOLDER.split(segment)[-1].rpartition(".")[0]):
        start = "*"  # what is after the id says that it is a mask, whatever is before it
    as_excluded = (start + PLACEHOLDER.sub("*", rest.rpartition(".")[0])).replace("**", "*")
    if not LETTER.search(as_excluded):
        return
    patterns = compile_pattern(segment), compile_pattern(start + rest)
    names = {image_id: os.path.basename(paths[0]) for image_id, paths in files.items()}
    beginnings = {image_id: _beginnings(name, *patterns) for image_id, name in names.items()}
    others = sorted(names[image_id] for image_id in names if not beginnings[image_id])

    def begins_another(text: str) -> bool:
        place = bisect_left(others, text)  # of the first name that is not before it
        return place < len(others) and others[place].startswith(text)

    if odd := sorted(image_id for image_id in names if any(map(begins_another, beginnings[image_id]))):
        raise UserError(
            f"images {listed(odd)} of data.test_images = '{settings.test_images}' are named like the masks of "
            f"data.train_masks = '{settings.train_masks}'; leave them out with data.exclude=[\"{as_excluded}\"]"
        )


def _beginnings(name: str, own: re.Pattern, any_start: re.Pattern) -> list[str]:
    """What the name of an image may begin with if this is the name of its mask; nothing if it is no mask's name."""
    texts = []
    if match := own.fullmatch(name):
        texts.append(name[min(map(match.start, match.groupdict())) : max(map(match.end, match.groupdict()))])
    if match := any_start.fullmatch(name):
        texts.append(name[: max(map(match.end, match.groupdict()))])
    return texts
