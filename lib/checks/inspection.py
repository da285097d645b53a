"""Stage 01's check of every training image and mask: decoding, sizes, coverage, hashes, and the settings."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lib.base.errors import UserError, each_kind, listed, plural
from lib.base.prefetch import prefetched
from lib.base.progress import progress
from lib.checks.exclusions import unused_exclusions
from lib.checks.left_out import left_out_lines
from lib.checks.mask_check import ValueCounts, explain_values, warnings
from lib.checks.orientation import orientation_line, turned_images
from lib.checks.rle_check import describe_convention, require_convention
from lib.checks.rle_sizes import require_written_sizes
from lib.config.data_settings import DataSettings
from lib.data.competition import TrainingData, open_test
from lib.data.discovery import find_files, skipped_files
from lib.data.input_files import ContentSource, Known, training_sources
from lib.data.mask_index import files_of_other_classes
from lib.data.network_input import require_usable_neighbours
from lib.data.resizing import Seen, describe_seen, seen_of
from lib.data.sample_submission import masks_without_row, suffix_doubt
from lib.data.unreadable import find_unreadable, first_problems
from lib.data.value_range import value_range_line
from lib.images.hashes import perceptual_hash, pixel_hash, thumbnail
from lib.images.headers import suffix_of
from lib.images.mask_values import share_of_mask
from lib.masks.metrics import planes

LABEL = len("checked   ")  # of a line of 01
LONE_OBJECTS = (
    "data.instances=true, but no image has several objects in a class, so that all of its mask is one object; without "
    "data.instances each connected component is one"
)


class ImageFacts(NamedTuple):
    """The properties of a training image that stage 01 records."""

    id: str
    height: int
    width: int
    coverage: tuple[float, ...]  # share of mask pixels per class, 0 to 1
    sha256: str  # of the decoded pixels and their shape
    perceptual_hash: str  # nearly the same for near copies


class InspectedImage(NamedTuple):
    """A training image and its mask, read and checked."""

    facts: ImageFacts
    values: ValueCounts  # of its mask files
    thumbnail: np.ndarray  # uint8 (64, 64, channels)
    seen: Seen | None  # by the network, with data.resize
    noted: Known  # the content of its files


class Inspection(NamedTuple):
    """The results of reading every training image and mask once."""

    facts: list[ImageFacts]  # in the order of ids
    notes: list[str]  # lines to print, such as the meaning of the mask values
    noted: Known  # the content of the files


def check_images(
    training: TrainingData, on_thumbnail: Callable[[str, np.ndarray], None] | None = None, source: str = ""
) -> Inspection:
    """Check the images, the masks and the settings that describe them, and print the results.

    `on_thumbnail` is passed to `inspect_all`; `source` names external images. Raises UserError for data that cannot be
    used.
    """

    def report(line: str) -> None:
        print(f"{line[:LABEL]}{source and f'{source}: '}{line[LABEL:]}")

    require_usable_neighbours(training)
    if training.groups and training.settings.group is None and not source:
        path = training.settings.root / (training.settings.group_csv or training.settings.train_masks)
        report(
            f"groups    {len({*training.groups.values()})} by column 'group' of {path}; each is kept in one fold; set "
            "data.group=none if it means something else"
        )
    if training.without_mask:
        of_all = plural(training.without_mask + len(training.ids), "image")
        report(
            f"checked   {training.without_mask} of {of_all} have no mask and are left out (data.images_without_mask)"
        )
    if lost := training.without_image:
        report(f"checked   {plural(lost, 'mask')} without an image left out (data.masks_without_image)")
    for line in (orientation_line(training) + value_range_line(training)).splitlines():
        report(line)
    require_written_sizes(training)
    verdict = require_convention(training)
    if verdict.label != "assumed" or training.settings.test_images:  # else no run lengths are read or written
        report(f"{verdict.label}   data.rle ({describe_convention(training.settings.rle)}): {verdict.text}")
    inspection = inspect_all(training, on_thumbnail)
    for note in inspection.notes:
        report(note)
    return inspection


def inspect_all(training: TrainingData, on_thumbnail: Callable[[str, np.ndarray], None] | None = None) -> Inspection:
    """Decode every training image and mask once.

    `on_thumbnail` is called with the id and the thumbnail, uint8 (64, 64, channels), of each image, in the order of
    ids. Raises UserError with the number of unusable images and the problems of the first few, or if it is uncertain
    what the values mean.
    """
    facts, problems, counts, all_seen, noted = [], {}, ValueCounts(), [], {}
    sources = training_sources(training)
    # threads: a process takes 0.4 s to start, and 0.1 of the 0.7 ms for 256 x 256 pixels hold Python's lock
    inspected = prefetched(partial(_inspect, training, sources), training.ids)
    for image_id, result in progress("checking", inspected, len(training.ids)):
        if isinstance(result, str):
            problems[image_id] = result
        else:
            facts.append(result.facts)
            counts.merge(result.values)
            all_seen.append(result.seen)
            noted |= result.noted
            if on_thumbnail:
                on_thumbnail(result.facts.id, result.thumbnail)
    if problems:
        counted = f"{len(problems)} of {len(training.ids)} training images cannot be used"
        raise UserError(f"{counted}: {each_kind(problems)} (data.exclude leaves images out)")
    notes = [] if training.has_table else [f"checked   {explain_values(counts, training.settings)}"]
    notes += [f"warning   {doubt}" for doubt in warnings(counts, training.settings) if not training.has_table]
    notes += [f"warning   {LONE_OBJECTS}"] if _are_lone_objects(training, counts) else []
    notes += [f"checked   {describe_seen(all_seen)}"] if training.settings.resize.is_set else []
    if not any(any(image.coverage) for image in facts):
        source = f"{training.settings.root / training.settings.train_masks} (data.train_masks)"
        raise UserError(f"the masks of all {len(facts)} training images in {source} are empty: nothing can be learned")
    return Inspection(facts, notes, noted)


def _are_lone_objects(training: TrainingData, counts: ValueCounts) -> bool:
    """Whether data.instances is set although each image's mask is a single row or file that holds no objects apart."""
    settings, pieces = training.settings, map(training.pieces, training.ids)
    if not settings.instances or any(len(of_class) > 1 for of_image in pieces for of_class in of_image):
        return False
    return training.has_table or settings.masks.say_what_is_mask or counts.objects <= counts.files


def _inspect(training: TrainingData, sources: dict[str, ContentSource], image_id: str) -> InspectedImage | str:
    """Read an image and its mask; for one that cannot be used, the problem as text."""
    counts = ValueCounts()
    names = [f"image {image_id}", *([] if training.has_table else [f"mask {image_id}"])]
    try:
        noted = {name: sources[name].note() for name in names}  # what is read again below is in the system's cache
        image = training.read_image(image_id)
        files = [] if training.has_table else training.mask_files(image_id)
        for file in files:
            is_alone = all(len(training.pieces(image_id)[class_index]) == 1 for class_index in file.class_indexes)
            counts.add(file.pixels, file.path, training.settings.masks, is_alone)
        mask = training.read_mask(image_id, files)
    except UserError as error:
        return str(error)
    coverage = tuple(map(share_of_mask, planes(mask)))
    small = thumbnail(image)
    facts = ImageFacts(image_id, *image.shape[:2], coverage, pixel_hash(image), perceptual_hash(small))
    seen = seen_of(training, image_id, mask) if training.settings.resize.is_set else None
    return InspectedImage(facts, counts, small, seen, noted)


def skipped_lines(settings: DataSettings) -> list[str]:
    """A line for each folder of images or masks with files that are not read, and for data.exclude if it misses."""
    unused = unused_exclusions(settings)
    matches = "matches" if len(unused) == 1 else "match"
    lines = [f"warning   data.exclude: {listed(unused)} {matches} no image or mask"] if unused else []
    if others := files_of_other_classes(settings):
        images = {path for _, path in find_files(settings.root, settings.train_images, "data.train_images")}
        others = [path for path in others if path not in images]
    if others:
        counted = f"{plural(len(others), 'mask file')} of other classes left out (data.other_classes)"
        lines.append(f"checked   {counted}, such as {others[0]}")
    for name in ("train_images", "train_masks", "test_images"):
        folder = getattr(settings, name)
        if folder and (skipped := skipped_files(settings.root / folder, _suffix_of_masks(settings, folder))):
            lines.append(f"warning   not read in {settings.root / folder}: {skipped} (data.{name})")
    return lines + left_out_lines(settings)


def _suffix_of_masks(settings: DataSettings, folder: str) -> str:
    """The suffix of annotations or a table that are read as masks and lie in a folder of images; empty without any."""
    masks = Path(settings.train_masks)
    return suffix_of(masks) if masks.parent == Path(folder) else ""


def inspect_test(settings: DataSettings) -> str:
    """A line that says whether the test images can be read and match the sample submission.

    Problems are warnings only: the test images may be hidden until the submission.
    """
    if settings.test_images is None:
        return "checked   no test images (data.test_images)"
    try:
        data = open_test(settings)
        require_usable_neighbours(data)
        unreadable = data.unreadable or find_unreadable(data)
        turned = turned_images(data)
    except UserError as error:
        return f"warning   test images: {error}"
    count = len(data.ids) + len(data.unreadable)
    if unreadable:
        then = (
            "their masks are empty"
            if settings.unreadable_test_images == "empty"
            else "04 stops at them unless data.unreadable_test_images=empty is set, which gives them empty masks"
        )
        first = first_problems(unreadable)
        return f"warning   {len(unreadable)} of {count} test images cannot be read: {first}; {then}"
    if turned and settings.orientation is None:
        return (
            f"warning   {len(turned)} of {count} test images have an EXIF orientation other than 1; they are read, and "
            "their masks written, for the pixels as stored (data.orientation)"
        )
    if absent := masks_without_row(data.rows, settings.classes):
        return f"warning   {absent}"
    if doubt := suffix_doubt(settings):
        return f"warning   {doubt}"
    rows = len(data.rows) // len(data.rle_columns)
    return f"checked   {count} test images, {rows} rows of {settings.sample_submission or 'the submission'}"
