"""Two feature maps of tf_efficientnet_lite0, for prediction alone, without timm: its import takes 4 processor seconds.

Architecture: the first five stages of EfficientNet (Tan and Le 2019, table 1) without squeeze and excitation, with
ReLU6. Batch norms are folded into the convolutions before them.
"""

from typing import NamedTuple

import torch
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lib.model.weight_files import Tensors, packaged_tensors

BLOCKS = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1))  # blocks, and stride of the first one
MIDDLE = 2  # the stage whose feature maps are the shallower of the two: 40 channels at stride 8
NORM_EPSILON = 1e-3
MEAN = STD = 127.5  # of pixel values 0 to 255, as in training


class LiteFeatures:
    """Call it with uint8 images (images, 3, height, width): float32 maps of 40 channels at stride 8, 112 at stride 16.

    Raises UserError if the package with the weights is not installed.
    """

    @torch.inference_mode()
    def __init__(self, device: torch.device) -> None:
        tensors = packaged_tensors("lite0")
        self.stem = Convolution.folded(tensors, "_conv_stem", "_bn0", device, stride=2)
        self.stages, number = [], 0
        for blocks, stride in BLOCKS:
            first = number
            self.stages.append([])
            for number in range(first, first + blocks):
                self.stages[-1].append(_block(tensors, number, device, stride if number == first else 1))
            number += 1

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        maps = functional.relu6(self.stem(maps), inplace=True)
        middle = maps
        for stage_index, stage in enumerate(self.stages):
            for block in stage:
                maps = _through(block, maps)
            middle = maps if stage_index == MIDDLE else middle
        return middle, maps


class Convolution(NamedTuple):
    """A convolution with a bias, padded as TensorFlow does: at a stride of 2 more below and to the right."""

    weight: torch.Tensor
    bias: torch.Tensor
    stride: int

    @classmethod
    def folded(cls, tensors: Tensors, name: str, norm: str, device: torch.device, stride: int) -> "Convolution":
        mean, variance, scale, shift = (
            tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        weight, bias = fuse_conv_bn_weights(tensors[f"{name}.weight"], None, mean, variance, NORM_EPSILON, scale, shift)
        return cls(weight.to(device, memory_format=torch.channels_last), bias.to(device), stride)

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        side = self.weight.shape[-1]
        groups = maps.shape[1] // self.weight.shape[1]
        padding = side // 2
        if self.stride > 1:
            down, right = (max((-(-size // self.stride) - 1) * self.stride + side - size, 0) for size in maps.shape[2:])
            maps = functional.pad(maps, (right // 2, right - right // 2, down // 2, down - down // 2))
            padding = 0
        return functional.conv2d(maps, self.weight, self.bias, self.stride, padding, groups=groups)


def _block(tensors: Tensors, number: int, device: torch.device, stride: int) -> list[Convolution]:
    """An inverted residual: expansion (not in the first block), depthwise convolution, projection."""
    name = f"_blocks.{number}"
    parts = [("_expand_conv", "_bn0", 1), ("_depthwise_conv", "_bn1", stride), ("_project_conv", "_bn2", 1)]
    return [
        Convolution.folded(tensors, f"{name}.{convolution}", f"{name}.{norm}", device, stride_of_it)
        for convolution, norm, stride_of_it in parts[number == 0 :]
    ]


def _through(block: list[Convolution], maps: torch.Tensor) -> torch.Tensor:
    *expansion, projection = block
    result = maps
    for convolution in expansion:
        result = functional.relu6(convolution(result), inplace=True)
    result = projection(result)
    return result + maps if result.shape == maps.shape else result
