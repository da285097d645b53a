"""Every architecture takes raw images of any size, learns, and comes back from disk the same."""

import runpy
import sys

import pytest
import torch

from lib.base.errors import UserError
from lib.config.training_settings import ModelSettings
from lib.model import network as network_module
from lib.model.folded_norms import fold_norms
from lib.model.network import build_pretrained, build_untrained, load_weights, save_weights, start_at_shares
from tests.newer_timm import needs_newer_timm

ARCHITECTURES = ["unet", "unet++", "linknet", "fpn", "pspnet", "deeplabv3+", "manet", "pan", "upernet", "segformer"]


def tiny(architecture: str) -> ModelSettings:
    return ModelSettings(architecture=architecture, encoder="test_resnet", weights="random")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_odd_sizes_gradients_and_round_trip(architecture, tmp_path):
    torch.manual_seed(0)
    network = build_untrained(tiny(architecture), class_count=2)
    images = torch.randint(0, 256, (2, 3, 77, 101), dtype=torch.uint8)
    logits = network.train()(images)
    assert logits.shape == (2, 2, 77, 101)
    logits.square().mean().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    save_weights(network, tmp_path / "model.safetensors")
    again = load_weights(tmp_path / "model.safetensors", tiny(architecture), class_count=2)
    with torch.inference_mode():
        assert torch.equal(network.eval()(images), again.eval()(images))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_with_a_presence_head_there_is_a_logit_of_each_class_that_the_encoder_learns_from(architecture):
    network = build_untrained(tiny(architecture).model_copy(update={"presence": 0.5}), class_count=2)
    logits, presence = network.train()(torch.randint(0, 256, (2, 3, 77, 101), dtype=torch.uint8))
    assert logits.shape == (2, 2, 77, 101) and presence.shape == (2, 2)
    presence.square().sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in network.network.segmentation_head.parameters())
    assert next(network.network.encoder.parameters()).grad.abs().sum() > 0


def test_an_architecture_that_makes_no_head_is_refused_where_presence_is_asked_for(monkeypatch):
    def headless(aux_params=None, **settings: object) -> torch.nn.Module:
        return network_module.smp.Unet(**settings)

    monkeypatch.setitem(network_module.smp.MODEL_ARCHITECTURES_MAPPING, "headless", headless)
    build_pretrained(tiny("headless"), class_count=1)
    with pytest.raises(UserError, match=r"headless makes no presence head; set model\.presence=0"):
        build_pretrained(tiny("headless").model_copy(update={"presence": 1}), class_count=1)


@torch.inference_mode()
def test_a_presence_head_starts_at_one_half_whatever_the_image():
    network = build_untrained(tiny("unet").model_copy(update={"presence": 0.5}), class_count=2).eval()
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    assert network(images)[1].any()
    start_at_shares(network, [0.2, 0.9])
    assert not network(images)[1].any()


@torch.inference_mode()
def test_a_presence_head_comes_back_from_disk_and_with_folded_norms(tmp_path):
    settings = tiny("unet").model_copy(update={"presence": 0.5})
    network = build_untrained(settings, class_count=2).eval()
    assert build_untrained(tiny("unet"), class_count=2).state_dict().keys() < network.state_dict().keys()
    save_weights(network, tmp_path / "model.safetensors")
    again = load_weights(tmp_path / "model.safetensors", settings, class_count=2).eval()
    images = torch.randint(0, 256, (2, 3, 77, 101), dtype=torch.uint8)
    exact = again(images)
    assert fold_norms(again)
    for expected, found, close in zip(network(images), exact, again(images), strict=True):
        assert torch.equal(expected, found) and torch.allclose(expected, close, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "deeplabv3"])
@torch.no_grad()
def test_a_network_that_sees_nothing_predicts_the_share_of_each_class(architecture):
    network = build_untrained(tiny(architecture), class_count=3).eval()
    start_at_shares(network, [0.2, 0.9, 0.0])
    for name, parameter in network.named_parameters():
        if not name.endswith("segmentation_head.0.bias"):
            parameter.zero_()
    probabilities = network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).sigmoid().mean(dim=(0, 2, 3))
    assert probabilities.tolist() == pytest.approx([0.2, 0.9, 0.01])


def test_the_unet_decoder_has_five_levels():
    network = build_untrained(ModelSettings(weights="random"), class_count=1)
    assert len(network.network.decoder.blocks) == 5


@torch.inference_mode()
def test_padding_does_not_touch_sizes_that_fit_and_is_cropped_back():
    network = build_untrained(tiny("unet"), class_count=1).eval()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    normalised = (image / 255 - network.mean / 255) / (network.std / 255)
    assert torch.allclose(network(image), network.network(normalised), atol=1e-4)
    padded = torch.nn.functional.pad(normalised[..., :50, :40], (0, 24, 0, 14), mode="replicate")
    assert torch.allclose(network(image[..., :50, :40]), network.network(padded)[..., :50, :40], atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (ModelSettings(architecture="unett"), "unknown model.architecture 'unett'"),
        (ModelSettings(encoder="tf_efficientnet_lite00"), "nearest names: tf_efficientnet_lite0"),
        (ModelSettings(decoder_channels=[8, 8], weights="random"), "does not go with"),
        (ModelSettings(decoder_channels=64, weights="random"), "must be a list, one number a level, not 64"),
        (ModelSettings(architecture="fpn", decoder_channels=[64, 32], weights="random"), "must be one number"),
        (ModelSettings(architecture="linknet", decoder_channels=64, weights="random"), "decoder_channels=null"),
        (ModelSettings(encoder="mit_b00"), "nearest names: mit_b0"),
        (ModelSettings(encoder="test_vit", architecture="deeplabv3", weights="random"), "does not go with.*dilated"),
        (
            ModelSettings(encoder="vit_small_patch14_dinov2", architecture="dpt", weights="random"),
            "patches of 8, 16 or",
        ),
        pytest.param(
            ModelSettings(encoder="test_coatnet", weights="random"),
            "does not take images of any size.*that do: swin",
            marks=needs_newer_timm,
        ),
    ],
)
def test_what_does_not_fit_is_one_clear_sentence_before_training(settings, sentence):
    with pytest.raises(UserError, match=sentence.replace("+", r"\+")) as caught:
        build_pretrained(settings, class_count=1)
    assert "\n" not in str(caught.value)


def test_the_encoder_may_be_of_another_kind_than_a_cnn_with_five_stages():
    built = build_pretrained(ModelSettings(encoder="pvt_v2_b0", weights="random", decoder_channels=[8] * 5), 1)
    assert built.network.training
    with torch.inference_mode():
        assert built.network.eval()(torch.zeros(1, 3, 50, 70, dtype=torch.uint8)).shape == (1, 1, 50, 70)


def test_the_width_of_every_decoder_can_be_set():
    for architecture in ("fpn", "pspnet", "deeplabv3+", "pan", "upernet", "segformer", "unet", "unet++", "manet"):
        sizes = []
        for width in (16, 32):
            channels = [width] * 5 if architecture in ("unet", "unet++", "manet") else width
            settings = tiny(architecture).model_copy(update={"decoder_channels": channels})
            sizes.append(sum(parameter.numel() for parameter in build_untrained(settings, 1).parameters()))
        assert sizes[0] < sizes[1], architecture


def test_dropout_acts_in_training_and_not_in_prediction():
    torch.manual_seed(0)
    network = build_untrained(tiny("unet").model_copy(update={"dropout": 0.5}), class_count=1)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        network.train()
        assert not torch.equal(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match="pip install segmentation-models-pytorch"):
        runpy.run_path(network_module.__file__)
