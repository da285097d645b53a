"""Finding the files of a data set: a folder of images, or a pattern whose parts make up the ids."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from fnmatch import translate
from functools import lru_cache
from pathlib import Path

from lib.base.errors import UserError
from lib.config.schema import DataSettings
from lib.data.images import SUFFIXES

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
TOKEN = re.compile(r"\{(?P<name>[A-Za-z_]\w*)\}|(?P<star>\*)|(?P<any>\?)|\[(?P<set>!?[^\]]+)\]|(?P<plain>.)")
ANY_FOLDERS = re.compile(r"(?<![^/])(\*\*/)+")
WILDCARD = re.compile(r"[*?\[{]")
LONGEST_ID = 200  # bytes; leaves room for suffixes within the 255 that file systems allow


def find_files(root: Path, pattern: str, setting: str) -> Iterator[tuple[dict[str, str], str]]:
    """Each file of a folder or a pattern below `root`, after what its placeholders stand for, in the order of names.

    A folder means the image files in it, `{id}` being the name without the suffix. In a pattern `*`, `?` and `[...]`
    match as in a shell, within one name, and `**` any number of folders; `{part}` matches one or more characters, as
    few as possible, and the same text wherever it stands again. Hidden files do not match. Raises UserError when
    nothing is found.
    """
    if WILDCARD.search(pattern):
        root, pattern = (Path("/"), pattern[1:]) if pattern.startswith("/") else (root, pattern)
        files = _walk(str(root), ANY_FOLDERS.sub("**/", pattern).split("/"), {})
    else:
        files = _image_files(root / pattern, setting)
    first = next(files, None)
    if first is None:
        others = skipped_files(root / pattern)
        hint = f"; it holds {others}" if others else ""
        if others and "folder" in others:
            hint += f"; set {setting} to a pattern such as {pattern}/**/{{id}}.png to look into its folders"
        raise UserError(f"no image is found at {root / pattern} ({setting}){hint}")
    yield first
    yield from files


def skipped_files(folder: Path) -> str | None:
    """What a folder holds beside images, which is not read: how many folders, and files of which suffixes."""
    counts = Counter()
    for entry in _entries(str(folder)):
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.is_dir():
            counts["folder"] += 1
        elif suffix not in SUFFIXES:
            counts[f"{suffix} file" if suffix else "suffixless file"] += 1
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.most_common()) or None


def make_id(template: str, parts: dict[str, str], path: str) -> str:
    """The id that data.image_id makes of a file's parts. Raises UserError for an unknown part or an unsafe id."""
    return clean_id(fill(template, parts, "data.image_id"), path)


def fill(template: str, parts: dict[str, str], setting: str) -> str:
    """A template such as `{day}_slice_{slice}` with its parts filled in. Raises UserError for an unknown part."""
    try:
        return template.format_map(parts)
    except (KeyError, IndexError, ValueError, AttributeError):
        known = ", ".join(f"{{{name}}}" for name in parts)
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
    if not cleaned or not safe or len(cleaned.encode()) > LONGEST_ID:
        raise UserError(f"{source} has the id {ascii(text[:80])}, which cannot be used as a file name")
    return cleaned


def without_suffix(text: str) -> str:
    """The text without blanks around it and without an image suffix."""
    text = text.strip()
    stem, dot, suffix = text.rpartition(".")
    return stem if dot + suffix.lower() in SUFFIXES else text


def compile_pattern(pattern: str) -> re.Pattern:
    """A pattern that a whole text must match, its placeholders being groups. Raises UserError where it is none."""
    return _expression(pattern, ())


@lru_cache(maxsize=8)
def _exclusion(patterns: tuple[str, ...]) -> re.Pattern | None:
    composed = (translate(unicodedata.normalize("NFC", pattern)) for pattern in patterns)
    return re.compile("|".join(composed)) if patterns else None


def is_excluded(image_id: str, settings: DataSettings) -> bool:
    """Whether data.exclude leaves the id out."""
    expression = _exclusion(tuple(settings.exclude))
    return expression is not None and expression.fullmatch(image_id) is not None


def _image_files(folder: Path, setting: str) -> Iterator[tuple[dict[str, str], str]]:
    if folder.is_file():
        raise UserError(
            f"{folder} is a file of a kind that is not read ({setting}): images are a folder or a pattern, masks "
            "also a table (csv, tsv, parquet) or annotations (json, jsonl, txt)"
        )
    if not folder.is_dir():
        raise UserError(f"folder {folder} does not exist ({setting})")
    for entry in _entries(str(folder)):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in SUFFIXES and entry.is_file():
            yield {"id": stem}, entry.path


def _walk(folder: str, segments: list[str], parts: dict[str, str]) -> Iterator[tuple[dict[str, str], str]]:
    """Files below `folder` that match the remaining segments of a pattern, given the parts found above it."""
    segment, deeper = segments[0], segments[1:]
    if segment == "**" and deeper:
        yield from _walk(folder, deeper, parts)
        for entry in _entries(folder):
            if entry.is_dir() and not _is_above(entry.path, folder):
                yield from _walk(entry.path, segments, parts)
        return
    if not WILDCARD.search(PLACEHOLDER.sub(lambda match: "" if match[1] in parts else match[0], segment)):
        path = os.path.join(folder, fill(segment, parts, "pattern"))
        if deeper:
            yield from _walk(path, deeper, parts)
        elif os.path.isfile(path):
            yield parts, path
        return
    known = tuple((name, parts[name]) for name in PLACEHOLDER.findall(segment) if name in parts)
    expression = _expression(segment, known)
    for entry in _entries(folder):
        match = expression.fullmatch(entry.name)
        if match is None:
            continue
        if deeper:
            yield from _walk(entry.path, deeper, parts | match.groupdict())
        elif entry.is_file():
            yield parts | match.groupdict(), entry.path


def _is_above(folder: str, below: str) -> bool:
    """Whether a link leads back to a folder that it lies in."""
    return os.path.islink(folder) and f"{os.path.realpath(below)}/".startswith(f"{os.path.realpath(folder)}/")


@lru_cache(maxsize=256)
def _expression(segment: str, known: tuple[tuple[str, str], ...]) -> re.Pattern:
    """A segment of a pattern as a regular expression with a group for each part that is not known yet."""
    parts = dict(known)
    written = []
    groups = set()
    for token in TOKEN.finditer(segment):
        if name := token["name"]:
            if name in parts:
                written.append(re.escape(parts[name]))
            else:
                written.append(f"(?P={name})" if name in groups else f"(?P<{name}>.+?)")
                groups.add(name)
        elif token["star"]:
            written.append(".*")
        elif token["any"]:
            written.append(".")
        elif token["set"]:
            negated = token["set"].startswith("!")
            members = re.sub(r"([\\\[^&~|])", r"\\\1", token["set"].removeprefix("!"))
            written.append(f"[{'^' if negated else ''}{members}]")
        else:
            written.append(re.escape(token["plain"]))
    try:
        return re.compile("".join(written))
    except re.error as error:
        raise UserError(f"'{segment}' is not a pattern of file names: {error}") from None


def _entries(folder: str) -> list[os.DirEntry]:
    """What a folder holds, hidden names left out, by name; nothing when it is not a folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read: {error.strerror}") from None
