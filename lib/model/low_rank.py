"""Low-rank updates: of the encoder's linear layers only a small part learns (Hu et al., LoRA, 2022).

Each weight matrix W becomes W + B A, W frozen and A, B of a low rank; B begins at zero, and the encoder as it was.
Written as a parametrization and not by peft, whose layers replace `forward`: timm's attention (DINOv3, Swin V2) reads
`qkv.weight` itself, and would pass by such an update. Saved weights hold the sums, under their usual names.
"""

import torch
from torch import nn
from torch.nn.utils import parametrize

from lib.base.errors import UserError


class LowRankUpdate(nn.Module):
    """W to W + B A, for W of `rows` x `columns`."""

    def __init__(self, rows: int, columns: int, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, columns).uniform_(-(columns**-0.5), columns**-0.5))
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.b @ self.a


def learn_low_rank(encoder: nn.Module, rank: int, name: str) -> None:
    """Freeze the encoder but for low-rank updates of its linear layers. Raises UserError where it has none."""
    encoder.requires_grad_(False)
    layers = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UserError(
            f"train.lora_rank={rank} needs an encoder with linear layers, which model.encoder={name} lacks; choose "
            "one with attention, such as vit_small_patch16_dinov3, or set train.lora_rank=0"
        )
    for layer in layers:
        update = LowRankUpdate(layer.out_features, layer.in_features, rank)
        parametrize.register_parametrization(layer, "weight", update.to(layer.weight.device))


def merged_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The network's tensors by name, updates added to the weights that they belong to."""
    state = network.state_dict()
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module):
            state = {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.parametrizations.")}
            state[f"{name}.weight"] = module.weight.detach()
    return state
