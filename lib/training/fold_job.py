"""What is fixed before a fold's training begins: its images, the epochs it will have, device and precision."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import torch

from lib.base import distributed
from lib.config.schema import Settings
from lib.data.competition import TrainingData
from lib.data.folds import coverage_columns
from lib.masks.metrics import Metric
from lib.model.device import best_device, resolve_precision
from lib.run.folder import FoldFolder, RunFolder
from lib.training.pseudo_labels import WithPseudoLabels, read_pseudo_labels
from lib.training.schedule import EpochPlan, plan_epochs


class LabelledImages(Protocol):
    """What crops are cut from: images and their masks, by id."""

    def read_image(self, image_id: str) -> np.ndarray: ...
    def read_mask(self, image_id: str) -> np.ndarray: ...


@dataclass(frozen=True)
class FoldImages:
    """The images a fold's model learns from, and those it is validated on."""

    source: LabelledImages  # of the training ids
    training: list[str]
    is_empty: np.ndarray  # bool (training,): the mask is empty
    validation: list[str]  # training images of the competition, never pseudo-labelled ones
    class_shares: list[float]  # share of each class among the pixels learned from, 0 to 1


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
    fold: int, run: RunFolder, table: pd.DataFrame, data: TrainingData, settings: Settings, made_from: dict
) -> FoldJob:
    """Plan a fold's training. Raises UserError where its images or the device do not allow it."""
    images = fold_images(fold, table, data, settings)
    device = best_device()
    per_image = settings.train.crops_per_image
    plan = plan_epochs(
        len(images.training) * per_image, int(images.is_empty.sum()) * per_image, settings.train, distributed.COUNT
    )
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


def fold_images(fold: int, table: pd.DataFrame, data: TrainingData, settings: Settings) -> FoldImages:
    """The other folds' images to learn from, and pseudo-labelled test images where the settings ask for them."""
    others = table[table.fold != fold]
    coverage = others[coverage_columns(data.classes)].to_numpy()
    source, training, is_empty = data, others.id.tolist(), (coverage == 0).all(axis=1)
    if settings.train.pseudo_labels:
        pseudo = read_pseudo_labels(settings.train.pseudo_labels, settings.train.pseudo_agreement, settings.data)
        source, training = WithPseudoLabels(data, pseudo), training + pseudo.ids
        is_empty = np.append(is_empty, list(pseudo.empty.values()))
    validation = table.id[table.fold == fold].tolist()
    return FoldImages(source, training, is_empty, validation, coverage.mean(axis=0).tolist())
