"""Find the files of a data set: a folder of images, or a pattern whose parts make up the ids."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from fnmatch import translate
from functools import lru_cache
from pathlib import Path

from lib.base.errors import UserError, plural
from lib.config.data_settings import LONGEST_NAME, DataSettings
from lib.data.name_patterns import PLACEHOLDER, compile_pattern
from lib.images.headers import suffix_of
from lib.images.reading import SUFFIXES
from lib.images.unread_kinds import kind_of, packed, remedy_of

ANY_FOLDERS = re.compile(r"(?<![^/])(\*\*/)+")
WILDCARD = re.compile(r"[*?\[{]")
ANNOTATION_SUFFIXES = (".json", ".jsonl", ".txt")


class NothingFound(UserError):
    """A folder that does not exist, or a folder or pattern with no file in it."""


def find_files(
    root: Path, pattern: str, setting: str, classes: Collection[str] = ()
) -> Iterator[tuple[dict[str, str], str]]:
    """Yield (values of the placeholders, path) for each file of a folder or a pattern below `root`, sorted by name.

    A folder means the image files in it, `{id}` being the name without the suffix. In a pattern `*`, `?` and `[...]`
    match as in a shell, within one name, and `**` matches any number of folders; `{part}` matches one or more
    characters, as few as possible, and the same text wherever it is repeated; `{class}` is one of `classes`, the
    longest that fits, and another text only where none does. Hidden files do not match. Raises NothingFound if no file
    matches.
    """
    root, pattern = _anchored(root, pattern)
    if WILDCARD.search(pattern):
        files = _walk(str(root), ANY_FOLDERS.sub("**/", pattern).split("/"), {}, tuple(classes))
    else:
        files = _image_files(root / pattern, setting)
    first = next(files, None)
    if first is None:
        raise NothingFound(f"no file is found at {root / pattern} ({setting}){_what_is_there(root, pattern, setting)}")
    if remedy := remedy_of(first[1]):
        raise UserError(f"{root / pattern} ({setting}) finds {first[1]}: {remedy}")
    yield first
    yield from files


def files_beside(root: Path, pattern: str) -> list[str]:
    """All files, hidden ones left out, in the folders in which a pattern looks for its own."""
    root, pattern = _anchored(root, pattern)
    folders = ANY_FOLDERS.sub("**/", pattern).split("/")[:-1]
    return [path for _, path in _walk(str(root), [*folders, "*"], {}, ())]


def _anchored(root: Path, pattern: str) -> tuple[Path, str]:
    """A folder and the pattern below it, which is not absolute if it has wildcards."""
    pattern = pattern.replace(os.sep, "/")
    anchor = Path(pattern).anchor if WILDCARD.search(pattern) else ""  # such as / or C:/
    return (Path(anchor), pattern.removeprefix(anchor)) if anchor else (root, pattern)


def _what_is_there(root: Path, pattern: str, setting: str) -> str:
    """A hint for a pattern that finds nothing: the content of its folder, and what to do."""
    if "\\" in pattern and os.sep == "/":
        return "; write / between folders"
    parts = pattern.split("/")
    fixed = next((number for number, part in enumerate(parts) if WILDCARD.search(part)), len(parts))
    folder = root.joinpath(*parts[:fixed])
    counts = _kinds(folder) if fixed < len(parts) else _kinds(folder, SUFFIXES)
    if not counts:
        return "" if folder.is_dir() else f"; folder {folder} does not exist{packed(folder)}"
    hint = f"; {'it' if fixed == len(parts) else folder} holds {_counted(counts)}"
    most = counts.most_common(1)[0][0].removesuffix(" file")
    if remedy := remedy_of(most):
        return f"{hint}: {remedy}"
    if setting in ("data.train_masks", "data.compare_masks") and most in ANNOTATION_SUFFIXES and fixed == len(parts):
        hint += f"; if these are annotations, set {setting} to {pattern.rstrip('/')}/{{id}}{most}"
    if "folder" in counts and fixed == len(parts):
        hint += f"; set {setting} to a pattern such as {pattern}/**/{{id}}.png to look into its folders"
    return hint


def skipped_files(folder: Path, also_read: str = "") -> str | None:
    """The content of a folder that is not read: the number of folders, and of files of each suffix but images.

    Files of the suffix `also_read` are not counted.
    """
    return _counted(_kinds(folder, (*SUFFIXES, *filter(None, [also_read])))) or None


def _kinds(folder: Path, left_out: tuple[str, ...] = ()) -> Counter:
    """The number of folders, and of files by suffix, in a folder; suffixes `left_out`, in any case, do not count."""
    counts = Counter()
    for entry in _entries(str(folder)):
        suffix = os.path.splitext(entry.name)[1]
        if entry.is_dir():
            counts["folder"] += 1
        elif suffix.lower() not in left_out:
            kind = kind_of(entry.name) if remedy_of(entry.name) else suffix
            counts[f"{kind} file" if kind else "suffixless file"] += 1
    return counts


def _counted(counts: Counter) -> str:
    return ", ".join(plural(count, kind) for kind, count in counts.most_common())


def make_id(template: str, parts: dict[str, str], path: str, setting: str = "data.image_id") -> str:
    """The id that a template makes of a file's parts. Raises UserError for an unknown part or an unsafe id."""
    return clean_id(fill(template, parts, setting), path)


def fill(template: str, parts: dict[str, str], setting: str) -> str:
    """A template such as `{day}_slice_{slice}` with its parts filled in. Raises UserError for an unknown part."""
    try:
        return template.format_map(parts)
    except (KeyError, IndexError, ValueError, AttributeError):
        known = ", ".join(f"{{{name}}}" for name in parts) or "none; write {id} where the names differ, as in {id}.png"
        raise UserError(
            f"{setting} = '{template}' must be made of parts that the files' pattern has: {known}"
        ) from None


def clean_id(text: str, source: str | Path) -> str:
    """An id without blanks around it and without an image suffix, in Unicode's composed form (NFC).

    macOS writes file names in the decomposed form, tables have either; both look alike. Raises UserError unless the id
    is safe as a file name.
    """
    cleaned = unicodedata.normalize("NFC", without_suffix(text))
    safe = cleaned.isprintable() and "/" not in cleaned and "\\" not in cleaned and not cleaned.startswith(".")
    if not cleaned or not safe or len(cleaned.encode()) > LONGEST_NAME:
        raise UserError(f"{source} has the id {ascii(text[:80])}, which cannot be used as a file name")
    return cleaned


def without_suffix(text: str) -> str:
    """The text without blanks around it and without an image suffix."""
    text = text.strip()
    stem, dot, suffix = text.rpartition(".")
    return stem if dot + suffix.lower() in SUFFIXES else text


def without_parts(name: str, segment: str, parts: dict[str, str], left_out: Collection[str]) -> str:
    """A file's name without some of the parts that the last segment of its pattern has."""
    match = compile_pattern(segment, tuple(sorted(parts.items()))).fullmatch(name)
    spans = sorted(match.span(part) for part in left_out if part in match.groupdict()) if match else []
    for start, end in reversed(spans):
        name = name[:start] + name[end:]
    return name


@lru_cache(maxsize=8)
def _exclusion(patterns: tuple[str, ...]) -> re.Pattern | None:
    composed = [unicodedata.normalize("NFC", pattern) for pattern in patterns]
    forms = [*map(translate, composed), *map(re.escape, composed)]  # ids may have brackets, which are a set in a shell
    return re.compile("|".join(forms)) if patterns else None


def is_excluded(image_id: str, settings: DataSettings) -> bool:
    """Whether data.exclude leaves the id out."""
    expression = _exclusion(tuple(settings.exclude))
    return expression is not None and expression.fullmatch(image_id) is not None


def _image_files(folder: Path, setting: str) -> Iterator[tuple[dict[str, str], str]]:
    if suffix_of(folder) in SUFFIXES and folder.is_file():
        raise UserError(
            f"{folder} is a file ({setting}); save each of its images as a file of its own, as docs/inputs.md does it "
            "for npy, and name their folder"
        )
    if folder.is_file():
        remedy = remedy_of(folder.name) or (
            "images are a folder or a pattern of files, one for each image, masks also a table (csv, tsv, parquet) or "
            "annotations (json, jsonl, txt)"
        )
        raise UserError(f"{folder} is one file of a kind that is not read ({setting}): {remedy}")
    if not folder.is_dir():
        raise NothingFound(f"folder {folder} does not exist ({setting}){packed(folder)}")
    for entry in _entries(str(folder)):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in SUFFIXES and not entry.is_dir():  # a link that leads nowhere is an image that is missing
            yield {"id": stem}, entry.path


def _walk(
    folder: str, segments: list[str], parts: dict[str, str], classes: tuple[str, ...]
) -> Iterator[tuple[dict[str, str], str]]:
    """Files below `folder` that match the remaining segments of a pattern, given the parts found above it."""
    segment, deeper = segments[0], segments[1:]
    if segment == "**" and deeper:
        yield from _walk(folder, deeper, parts, classes)
        for entry in _entries(folder):
            if entry.is_dir() and not _is_above(entry.path, folder):
                yield from _walk(entry.path, segments, parts, classes)
        return
    if not WILDCARD.search(PLACEHOLDER.sub(lambda match: "" if match[1] in parts else match[0], segment)):
        path = os.path.join(folder, fill(segment, parts, "pattern"))
        if deeper:
            yield from _walk(path, deeper, parts, classes)
        elif os.path.isfile(path):
            yield parts, path
        return
    known = tuple((name, parts[name]) for name in PLACEHOLDER.findall(segment) if name in parts)
    with_class, expression = compile_pattern(segment, known, classes), compile_pattern(segment, known)
    for entry in _entries(folder):
        match = with_class.fullmatch(entry.name) or expression.fullmatch(entry.name)
        if match is None:
            continue
        if deeper:
            yield from _walk(entry.path, deeper, parts | match.groupdict(), classes)
        elif entry.is_file():
            yield parts | match.groupdict(), entry.path


def _is_above(folder: str, below: str) -> bool:
    """Whether a link leads back to a folder that it lies in."""
    return os.path.islink(folder) and f"{os.path.realpath(below)}/".startswith(f"{os.path.realpath(folder)}/")


def _entries(folder: str) -> list[os.DirEntry]:
    """The entries of a folder, sorted, without hidden ones; none if it is not a folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read: {error.strerror}") from None
