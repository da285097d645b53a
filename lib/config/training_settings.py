"""The settings of training: `model`, `augment`, `loss` and `train`."""

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
    """The network: an architecture of segmentation_models_pytorch (smp) on an encoder."""

    architecture: str = "unet"  # unet++, manet, linknet, fpn, pspnet, deeplabv3+, pan, upernet, segformer, ...
    encoder: str = "tf_efficientnet_lite0"  # any timm name, or smp's mit_b0 to mit_b5
    weights: str = "imagenet"  # imagenet | random | a .safetensors or .pth file | a run, fold by fold, such as runs/a
    decoder_channels: list[PositiveInt] | PositiveInt | None = None  # from deep to shallow (unet, manet), or one width
    dropout: BelowOne = 0.0  # share of the decoder's last feature maps dropped, each map as a whole (Dropout2d)
    presence: NonNegativeFloat = 0.0  # loss weight of a head that classifies whether each class is present; 0: no head


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
    """Probabilities (0 to 1) and strengths of the random augmentations of a training image.

    A setting left out takes its value from the preset (AUGMENT_PRESETS), or 0; `augment.strengths` has the result.
    """

    preset: Literal["none", "light", "medium", "heavy"] = "medium"
    horizontal_flip: Probability | None = None
    vertical_flip: Probability | None = None
    rotate90: Probability | None = None  # by a random multiple of 90 degrees, if crops are square
    rotate: Probability | None = None  # by up to rotate_degrees, together with `scale`
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] | None = None
    scale: BelowOne | None = None  # .1: 90 % to 110 % of the size
    distort: Probability | None = None  # elastic or grid distortion; 6 ms per 256 x 256 crop, all others 1 to 3 or less
    contrast: Probability | None = None  # contrast and brightness, each by up to contrast_range
    contrast_range: BelowOne | None = None
    gamma: Probability | None = None  # exponents from .7 to 1.4
    clahe: Probability | None = None  # adaptive histogram equalisation, images of 1 or 3 channels; 10 ms in colour
    sharpen: Probability | None = None
    blur: Probability | None = None  # defocus, or motion by up to 7 pixels
    noise: Probability | None = None  # Gaussian, sigma 2 % to 8 % of the range
    dropout: Probability | None = None  # 1 to 6 black patches of 5 % to 20 % of a side; the mask stays as it is

    @property
    def strengths(self) -> dict[str, float]:
        """Every probability and strength: the setting itself, else the preset's value, else 0."""
        absent = {name: 0.0 for name in AugmentSettings.model_fields if name != "preset"}
        return absent | AUGMENT_PRESETS[self.preset] | self.model_dump(exclude={"preset"}, exclude_none=True)


class LossSettings(Section):
    """The training loss: a weighted sum of terms, such as `dice + focal + 0.1*boundary`, or `bce`."""

    terms: str = "3*dice + focal + 10*boundary"  # the terms are listed and compared in docs/losses.md
    region: Literal["image", "batch"] = "image"  # dice, tversky: per image and averaged, or pooled over the batch
    tversky_beta: Probability = 0.7  # weight of false negatives; false positives weigh 1 - tversky_beta
    focal_gamma: Annotated[float, Field(ge=1, le=5)] = 2.0  # higher: easy pixels count less
    focal_alpha: Probability | None = None  # weight of mask pixels; background weighs 1 - focal_alpha; null: both 1
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0  # of bce and border_bce
    border_weight: NonNegativeFloat = 10.0  # border_bce: extra weight of a pixel on the border of a mask
    border_width: PositiveFloat = 5.0  # border_bce: standard deviation of its decay in pixels
    boundary_schedule: Literal["constant", "ramp", "rebalance"] = "ramp"  # weight of boundary over time; docs/losses.md

    @field_validator("terms")
    @classmethod
    def _known_terms(cls, terms: str) -> str:
        parse_terms(terms)
        return terms


class TrainSettings(Section):
    """The training of one model per fold."""

    epochs: PositiveInt = 30
    batch_size: PositiveInt = 16
    accumulate: PositiveInt = 1  # gradient accumulation: batches per optimizer step
    crop_size: PositiveInt = 256  # pixels; height and width of the random crops
    crops_per_image: PositiveInt = 1  # per epoch; raise it for few large images
    cache_mb: NonNegativeInt = 256  # memory of each loader process for decoded images
    foreground_share: Probability = 0.33  # share of the crops placed around a mask pixel
    empty_share: BelowOne | tuple[BelowOne, BelowOne] | None = None  # limit on images without mask; [first, last] epoch
    pseudo_labels: Path | None = None  # a run finished up to 04; its confident test masks are added to training only
    pseudo_agreement: Probability = 0.95  # confident: Dice between a map's masks at thresholds .2 lower and .2 higher
    lr: PositiveFloat = 1e-3  # peak learning rate, after the warm-up
    encoder_lr_factor: PositiveFloat = 1.0  # the encoder's learning rate, relative to lr
    freeze_epochs: NonNegativeInt | Literal["all"] = 0  # first epochs with the encoder frozen, batch norms included
    lora_rank: NonNegativeInt = 0  # LoRA: above 0, the encoder only learns updates of this rank, of its linear layers
    weight_decay: NonNegativeFloat = 0.01
    warmup_share: Probability = 0.1  # share of the steps in which the learning rate rises to lr
    clip_norm: PositiveFloat = 1.0  # gradient clipping
    ema_decay: BelowOne = 0.99  # exponential moving average of the weights, which is what is saved; 0: no averaging
    all_images: bool = False  # train one more model on all images; 04 averages it in, no score includes it
    keep: Literal["last", "best"] = "last"  # epoch to save; best is chosen by the validation score, which it inflates
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False  # torch.compile; each fold then starts with a minute or more of compilation
    workers: NonNegativeInt | None = None  # loader processes; null: one per core, per four without a GPU, at most 16
    seed: NonNegativeInt = 0
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"  # experiment tracker that logs every epoch

    @field_validator("lora_rank")
    @classmethod
    def _updates_may_learn(cls, rank: int, others: ValidationInfo) -> int:
        if rank and others.data.get("freeze_epochs") == "all":
            raise ValueError("updates of an encoder that train.freeze_epochs=all freezes cannot learn; set one of them")
        return rank

    def freezes_encoder(self, epoch: int) -> bool:
        """Whether the encoder is frozen in an epoch, counted from 0."""
        return self.freeze_epochs == "all" or epoch < self.freeze_epochs
