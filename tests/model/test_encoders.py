"""Encoders with attention take any size, learn, come back from disk, and compute what timm's own models compute."""

import pytest
import timm
import torch
from torch.nn import functional

from lib.base.errors import UserError
from lib.config.training_settings import ModelSettings
from lib.model.encoder_weights import require_fit
from lib.model.encoders import PyramidEncoder
from lib.model.folded_norms import fold_norms
from lib.model.network import SegmentationNet, build_pretrained, build_untrained, load_weights, save_weights

NARROW = {  # models of timm made narrow and shallow, since building the smallest of these families takes seconds
    "swin_tiny_patch4_window7_224": {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)},
    "swinv2_tiny_window8_256": {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)},
    "sam2_hiera_tiny": {"embed_dim": 24},
    "vit_small_patch14_dinov2": {"embed_dim": 48, "depth": 4, "num_heads": 2},
    "vit_small_patch16_dinov3": {"embed_dim": 48, "depth": 4, "num_heads": 2},
}
FAMILIES = {  # one member of each, and the stride that its images are padded to
    "test_maxvit": 160,  # windows of 5 x 5 on the smallest map
    **{f"narrow_{name}": 32 for name in NARROW},
    "mit_b0": 32,
    "coat_lite_tiny": 32,
    "test_vit": 32,
}

NEED_NEWER_TIMM = {"coat_lite_tiny", "test_maxvit"}  # than 1.0.26


@pytest.fixture(autouse=True)
def timm_has_it(request) -> None:
    needs_it = "_coat_" in request.node.name or any(f"[{name}" in request.node.name for name in NEED_NEWER_TIMM)
    if needs_it and "test_maxvit" not in timm.list_models():
        pytest.skip("needs a newer timm")


def register_narrow(name: str, **sizes: object) -> None:
    """Let timm know `narrow_NAME`."""

    def build(pretrained: bool = False, **arguments: object) -> torch.nn.Module:
        return timm.create_model(name, pretrained, **sizes, **arguments)

    build.__name__ = f"narrow_{name}"
    timm.models.register_model(build)


for name, sizes in NARROW.items():
    register_narrow(name, **sizes)


def untrained(encoder: str, architecture: str = "unet", channels: int = 3) -> SegmentationNet:
    torch.manual_seed(0)
    settings = ModelSettings(architecture=architecture, encoder=encoder, weights="random")
    return build_pretrained(settings, class_count=2, channels=channels).network


@pytest.mark.parametrize(("encoder", "stride"), FAMILIES.items())
def test_odd_sizes_gradients_round_trip_and_folding(encoder, stride, tmp_path):
    network = untrained(encoder)
    images = torch.randint(0, 256, (1, 3, 70, 45), dtype=torch.uint8)
    logits = network.train()(images)
    assert logits.shape == (1, 2, 70, 45) and network.stride == stride
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())  # or several GPUs wait for ever
    save_weights(network, tmp_path / "model.safetensors")
    settings = ModelSettings(encoder=encoder, weights="random")
    again = load_weights(tmp_path / "model.safetensors", settings, class_count=2).eval()
    with torch.inference_mode():
        expected = network.eval()(images)
        assert torch.equal(again(images), expected)
        assert fold_norms(again) and torch.allclose(again(images), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", ["unet++", "manet", "linknet", "fpn", "pspnet", "upernet", "segformer", "dpt"])
def test_a_plain_transformer_goes_with_the_decoders_that_do_not_dilate(architecture):
    network = untrained("test_vit", architecture, channels=5).train()
    assert network(torch.zeros(2, 5, 50, 70, dtype=torch.uint8)).shape == (2, 2, 50, 70)


@torch.inference_mode()
def test_at_its_own_size_coat_computes_what_timm_does():
    ours = untrained("coat_lite_tiny").network.encoder.eval()
    theirs = timm.create_model("coat_lite_tiny", features_only=True).eval()
    theirs.load_state_dict(ours.model.state_dict())
    images = torch.rand(1, 3, 224, 224)
    for mine, expected in zip(ours(images)[2:], theirs(images), strict=True):
        assert torch.allclose(mine, expected, atol=1e-5)


@torch.inference_mode()
def test_the_pyramid_holds_the_normalised_maps_of_evenly_spread_blocks():
    encoder = untrained("test_vit").network.encoder.eval()  # of six blocks
    images = torch.rand(1, 3, 160, 160)
    maps = encoder.model.get_intermediate_layers(images, n=[0, 2, 3, 5], reshape=True, norm=True)
    features = encoder(images)
    assert [feature.shape[-1] for feature in features] == [160, 80, 40, 20, 10, 5]
    assert torch.allclose(features[4], maps[2], atol=1e-5)  # of stride 16, as the patches
    assert torch.allclose(features[2].mean(), maps[0].mean(), atol=1e-2)
    assert torch.allclose(features[5], functional.avg_pool2d(maps[3], 2), atol=1e-5)


@pytest.mark.parametrize(("patch", "side"), [(14, 96), (16, 96), (8, 64)])
@torch.inference_mode()
def test_the_pyramid_keeps_every_pixel_where_it_was(patch, side):
    """Of maps that say where their patch is, the resized maps say where their cells are."""
    encoder = PyramidEncoder("test_vit", 3, depth=5, output_stride=32, dynamic_img_size=True, patch_size=patch)
    patches = -(-side // patch)
    centres = (torch.arange(patches) + 0.5) * patch
    encoder.model.forward_intermediates = lambda *_, **__: [centres.expand(1, 1, patches, patches)] * 4
    for stride, feature in zip((4, 8, 16, 32), encoder(torch.zeros(1, 3, side, side))[2:], strict=True):
        expected = (torch.arange(side // stride) + 0.5) * stride
        inner = (expected > centres[0]) & (expected < centres[-1])  # beyond the outer centres the map is constant
        assert inner.any() and torch.allclose(feature[0, 0, 0, inner], expected[inner], atol=1e-4)


@pytest.mark.parametrize("encoder", ["test_vit", "mit_b0"])
def test_a_file_of_weights_reaches_every_tensor_of_the_encoder(encoder, tmp_path):
    donor = timm.create_model(encoder) if timm.is_model(encoder) else untrained(encoder).network.encoder
    torch.save(donor.state_dict(), tmp_path / "own.pth")
    settings = ModelSettings(encoder=encoder, weights=str(tmp_path / "own.pth"))
    wanted = donor.state_dict()
    encoder_of = build_pretrained(settings, class_count=1).network.network.encoder
    loaded = getattr(encoder_of, "model", encoder_of).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.items())
    gray = build_pretrained(settings, class_count=1, channels=1).network.network.encoder.state_dict()
    first = next(name for name in gray if name.endswith("proj.weight"))
    assert torch.allclose(gray[first], wanted[first.removeprefix("model.")].sum(1, keepdim=True), atol=1e-6)
    with pytest.raises(UserError, match=f"do not fit {encoder}"):
        require_fit(
            {name: tensor for name, tensor in wanted.items() if name != first.removeprefix("model.")}, encoder, ""
        )


@pytest.mark.parametrize(("encoder", "source"), [("test_vit", "timm"), ("mit_b0", "smp")])
def test_without_a_network_the_hub_is_a_clear_error_and_a_trained_model_does_not_ask(encoder, source, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", offline)
    with pytest.raises(UserError, match=f"{encoder} cannot be fetched"):
        build_pretrained(ModelSettings(encoder=encoder), class_count=1)
    build_untrained(ModelSettings(encoder=encoder), class_count=1)
