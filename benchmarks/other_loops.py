"""Training loops that people write with other libraries: smp's example notebooks, Lightning, fastai.

All train the same U-Net with Dice loss and Adam on batches of the same loader. Each function returns a function that
trains one epoch; it returns the time at which it first asked the loader for batches, so that a library's preparations
are not counted.
"""

from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from lib.config.training_settings import ModelSettings
from lib.model.device import autocast

Clock = Callable[[], tuple[float, ...]]
Epoch = Callable[[], tuple[float, ...]]
RATE = 2e-4


class PlainUnet(nn.Module):
    """smp's U-Net on raw images; it can set the `precision` itself, since fastai uses bf16 only on GPUs."""

    def __init__(self, settings: ModelSettings, device: torch.device, precision: str = "fp32") -> None:
        super().__init__()
        channels = settings.decoder_channels
        decoder = {"decoder_channels": channels} if channels else {}
        self.network = smp.Unet(f"tu-{settings.encoder}", encoder_weights=None, **decoder).to(device)
        self.device, self.precision = device, precision

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.precision == "fp32":  # or a context that computes in bf16 would be left for the network
            return self.network(images.float() / 255)
        with autocast(self.device, self.precision):
            return self.network(images.float() / 255).float()


class TimedLoader(DataLoader):
    """Pairs of images and masks; `begun` is the clock when an epoch began to ask for them."""

    def __init__(self, dataset: Dataset, batch_size: int, steps: int, workers: int, clock: Clock) -> None:
        keys = [(0, index) for index in torch.randperm(len(dataset))[: steps * batch_size].tolist()]
        super().__init__(
            dataset, batch_size, sampler=keys, drop_last=True, num_workers=workers, collate_fn=images_and_masks
        )
        self.clock, self.begun = clock, ()

    def __iter__(self):
        self.begun = self.clock()
        return super().__iter__()


def images_and_masks(items: list[dict[str, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    batch = default_collate(items)
    return batch["images"], batch["masks"]


def notebook(settings: ModelSettings, loader: TimedLoader, device: torch.device, precision: str) -> Epoch:
    """The plain loop of smp's example notebooks."""
    network = PlainUnet(settings, device)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    loss_of = smp.losses.DiceLoss("binary")

    def epoch() -> tuple[float, ...]:
        network.train()
        for images, masks in loader:
            with autocast(device, precision):
                loss = loss_of(network(images.to(device)), masks.to(device).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()  # waits for the device
        return loader.begun

    return epoch


def lightning(settings: ModelSettings, loader: TimedLoader, device: torch.device, precision: str) -> Epoch:
    """A LightningModule and a Trainer with its progress bar. Raises ImportError where Lightning is not installed."""
    from lightning import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = PlainUnet(settings, device)
            self.loss_of = smp.losses.DiceLoss("binary")

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
            images, masks = batch
            loss = self.loss_of(self.network(images), masks.float())
            self.log("train_loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=RATE)

    module = Module()

    def epoch() -> tuple[float, ...]:
        trainer = Trainer(
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=1,
            precision={"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision],
        )
        trainer.fit(module, loader)
        return loader.begun

    return epoch


def fastai(settings: ModelSettings, loader: TimedLoader, device: torch.device, precision: str) -> Epoch:
    """A Learner with its own Adam and progress bar. Raises ImportError where fastai is not installed."""
    from fastai.callback import fp16, progress  # noqa: F401  both extend Learner
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner

    on_gpu = device.type == "cuda"
    network = PlainUnet(settings, device, "fp32" if on_gpu else precision)
    loss_of = smp.losses.DiceLoss("binary")
    learner = Learner(
        DataLoaders(loader, DataLoader([]), device=device),
        network,
        loss_func=lambda logits, masks: loss_of(logits, masks.float()),
        lr=RATE,
    )
    if on_gpu and precision != "fp32":
        learner = {"bf16": learner.to_bf16, "fp16": learner.to_fp16}[precision]()

    def epoch() -> tuple[float, ...]:
        learner.fit(1)
        return loader.begun

    return epoch
