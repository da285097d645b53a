"""The settings: one typed section per concern, in the order of the stages.

A YAML file holds only what differs from the defaults here. `section.key=value` on the command line wins over the
file. An unknown key or a wrong value is a UserError that names the key and, where it can, the nearest valid one.
"""

import difflib
import os
import re
import reprlib
from functools import reduce
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from lib.base.errors import UserError
from lib.base.files import write_text
from lib.config.loss_terms import parse_terms
from lib.config.mask_settings import MaskSettings, PixelValue
from lib.config.section import (
    BelowOne,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
    Word,
)

LONGEST_NAME = 200  # bytes of a class or an id; file systems allow 255, suffixes included


class RleSettings(Section):
    """How a competition writes a mask as run lengths."""

    order: Literal["column", "row"] = "column"  # pixels are numbered down each column, or along each row
    base: Literal[0, 1] = 1  # number of the first pixel
    starts: Literal["absolute", "relative"] = "absolute"  # relative: a start is the gap since the previous run's end
    empty: Word = ""  # what stands for an empty mask, such as -1, - or authentic; a blank is always read as one
    also_empty: tuple[Word, ...] = ()  # other words that are read as empty and never written, such as nan

    @property
    def blanks(self) -> tuple[str, ...]:
        """Everything that is read as an empty mask, with single blanks between words."""
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


class DataSettings(Section):
    """Where the images and masks are and how to read them. Paths are relative to `root`.

    A path may be a pattern: `*`, `?` and `[...]` match as in a shell, and `{name}` stands for a part of the id, as in
    `stage1_train/{id}/images/*.png` or `train/{case}/{day}/scans/slice_{slice}_*.png`; `**` stands for any folders.
    """

    root: Path = Path("data")
    train_images: str = "train_images"  # a folder or a pattern
    train_masks: str = "train.csv"  # a csv of run lengths; mask images: a folder or a pattern (with {class} if many);
    # or annotations: COCO json, jsonl of polygons, or the pattern of labelme json or YOLO txt files
    test_images: str | None = "test_images"  # a folder or a pattern
    sample_submission: str | None = "sample_submission.csv"
    image_id: str = "{id}"  # how the id is put together from the pattern's parts, as in {day}_slice_{slice}
    classes: Annotated[list[Word], Field(min_length=1)] = ["mask"]  # or, of mask files, {class: value or colour, ...}
    masks: MaskSettings = Field(default_factory=MaskSettings)

    id_column: str | None = None  # default: the first column; or a template of columns, as {subject}_{img}
    rle_column: str | None = None  # default: the one that is called rle, EncodedPixels or the like
    class_column: str | None = None  # default for several classes: a column each, or <id>_<class> in the id column
    id_pattern: str = "{id}"  # what the id column holds, as in {id}_mask or */{id}; image suffixes need no mention
    sample_id_column: str | None = None  # the same of sample_submission; default: as above if it has such columns
    sample_rle_column: str | None = None
    sample_class_column: str | None = None
    sample_id_pattern: str | None = None  # default: id_pattern
    loose_ids: list[Literal["case", "zeros"]] = []  # how ids may differ from the images': A and a, 7 and 007
    rle: RleSettings = Field(default_factory=RleSettings)
    rle_factor: PositiveInt = 1  # run lengths of training masks are those of images so many times smaller
    compare_masks: str | None = None  # the same masks in the other form, csv or images, to check `rle` by
    instances: bool = False  # several rows or mask files of one image are its objects, put together into one mask
    other_classes: Literal["error", "skip"] = "error"  # classes of annotation files that `classes` does not name
    crowd: Literal["mask", "skip"] | None = None  # COCO's regions of objects not told apart; say it if there are any
    images_without_mask: Literal["error", "empty", "skip"] = "error"
    masks_without_image: Literal["error", "skip"] = "error"
    unreadable_test_images: Literal["error", "empty"] = (
        "error"  # absent or damaged; empty: their rows are written empty
    )
    exclude: list[Word] = []  # ids to leave out, such as broken files; * and ? match as in a shell
    group: str | None = None  # a column (default: `group` if any), {case} of the pattern, id:REGEX, dicom:PatientID
    group_csv: str | None = None  # the csv that holds the group column, ids in its first column; default: train_masks

    channels: PositiveInt = 3  # 1 gray, 3 RGB, or as many as the files have
    plane_files: bool = False  # the files of one id, as many as channels, are its planes, in the order of their names
    plane: NonNegativeInt | None = None  # use only this plane of each file, such as a time step of an npy
    value_range: tuple[float, float] | Literal["image"] | None = None  # made 0..255; image: its own min to max
    max_pixels: PositiveInt = 1_000_000_000  # larger images are refused before they are decoded

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
    def are_exclusive(self) -> bool:
        """Whether a pixel is of one class at most: several classes in one mask file, by values of their own."""
        return len(self.classes) > 1 and self.are_indexed and self.masks.are_exclusive

    @property
    def are_indexed(self) -> bool:
        """Whether each mask file holds all classes, told apart by its values."""
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
        "root", "train_images", "train_masks", "test_images", "sample_submission", "compare_masks", "group_csv"
    )
    @classmethod
    def _home_folder(cls, path: Path | str | None) -> Path | str | None:
        return type(path)(os.path.expanduser(path)) if path else path

    @field_validator("id_pattern", "sample_id_pattern")
    @classmethod
    def _has_the_id(cls, pattern: str | None) -> str | None:
        if pattern is not None and "{id}" not in pattern:
            raise ValueError("must say where the {id} stands, as in {id}_mask")
        return pattern

    @field_validator("value_range")
    @classmethod
    def _low_is_below_high(cls, value_range: object) -> object:
        if isinstance(value_range, tuple) and not value_range[0] < value_range[1]:
            raise ValueError("must be [low, high] with low < high")
        return value_range


FORMATS = ("csv", "png", "tif", "coco", "coco_results")


class SubmissionSettings(Section):
    """What is uploaded. Columns, ids and their order come from data.sample_submission, run lengths from data.rle."""

    format: str = "csv"  # csv | png | tif | coco | coco_results | FILE.py:FUNCTION, see docs/notebook.md
    rows: Literal["mask", "instance"] = "mask"  # one row per image (and class), or one per connected object
    text: Literal["plain", "json"] = "plain"  # of run lengths: 12 3, or [12, 3] with all objects of an image in one row
    pixels: list[PixelValue] | None = None  # of png and tif: value or colour of each class; default: as data.classes
    size: tuple[PositiveInt, PositiveInt] | None = None  # height and width of the masks; default: each image's own

    @field_validator("format")
    @classmethod
    def _known_format(cls, format: str) -> str:
        if format not in FORMATS and not re.fullmatch(r".+\.py:[A-Za-z_]\w*", format):
            raise ValueError(f"must be one of {', '.join(FORMATS)}, or FILE.py:FUNCTION")
        return format

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


class ModelSettings(Section):
    """The network: an smp architecture on a timm encoder."""

    architecture: str = "unet"  # unet++, manet, linknet, fpn, pspnet, deeplabv3+, pan, upernet, segformer, ...
    encoder: str = "tf_efficientnet_lite0"  # timm's name
    weights: str = "imagenet"  # imagenet | random | a .safetensors or .pth file | a run, fold by fold, as runs/a
    decoder_channels: list[PositiveInt] | PositiveInt | None = None  # deep to shallow (unet, manet), or one width
    dropout: BelowOne = 0.0  # of the decoder's last feature maps, whole maps at a time


AUGMENT_PRESETS = {
    "none": {},
    "light": {"horizontal_flip": 0.5, "vertical_flip": 0.5},
    "medium": {
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "rotate90": 0.5,
        "rotate": 0.5,
        "rotate_degrees": 15,
        "scale": 0.1,
        "contrast": 0.5,
        "contrast_range": 0.2,
        "sharpen": 0.2,
    },
    "heavy": {
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "rotate90": 0.5,
        "rotate": 0.8,
        "rotate_degrees": 45,
        "scale": 0.25,
        "distort": 0.3,
        "contrast": 0.7,
        "contrast_range": 0.3,
        "gamma": 0.3,
        "clahe": 0.2,
        "sharpen": 0.2,
        "blur": 0.2,
        "noise": 0.2,
        "dropout": 0.3,
    },
}


class AugmentSettings(Section):
    """Chances (0 to 1) and strengths of the random changes made to a training image.

    What is not set is the preset's, and 0 where AUGMENT_PRESETS does not name it: `augment.strengths` has the sum.
    """

    preset: Literal["none", "light", "medium", "heavy"] = "medium"
    horizontal_flip: Probability | None = None
    vertical_flip: Probability | None = None
    rotate90: Probability | None = None  # quarter turns, where the crops are square
    rotate: Probability | None = None  # by up to rotate_degrees, with a change of scale
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] | None = None
    scale: BelowOne | None = None  # .1: from 90 % to 110 % of the size
    distort: Probability | None = None  # elastic or a bent grid; 6 ms for 256 x 256 pixels, all others under 1 to 3
    contrast: Probability | None = None  # contrast and brightness, each by up to contrast_range
    contrast_range: BelowOne | None = None
    gamma: Probability | None = None  # exponents from .7 to 1.4
    clahe: Probability | None = None  # local histogram equalisation, of images of 1 or 3 channels; 10 ms in colour
    sharpen: Probability | None = None
    blur: Probability | None = None  # of a camera out of focus, or moving by up to 7 pixels
    noise: Probability | None = None  # Gaussian, of 2 % to 8 % of the range
    dropout: Probability | None = None  # 1 to 6 black patches of 5 % to 20 % of a side; the mask keeps what they hide

    @property
    def strengths(self) -> dict[str, float]:
        """Every chance and strength: those set, then the preset's."""
        absent = {name: 0.0 for name in AugmentSettings.model_fields if name != "preset"}
        return absent | AUGMENT_PRESETS[self.preset] | self.model_dump(exclude={"preset"}, exclude_none=True)


class LossSettings(Section):
    """What is minimised: a weighted sum of terms, such as `dice + focal + 0.1*boundary`, or `bce`."""

    terms: str = "3*dice + focal + 10*boundary"  # docs/losses.md has the comparison
    region: Literal["image", "batch"] = "image"  # dice and tversky: per image, as scored, or pixels of a batch pooled
    tversky_beta: Probability = 0.7  # weight of missed truth; false alarms have the rest
    focal_gamma: Annotated[float, Field(ge=1, le=5)] = 2.0  # how little the easy pixels count
    focal_alpha: Probability | None = None  # weight of mask pixels; the others have the rest
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0  # of bce and border_bce
    border_weight: NonNegativeFloat = 10.0  # border_bce: how much more a pixel on the border counts
    border_width: PositiveFloat = 5.0  # border_bce: pixels
    boundary_schedule: Literal["constant", "ramp", "rebalance"] = "ramp"

    @field_validator("terms")
    @classmethod
    def _known_terms(cls, terms: str) -> str:
        parse_terms(terms)
        return terms


class TrainSettings(Section):
    """How one model per fold is fitted."""

    epochs: PositiveInt = 30
    batch_size: PositiveInt = 16
    accumulate: PositiveInt = 1  # batches whose gradients make one step: large batches in the memory of small ones
    crop_size: PositiveInt = 256
    crops_per_image: PositiveInt = 1  # in an epoch; more for few and large images
    cache_mb: NonNegativeInt = 256  # decoded images kept by each loader process
    foreground_share: Probability = 0.33  # of crops lie around a mask pixel
    empty_share: BelowOne | tuple[BelowOne, BelowOne] | None = None  # of an epoch's images, at most, or [first, last]
    pseudo_labels: Path | None = None  # a run after 04, whose sure test masks are learned from too; never validated on
    pseudo_agreement: Probability = 0.95  # Dice of a test image's masks at thresholds .2 below and above; less: unsure
    lr: PositiveFloat = 1e-3
    encoder_lr_factor: PositiveFloat = 1.0
    freeze_epochs: NonNegativeInt = 0  # first ones, in which the encoder stays as it is, batch-norm statistics too
    weight_decay: NonNegativeFloat = 0.01
    warmup_share: Probability = 0.1
    clip_norm: PositiveFloat = 1.0
    ema_decay: BelowOne = 0.99  # of the averaged weights, which are kept, as SWA's would be
    keep: Literal["last", "best"] = "last"  # epoch; best is chosen on the left-out images: their score flatters
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False  # the network, by torch.compile: each fold then begins with a minute or more of compiling
    workers: NonNegativeInt | None = None  # loader processes; null: one a core, or without a GPU one in four
    seed: NonNegativeInt = 0
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"  # gets each epoch's numbers


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

    @property
    def steps_to_try(self) -> PostprocessSettings:
        """Of classes that exclude each other only steps that take pixels away: others would make masks overlap."""
        if not self.data.are_exclusive:
            return self.postprocess
        steps = [step for step in self.postprocess.steps if step not in GROWING_STEPS]
        return self.postprocess.model_copy(update={"steps": steps})


def check_settings(content: dict, source: Path) -> Settings:
    """Validate a plain mapping. Raises UserError that names every wrong key."""
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(error.errors(), content)}") from None


def save_settings(settings: Settings, path: Path) -> None:
    """Write the resolved settings as YAML, in the order of the sections."""
    write_text(path, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


def _explain(problems: list[dict], content: dict) -> str:
    """A clause for each wrong setting: its dotted key, its value and what is wrong; of an unknown one the nearest key.

    Where a setting may be of several kinds, pydantic says of each kind why it is not that one.
    """
    clauses, wrong = [], {}
    for problem in problems:
        location = [str(part) for part in problem["loc"]]
        if problem["type"] == "extra_forbidden":
            known = _fields_at(location[:-1])
            nearest = difflib.get_close_matches(location[-1], known, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(known)}"
            clauses.append(f"unknown setting '{'.'.join(location)}', {hint}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            wrong.setdefault(_setting_at(location), []).append(f"{message[0].lower()}{message[1:]}")
    for keys, said in wrong.items():
        if keys[:3] == ("data", "masks", "values"):
            keys = ("data", "classes")  # as written; see DataSettings
        value = reduce(lambda place, key: place.get(key), keys, content)
        clauses.append(f"setting '{'.'.join(keys)}' = {_shown(value)}: {', or '.join(said)}")
    return "; ".join(clauses)


def _setting_at(location: list[str]) -> tuple[str, ...]:
    """The keys of the setting that a place is in or below."""
    depth = 1
    while depth < len(location) and location[depth] in _fields_at(location[:depth]):
        depth += 1
    return tuple(location[:depth])


def _shown(value: object) -> str:
    """A value from the file, cut short: YAML's references can make a few lines stand for gigabytes."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 80, 80
    return short.repr(value)


def _fields_at(sections: list[str]) -> list[str]:
    """Names of the settings in a section, by its dotted path."""
    model = Settings
    for section in sections:
        field = model.model_fields.get(section)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            return []
        model = field.annotation
    return list(model.model_fields)
