"""All settings of a run: one typed section per concern, in the order of the stages.

A YAML file holds only what differs from the defaults here. `section.key=value` on the command line wins over the file.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lib.config.data_settings import DataSettings
from lib.config.mask_settings import PixelValue
from lib.config.section import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
)
from lib.config.training_settings import AugmentSettings, LossSettings, ModelSettings, TrainSettings

FORMATS = ("csv", "png", "tif", "coco", "coco_results")


class SubmissionSettings(Section):
    """What is uploaded. Columns, ids and their order come from data.sample_submission, run lengths from data.rle."""

    format: str = "csv"  # csv | png | tif | coco | coco_results | FILE.py:FUNCTION, see docs/notebook.md
    rows: Literal["mask", "instance"] = "mask"  # one row per image (and class), or one per connected object
    text: Literal["plain", "json"] = "plain"  # of run lengths: 12 3, or [12, 3] with all objects of an image in one row
    file_name: str = "{id}"  # of png and tif, without the suffix, as in {id}_segmentation
    pixels: list[PixelValue] | None = None  # of png and tif: value or colour of each class; default: as data.classes
    size: tuple[PositiveInt, PositiveInt] | None = None  # height and width of the masks; default: each image's own

    @field_validator("format")
    @classmethod
    def _known_format(cls, format: str) -> str:
        if format not in FORMATS and not re.fullmatch(r".+\.py:[A-Za-z_]\w*", format):
            raise ValueError(f"must be one of {', '.join(FORMATS)}, or FILE.py:FUNCTION")
        return format

    @field_validator("file_name")
    @classmethod
    def _name_holds_the_id(cls, name: str) -> str:
        around = name.split("{id}")
        if len(around) != 2 or set("".join(around)) & set("{}/\\"):
            raise ValueError("must be a file name with {id} in it once, as in {id}_segmentation")
        return name

    @model_validator(mode="after")
    def _pixels_are_of_one_kind(self) -> "SubmissionSettings":
        if self.pixels and len({type(value) for value in self.pixels}) > 1:
            raise ValueError("pixels must be values or colours, not both")
        if any(isinstance(value, int) and not 0 <= value <= 255 for value in self.pixels or ()):
            raise ValueError("pixels must be from 0 to 255")
        return self

    @model_validator(mode="after")
    def _objects_keep_their_size(self) -> "SubmissionSettings":
        if self.rows == "instance" and self.size is not None:
            raise ValueError("size cannot be set where rows is instance")
        return self


class ObjectSettings(Section):
    """How maps become objects, and how objects are scored, where submission.rows is `instance`."""

    metric: Literal["ap", "f_beta"] = "ap"  # per image and IoU limit: TP / (TP + FP + FN), or the F-beta score
    beta: PositiveFloat = 2.0  # of f_beta: above 1 misses cost more, below 1 false alarms do
    depths: list[PositiveInt] = [2, 4]  # pixels; objects joined by a neck thinner than twice this may be cut apart
    rises: list[Annotated[int, Field(ge=1, le=254)]] = [48, 96]  # of 255; so may objects whose peaks rise that much
    areas: list[NonNegativeInt] = [0, 8, 32, 128]  # pixels; smaller objects are dropped
    images: PositiveInt = 1000  # at most so many are used to choose; all are scored


class FoldSettings(Section):
    """How the training images are split."""

    count: Annotated[int, Field(ge=2, le=50)] = 5
    seed: NonNegativeInt = 0
    near_duplicates: bool = True  # images that look the same share a fold; exact copies and groups always do
    hidden_groups: Literal["auto", "warn", "off"] = "auto"  # without data.group: scenes found by ids, files and images
    # share a fold, or are only reported, or not looked for

    @field_validator("hidden_groups", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, value: object) -> object:
        return "off" if value is False else value


class ThresholdSettings(Section):
    """How the probability threshold is chosen from the out-of-fold maps."""

    metric: Literal["dice", "dice_global", "iou", "iou_sweep", "f_beta"] = "dice"
    beta: PositiveFloat = 1.0  # of f_beta: above 1 misses cost more, below 1 false alarms do
    rule: Literal["threshold", "triplet"] = "threshold"  # triplet: (top, area, bottom), see lib/masks/rules.py
    bootstrap: Annotated[int, Field(ge=100)] = 1000


class InferSettings(Section):
    """How maps are predicted, out-of-fold and for the test images alike."""

    tta: Literal["none", "hflip", "flips", "d4"] = "flips"  # 1, 2, 4 or 8 views, averaged; each costs a pass
    average: Literal["probabilities", "logits"] = "probabilities"  # of views and folds; logits favour the certain
    margin: NonNegativeInt = 16  # pixels mirrored around an image, whose border a network knows less; then cut off
    batch_size: PositiveInt = 16
    window: Annotated[int, Field(ge=256, multiple_of=256)] = 1024  # pixels; larger images go window by window
    overlap: Annotated[float, Field(ge=0.1, le=0.5)] = 0.25  # of the window, shared by neighbours and blended


GROWING_STEPS = ("closing", "dilation", "fill", "hull")


class PostprocessSettings(Section):
    """Which morphology is tried on the out-of-fold masks."""

    steps: list[Literal["opening", "closing", "dilation", "erosion", "fill", "remove", "largest", "hull"]] = [
        "opening",
        "closing",
        "dilation",
        "erosion",
        "fill",
        "remove",
        "largest",
    ]
    radii: list[PositiveInt] = [1, 2, 4, 8]  # pixels; powers of two serve maps of 100 as of 1000 pixels a side
    areas: list[PositiveInt] = [16, 64, 256, 1024, 4096]  # pixels; so do these: 40 % of a side of 100, .4 % of 1000


class EnsembleSettings(Section):
    """For a run that averages the maps of other runs instead of training; its data and folds are theirs."""

    members: list[Path] = []  # run folders on the same folds, such as [runs/a, runs/b]
    weights: Literal["equal", "search"] | list[PositiveFloat] = "equal"  # search: what scores best out of fold

    @model_validator(mode="after")
    def _members_and_weights_agree(self) -> "EnsembleSettings":
        if len(set(self.members)) != len(self.members) or len(self.members) == 1:
            raise ValueError("members must be two runs or more, none of them twice")
        if isinstance(self.weights, list) and len(self.weights) != len(self.members):
            raise ValueError(f"weights has {len(self.weights)} numbers for {len(self.members)} members")
        return self


class Settings(Section):
    """All settings of a run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the run's folder below runs/")
    data: DataSettings = Field(default_factory=DataSettings)
    folds: FoldSettings = Field(default_factory=FoldSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    augment: AugmentSettings = Field(default_factory=AugmentSettings)
    loss: LossSettings = Field(default_factory=LossSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    ensemble: EnsembleSettings = Field(default_factory=EnsembleSettings)
    threshold: ThresholdSettings = Field(default_factory=ThresholdSettings)
    infer: InferSettings = Field(default_factory=InferSettings)
    postprocess: PostprocessSettings = Field(default_factory=PostprocessSettings)
    objects: ObjectSettings = Field(default_factory=ObjectSettings)
    submission: SubmissionSettings = Field(default_factory=SubmissionSettings)

    @model_validator(mode="after")
    def _each_class_has_its_pixels(self) -> "Settings":
        pixels, classes = self.submission.pixels, self.data.classes
        if pixels and len(pixels) != len(classes):
            raise ValueError(f"submission.pixels has {len(pixels)} values for {len(classes)} classes")
        return self

    @model_validator(mode="after")
    def _neighbours_are_no_colours(self) -> "Settings":
        if self.data.neighbours.order and self.augment.strengths["clahe"]:
            raise ValueError(
                "augment.clahe would take the channels of data.neighbours for colours; set augment.clahe=0"
            )
        return self

    @property
    def steps_to_try(self) -> PostprocessSettings:
        """Of classes that exclude each other only steps that take pixels away: others would make masks overlap."""
        if not self.data.are_exclusive:
            return self.postprocess
        steps = [step for step in self.postprocess.steps if step not in GROWING_STEPS]
        return self.postprocess.model_copy(update={"steps": steps})
