"""The settings of a training: `model`, `augment`, `loss` and `train`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from lib.config.loss_terms import parse_terms
from lib.config.section import (
    BelowOne,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
)


class ModelSettings(Section):
    """The network: an smp architecture on an encoder."""

    architecture: str = "unet"  # unet++, manet, linknet, fpn, pspnet, deeplabv3+, pan, upernet, segformer, ...
    encoder: str = "tf_efficientnet_lite0"  # timm's name, or smp's mit_b0 to mit_b5
    weights: str = "imagenet"  # imagenet | random | a .safetensors or .pth file | a run, fold by fold, as runs/a
    decoder_channels: list[PositiveInt] | PositiveInt | None = None  # deep to shallow (unet, manet), or one width
    dropout: BelowOne = 0.0  # of the decoder's last feature maps, whole maps at a time
    presence: NonNegativeFloat = 0.0  # weight in the loss of a head that tells which classes an image holds; 0: no head


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
    freeze_epochs: NonNegativeInt | Literal["all"] = 0  # first ones, that leave the encoder and its statistics alone
    lora_rank: NonNegativeInt = 0  # above 0, only updates of this rank learn in the encoder, of its linear layers
    weight_decay: NonNegativeFloat = 0.01
    warmup_share: Probability = 0.1
    clip_norm: PositiveFloat = 1.0
    ema_decay: BelowOne = 0.99  # of the averaged weights, which are kept, as SWA's would be
    all_images: bool = False  # one more model, of all images, which 04 averages in; no score is of it
    keep: Literal["last", "best"] = "last"  # epoch; best is chosen on the left-out images: their score flatters
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False  # the network, by torch.compile: each fold then begins with a minute or more of compiling
    workers: NonNegativeInt | None = None  # loader processes; null: one a core, or without a GPU one in four
    seed: NonNegativeInt = 0
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"  # gets each epoch's numbers

    @field_validator("lora_rank")
    @classmethod
    def _updates_may_learn(cls, rank: int, others: ValidationInfo) -> int:
        if rank and others.data.get("freeze_epochs") == "all":
            raise ValueError("updates of an encoder that train.freeze_epochs=all freezes cannot learn; set one of them")
        return rank

    def freezes_encoder(self, epoch: int) -> bool:
        """Whether the encoder stays as it is in an epoch, counted from 0."""
        return self.freeze_epochs == "all" or epoch < self.freeze_epochs
