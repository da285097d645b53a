"""The settings of `data`: paths of the images and masks, how to read them, the convention of the run lengths."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lib.config.mask_settings import MaskSettings
from lib.config.resize_settings import ResizeSettings
from lib.config.section import NonNegativeInt, PositiveInt, Section, Word, expand_home

MAX_PIXELS = 1_000_000_000  # admits a slide of 30,000 x 30,000
LONGEST_NAME = 200  # bytes of a class or an id; file systems allow 255, suffixes included


class RleSettings(Section):
    """The competition's run-length encoding (RLE): pixel order, first pixel number, words for an empty mask."""

    order: Literal["column", "row"] = "column"  # pixels are numbered down the columns (as on Kaggle) or along the rows
    base: Literal[0, 1] = 1  # number of the first pixel
    starts: Literal["absolute", "relative"] = "absolute"  # relative: a start is the gap since the previous run's end
    empty: Word = ""  # the text of an empty mask, such as -1, - or authentic; an empty cell is always read as one
    also_empty: tuple[Word, ...] = ()  # further texts read as an empty mask, such as nan; never written

    @property
    def blanks(self) -> tuple[str, ...]:
        """All texts that are read as an empty mask, with single spaces between words."""
        return ("", *(" ".join(word.split()) for word in (self.empty, *self.also_empty)))

    @field_validator("empty", "also_empty")
    @classmethod
    def _are_no_masks(cls, value: str | tuple[str, ...]) -> object:
        for word in [value] if isinstance(value, str) else value:
            numbers = word.split()
            is_mask = all(text.isdecimal() for text in numbers) and len(numbers) % 2 == 0 and "0" not in numbers[1::2]
            if numbers and is_mask:
                raise ValueError(f"{word!r} are the run lengths of a mask")
        return value


class NeighbourSettings(Section):
    """Adjacent slices or frames as extra input channels (2.5-D); lib/data/neighbours.py says which are adjacent."""

    order: str | None = None  # the part of train_images that numbers the slices: slice, if it is slice_{slice}_*.png
    reach: PositiveInt = 1  # number of neighbours on each side; 1: the slices before and after
    step: PositiveInt = 1  # distance between them; 2: every other slice

    @model_validator(mode="after")
    def _has_an_order(self) -> "NeighbourSettings":
        if self.order is None and (self.reach, self.step) != (1, 1):
            raise ValueError("order must name the part of the images' pattern that numbers them, as slice of {slice}")
        return self


class DataSettings(Section):
    """Paths of the images and masks, relative to `root`, and how to read them.

    A path may be a pattern: `*`, `?` and `[...]` match as in a shell, `**` matches any folders, and `{name}` captures a
    part of the id, as in `stage1_train/{id}/images/*.png` or `train/{case}/{day}/scans/slice_{slice}_*.png`.
    """

    root: Path = Path("data")
    train_images: str = "train_images"  # a folder or a pattern
    train_masks: str = "train.csv"  # a csv of run lengths; mask files: a folder or a pattern (with {class} for several
    # classes); or annotations: COCO json, jsonl of polygons, or a pattern of labelme json or YOLO txt files
    test_images: str | None = "test_images"  # a folder or a pattern
    sample_submission: str | None = "sample_submission.csv"
    image_id: str = "{id}"  # the id as a template of the pattern's parts, as in {day}_slice_{slice}
    mask_id: str | None = None  # the same for mask files, as in forged_{id}; default: image_id
    test_id: str | None = None  # the same for test images; default: image_id
    classes: Annotated[list[Word], Field(min_length=1)] = ["mask"]  # for mask files also {class: value or colour, ...}
    masks: MaskSettings = Field(default_factory=MaskSettings)

    id_column: str | None = None  # of the csv; default: the first; or a template of columns, as in {subject}_{img}
    rle_column: str | None = None  # of the csv; default: the column called rle, EncodedPixels or the like
    class_column: str | None = None  # default for several classes: one column per class, or ids such as <id>_<class>
    id_pattern: str = "{id}"  # form of the cells of the id column, as in {id}_mask or */{id}; omit image suffixes;
    # further parts, as in {kind}/{id}, are those of image_id; {class}, as in {class}_{id}, is one of the classes
    sample_id_column: str | None = None  # the same for sample_submission; default: as above if it has such columns
    sample_rle_column: str | None = None
    sample_class_column: str | None = None
    sample_id_pattern: str | None = None  # default: id_pattern; for a sample without rows, also what is written
    loose_ids: list[Literal["case", "zeros"]] = []  # differences ignored when matching ids: A and a; 7 and 007
    rle: RleSettings = Field(default_factory=RleSettings)
    rle_factor: PositiveInt = 1  # the training csv encodes masks of images downscaled by this factor; 4: a quarter
    doubtful_rle: Literal["error", "read"] = "error"  # when masks suggest that `rle` is wrong; read: only warn
    compare_masks: str | None = None  # the same masks in the other form, csv or mask files, to verify `rle` against
    instances: bool = False  # several rows or mask files per image: one per object, merged into one mask
    other_classes: Literal["error", "skip"] = "error"  # classes of masks that `classes` does not list
    crowd: Literal["mask", "skip"] | None = None  # COCO crowd regions (iscrowd=1); must be set if there are any
    images_without_mask: Literal["error", "empty", "skip"] = "error"  # empty: train on them with an empty mask
    masks_without_image: Literal["error", "skip"] = "error"
    unreadable_test_images: Literal["error", "empty"] = "error"  # missing or damaged; empty: submit empty masks
    test_images_without_row: Literal["error", "skip"] = "error"  # in the sample; skip: one folder holds all images
    exclude: list[Word] = []  # ids to leave out, such as broken files; * and ? match as in a shell
    group: str | None = None  # shares a fold: a column (default `group`), {case} of a path, id:REGEX, dicom:KEY; none
    group_csv: str | None = None  # csv with the group column and one of the images' ids; default: train_masks

    external: list[dict[str, object]] = []  # extra images with masks for training, never for validation; each source
    # has a weight and the data settings that differ from the run's, see docs/external_data.md

    channels: PositiveInt = 3  # 1 grayscale, 3 RGB, or the number of bands in the files
    plane_files: bool = False  # each channel is a file of its own; an id's files, sorted by name, are its channels
    plane: NonNegativeInt | None = None  # use only this plane of each file, such as a time step of an npy
    neighbours: NeighbourSettings = Field(default_factory=NeighbourSettings)  # adjacent slices or frames as channels
    value_range: tuple[float, float] | Literal["image"] | None = None  # scaled to 0..255; image: each one's min and max
    nodata: tuple[float | Literal["nan"], ...] = ()  # values that mean "no data", as in [-9999, nan]; read as 0
    orientation: Literal["stored", "shown"] | None = None  # for EXIF-rotated images: the pixels that the masks match
    max_pixels: PositiveInt = MAX_PIXELS  # larger images are refused before decoding
    resize: ResizeSettings = Field(default_factory=ResizeSettings)  # the size at which the network sees images
    resize_csv: str | None = None  # csv with resize.column and one of the images' ids; default: train_masks
    resize_test_csv: str | None = None  # the same for the test images

    @model_validator(mode="before")
    @classmethod
    def _classes_with_values(cls, content: object) -> object:
        """`classes: {nucleus: 1}` stands for the class nucleus and masks.values: {nucleus: 1}."""
        if not isinstance(content, dict) or not isinstance(content.get("classes"), dict):
            return content
        masks = content.get("masks") or {}
        if not isinstance(masks, dict):
            return content
        return content | {"classes": list(content["classes"]), "masks": masks | {"values": content["classes"]}}

    @property
    def network_channels(self) -> int:
        """Input channels of the network: those of the image and of its neighbours."""
        return self.channels * (1 if self.neighbours.order is None else 2 * self.neighbours.reach + 1)

    @property
    def are_exclusive(self) -> bool:
        """Whether each pixel has at most one class: one mask file holds several classes, each with its own values."""
        return len(self.classes) > 1 and self.are_indexed and self.masks.are_exclusive

    @property
    def are_indexed(self) -> bool:
        """Whether each mask file holds all classes, distinguished by pixel value."""
        return bool(self.masks.values) and "{class}" not in self.train_masks

    @model_validator(mode="after")
    def _every_class_has_values(self) -> "DataSettings":
        if self.masks.values and self.masks.values.keys() != set(self.classes):
            raise ValueError("classes must be the same as those of masks.values; write classes as a mapping")
        return self

    @field_validator("classes")
    @classmethod
    def _classes_are_folder_names(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) < len(classes):
            raise ValueError("must not name a class twice")
        for name in classes:
            if not name.isprintable() or not name.strip(". ") or "/" in name or "\\" in name:
                raise ValueError(f"class {name!r} cannot be the name of a folder")
            if len(name.encode()) > LONGEST_NAME:
                raise ValueError(f"class {name[:40]!r}... is longer than {LONGEST_NAME} bytes, so no folder's name")
        return classes

    @field_validator(
        "root",
        "train_images",
        "train_masks",
        "test_images",
        "sample_submission",
        "compare_masks",
        "group_csv",
        "resize_csv",
        "resize_test_csv",
    )
    @classmethod
    def _home_folder(cls, path: Path | str | None) -> Path | str | None:
        return expand_home(path)

    @field_validator("id_pattern", "sample_id_pattern")
    @classmethod
    def _has_the_id(cls, pattern: str | None) -> str | None:
        if pattern is not None and "{id}" not in pattern:
            raise ValueError("must say where the {id} stands, as in {id}_mask")
        return pattern

    @field_validator("nodata", mode="before")
    @classmethod
    def _one_or_several(cls, nodata: object) -> object:
        """Accept a single value; YAML's .nan is a float and becomes "nan"."""
        values = nodata if isinstance(nodata, list | tuple) else [] if nodata is None else [nodata]
        return tuple("nan" if value != value else value for value in values)

    @field_validator("value_range")
    @classmethod
    def _low_is_below_high(cls, value_range: object) -> object:
        if isinstance(value_range, tuple) and not value_range[0] < value_range[1]:
            raise ValueError("must be [low, high] with low < high")
        return value_range
