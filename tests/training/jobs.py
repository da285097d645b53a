"""Fold jobs on the small competition, for tests of single steps and epochs."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from accelerate import Accelerator

from lib.checks.inspection import inspect_all
from lib.config.check import check_settings
from lib.config.schema import Settings
from lib.data.competition import TrainingData, open_training
from lib.folds.split import image_table
from lib.run.folder import RunFolder
from lib.training.batches import Batch, batches, build_loader
from lib.training.fold_images import FoldImages, Pool
from lib.training.fold_job import FoldJob, plan_fold
from lib.training.losses import SegmentationLoss
from lib.training.start import load_or_begin
from lib.training.trainer import build_accelerator, train_folds

TINY = {"encoder": "test_resnet", "weights": "random", "decoder_channels": [16, 8, 8, 8, 8]}


def settings_of(competition, sections: dict | None = None, **train) -> Settings:
    content = {
        "name": "test",
        "data": {"root": str(competition)},
        "folds": {"count": 2},
        "model": TINY,
        "train": {"epochs": 2, "batch_size": 4, "workers": 0, "crop_size": 32} | train,
    }
    content |= {name: content.get(name, {}) | section for name, section in (sections or {}).items()}
    return check_settings(content, source=competition)


def table_of(settings: Settings) -> pd.DataFrame:
    """Two folds in turn."""
    data = open_training(settings.data)
    images = image_table(inspect_all(data).facts, data.groups, data.classes)
    return images.assign(fold=np.arange(len(images)) % 2, group=images.id)


def jobs_of(settings: Settings, folder, folds=(0,), made_from: dict | None = None) -> list[FoldJob]:
    data, table = open_training(settings.data), table_of(settings)
    return [plan_fold(fold, RunFolder(folder), table, data, settings, made_from or {}, ()) for fold in folds]


def train(settings: Settings, folder, folds=(0,), made_from: dict | None = None) -> RunFolder:
    train_folds(jobs_of(settings, folder, folds, made_from), after_epoch=lambda job, row: None)
    return RunFolder(folder)


def images_of(data: TrainingData, ids: list[str], crops: int = 1) -> FoldImages:
    """Training images as a fold has them, without any to validate on."""
    return FoldImages(data, [Pool(ids, np.zeros(len(ids), bool), len(ids) * crops)], data, [], [])


class Begun:
    """A fold's training before its first step: the job and what `train_step` and `train_epoch` take."""

    def __init__(self, settings: Settings, folder) -> None:
        (self.job,) = jobs_of(settings, folder)
        self.accelerator: Accelerator = build_accelerator(self.job)
        self.state = load_or_begin(self.job, self.accelerator)
        self.loss_of = SegmentationLoss.of(settings)
        self.loader = build_loader(self.job, self.loss_of.needs_distance)

    def batches(self) -> Iterator[Batch]:
        """Those of the epoch that comes next."""
        return batches(self.loader, self.state.epoch)
