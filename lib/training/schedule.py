"""Schedules: the lengths of the epochs, the learning rate, the decay of the averaged weights."""

import math
from dataclasses import dataclass

import numpy as np

from lib.base.errors import UserError
from lib.config.training_settings import TrainSettings


@dataclass(frozen=True)
class EpochPlan:
    """The number of batches in each epoch, the same for every process; a step is a batch, counted over all epochs."""

    batch_size: int  # of one process
    lengths: list[int]  # batches of each epoch
    left_out: list[int]  # crops of images without a mask that are skipped in each epoch

    @property
    def steps(self) -> int:
        return sum(self.lengths)

    def first_step(self, epoch: int) -> int:
        return sum(self.lengths[:epoch])


def plan_epochs(crops: int, empty_crops: int, settings: TrainSettings, processes: int) -> EpochPlan:
    """Plan the epochs over `crops` crops, of which `empty_crops` are of images without a mask.

    Raises UserError if an epoch would hold no crop, or fewer than there are processes.
    """
    left_out = [0] * settings.epochs
    if settings.empty_share is not None:
        with_mask = crops - empty_crops
        shares = np.linspace(*np.broadcast_to(settings.empty_share, 2), settings.epochs)
        left_out = [max(0, empty_crops - round(with_mask * share / (1 - share))) for share in shares]
    fewest = crops - max(left_out)
    if fewest == 0:
        raise UserError("all masks are empty, and train.empty_share leaves no crop to train on")
    if fewest < processes:
        raise UserError(
            f"an epoch has {fewest} crops for {processes} processes; start fewer processes, "
            "or raise train.crops_per_image"
        )
    batch_size = min(settings.batch_size, fewest // processes)
    lengths = [(crops - left) // processes // batch_size for left in left_out]
    return EpochPlan(batch_size, lengths, left_out)


def learning_rate(step: int, steps: int, settings: TrainSettings) -> float:
    """The learning rate of a step: linear warm-up, then half a cosine down to zero."""
    warmup = settings.warmup_share * steps
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    return settings.lr * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def averaging_decay(step: int, limit: float) -> float:
    """The decay of the averaged weights at a step: 0 at first, rising to `limit`.

    The warm-up of timm's ModelEmaV3, 1 - (1 + n) ** (-2 / 3), lets early averages forget the random start.
    """
    return min(1 - (1 + max(0, step - 1)) ** (-2 / 3), limit)


def batches_per_update(batch: int, batches: int, accumulate: int) -> int:
    """The number of batches in the optimizer update that contains batch `batch` (from 0) of an epoch of `batches`.

    The last update of an epoch may have fewer than `accumulate`.
    """
    return min(accumulate, batches - batch // accumulate * accumulate)


def ends_update(batch: int, batches: int, accumulate: int) -> bool:
    """True if the optimizer updates the weights after batch `batch` (from 0) of an epoch of `batches`."""
    return (batch + 1) % accumulate == 0 or batch + 1 == batches
