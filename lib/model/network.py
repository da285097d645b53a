"""The network: any smp architecture on any timm encoder, taking raw images of any size."""

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from lib.base.errors import UserError
from lib.base.files import write_bytes
from lib.config.training_settings import ModelSettings
from lib.model.encoder_weights import imagenet_weights, normalisation, read_tensors, require_fit

try:
    import segmentation_models_pytorch as smp
except ModuleNotFoundError:
    raise UserError(
        "the networks come from a package that is not installed; pip install segmentation-models-pytorch, or without "
        "a network its wheel, which python -m lib.tools.export --wheels puts into a bundle"
    ) from None

# timm warns of the classifier's tensors, which a segmentation encoder does not need; what is needed is checked here
logging.getLogger("timm.models._builder").setLevel(logging.ERROR)

STRIDE = 32  # what five halvings need; smp refuses other sizes
STRIDES = {"pan": 128}  # its attention pyramid halves three times more
WIDTHS = {  # what smp calls the decoder's channels, where it is not decoder_channels; None: they cannot be chosen
    "fpn": "decoder_pyramid_channels",
    "pspnet": "psp_out_channels",
    "segformer": "decoder_segmentation_channels",
    "dpt": "decoder_fusion_channels",
    "linknet": None,
}
LEVELS = ("unet", "unetplusplus", "manet")  # whose decoders have a width for each level
# The head reads the maxima of the encoder's last features: it learns from crops and is asked about whole images, where
# an average would fade with the share of a small object (Oquab et al., Is object localization for free?, CVPR 2015).
PRESENCE_HEAD = {"pooling": "max", "dropout": 0.2}
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
    return _build(settings, class_count, channels, encoder_weights=None)


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
    overlay = {}
    if tensors is not None:
        _require_known_encoder(settings.encoder)
        require_fit(tensors, settings.encoder, source)
        overlay = {"pretrained_cfg_overlay": {"state_dict": tensors}}
    network = _build(settings, class_count, channels, encoder_weights=True, **overlay)
    require_any_size(network, settings, channels)
    return BuiltModel(network, source)


def start_at_shares(network: SegmentationNet, shares: Sequence[float]) -> None:
    """Set the last layer's biases so that the first probabilities are each class's share of the pixels, 0 to 1.

    From probabilities of one half a network may learn to call rare objects undecided and all else background, and
    keep to it for epochs (Lin et al., Focal Loss for Dense Object Detection, 2017, section 4.1). Shares count as at
    least, and at most, a hundredth from 0 and 1.
    """
    last = [layer for layer in network.network.segmentation_head.modules() if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        last.bias.copy_(torch.logit(torch.tensor(shares), eps=0.01))


def save_weights(network: SegmentationNet, path: Path) -> None:
    """Write the network's tensors as safetensors, whole or not at all."""
    write_bytes(path, save({name: tensor.contiguous() for name, tensor in network.state_dict().items()}))


def load_weights(path: Path, settings: ModelSettings, class_count: int, channels: int = 3) -> SegmentationNet:
    """The network that `save_weights` wrote, asking no hub. Raises UserError where the file is absent or unfit."""
    network = build_untrained(settings, class_count, channels)
    try:
        network.load_state_dict(read_tensors(path))
    except RuntimeError:
        raise UserError(f"{path} does not fit the model settings of the run; run 02_train.py --restart") from None
    return network


def _build(settings: ModelSettings, class_count: int, channels: int, **encoder: object) -> SegmentationNet:
    architecture = settings.architecture.lower().replace("+", "plus")
    if architecture not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise UserError(
            f"unknown model.architecture '{settings.architecture}'; known: {', '.join(smp.MODEL_ARCHITECTURES_MAPPING)}"
        )
    _require_known_encoder(settings.encoder)
    decoder = _decoder(settings.decoder_channels, architecture)
    head = {"classes": class_count, **PRESENCE_HEAD} if settings.presence else None
    try:
        network = smp.create_model(
            architecture,
            encoder_name=f"tu-{settings.encoder}",
            in_channels=channels,
            classes=class_count,
            aux_params=head,
            **decoder,
            **encoder,
        )
    except (OSError, RuntimeError) as error:
        if encoder["encoder_weights"] is None:
            raise
        raise UserError(
            f"the ImageNet weights of {settings.encoder} cannot be fetched ({_first_line(error)}); connect to the "
            "network, set model.weights to a local file, or choose model.encoder=tf_efficientnet_lite0, whose weights "
            "come with requirements.txt"
        ) from None
    except MISFIT as error:
        raise _misfit(settings, error) from None
    if settings.dropout:
        network.segmentation_head = nn.Sequential(nn.Dropout2d(settings.dropout), network.segmentation_head)
    mean, std = normalisation(network.encoder.model)
    if channels != len(mean):
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    stride = STRIDES.get(architecture, STRIDE)
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
    try:
        network.eval()(torch.zeros(1, channels, 2 * network.stride, 3 * network.stride, dtype=torch.uint8))
    except (*MISFIT, RuntimeError) as error:
        raise _misfit(settings, error) from None
    network.train()


def _misfit(settings: ModelSettings, error: Exception) -> UserError:
    return UserError(
        f"model.architecture={settings.architecture} does not go with model.encoder={settings.encoder}: "
        f"{_first_line(error)}"
    )


def _require_known_encoder(encoder: str) -> None:
    if not timm.is_model(encoder):
        nearest = difflib.get_close_matches(encoder, timm.list_models(), n=3)
        raise UserError(f"unknown model.encoder '{encoder}'; timm's nearest names: {', '.join(nearest) or 'none'}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
