"""A competition's data: training images with masks and groups, test images with the rows of the submission.

Opening lists the files and reads the tables; images and masks are read on demand. The run lengths of the masks stay in
memory as text. The objects can be pickled: each loader process holds a copy.
"""

import numpy as np

from lib.base.errors import UserError, or_none
from lib.config.data_settings import DataSettings
from lib.data.annotation_masks import annotated_union
from lib.data.discovery import NothingFound
from lib.data.groups import read_groups
from lib.data.id_match import match_ids
from lib.data.image_index import list_images, refuse_masks, require_images
from lib.data.images import Images, Unreadable
from lib.data.mask_index import (
    Masks,
    check_single,
    index_masks,
    is_annotations,
    is_rle_table,
    is_table,
    match_masks,
    paths_of_masks,
    read_masks_table,
)
from lib.data.resize_column import values_of_test, values_of_training
from lib.data.sample_submission import SubmissionRow, masks_without_row, match_sample, read_sample
from lib.data.unreadable import find_unreadable, first_problems
from lib.data.written_sizes import written_sizes
from lib.images.mask_files import MaskFile, objects_of_files, read_mask_files, stacked, union_of_files
from lib.masks.metrics import IGNORED, planes
from lib.masks.morphology import components
from lib.masks.resize import Size
from lib.masks.rle import decode_union


class TrainingData(Images):
    """Training images with their masks. `groups` maps ids to the names of their groups, or is None.

    `without_mask` and `without_image` are the numbers of images and masks left out because they have no counterpart.
    `written_sizes` are those that the csv of run lengths names.
    """

    def __init__(
        self,
        settings: DataSettings,
        files: dict[str, list[str]],
        masks: Masks,
        groups: dict[str, str] | None,
        resize_values: dict[str, float] | None = None,
        without_mask: int = 0,
        without_image: int = 0,
        written_sizes: dict[str, Size] | None = None,
    ):
        super().__init__(settings, files, resize_values)
        self.written_sizes = written_sizes or {}
        self.groups = groups
        self.without_mask = without_mask
        self.without_image = without_image
        self._masks = masks

    @property
    def pattern(self) -> tuple[str, str]:
        """The pattern by which the images are listed, and its setting."""
        return self.settings.train_images, "data.train_images"

    def pieces(self, image_id: str) -> list[list[str]]:
        """For each class the run lengths, or the paths of the mask files, that make up the image's mask."""
        return self._masks[image_id]

    def read_mask(self, image_id: str, files: list[MaskFile] | None = None) -> np.ndarray:
        """Mask uint8 (height, width, classes) of the image's size: 0, 1, or IGNORED (data.masks.ignore).

        `files` is the result of `mask_files`, if it is there already. Raises UserError naming the table and the id, or
        the mask file, if the mask cannot be read or does not fit the image.
        """
        shape = self.image_size(image_id)
        if not self.has_table:
            return union_of_files(self.mask_files(image_id) if files is None else files, self.settings, shape)
        masks = [self._decode(image_id, texts, shape) for texts in self._masks[image_id]]
        return stacked(masks)

    def mask_files(self, image_id: str) -> list[MaskFile]:
        """The image's mask files, decoded. Raises UserError naming the file, as read_mask does."""
        shape, image_path = self.image_size(image_id), self.image_path(image_id)
        return read_mask_files(self._masks[image_id], self.settings, shape, image_path)

    def read_objects(self, image_id: str) -> np.ndarray:
        """Objects int32 (height, width, classes), numbered from 1 in each class, 0 being background, -1 ignored.

        With data.instances each row, or each number in a mask file, is an object; where two overlap, the later one
        wins. Otherwise the objects are the connected components of the mask. Raises UserError as read_mask does.
        """
        shape = self.image_size(image_id)
        if self.settings.instances and not self.has_table:
            return objects_of_files(self.mask_files(image_id), self.settings, shape)
        labels = np.zeros((*shape, len(self.classes)), np.int32)
        if self.settings.instances:
            for class_index, texts in enumerate(self._masks[image_id]):
                for number, text in enumerate(texts, start=1):
                    labels[self._decode(image_id, [text], shape) > 0, class_index] = number
        else:
            for class_index, mask in enumerate(planes(self.read_mask(image_id))):
                objects, _ = components((mask == 1).view(np.uint8))
                labels[:, :, class_index] = np.where(mask == IGNORED, -1, objects)
        return labels

    @property
    def has_table(self) -> bool:
        """Whether the masks are texts (run lengths or annotations) instead of files."""
        return is_table(self.settings.train_masks)

    def _decode(self, image_id: str, texts: list[str], shape: tuple[int, int]) -> np.ndarray:
        """Mask uint8 0/1 (height, width), the union of the texts."""
        try:
            if is_annotations(self.settings.train_masks):
                return annotated_union(texts, shape)
            return decode_union(texts, shape, self.settings.rle, self.settings.rle_factor)
        except UserError as error:
            table = self.settings.root / self.settings.train_masks
            raise UserError(f"{table}, mask of '{image_id}' ({self.image_path(image_id)}): {error}") from None


class TestData(Images):
    """Test images with the columns and rows of the submission, in order."""

    __test__ = False  # not a test, whatever pytest makes of its name

    def __init__(
        self,
        settings: DataSettings,
        files: dict[str, list[str]],
        columns: list[str],
        rle_columns: list[int],
        rows: list[SubmissionRow],
        unreadable: dict[str, Unreadable],
        resize_values: dict[str, float] | None = None,
    ):
        super().__init__(settings, files, resize_values, unreadable)
        self.columns = columns
        self.rle_columns = rle_columns  # one, or one of each class
        self.rows = rows  # including those of unreadable images

    @property
    def warning(self) -> str | None:
        """The test images and masks that do not reach the submission, and the reasons; None if all do."""
        if not self.rows:
            return "there are neither test images nor rows in the sample, so the submission has only a header"
        if not self.unreadable:
            return masks_without_row(self.rows, self.settings.classes)
        bad, count = len(self.unreadable), len(self.ids) + len(self.unreadable)
        return f"{bad} of {count} test images cannot be read, their masks are empty: {first_problems(self.unreadable)}"


def open_training(settings: DataSettings) -> TrainingData:
    """List the training images and match them with their masks and groups.

    Raises UserError for missing files or tables, for ids that do not match, listing the first ones and their number,
    and for settings that do not fit the data.
    """
    require_images(settings, settings.train_images, "data.train_images")  # before the masks, which come second
    table = read_masks_table(settings, "data.train_masks") if is_rle_table(settings.train_masks) else None
    masks = index_masks(settings, table)
    files, parts, excluded = list_images(
        settings, settings.train_images, "data.train_images", paths_of_masks(masks, settings)
    )
    masks, without_mask, without_image = match_masks(masks, table, files, settings, excluded)
    files = {image_id: files[image_id] for image_id in masks}
    groups, resize_values = read_groups(settings, table, files, parts), values_of_training(settings, files, table)
    sizes = {} if table is None else written_sizes(table, files, settings)
    return TrainingData(settings, files, masks, groups, resize_values, without_mask, without_image, sizes)


def open_compared(training: TrainingData) -> TrainingData:
    """The same images with the masks of data.compare_masks, if they have one there. Raises as open_training does."""
    settings = training.settings.model_copy(update={"train_masks": training.settings.compare_masks})
    setting = "data.compare_masks"
    table = read_masks_table(settings, setting) if is_rle_table(settings.train_masks) else None
    masks = index_masks(settings, table, setting)
    image_of = match_ids(masks, training.files, settings.loose_ids, setting)
    known = {image_of[name]: pieces for name, pieces in masks.items() if image_of[name] in training.files}
    check_single(known, settings, f"masks in {setting}")
    return TrainingData(settings, {image_id: training.files[image_id] for image_id in known}, known, None)


def open_test(settings: DataSettings, find_damaged: bool = True) -> TestData:
    """List the test images and match them with the sample submission.

    Without a sample, or with one that has only a header, there is a row for each image and class in the order of the
    ids. Raises UserError if images and sample do not match, listing the first ids and their number. With
    data.unreadable_test_images=empty images may be missing, a sample that has only a header needs no image at all, and
    every image is decoded once to find the damaged ones, unless the caller does without (`find_damaged`).
    """
    if settings.test_images is None:
        raise UserError(
            "data.test_images is not set, so there is nothing to predict: 05 ends with the score; to predict "
            "new images, set it to their folder or pattern"
        )
    files = _test_files(settings)
    sample, unreadable = read_sample(settings), {}
    if not sample.rows:
        refuse_masks(files, settings)
    rows = match_sample(sample, files, settings)
    wanted = {row.id for row in rows}
    files = {image_id: paths for image_id, paths in files.items() if image_id in wanted}
    if settings.unreadable_test_images == "empty":
        unreadable = find_unreadable(Images(settings, files)) if find_damaged else {}
        files = {image_id: paths for image_id, paths in files.items() if image_id not in unreadable}
        absent = sorted({row.id for row in rows} - files.keys() - unreadable.keys())
        unreadable |= {image_id: Unreadable(f"'{image_id}' has no file") for image_id in absent}
        if unreadable and not files:
            raise UserError(f"none of the {len(unreadable)} test images can be read: {first_problems(unreadable)}")
    resize_values = values_of_test(settings, files)
    return TestData(settings, files, sample.names, sample.rle_columns, rows, unreadable, resize_values)


def open_test_if_there(settings: DataSettings) -> TestData | None:
    """The test images, damaged ones too; None where there are none, or errors, of which `inspect_test` tells."""
    return or_none(open_test, settings, False)


def _test_files(settings: DataSettings) -> dict[str, list[str]]:
    """The files of the test images; none if the competition hides both the images and the rows until the submission."""
    try:
        return list_images(settings, settings.test_images, "data.test_images").files
    except NothingFound:
        may_be_hidden = settings.unreadable_test_images == "empty" and settings.sample_submission
        if not may_be_hidden or read_sample(settings).rows:
            raise
        return {}
