"""Groups and orders suggested by the ids of images: common beginnings, fields, running numbers, coordinates.

An id is read as fields between separators, of which `slide12_x0512_y1024` has three, and as numbers with other text
between them. No image is read here; `lib/folds/hidden_groups.py` tests whether a partition means anything.
"""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

import numpy as np

from lib.data.groups import ID_GROUP
from lib.data.id_match import LAST_NUMBER

SEPARATORS = "-_. ()"  # the hyphen first: no backslash, which YAML and shells read in their own ways
FIELD = re.compile(rf"[^{SEPARATORS}]+")
DIGITS, LETTERS, SEPARATED = (re.compile(text) for text in ("[0-9]+", f"[^0-9{SEPARATORS}]+", f"[{SEPARATORS}]+"))
COORDINATE = re.compile(r"[A-Za-z]{0,4}(\d{1,7})")
LARGEST_NUMBER = 10**15  # longer runs of digits are parts of a hash
MOST_CLASSES = 20
ORDINALS = ("first", "second", "third", "fourth")  # numbers of an id that are looked at
COMMON = 0.9  # share of the ids that have a form; the others are odd files, each of them on its own
MOST_PARTITIONS = 12  # by ids; where only a sample is compared, they share its images
FEWEST, MOST_SHARE = 2, 0.7  # groups of a partition worth a test, the latter as a share of the images


class Partition(NamedTuple):
    """A division of the images into groups."""

    name: str  # in words, to be put after "by"
    groups: np.ndarray  # (images,) names
    setting: str | None = None  # the value of data.group that makes these groups
    may_be_class: bool = False  # the names may be classes ("benign", "3") rather than places or patients
    by_images: bool = False  # derived from the images, so that their likeness proves less
    is_cut: bool = False  # cuts through scenes to fill the folds: neighbours at a cut are in different groups
    others: int = 0  # images whose ids have another form than most; each is a group of its own


class Series(NamedTuple):
    """An order of the images that may mean closeness, for each key: running numbers, or coordinates in a grid."""

    name: str
    keys: np.ndarray  # (images,) names; positions of different keys are unrelated
    positions: np.ndarray  # (images, 1 or 2) whole numbers


def id_partitions(ids: Sequence[str]) -> list[Partition]:
    """Partitions by the first fields, a single later field, the text up to a number, and a single number.

    Each is a rule that at least COMMON of the ids follow; the others are each on their own. At most MOST_PARTITIONS, of
    those that are `distinct`.
    """
    fields = _common_fields(ids)
    numbers = range(min(_common_numbers(ids), len(ORDINALS)))
    rules = [_by_first_fields(ids, count) for count in range(1, fields + 1)]
    rules += [_by_field(place) for place in range(1, fields)]
    rules.append(("the text before the last number of the id", "(.*?[^0-9])[0-9]+[^0-9]*$"))
    rules += [_up_to_number(place) for place in numbers] + [_by_number(place) for place in numbers]
    partitions = [_partition(name, rule, ids) for name, rule in rules]
    common = [each for each in partitions if len(ids) - each.others >= COMMON * len(ids)]
    return distinct(common)[:MOST_PARTITIONS]


def distinct(partitions: Sequence[Partition]) -> list[Partition]:
    """The partitions worth a test, without repeated ones; the first of equal ones stays.

    Not worth one are a single group (ids of another form aside), and almost as many groups as images.
    """
    kept = {}
    for partition in partitions:
        numbers = numbered_by_first(partition.groups)
        count = numbers.max(initial=-1) + 1
        if count - partition.others >= FEWEST and count <= MOST_SHARE * len(numbers):
            kept.setdefault(numbers.tobytes(), partition)
    return list(kept.values())


def numbered_by_first(groups: np.ndarray) -> np.ndarray:
    """Groups as whole numbers in order of first appearance: equal for equal partitions."""
    number_of: dict = {}
    return np.array([number_of.setdefault(name, len(number_of)) for name in groups.tolist()], int)


def id_series(ids: Sequence[str]) -> list[Series]:
    """Orders by the last number of the ids, over all and for each text before it, and grids by the last two fields.

    An id of another form than most is alone under its key.
    """
    matches = [LAST_NUMBER.fullmatch(image_id) for image_id in ids]
    matches = [match if match and int(match[2]) < LARGEST_NUMBER else None for match in matches]
    if not _are_common(matches):
        return []
    numbers = np.array([[int(match[2]) if match else 0] for match in matches])
    keys = np.array(["" if match else image_id for image_id, match in zip(ids, matches, strict=True)])
    stems = np.array([match[1] if match else image_id for image_id, match in zip(ids, matches, strict=True)])
    series = [Series("the running number at the end of the id", keys, numbers)]
    if 1 < len(np.unique(stems)) <= MOST_SHARE * len(ids):
        series.append(Series("the running number at the end of the id, for each text before it", stems, numbers))
    fields = [FIELD.findall(image_id) for image_id in ids]
    ends = [[COORDINATE.fullmatch(field) for field in parts[-2:]] for parts in fields]
    ends = [end if len(end) == 2 and all(end) else None for end in ends]
    if _are_common(ends):
        keys = np.array(
            ["_".join(parts[:-2]) if end else "_".join(parts) for parts, end in zip(fields, ends, strict=True)]
        )
        places = np.array([[int(match[1]) for match in end] if end else [0, 0] for end in ends])
        if all(len(np.unique(column)) > FEWEST for column in places[[end is not None for end in ends]].T):
            series.append(Series("the coordinates at the end of the id", keys, places))
    return series


def _are_common(found: Sequence[object]) -> bool:
    """Whether nearly all ids have what was looked for, None being an id without it."""
    return len(found) > 0 and sum(each is not None for each in found) >= COMMON * len(found)


def _common_fields(ids: Sequence[str]) -> int:
    """The number of fields that nearly all ids have."""
    counts = [len(FIELD.findall(image_id)) for image_id in ids]
    common = (count for count in {*counts} if sum(other >= count for other in counts) >= COMMON * len(ids))
    return max(common, default=0)


def _common_numbers(ids: Sequence[str]) -> int:
    """The number of numbers that stand at the same place in nearly all ids, as they do not in hashes."""
    forms = [SEPARATED.sub("_", LETTERS.sub("a", DIGITS.sub("0", image_id))).split("0") for image_id in ids]
    count = 0
    while True:  # the text before the next number, letters being an a and separators a _
        before = Counter(tuple(form[: count + 1]) for form in forms if len(form) > count + 1)
        if not before or max(before.values()) < COMMON * len(ids):
            return count
        count += 1


def _by_first_fields(ids: Sequence[str], count: int) -> tuple[str, str]:
    present = set("".join(ids)) & set(SEPARATORS)
    separators = min(present) if len(present) == 1 else SEPARATORS
    field, between = f"([^{separators}]+)", f"[{separators}]+"
    before = f"[{separators}]*" if any(image_id[0] in SEPARATORS for image_id in ids) else ""
    what = "the first field of the id" if count == 1 else f"the first {count} fields of the id"
    return what, before + between.join([field] * count)


def _by_field(place: int) -> tuple[str, str]:
    before = f"(?:[^{SEPARATORS}]+[{SEPARATORS}]+){{{place}}}"
    return f"field {place + 1} of the id", f"[{SEPARATORS}]*{before}([^{SEPARATORS}]+)"


def _up_to_number(place: int) -> tuple[str, str]:
    return f"the id up to its {ORDINALS[place]} number", f"({_before_number(place)}[0-9]+)"


def _by_number(place: int) -> tuple[str, str]:
    return f"the {ORDINALS[place]} number of the id", f"{_before_number(place)}([0-9]+)"


def _before_number(place: int) -> str:
    return "[^0-9]*" + (f"(?:[0-9]+[^0-9]+){{{place}}}" if place else "")


def _partition(name: str, rule: str, ids: Sequence[str]) -> Partition:
    """The groups that a rule, the regular expression of data.group, makes of the ids."""
    matches = map(re.compile(rule).match, ids)
    found = ["_".join(filter(None, match.groups())) if match else "" for match in matches]  # as group_in_id does it
    known, others = set(found) - {""}, found.count("")
    groups = np.array([group or image_id for group, image_id in zip(found, ids, strict=True)])
    name = "the date in the id" if known and all(map(_is_date, known)) else name
    setting = f"{ID_GROUP}{rule}{'|(.+)' if others else ''}"
    return Partition(name, groups, setting, may_be_classes(known), others=others)


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
