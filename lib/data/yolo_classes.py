"""The names of the class numbers in YOLO's labels."""

import itertools
import re
from pathlib import Path

from lib.base.errors import CLASSES_SHOWN, UserError, listed, or_none
from lib.base.files import read_text
from lib.config.data_settings import DataSettings
from lib.config.load import read_yaml
from lib.data.discovery import WILDCARD

CLASS_LIST = "classes.txt"  # the names, a line each
NAMES = re.compile(r"""^["']?names["']?\s*:""", re.MULTILINE)  # in YAML


def names_of_numbers(numbers: set[int], settings: DataSettings) -> dict[int, str]:
    """The names of YOLO's numbers: by the values of data.classes, a file beside the labels, or their places.

    Raises UserError for a number beyond the last class; what the others mean is then no more certain.
    """
    given = {value: name for name, values in settings.masks.values.items() for value in values}
    if given or not numbers or (given := _names_beside(settings)):
        return {number: given.get(number, f"number {number}") for number in numbers}
    classes = settings.classes
    if max(numbers) >= len(classes):
        listed_numbers = listed(sorted(map(str, numbers), key=int), shown=CLASSES_SHOWN)
        raise UserError(
            f"{settings.root / settings.train_masks} has the class numbers {listed_numbers}, but data.classes only "
            f"{listed(classes)}; name all classes in the order of their numbers, or give the number of each to be "
            f"learned, as in data.classes={{{classes[0]}: {max(numbers)}}}, with data.other_classes=skip"
        )
    return {number: classes[number] for number in numbers}


def _names_beside(settings: DataSettings) -> dict[int, str]:
    """The names of the class numbers by a file in the folders from data.root to the labels; none without one.

    Raises UserError where two files differ.
    """
    folders = itertools.takewhile(lambda part: not WILDCARD.search(part), Path(settings.train_masks).parts)
    found: dict[int, tuple[str, Path]] = {}
    for folder in itertools.accumulate(folders, lambda above, name: above / name, initial=settings.root):
        for path in [*sorted(folder.glob("*.y*ml")), *folder.glob(CLASS_LIST)]:
            for number, name in _names_in(path, settings).items():
                known, source = found.setdefault(number, (name, path))
                if name != known:
                    raise UserError(
                        f"class {number} is '{known}' in {source} and '{name}' in {path}; remove the file that is not "
                        f"of these labels, or give the numbers, as in data.classes={{{settings.classes[0]}: 0}}"
                    )
    return {number: name for number, (name, _) in found.items()}


def _names_in(path: Path, settings: DataSettings) -> dict[int, str]:
    """The names of the class numbers in a file; none in a YAML file without `names`.

    YOLO's exports have data.yaml, or another YAML file with `names`; annotation tools write CLASS_LIST. Raises
    UserError for a list that cannot be read, and for names by something other than numbers.
    """
    if path.name == CLASS_LIST:
        lines = enumerate(map(str.strip, read_text(path).split("\n")))
        return {number: name for number, name in lines if name}
    names = _content_of(path).get("names")
    if isinstance(names, dict) and not all(str(number).isdecimal() for number in names):
        raise UserError(
            f"{path} has names by {listed([*map(str, names)])} and not by the numbers of classes; give the number of "
            f"each class, as in data.classes={{{settings.classes[0]}: 0}}"
        )
    numbered = names.items() if isinstance(names, dict) else enumerate(names if isinstance(names, list) else [])
    return {int(number): str(name).strip() for number, name in numbered}


def _content_of(path: Path) -> dict:
    """A YAML file; nothing of one that cannot be read, unless a line begins with `names`: then it raises UserError."""
    content = or_none(read_yaml, path)
    if content is None and NAMES.search(path.read_text(encoding="utf-8", errors="replace")):
        return read_yaml(path)
    return content or {}
