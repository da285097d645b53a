"""Encoders for images of any size: timm arguments, a stride and, for a plain transformer, a pyramid.

All of it follows from the timm model itself. Its class says which arguments lift the fixed size; its feature maps,
whether they shrink by stages (convolutional networks, Swin, MaxViT) or keep one size (ViT, DINOv2, DINOv3).
"""

import difflib
import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import segmentation_models_pytorch as smp
import timm
import torch
from timm.layers import PatchEmbed
from torch import nn
from torch.nn import functional

from lib.base.errors import UserError
from lib.model.weight_files import Tensors

STRIDE = 32  # what five halvings need; smp refuses other sizes
STRIDES = {"pan": 128}  # its attention pyramid halves three times more
PYRAMID = "plain transformer"  # smp's name for PyramidEncoder
PYRAMID_STRIDES = (4, 8, 16, 32)
ANY_SIZE = {"strict_img_size": False, "dynamic_img_size": True}  # arguments of timm's classes that have them
SMP_ENCODERS = tuple(name for name in smp.encoders.encoders if name.startswith("mit_"))  # which timm does not have


@dataclass(frozen=True)
class EncoderTraits:
    """The properties of an encoder that decide how it is built."""

    options: dict[str, bool]  # arguments that let it take images of any size
    strides: frozenset[int]  # of its feature maps

    @property
    def is_plain(self) -> bool:
        """Whether all feature maps have one size, as those of a ViT."""
        return len(self.strides) == 1


def without_memory(encoder: str) -> nn.Module:
    """A timm model whose weights take no memory, or random ones where torch cannot do that (RegNet in torch 2.10)."""
    try:
        with torch.device("meta"):
            return timm.create_model(encoder)
    except NotImplementedError:  # an operation without a kernel for tensors that have no memory
        return timm.create_model(encoder)


@lru_cache(maxsize=8)
def traits_of(encoder: str) -> EncoderTraits:
    """Traits of a timm model, read off one that is built without memory for its weights."""
    model = without_memory(encoder)
    parameters = inspect.signature(type(model).__init__).parameters
    options = {name: value for name, value in ANY_SIZE.items() if name in parameters}
    return EncoderTraits(options, frozenset(stage["reduction"] for stage in model.feature_info))


class PyramidEncoder(nn.Module):
    """A plain vision transformer as an smp encoder: maps of four blocks, resized to strides 4, 8, 16 and 32.

    The blocks are spread evenly, the first of them for the finest map and the last for the coarsest (as in Ranftl et
    al., Vision Transformers for Dense Prediction, 2021). Resizing learns nothing, so all of this encoder can be frozen;
    the decoder's convolutions do the rest. Stride 2 has no channels, as with smp's other transformers.
    """

    def __init__(self, name: str, in_channels: int, depth: int, output_stride: int, **arguments: object) -> None:
        super().__init__()
        if output_stride != STRIDE:
            raise ValueError("the feature maps of this encoder cannot be dilated")
        self.model = timm.create_model(name, in_chans=in_channels, num_classes=0, **arguments)
        self.strides = PYRAMID_STRIDES[: depth - 1]
        blocks, levels = len(self.model.feature_info), len(self.strides)
        self.blocks = [blocks * level // levels - 1 for level in range(1, levels + 1)]
        self.model.prune_intermediate_layers(self.blocks, prune_norm=False, prune_head=True)
        self.patch = self.model.feature_info[0]["reduction"]
        self.out_channels = [in_channels, 0, *[self.model.feature_info[0]["num_chs"]] * levels]
        self.output_stride = min(STRIDE, 2**depth)

    def set_in_channels(self, in_channels: int, pretrained: bool) -> None:
        """Do nothing: timm has adapted the first convolution already. smp calls this."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return feature maps of strides 1 (the image), 2 (no channels), 4, 8, 16 and 32, as deep as smp asked for."""
        height, width = images.shape[-2:]
        padded = functional.pad(images, (0, -width % self.patch, 0, -height % self.patch), mode="replicate")
        maps = self.model.forward_intermediates(padded, indices=self.blocks, norm=True, intermediates_only=True)
        features = [images, images.new_empty(len(images), 0, height // 2, width // 2)]
        for stride, feature_map in zip(self.strides, maps, strict=True):
            resized = functional.interpolate(feature_map, scale_factor=self.patch / stride, mode="bilinear")
            features.append(resized[..., : height // stride, : width // stride])
        return features


@contextmanager
def smp_arguments(
    encoder: str, architecture: str, channels: int, pretrained: bool, tensors: Tensors | None
) -> Iterator[dict[str, object]]:
    """The arguments by which smp builds an encoder, of use within the block.

    Pretrained weights are the hub's, or `tensors` for a timm encoder. Raises UserError for a name nobody knows.
    """
    require_known(encoder)
    if encoder in SMP_ENCODERS:
        yield {"encoder_name": encoder, "encoder_weights": "imagenet" if pretrained and tensors is None else None}
        return
    traits = traits_of(encoder)
    overlay = {} if tensors is None else {"pretrained_cfg_overlay": {"state_dict": tensors}}
    options = traits.options | overlay
    if architecture == "dpt":
        _require_dpt_patches(traits, encoder)
    if not traits.is_plain or architecture == "dpt":  # which takes plain maps as they are
        yield {"encoder_name": f"tu-{encoder}", "encoder_weights": pretrained or None, **options}
        return
    parameters = {"name": encoder, "in_channels": channels, "pretrained": pretrained, **options}
    smp.encoders.encoders[PYRAMID] = {"encoder": PyramidEncoder, "pretrained_settings": {}, "params": parameters}
    try:
        yield {"encoder_name": PYRAMID, "encoder_weights": None}
    finally:
        del smp.encoders.encoders[PYRAMID]  # which may hold a whole set of weights


def follow_input_size(encoder: nn.Module) -> None:
    """Let patch embeddings that insist on one size take the size of their input: all that CoaT needs for any size."""
    for module in encoder.modules():
        if isinstance(module, PatchEmbed) and module.strict_img_size:
            module.register_forward_pre_hook(_set_input_size)


def stride_of(encoder: nn.Module, architecture: str) -> int:
    """The number of pixels that sides must be a multiple of.

    Beside the halvings there are the windows of MaxViT's attention, which partition the smallest map too: 256 or 512
    pixels for models of that name.
    """
    windows = [module.partition_size for module in encoder.modules() if hasattr(module, "partition_size")]
    return math.lcm(STRIDES.get(architecture, STRIDE), *(STRIDE * side for window in windows for side in window))


def require_known(encoder: str) -> None:
    """Raise UserError, with the nearest names, for an encoder that neither timm nor smp knows."""
    if encoder not in SMP_ENCODERS and not timm.is_model(encoder):
        nearest = difflib.get_close_matches(encoder, [*timm.list_models(), *SMP_ENCODERS], n=3)
        raise UserError(f"unknown model.encoder '{encoder}'; the nearest names: {', '.join(nearest) or 'none'}")


def _require_dpt_patches(traits: EncoderTraits, encoder: str) -> None:
    patch = min(traits.strides)
    if STRIDE % patch:
        raise UserError(
            f"model.architecture=dpt needs patches of 8, 16 or 32 pixels, and those of model.encoder={encoder} have "
            f"{patch}; choose unet, fpn or upernet, which take any"
        )


def _set_input_size(module: PatchEmbed, inputs: tuple[torch.Tensor]) -> None:
    module.set_input_size(tuple(inputs[0].shape[-2:]))
