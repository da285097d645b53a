"""Groups and orders suggested by the ids of images: common beginnings, fields, running numbers, coordinates.

An id is read as fields between separators: `slide12_x0512_y1024` has three. No image is read here;
`lib/folds/hidden_groups.py` tests whether a partition means anything.
"""

import re
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

import numpy as np

from lib.data.id_match import LAST_NUMBER

SEPARATORS = "-_. ()"  # the hyphen first: no backslash, which YAML and shells read in their own ways
FIELD = re.compile(rf"[^{SEPARATORS}]+")
COORDINATE = re.compile(r"[A-Za-z]{0,4}(\d{1,7})")
LARGEST_NUMBER = 10**15  # longer runs of digits are parts of a hash
MOST_CLASSES = 20
FEWEST, MOST_SHARE = 2, 0.7  # groups of a partition worth a test, the latter as a share of the images


class Partition(NamedTuple):
    """A division of the images into groups."""

    name: str  # in words, to be put after "by"
    groups: np.ndarray  # (images,) names
    setting: str | None = None  # the value of data.group that makes these groups
    may_be_class: bool = False  # the names may be classes ("benign", "3") rather than places or patients
    by_images: bool = False  # derived from the images, so that their likeness proves less
    is_cut: bool = False  # cuts through scenes to fill the folds: neighbours at a cut are in different groups


class Series(NamedTuple):
    """An order of the images that may mean closeness, for each key: running numbers, or coordinates in a grid."""

    name: str
    keys: np.ndarray  # (images,) names; positions of different keys are unrelated
    positions: np.ndarray  # (images, 1 or 2) whole numbers


def id_partitions(ids: Sequence[str]) -> list[Partition]:
    """Partitions by the first fields, by a single later field, and by the text before the last number.

    Partitions with a single group, or with almost as many groups as images, are left out, and so are repeated ones.
    """
    fields = [FIELD.findall(image_id) for image_id in ids]
    shared = min(map(len, fields), default=0)
    partitions = [_by_first_fields(ids, fields, count) for count in range(1, shared + 1)]
    partitions += [_by_field(fields, place) for place in range(1, shared)]
    if shared == 1 and all(map(LAST_NUMBER.fullmatch, ids)):
        stems = [LAST_NUMBER.fullmatch(image_id)[1] for image_id in ids]
        partitions.append(_partition("the text before the last number of the id", stems, "id:(.*?)[0-9]+[^0-9]*$"))
    return distinct(partitions)


def distinct(partitions: Sequence[Partition]) -> list[Partition]:
    """The partitions worth a test, without repeated ones; the first of equal ones stays."""
    kept = {}
    for partition in partitions:
        numbers = numbered_by_first(partition.groups)
        if FEWEST <= len(set(numbers)) <= MOST_SHARE * len(numbers):
            kept.setdefault(numbers.tobytes(), partition)
    return list(kept.values())


def numbered_by_first(groups: np.ndarray) -> np.ndarray:
    """Groups as whole numbers in order of first appearance: equal for equal partitions."""
    _, first, numbers = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers]


def id_series(ids: Sequence[str]) -> list[Series]:
    """Orders by the last number of the ids, over all and for each text before it, and grids by the last two fields."""
    matches = [LAST_NUMBER.fullmatch(image_id) for image_id in ids]
    if not ids or not all(match and int(match[2]) < LARGEST_NUMBER for match in matches):
        return []
    numbers = np.array([[int(match[2])] for match in matches])
    stems = np.array([match[1] for match in matches])
    series = [Series("the running number at the end of the id", np.full(len(ids), ""), numbers)]
    if 1 < len(np.unique(stems)) <= MOST_SHARE * len(ids):
        series.append(Series("the running number at the end of the id, for each text before it", stems, numbers))
    fields = [FIELD.findall(image_id) for image_id in ids]
    ends = [[COORDINATE.fullmatch(field) for field in parts[-2:]] for parts in fields]
    if all(len(end) == 2 and all(end) for end in ends):
        keys = np.array(["_".join(parts[:-2]) for parts in fields])
        places = np.array([[int(match[1]) for match in end] for end in ends])
        if all(len(np.unique(column)) > FEWEST for column in places.T):
            series.append(Series("the coordinates at the end of the id", keys, places))
    return series


def _by_first_fields(ids: Sequence[str], fields: list[list[str]], count: int) -> Partition:
    present = set("".join(ids)) & set(SEPARATORS)
    separators = min(present) if len(present) == 1 else SEPARATORS
    field, between = f"([^{separators}]+)", f"[{separators}]+"
    before = f"[{separators}]*" if any(image_id[0] in SEPARATORS for image_id in ids) else ""
    setting = f"id:{before}{between.join([field] * count)}"
    what = "the first field of the id" if count == 1 else f"the first {count} fields of the id"
    return _partition(what, ["_".join(parts[:count]) for parts in fields], setting)


def _by_field(fields: list[list[str]], place: int) -> Partition:
    values = [parts[place] for parts in fields]
    kind = "the date in the id" if all(map(_is_date, values)) else f"field {place + 1} of the id"
    before = f"(?:[^{SEPARATORS}]+[{SEPARATORS}]+){{{place}}}"
    return _partition(kind, values, f"id:[{SEPARATORS}]*{before}([^{SEPARATORS}]+)")


def _partition(name: str, groups: list[str], setting: str) -> Partition:
    return Partition(name, np.array(groups), setting, may_be_classes(set(groups)))


def may_be_classes(names: set[str]) -> bool:
    """Whether names are as likely classes as places or patients: all words, or few and short numbers."""
    are_words = not any(re.search(r"\d", name) for name in names)
    are_short = len(names) <= MOST_CLASSES and all(re.fullmatch(r"\d{1,2}", name) for name in names)
    return are_words or are_short


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"(19|20)\d{6}", text):
        return False
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True
