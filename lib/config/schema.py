"""All settings of a run, one typed section per subject, in the order of the stages.

A YAML file lists only the settings that differ from these defaults. `section.key=value` on the command line overrides
the file.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lib.config.data_settings import DataSettings
from lib.config.external_source import external_sources
from lib.config.mask_settings import PixelValue
from lib.config.section import NonNegativeInt, PositiveFloat, PositiveInt, Section, expand_home
from lib.config.training_settings import AugmentSettings, LossSettings, ModelSettings, TrainSettings

FORMATS = ("csv", "png", "tif", "coco", "coco_results")


class SubmissionSettings(Section):
    """The file to upload. data.sample_submission sets columns, ids and row order, data.rle the RLE convention."""

    format: str = "csv"  # csv | png | tif | coco | coco_results | FILE.py:FUNCTION, see docs/notebook.md
    rows: Literal["mask", "instance"] = "mask"  # one row per image (and class), or one per object
    text: Literal["plain", "json"] = "plain"  # run lengths as 12 3, or as [12, 3] with all objects of an image in a row
    file_name: str = "{id}"  # name of png and tif files without the suffix, as in {id}_segmentation
    pixels: list[PixelValue] | None = None  # png and tif: value or colour of each class; default: as in data.classes
    size: tuple[PositiveInt, PositiveInt] | None = None  # height and width of the masks; default: those of each image

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
    """Splitting maps into objects and scoring them; used when submission.rows is `instance`."""

    metric: Literal["ap", "f_beta"] = "ap"  # per image, mean over IoU limits of TP / (TP + FP + FN), or of F-beta
    beta: PositiveFloat = 2.0  # of f_beta: above 1, recall counts more than precision
    depths: list[PositiveInt] = [2, 4]  # candidates, pixels: cut objects joined by a neck thinner than twice this
    rises: list[Annotated[int, Field(ge=1, le=254)]] = [48, 96]  # candidates, of 255: cut between higher peaks
    areas: list[NonNegativeInt] = [0, 8, 32, 128]  # candidates, pixels: drop smaller objects
    images: PositiveInt = 1000  # the most images used to choose; the score is of all


class FoldSettings(Section):
    """The split of the training images into folds."""

    count: Annotated[int, Field(ge=2, le=50)] = 5
    seed: NonNegativeInt = 0
    near_duplicates: bool = True  # near-identical images share a fold; exact copies and groups always do
    hidden_groups: Literal["auto", "warn", "off"] = "auto"  # without data.group: search ids, file metadata and pixels
    # for images of one scene; auto: they share a fold; warn: only report them
    given: str | None = None  # a table below data.root: a column of ids, and `fold`, 0 to count - 1

    @field_validator("given")
    @classmethod
    def _home_folder(cls, path: str | None) -> str | None:
        return expand_home(path)


class ThresholdSettings(Section):
    """The choice of the probability threshold on the out-of-fold maps."""

    metric: Literal["dice", "dice_global", "iou", "iou_sweep", "f_beta"] = "dice"  # see lib/masks/metrics.py
    beta: PositiveFloat = 1.0  # of f_beta: above 1, recall counts more than precision
    rule: Literal["threshold", "triplet"] = "threshold"  # triplet: (top, area, bottom), see lib/masks/rules.py
    bootstrap: Annotated[int, Field(ge=100)] = 1000  # resamples for the confidence interval of the score


class InferSettings(Section):
    """Prediction of the probability maps, out-of-fold and test."""

    tta: Literal["none", "hflip", "flips", "d4"] = "flips"  # test-time augmentation: mean of 1, 2, 4 or 8 views
    average: Literal["probabilities", "logits"] = "probabilities"  # of views and folds; logits: certain models dominate
    margin: NonNegativeInt = 16  # pixels of reflection padding, cropped off again: the network errs more at borders
    batch_size: PositiveInt = 16
    window: Annotated[int, Field(ge=256, multiple_of=256)] = 1024  # pixels; larger images use a sliding window
    overlap: Annotated[float, Field(ge=0.1, le=0.5)] = 0.25  # share of a window that overlaps the next; blended


GROWING_STEPS = ("closing", "dilation", "fill", "hull")


class PostprocessSettings(Section):
    """Morphology candidates, tried on the out-of-fold masks; a step is adopted only for a sure gain."""

    steps: list[Literal["opening", "closing", "dilation", "erosion", "fill", "remove", "largest", "hull"]] = [
        "opening",
        "closing",
        "dilation",
        "erosion",
        "fill",
        "remove",
        "largest",
    ]
    radii: list[PositiveInt] = [1, 2, 4, 8]  # pixels, for opening, closing, dilation and erosion
    areas: list[PositiveInt] = [16, 64, 256, 1024, 4096]  # pixels: largest hole filled, smallest component kept
    # powers suit any image size: 4096 is 40 % of an image of 100 x 100 pixels and .4 % of one of 1000 x 1000


class EnsembleSettings(Section):
    """Runs whose maps this run averages instead of training; data and folds are those of the members."""

    members: list[Path] = []  # run folders with the same folds, such as [runs/a, runs/b]
    weights: Literal["equal", "search"] | list[PositiveFloat] = "equal"  # search: the best out-of-fold score

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
    def _external_sources_are_known(self) -> "Settings":
        external_sources(self.data)
        return self

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
        """The steps to try; for exclusive classes only those that remove pixels, since grown masks could overlap."""
        if not self.data.are_exclusive:
            return self.postprocess
        steps = [step for step in self.postprocess.steps if step not in GROWING_STEPS]
        return self.postprocess.model_copy(update={"steps": steps})
