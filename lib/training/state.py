"""The state of a training, which is also its checkpoint: network, averaged weights, optimizer, epochs done."""

import copy
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from lib.base.errors import UserError
from lib.base.files import atomic_path
from lib.config.training_settings import TrainSettings
from lib.model.device import compute_slow_gradients_in_float32
from lib.model.network import SegmentationNet
from lib.training.fold_job import FoldJob

ENCODER_PREFIX = "network.encoder."  # how the names of the encoder's tensors begin
RESTART = "add --restart to train the fold from the beginning"


@dataclass(eq=False, repr=False)
class TrainState:
    """Everything that training changes. `save` writes it after each epoch; after `load` training resumes exactly."""

    network: nn.Module  # as accelerate has prepared it: autocast, several processes
    optimizer: torch.optim.Optimizer
    averaged: SegmentationNet  # exponential moving average of the network's weights; these are kept
    accelerator: Accelerator
    weights_source: str  # origin of the initial encoder weights, for messages
    score_name: str  # column of the history that ranks the epochs
    history: list[dict] = field(default_factory=list)  # a row for each epoch done

    def __post_init__(self) -> None:
        # listed once: to walk the modules in each step would cost as much as averaging them
        self.parameters = list(self.module.parameters())
        self._learned, self._averaged = _float_tensors(self.module), _float_tensors(self.averaged)

    @property
    def module(self) -> SegmentationNet:
        """The network without accelerate's wrapper."""
        return self.accelerator.unwrap_model(self.network)

    @property
    def epoch(self) -> int:
        """The number of epochs done."""
        return len(self.history)

    @property
    def last(self) -> dict:
        """The history's row of the last epoch."""
        return self.history[-1]

    @property
    def best(self) -> dict:
        """The history's row of the first epoch with the highest score."""
        return max(self.history, key=lambda row: row[self.score_name])

    def train_mode(self, settings: TrainSettings, epoch: int) -> None:
        """Set the network to training mode for an epoch, counted from 0; see `set_train_mode`."""
        self.network.train()
        set_train_mode(self.module, settings, epoch)

    def set_learning_rate(self, rate: float, is_frozen: bool) -> None:
        """Set the learning rate of each parameter group; 0 for a frozen encoder."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0 if is_frozen and group["is_encoder"] else rate * group["lr_factor"]

    def update_average(self, decay: float) -> None:
        """Move the averaged weights and batch-norm statistics towards the network's, by 1 - decay."""
        torch._foreach_lerp_(self._averaged, self._learned, 1 - decay)

    def save(self, path: Path, made_from: dict, precision: str) -> None:
        """Write the state, whole or not at all, with the inputs it was made from."""
        scaler = self.accelerator.scaler
        content = {
            "network": self.module.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "history": self.history,
            "made_from": made_from,
            "precision": precision,
        }
        with atomic_path(path) as temporary:
            try:
                torch.save(content, temporary)
            except RuntimeError:  # torch's form of an OSError
                raise UserError(f"{path} cannot be written; the disk may be full") from None

    def load(self, path: Path, content: dict) -> None:
        """Restore the result of `read_checkpoint`. Raises UserError if it does not fit the network."""
        try:
            self.module.load_state_dict(content["network"])
            self.averaged.load_state_dict(content["averaged"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} does not fit the network of the run's settings; {RESTART}") from None
        if self.accelerator.scaler is not None and content["scaler"]:  # absent if training began in another precision
            self.accelerator.scaler.load_state_dict(content["scaler"])
        self.history = content["history"]


def set_train_mode(network: SegmentationNet, settings: TrainSettings, epoch: int) -> None:
    """Set a network to training mode, except for what keeps its batch-norm statistics: a frozen encoder, or its norms.

    With train.lora_rank only linear layers learn, so the norms stay as they are while dropout acts as in training.
    """
    network.train()
    encoder = network.network.encoder.train(not settings.freezes_encoder(epoch))
    if settings.lora_rank:
        for module in encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


CHECKPOINT_KEYS = {"network", "averaged", "optimizer", "scaler", "history", "made_from", "precision"}


def read_checkpoint(path: Path) -> dict:
    """Read what `TrainState.save` wrote. Raises UserError for a damaged file or one with other content."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch.load does not verify the checksums
                raise zipfile.BadZipFile
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise UserError(f"{path} cannot be read ({type(error).__name__}); {RESTART}") from None
    is_ours = isinstance(content, dict) and content.keys() == CHECKPOINT_KEYS
    if not (is_ours and isinstance(content["made_from"], dict) and isinstance(content["history"], list)):
        raise UserError(f"{path} was not written by this version of the project; {RESTART}")
    return content


def begin_state(network: SegmentationNet, weights_source: str, job: FoldJob, accelerator: Accelerator) -> TrainState:
    """The state before the first step."""
    network.to(job.device)
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    compute_slow_gradients_in_float32(network, job.device, job.precision)
    if job.settings.train.compile:
        network.compile()  # in place, so that the tensors keep their names
    optimizer = build_optimizer(network, job.settings.train)
    network, optimizer = accelerator.prepare(network, optimizer)
    return TrainState(network, optimizer, averaged, accelerator, weights_source, job.score_name)


def build_optimizer(network: SegmentationNet, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW with a learning-rate factor for the encoder, and no decay of biases and normalisation weights."""
    groups = []
    for is_encoder in (True, False):
        for decays in (True, False):
            parameters = [
                parameter
                for name, parameter in network.named_parameters()
                if name.startswith(ENCODER_PREFIX) == is_encoder and (parameter.ndim > 1) == decays
            ]
            groups.append(
                {
                    "params": parameters,
                    "is_encoder": is_encoder,
                    "lr_factor": settings.encoder_lr_factor if is_encoder else 1.0,
                    "weight_decay": settings.weight_decay if decays else 0.0,
                }
            )
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


def seed_all(*seed: int) -> None:
    """Seed python, numpy and torch from whole numbers, such as (seed, fold, epoch)."""
    set_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))


def _float_tensors(network: nn.Module) -> list[torch.Tensor]:
    """The network's parameters and statistics, which share their memory with it, each once (CoaT names some twice)."""
    tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    return list({tensor.data_ptr(): tensor for tensor in tensors}.values())
