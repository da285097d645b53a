"""What is fixed before a fold's training begins: its images, the epochs it will have, device and precision."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from lib.base import distributed
from lib.config.schema import Settings
from lib.data.competition import TrainingData
from lib.data.external import ExternalImages
from lib.masks.metrics import Metric
from lib.model.device import best_device, resolve_precision
from lib.run.folder import FoldFolder, RunFolder
from lib.training.fold_images import FoldImages, fold_images
from lib.training.schedule import EpochPlan, plan_epochs


@dataclass(frozen=True)
class FoldJob:
    """The training of one fold as it is planned; what changes meanwhile is in TrainState."""

    fold: int
    folder: FoldFolder
    settings: Settings
    data: TrainingData
    images: FoldImages
    crop: tuple[int, int]  # height, width
    plan: EpochPlan
    made_from: dict  # written beside the weights
    device: torch.device
    precision: str  # fp32, bf16 or fp16

    @property
    def metric(self) -> Metric:
        return Metric.of(self.settings.threshold)

    @property
    def score_name(self) -> str:
        """The history's column of the validation score."""
        return f"val_{self.metric.name}"


def plan_fold(
    fold: int,
    run: RunFolder,
    table: pd.DataFrame,
    data: TrainingData,
    settings: Settings,
    made_from: dict,
    external: Sequence[ExternalImages] = (),
) -> FoldJob:
    """Plan a fold's training. Raises UserError where its images or the device do not allow it."""
    images = fold_images(fold, table, data, settings, external)
    device = best_device()
    is_empty = images.empty_turns
    plan = plan_epochs(len(is_empty), int(is_empty.sum()), settings.train, distributed.COUNT)
    size = settings.train.crop_size
    return FoldJob(
        fold=fold,
        folder=run.fold(fold),
        settings=settings,
        data=data,
        images=images,
        crop=(min(size, int(table.height.max())), min(size, int(table.width.max()))),
        plan=plan,
        made_from=made_from,
        device=device,
        precision=resolve_precision(settings.train.precision, device),
    )
