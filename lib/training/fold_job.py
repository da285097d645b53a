"""The plan of a fold, fixed before its training begins: images, epochs, device and precision."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from lib.base import distributed
from lib.config.schema import Settings
from lib.data.competition import TrainingData
from lib.data.resizing import network_size
from lib.folds.external import ExternalImages
from lib.masks.metrics import Metric
from lib.model.device import best_device, resolve_precision
from lib.run.folder import ALL, Fold, FoldFolder, RunFolder
from lib.training.fold_images import FoldImages, fold_images
from lib.training.kept_images import kept_folder
from lib.training.schedule import EpochPlan, plan_epochs


@dataclass(frozen=True)
class FoldJob:
    """The plan of one fold's training; TrainState holds everything that changes."""

    fold: Fold
    run: RunFolder
    settings: Settings
    data: TrainingData
    images: FoldImages
    crop: tuple[int, int]  # height, width
    plan: EpochPlan
    made_from: dict  # written beside the weights
    device: torch.device
    precision: str  # fp32, bf16 or fp16

    @property
    def folder(self) -> FoldFolder:
        return self.run.fold(self.fold)

    @property
    def seed(self) -> int:
        """The fold's number; for the model of all images the one after the last fold."""
        return self.settings.folds.count if self.fold == ALL else self.fold

    @property
    def metric(self) -> Metric:
        return Metric.of(self.settings.threshold)

    @property
    def score_name(self) -> str:
        """The history's column of the validation score."""
        return self.metric.column


def plan_fold(
    fold: Fold,
    run: RunFolder,
    table: pd.DataFrame,
    data: TrainingData,
    settings: Settings,
    made_from: dict,
    external: Sequence[ExternalImages],
) -> FoldJob:
    """Plan a fold's training. Raises UserError if its images or the device do not allow it."""
    images = fold_images(fold, table, data, settings, kept_folder(run, made_from), external)
    device = best_device()
    is_empty = images.empty_turns
    plan = plan_epochs(len(is_empty), int(is_empty.sum()), settings.train, distributed.COUNT)
    return FoldJob(
        fold=fold,
        run=run,
        settings=settings,
        data=data,
        images=images,
        crop=largest_crop(table, data, settings.train.crop_size),
        plan=plan,
        made_from=made_from,
        device=device,
        precision=resolve_precision(settings.train.precision, device),
    )


def largest_crop(table: pd.DataFrame, data: TrainingData, size: int) -> tuple[int, int]:
    """Height and width of the crops: `size`, or less if no image is that high or wide at the network's size."""
    resize, values = data.settings.resize, data.resize_values
    rows = table[["id", "height", "width"]].itertuples(index=False)
    sizes = [network_size(resize, (row.height, row.width), values.get(row.id)) for row in rows]
    height, width = np.max(sizes, axis=0).tolist()
    return min(size, height), min(size, width)
