"""Detection of changed images and masks: by size and time first, then by content.

`training_files.json` (written by 01) and `test_files.json` (by 04) hold for each image and mask the SHA-256 of its
content, and size and modification time of its files. Checking size and time takes one system call per file; a file is
read again only if they differ, as after a copy to another machine, and its new time is then stored.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lib.base.distributed import is_first, wait_for_all
from lib.base.errors import UserError, listed
from lib.base.files import CHUNK_BYTES, read_json, sha256_of_json, write_text
from lib.base.prefetch import prefetched
from lib.config.schema import Settings
from lib.data.competition import TestData, TrainingData, open_training
from lib.data.mask_index import is_table, masks_table_files
from lib.data.resize_column import table_of_test, table_of_training
from lib.run.folder import RunFolder
from lib.run.members import open_members

MANY = 4  # files from which on a digest of their states is stored
SHORT_DIGEST = 32  # hexadecimal digits, 128 bits

State = str  # sizes and modification times of files
Known = dict[str, list[str]]  # by name, such as "image a": [digest, state]


@dataclass(frozen=True)
class ContentSource:
    """The origin of an image's or mask's content: files, and for run lengths and annotations the texts in them."""

    files: tuple[str, ...]
    texts: tuple[str, ...] | None = None
    sizes: tuple[int, ...] = ()  # number of files or texts of each class

    @property
    def is_text_alone(self) -> bool:
        """Whether there is no file whose time could show that it is unchanged."""
        return self.texts is not None and not self.files

    def digest(self) -> str:
        """Hexadecimal SHA-256 of the content, shortened."""
        digest = hashlib.sha256(repr(self.sizes).encode())
        if self.texts is not None:
            digest.update("\0".join(self.texts).encode())
            return digest.hexdigest()[:SHORT_DIGEST]
        for path in self.files:
            with open(path, "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
            digest.update(b"\0")
        return digest.hexdigest()[:SHORT_DIGEST]

    def note(self) -> list[str]:
        """Digest and state; the state is that before the content is read, so that no change goes unnoticed."""
        state = files_state(self.files)
        return [self.digest(), state]


def training_sources(data: TrainingData) -> dict[str, ContentSource]:
    """Every training image and mask."""
    sources = image_sources(data)
    tables = tuple(map(str, masks_table_files(data.settings))) if is_table(data.settings.train_masks) else ()
    for image_id in data.ids:
        pieces = tuple(piece for of_class in data.pieces(image_id) for piece in of_class)
        sizes = tuple(map(len, data.pieces(image_id)))
        texts_or_files = (tables, pieces) if tables else (tuple(dict.fromkeys(pieces)), None)
        sources[f"mask {image_id}"] = ContentSource(*texts_or_files, sizes)
    return sources


def image_sources(data: TrainingData | TestData) -> dict[str, ContentSource]:
    """Every image, its value in data.resize.column, and the ids of its neighbours; also neighbours without a mask."""
    files = data.files if data.neighbours is None else data.neighbours.files
    stacks = {} if data.neighbours is None else {image_id: data.neighbours.stacks[image_id] for image_id in data.ids}
    table_of = table_of_training if isinstance(data, TrainingData) else table_of_test
    tables = (str(table_of(data.settings)),)
    return {
        **{f"image {image_id}": ContentSource(tuple(paths)) for image_id, paths in files.items()},
        **{
            value_name(data, image_id): ContentSource(tables, (str(value),))
            for image_id, value in data.resize_values.items()
        },
        **{f"neighbours of {image_id}": ContentSource((), tuple(stack)) for image_id, stack in stacks.items()},
    }


def value_name(data: TrainingData | TestData, image_id: str) -> str:
    """The name of an image's value in data.resize.column."""
    return f"{data.settings.resize.column} {image_id}"


def note_training_files(run: RunFolder, data: TrainingData, noted: Known) -> None:
    """Record the content of all training images and masks; `noted` holds the notes of 01's check, if it made any."""
    others = {name: source for name, source in training_sources(data).items() if name not in noted}
    write_known(run.training_files, noted | present_state(others, {})[0])


def open_unchanged_training(run: RunFolder, settings: Settings) -> TrainingData:
    """Open the training data. Raises UserError if images or masks are no longer those that 01 checked.

    An ensemble is checked by its members. A run made by a version of 01 that kept no such notes gets them now.
    """
    for member in open_members(settings):
        open_unchanged_training(*member)
    data = open_training(settings.data)
    if settings.ensemble.members:  # which have the notes
        return data
    known = read_known(run.training_files)
    current, changed = present_state(training_sources(data), known)
    if known:
        chosen_since = _names_by_settings(data) - known.keys()
        require_unchanged([name for name in changed if name not in chosen_since], "training")
    update_known(run.training_files, known, {name: known[name] for name in _of_files(known)} | current)
    wait_for_all()  # before any process reads what maps are made from
    return data


def _names_by_settings(data: TrainingData) -> set[str]:
    """The names of sources that depend on settings which may change after 01: resize values and neighbours."""
    names = {value_name(data, image_id) for image_id in data.resize_values}
    if data.neighbours is None:
        return names
    neighbours_alone = data.neighbours.files.keys() - set(data.ids)
    stacks = {f"neighbours of {image_id}" for image_id in data.ids}
    return names | stacks | {f"image {image_id}" for image_id in neighbours_alone}


def _of_files(known: Known) -> set[str]:
    """The names of training images and masks, whose notes stay where settings leave them out for once.

    The stage may refuse these settings, and when they are undone, files without a note would be new. All other notes
    come and go with the settings that they depend on.
    """
    ids = {name.removeprefix("mask ") for name in known if name.startswith("mask ")}
    return known.keys() & {f"{kind} {image_id}" for image_id in ids for kind in ("image", "mask")}


def require_unchanged(changed: list[str], which: str) -> None:
    """Raise UserError if images or masks of the `which` data have changed."""
    if changed:
        raise UserError(
            f"{listed(changed)} of the {which} data changed after 01_prepare_folds.py had checked them, or settings of "
            "data now read them otherwise; put back what was there, or run 01 again with its settings file and then 02 "
            "with --restart"
        )


def known_test_images(run: RunFolder, data: TestData) -> Known:
    """The present state of the test images; only those that changed since 04 are read."""
    return present_state(image_sources(data), read_known(run.test_files))[0]


def image_digests(known: Known, data: TestData) -> dict[str, str]:
    """By image, one SHA-256 of all that the network sees: its file, its neighbours' files, its value to resize by."""

    def names(image_id: str) -> list[str]:
        stack = [image_id] if data.neighbours is None else data.neighbours.stacks[image_id]
        images = [f"image {neighbour}" for neighbour in stack]
        return [*images, value_name(data, image_id), f"neighbours of {image_id}"]

    return {id: sha256_of_json([known[name][0] for name in names(id) if name in known]) for id in data.ids}


def present_state(sources: dict[str, ContentSource], known: Known) -> tuple[Known, list[str]]:
    """The present state of the sources, and the names of those whose content is new or changed."""
    state_of = {id(source.files): source.files for source in sources.values()}  # all texts may share their files
    state_of = {number: files_state(files) for number, files in state_of.items()}
    states = {name: state_of[id(source.files)] for name, source in sources.items()}
    same = {
        name: known[name]
        for name, state in states.items()
        if name in known and known[name][1] == state and not sources[name].is_text_alone
    }
    suspects = [name for name in states if name not in same] if len(same) < len(states) else []
    digests = {name: sources[name].digest() for name in suspects if sources[name].texts is not None}
    in_files = [name for name in suspects if name not in digests]
    digests |= prefetched(lambda name: sources[name].digest(), in_files)
    current = {name: same.get(name) or [digests[name], state] for name, state in states.items()}
    return current, [name for name in suspects if name not in known or known[name][0] != digests[name]]


def files_state(paths: Iterable[str]) -> State:
    """Sizes and modification times, or a digest of them for many files. Raises UserError for a missing file."""
    states = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        states.append(f"{status.st_size}:{status.st_mtime_ns}")
    return " ".join(states) if len(states) < MANY else sha256_of_json(states)


def read_known(path: Path) -> Known:
    """The notes of an earlier stage; none if the file is absent or damaged."""
    try:
        notes = read_json(path)
        return notes["files"] if notes["content"] == content_digest(notes["files"]) else {}
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def write_known(path: Path, known: Known) -> None:
    """Write the notes, and one digest of all content, which records of stages refer to."""
    write_text(path, json.dumps({"content": content_digest(known), "files": known}) + "\n")


def update_known(path: Path, before: Known, after: Known) -> None:
    """Write the notes that differ. New times alone, as of a copy, may be read again each time: the folder can be
    read-only, as one that only lib.tools.submit or compare reads."""
    if before == after or not is_first():
        return
    try:
        write_known(path, after)
    except UserError:
        if content_digest(before) != content_digest(after):
            raise


def content_digest(known: Known) -> str:
    """One SHA-256 for the content of all files."""
    return sha256_of_json({name: digest for name, (digest, _) in known.items()})
