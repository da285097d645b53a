"""Weights as float16, half the size: how far that changes the masks of out-of-fold images."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from lib.data.competition import TrainingData, open_training
from lib.data.image_index import listed_as
from lib.data.resize_column import values_of_training
from lib.deploy.apply import MemberPredictor
from lib.deploy.finished import FinishedRun, Member
from lib.deploy.time_budget import ViewsAndFolds
from lib.folds.split import stored_folds
from lib.masks.metrics import count_masks
from lib.model.device import best_device
from lib.model.network import SegmentationNet, build_untrained, load_into
from lib.model.weight_files import read_tensors
from lib.prediction.map_store import predicted_masks
from lib.prediction.predictor import Predictor
from lib.prediction.run_maps import common_precision, trained_precisions
from lib.run.folder import ALL

CHECKED = 24  # images, shared out over the folds
ONE_VIEW = ViewsAndFolds("none")  # several views would take longer, and average some of the change away
SMALL = 1024  # numbers: smaller tensors, and those of batch norms, gain nothing as float16


@dataclass(frozen=True)
class Float16Check:
    """The change of the masks of out-of-fold images when weights are rounded to float16."""

    images: int
    changed: int  # pixels
    mask: int  # pixels that are mask with either

    @property
    def share(self) -> float:
        return self.changed / max(self.mask, 1)

    def __str__(self) -> str:
        return f"float16 changes {self.changed:,} of {self.mask:,} mask pixels of {self.images} out-of-fold images"


def check_float16(finished: FinishedRun) -> Float16Check:
    """Compare the masks of some images of each fold by its model in float32 and in float16.

    Raises UserError if the training images do not exist.
    """
    data, checks = open_training(finished.settings.data), []
    of_fold = math.ceil(CHECKED / sum(len(member.folds) for member in finished.members))
    for member in finished.members:
        table = stored_folds(member.run.folds)
        settings = member.settings
        networks = [
            build_untrained(settings.model, len(data.classes), settings.data.network_channels) for _ in range(2)
        ]
        for fold in member.folds:
            if fold == ALL:
                continue  # no image is left out that it could be measured on
            ids = table.id[table.fold == fold].tolist()
            ids = ids[:: max(1, len(ids) // of_fold)][:of_fold]
            checks.append(_check_fold(finished, replace(member, folds=(fold,)), networks, data, ids))
    return Float16Check(*(sum(column) for column in zip(*checks, strict=True)))


def _check_fold(
    finished: FinishedRun, member: Member, networks: list[SegmentationNet], data: TrainingData, ids: list[str]
) -> tuple[int, int, int]:
    """The three numbers of a Float16Check, of one fold's model: the networks get its weights, the second one rounded.

    Image by image, since the maps of a slide fill the memory.
    """
    settings, device, (path,), (fold,) = member.settings, best_device(), member.weight_files, member.folds
    values = values_of_training(settings.data, data.files)
    source = TrainingData(listed_as(settings.data, data.settings), data.files, {}, None, values)
    precision = common_precision(trained_precisions(member.run, settings, [fold], device), device)
    counts, predictors, tensors = np.zeros(3, np.int64), [], read_tensors(path)
    of_networks = tensors, {name: rounded(tensor) for name, tensor in tensors.items()}
    for network, weights in zip(networks, of_networks, strict=True):
        load_into(network, weights, path)
        predictors.append(MemberPredictor(Predictor([network], settings.infer, device, precision, [f"fold {fold}"])))
    for image_id in ids:
        predictions = [predictor.predict(source, [image_id], ONE_VIEW)[image_id] for predictor in predictors]
        before, after = (predicted_masks(one, finished.rules, finished.settings) > 0 for one in predictions)
        counts += count_masks(before, after).sum(axis=1)
    return len(ids), int(counts[1:].sum()), int(counts.sum())


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    """A weight tensor as float16; small tensors, and those with values that float16 cannot hold, unchanged."""
    if tensor.dtype != torch.float32 or tensor.dim() < 2 or tensor.numel() < SMALL:
        return tensor
    half = tensor.half()
    return half if half.isfinite().all() else tensor
