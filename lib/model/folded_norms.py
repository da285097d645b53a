"""Batch norms folded into the convolutions before them: the same logits in four fifths of the time on a CPU.

At prediction a batch norm is a fixed scale and shift of each channel, which the convolution's weights can carry.
"""

from collections import Counter

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lib.model.network import Output, SegmentationNet, logits_of

TEST_SIDE = 64  # pixels of the test image, unless the network wants more
MOST_CHANGE = 1e-3  # largest difference of two logits that count as the same; float32 rounding gives about 1e-5


@torch.inference_mode()
def fold_norms(network: SegmentationNet) -> bool:
    """Fold a network's batch norms, in place and for prediction, into the convolutions whose output they alone read.

    Returns False, and leaves the network as it was, where folding would change the logits of a test image, as where
    a convolution's output is also read by something else. Costs two passes of a small image.
    """
    image = _test_image(network.eval())
    pairs, before = _pairs(network, image)
    originals = [(convolution, convolution.weight, convolution.bias, norm) for convolution, norm in pairs.values()]
    for name, (convolution, norm) in pairs.items():
        _fold(convolution, norm)
        network.set_submodule(name, norm.act if hasattr(norm, "act") else nn.Identity())  # timm's norms activate, too
    network.to(memory_format=torch.channels_last)
    outputs = zip(logits_of(network(image)), logits_of(before), strict=True)
    if all(torch.allclose(*pair, rtol=MOST_CHANGE, atol=MOST_CHANGE) for pair in outputs if pair[0] is not None):
        return True
    for name, (convolution, weight, bias, norm) in zip(pairs, originals, strict=True):
        convolution.weight, convolution.bias = weight, bias
        network.set_submodule(name, norm)
    return False


def _fold(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
    """Give a convolution the scale and shift of the norm after it."""
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(convolution, nn.ConvTranspose2d),
    )


def _test_image(network: SegmentationNet) -> torch.Tensor:
    """uint8 noise (1, channels, height, width), always the same."""
    side = max(TEST_SIDE, network.stride)
    shape = 1, network.mean.shape[1], side, side
    noise = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return noise.to(network.mean.device)


def _pairs(network: nn.Module, image: torch.Tensor) -> tuple[dict[str, tuple[nn.Module, nn.BatchNorm2d]], Output]:
    """Convolutions and the batch norms that alone read their output, by the norms' names, seen in one pass of an image.

    The pass's output is returned too. Modules that are used twice are left out: one set of weights cannot carry two
    norms.
    """
    producers, pairs, uses, reads = {}, {}, [], Counter()

    def after_convolution(convolution: nn.Module, _, output: torch.Tensor) -> None:
        producers[id(output)] = convolution, output  # the output is kept, so that its id is not given to another tensor
        reads[id(output)] = 0
        uses.append(convolution)

    def before_reader(_, inputs: tuple[torch.Tensor]) -> None:
        reads[id(inputs[0])] += 1

    def before_norm(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        uses.append(norm)
        if id(inputs[0]) in producers and norm.running_mean is not None:
            pairs[norm] = producers[id(inputs[0])]

    hooks = []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            hooks.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before_norm))
        if isinstance(module, nn.BatchNorm2d) or not list(module.children()):
            hooks.append(module.register_forward_pre_hook(before_reader))
    logits = network(image)
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in network.named_modules()}
    alone = {
        names[norm]: (convolution, norm)
        for norm, (convolution, output) in pairs.items()
        if uses.count(norm) == uses.count(convolution) == reads[id(output)] == 1
    }
    return alone, logits
