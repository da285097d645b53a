"""Folding batch norms changes how a network is computed, and not what it says."""

import pytest
import torch
from torch import nn

from lib.config.training_settings import ModelSettings
from lib.model.folded_norms import fold_norms
from lib.model.network import SegmentationNet, build_untrained
from tests.model.test_network import ARCHITECTURES

ENCODERS = ["tf_efficientnet_lite0", "resnet10t", "regnety_002", "convnext_atto", "mobilenetv3_small_050"]


def norms_of(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def untrained_with_odd_norms(architecture: str, encoder: str) -> SegmentationNet:
    torch.manual_seed(0)
    settings = ModelSettings(architecture=architecture, encoder=encoder, weights="random")
    network = build_untrained(settings, class_count=2).eval()
    for norm in norms_of(network):
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.3)
    return network


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [*((name, "test_resnet") for name in ARCHITECTURES), *(("unet", name) for name in ENCODERS)],
)
@torch.inference_mode()
def test_logits_are_the_same_and_norms_are_gone(architecture, encoder):
    network = untrained_with_odd_norms(architecture, encoder)
    images = torch.randint(0, 256, (2, 3, 2 * network.stride, 3 * network.stride + 5), dtype=torch.uint8)
    before, count = network(images), len(norms_of(network))
    assert fold_norms(network)
    assert torch.allclose(network(images), before, rtol=1e-3, atol=1e-3)
    assert len(norms_of(network)) <= count // 10


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.norm.running_mean.fill_(2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.convolution(images)
        return features + self.norm(features)


@torch.inference_mode()
def test_a_convolution_that_others_read_too_is_left_alone():
    network = SegmentationNet(ReadTwice(), (0.5,) * 3, (0.5,) * 3, stride=32).eval()
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    before = network(images)
    assert not fold_norms(network) and torch.equal(network(images), before)


@torch.inference_mode()
def test_a_network_whose_logits_would_change_stays_as_it_was(monkeypatch):
    network = untrained_with_odd_norms("unet", "resnet10t")
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    before, tensors = network(images), {name: tensor.clone() for name, tensor in network.state_dict().items()}
    monkeypatch.setattr("lib.model.folded_norms.MOST_CHANGE", 0)
    assert not fold_norms(network)
    assert torch.equal(network(images), before) and network.state_dict().keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())
