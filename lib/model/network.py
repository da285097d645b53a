"""The network: any smp architecture on any timm encoder, taking raw images of any size."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from lib.base.errors import UserError
from lib.base.files import write_bytes
from lib.config.training_settings import ModelSettings

try:
    import segmentation_models_pytorch as smp
except ModuleNotFoundError:
    raise UserError(
        "the networks come from a package that is not installed; pip install segmentation-models-pytorch, or without "
        "a network its wheel, which python -m lib.tools.export --wheels puts into a bundle"
    ) from None

from lib.model.encoder_weights import imagenet_weights, load_smp_encoder, normalisation, require_fit
from lib.model.encoders import SMP_ENCODERS, follow_input_size, require_known, smp_arguments, stride_of
from lib.model.low_rank import merged_state
from lib.model.weight_files import Tensors, first_line, read_tensors

# timm warns of the classifier's tensors, which a segmentation encoder does not need; what is needed is checked here
logging.getLogger("timm.models._builder").setLevel(logging.ERROR)

WIDTHS = {  # what smp calls the decoder's channels, where it is not decoder_channels; None: they cannot be chosen
    "fpn": "decoder_pyramid_channels",
    "pspnet": "psp_out_channels",
    "segformer": "decoder_segmentation_channels",
    "dpt": "decoder_fusion_channels",
    "linknet": None,
}
LEVELS = ("unet", "unetplusplus", "manet")  # whose decoders have a width for each level
# Means of the encoder's last features. Their maxima grow with the image: a head that learned from crops then called
# nearly all whole images empty with certainty, where no threshold can tell them apart (docs/presence.md).
PRESENCE_HEAD = {"pooling": "avg", "dropout": 0.2}
MISFIT = (ValueError, TypeError, KeyError, AttributeError, AssertionError, IndexError)


class SegmentationNet(nn.Module):
    """Raw images in, logits out: normalises, pads to the encoder's stride and crops back.

    Shapes: uint8 images (batch, channels, height, width) to float logits (batch, classes, height, width). With a
    presence head (model.presence) a pair is returned: these, and the logits of presence (batch, classes).
    """

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], stride: int) -> None:
        super().__init__()
        self.network = network
        self.stride = stride
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> "Output":
        height, width = images.shape[-2:]
        normalised = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        padded = functional.pad(normalised, (0, -width % self.stride, 0, -height % self.stride), mode="replicate")
        logits, presence = logits_of(self.network(padded))
        logits = logits[..., :height, :width]
        return logits if presence is None else (logits, presence)


Output = torch.Tensor | tuple[torch.Tensor, torch.Tensor]  # of a network, without and with a presence head


def logits_of(output: Output) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The logits of the masks, and those of presence where the network has a head for it."""
    return output if isinstance(output, tuple) else (output, None)


@dataclass(frozen=True)
class BuiltModel:
    """A network and where its encoder's weights are from."""

    network: SegmentationNet
    weights_source: str


def build_untrained(settings: ModelSettings, class_count: int, channels: int = 3) -> SegmentationNet:
    """The network with random weights, without any download, to load a trained fold's weights into."""
    return _build(settings, class_count, channels, pretrained=False)


def build_pretrained(settings: ModelSettings, class_count: int, channels: int = 3) -> BuiltModel:
    """The network ready to train: its encoder from `model.weights` (`imagenet`, a file, or `random` by name).

    Raises UserError if the weights are not available or do not fit; it never falls back to random ones.
    """
    if settings.weights == "random":
        network = build_untrained(settings, class_count, channels)
        require_any_size(network, settings, channels)
        return BuiltModel(network, "random, as model.weights says")
    if settings.weights == "imagenet":
        tensors, source = imagenet_weights(settings.encoder)
    else:
        tensors, source = read_tensors(Path(settings.weights)), f"file {settings.weights}"
    if tensors is not None:
        require_known(settings.encoder)
        require_fit(tensors, settings.encoder, source)
    network = _build(settings, class_count, channels, pretrained=True, tensors=tensors)
    require_any_size(network, settings, channels)
    return BuiltModel(network, source)


def start_at_shares(network: SegmentationNet, shares: Sequence[float]) -> None:
    """Set the last layer's biases so that the first probabilities are each class's share of the pixels, 0 to 1.

    From probabilities of one half a network may learn to call rare objects undecided and all else background, and
    keep to it for epochs (Lin et al., Focal Loss for Dense Object Detection, 2017, section 4.1). Shares count as at
    least, and at most, a hundredth from 0 and 1. A presence head starts at one half: pretrained features are large, and
    random weights on them made its first losses twice as high.
    """
    last = [layer for layer in network.network.segmentation_head.modules() if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        last.bias.copy_(torch.logit(torch.tensor(shares), eps=0.01))
        for layer in getattr(network.network, "classification_head", None) or ():
            if isinstance(layer, nn.Linear):
                layer.weight.zero_()


def save_weights(network: SegmentationNet, path: Path) -> None:
    """Write the network's tensors as safetensors, whole or not at all; one with several names (CoaT) under each."""
    tensors, seen = {}, set()
    for name, tensor in merged_state(network).items():
        tensors[name] = tensor.clone() if tensor.data_ptr() in seen else tensor.contiguous()
        seen.add(tensor.data_ptr())
    write_bytes(path, save(tensors))


def load_weights(path: Path, settings: ModelSettings, class_count: int, channels: int = 3) -> SegmentationNet:
    """The network that `save_weights` wrote, asking no hub. Raises UserError where the file is absent or unfit."""
    return load_networks([path], settings, class_count, channels)[0]


def load_networks(paths: list[Path], settings: ModelSettings, class_count: int, channels: int) -> list[SegmentationNet]:
    """The same of several files: the network is built once, which takes longer than copying and loading it."""
    untrained = build_untrained(settings, class_count, channels)
    networks = [untrained, *(deepcopy(untrained) for _ in paths[1:])]
    for network, path in zip(networks, paths, strict=True):
        load_into(network, read_tensors(path), path)
    return networks


def load_into(network: SegmentationNet, tensors: Tensors, path: Path) -> None:
    """Give a network the tensors of a file. Raises UserError naming the file where they do not fit."""
    try:
        network.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{path} does not fit the model settings of the run; run 02_train.py --restart") from None


def _build(
    settings: ModelSettings, class_count: int, channels: int, pretrained: bool, tensors: Tensors | None = None
) -> SegmentationNet:
    """The network, its encoder with random weights, the hub's, or `tensors`."""
    architecture = settings.architecture.lower().replace("+", "plus")
    if architecture not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise UserError(
            f"unknown model.architecture '{settings.architecture}'; known: {', '.join(smp.MODEL_ARCHITECTURES_MAPPING)}"
        )
    decoder = _decoder(settings.decoder_channels, architecture)
    head = {"aux_params": {"classes": class_count, **PRESENCE_HEAD}} if settings.presence else {}
    try:
        with smp_arguments(settings.encoder, architecture, channels, pretrained, tensors) as encoder:
            network = smp.create_model(
                architecture, in_channels=channels, classes=class_count, **head, **decoder, **encoder
            )
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise _misfit(settings, error) from None
        raise UserError(
            f"the ImageNet weights of {settings.encoder} cannot be fetched ({first_line(error)}); connect to the "
            "network, set model.weights to a local file, or choose model.encoder=tf_efficientnet_lite0, whose weights "
            "come with requirements.txt"
        ) from None
    except MISFIT as error:
        raise _misfit(settings, error) from None
    follow_input_size(network.encoder)
    if tensors is not None and settings.encoder in SMP_ENCODERS:
        load_smp_encoder(network.encoder, tensors, channels)
    if settings.dropout:
        network.segmentation_head = nn.Sequential(nn.Dropout2d(settings.dropout), network.segmentation_head)
    mean, std = normalisation(network.encoder)
    if channels != len(mean):
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    stride = stride_of(network.encoder, architecture)
    return SegmentationNet(network, mean, std, stride).to(memory_format=torch.channels_last)


def _decoder(channels: list[int] | int | None, architecture: str) -> dict[str, object]:
    """smp's argument for the decoder's channels, if they are set."""
    name = WIDTHS.get(architecture, "decoder_channels")
    if channels is None:
        return {}
    if name is None:
        raise UserError(f"the decoder of {architecture} has no channels to choose; set model.decoder_channels=null")
    if isinstance(channels, list) != (architecture in LEVELS):
        wanted = "a list, one number a level" if architecture in LEVELS else "one number"
        raise UserError(f"model.decoder_channels of {architecture} must be {wanted}, not {channels}")
    return {name: channels}


@torch.inference_mode()
def require_any_size(network: SegmentationNet, settings: ModelSettings, channels: int) -> None:
    """Predict a small image that is not square. Raises UserError where the encoder takes one size of images only."""
    images = torch.zeros(1, channels, network.stride, 2 * network.stride)
    try:
        _, presence = logits_of(network.eval()(images))
    except (*MISFIT, RuntimeError) as error:
        require_encoder_takes(images, network.network.encoder, settings.encoder)
        raise _misfit(settings, error) from None
    if settings.presence and presence is None:
        raise UserError(f"model.architecture={settings.architecture} makes no presence head; set model.presence=0")
    network.train()


def require_encoder_takes(images: torch.Tensor, encoder: nn.Module, name: str) -> None:
    """Raise UserError where the encoder alone fails on images, as on any but those of one size."""
    try:
        encoder(images)
    except (*MISFIT, RuntimeError) as error:
        raise UserError(
            f"model.encoder={name} does not take images of any size ({first_line(error)}); encoders with attention "
            "that do: swinv2_tiny_window8_256, maxvit_tiny_rw_224, sam2_hiera_tiny, coat_lite_small, mit_b2, "
            "vit_small_patch16_dinov3"
        ) from None


def _misfit(settings: ModelSettings, error: Exception) -> UserError:
    return UserError(
        f"model.architecture={settings.architecture} does not go with model.encoder={settings.encoder}: "
        f"{first_line(error)}"
    )
