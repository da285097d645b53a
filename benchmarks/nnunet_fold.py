"""nnU-Net's 2-D configuration on a fold, trained on one thread of a CPU until a budget of processor seconds is spent.

Unchanged are fingerprint, plan, preprocessing, network with deep supervision, loss, augmentation, optimizer and sliding
window. Changed for the budget and a fair comparison:

batch size   BATCH_SIZE; the plan's fills a GPU, and the budget would hold too few batches of that size
rate         follows its polynomial over the budget instead of over 1000 epochs
precision    as given; nnU-Net itself computes in fp32 on a CPU
validation   none within the budget; the last weights are used
prediction   one view, without mirroring

Planning, preprocessing and the start until the first batch do not count. Data of one class only.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from lib.base.files import read_json, write_json
from lib.data.competition import TrainingData
from lib.model.device import autocast
from lib.prediction.map_store import to_map

Forward = Callable[[torch.Tensor], torch.Tensor | list[torch.Tensor]]

NAME = "Dataset001_Benchmark"
BATCH_SIZE = 4  # the best at .5 on fold 0: of 2, 4 and 8 in 20 s of the demo, of 4 and 16 in 60 s of the nuclei
CPU = torch.device("cpu")


def prepare(folder: Path, data: TrainingData, table: pd.DataFrame) -> Path:
    """Have nnU-Net plan and preprocess the images in a folder, if it has not; the folder of what it made."""
    places = {f"nnUNet_{name}": str((folder / name).resolve()) for name in ("raw", "preprocessed", "results")}
    os.environ |= places | {"nnUNet_n_proc_DA": "0"}  # batches are made in this process, whose seconds are counted
    made = folder / "preprocessed" / NAME
    if not (made / "gt_segmentations").is_dir():  # which nnU-Net writes last
        write_raw(folder / "raw" / NAME, data, table)
        command = [sys.executable, "-m", "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"]
        # planning takes the number of loader processes as one of threads, which cannot be 0
        environment = os.environ | {"nnUNet_n_proc_DA": "1"}
        options = ["-d", "1", "-c", "2d", "-np", "1", "-npfp", "1", "--no_pbar"]
        subprocess.run([*command, *options], env=environment, stdout=subprocess.DEVNULL, check=True)
    return made


def write_raw(folder: Path, data: TrainingData, table: pd.DataFrame) -> None:
    """Write images, masks and folds as nnU-Net wants to have them; each channel is a file."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for image_id in data.ids:
        for channel, plane in enumerate(cv2.split(data.read_image(image_id))):
            cv2.imwrite(str(folder / "imagesTr" / f"{image_id}_{channel:04d}.png"), plane)
        cv2.imwrite(str(folder / "labelsTr" / f"{image_id}.png"), data.read_mask(image_id))
    description = {
        "channel_names": {str(channel): f"channel {channel}" for channel in range(data.settings.channels)},
        "labels": {"background": 0, data.classes[0]: 1},
        "numTraining": len(data.ids),
        "file_ending": ".png",
    }
    write_json(folder / "dataset.json", description)
    folds = [
        {"train": table.id[table.fold != fold].tolist(), "val": table.id[table.fold == fold].tolist()}
        for fold in range(table.fold.max() + 1)
    ]
    write_json(folder / "splits_final.json", folds)


def build_trainer(made: Path, fold: int, precision: str) -> nnUNetTrainer:
    """nnU-Net's trainer with its network and batches, given what `prepare` returned."""
    plans = read_json(made / "nnUNetPlans.json") | {"continue_training": False}
    plans["configurations"]["2d"]["batch_size"] = BATCH_SIZE
    with redirect_stdout(None):
        trainer = nnUNetTrainer(plans, "2d", fold, read_json(made / "dataset.json"), CPU)
        trainer.initialize()
        trainer.dataloader_train, _ = trainer.get_dataloaders()
    trainer.network.forward = partial(forward_in, precision, trainer.network.forward)
    return trainer


def forward_in(precision: str, forward: Forward, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
    """The network's logits, of each resolution where it gives several: float32, computed in a precision."""
    with autocast(CPU, precision):
        logits = forward(images)
    return [one.float() for one in logits] if isinstance(logits, list) else logits.float()


def train(trainer: nnUNetTrainer, budget: float) -> tuple[float, int]:
    """Train until the processor seconds are spent; the seconds and the images seen."""
    trainer.set_deep_supervision_enabled(True)
    trainer.network.train()
    started, seconds, seen = time.process_time(), 0.0, 0
    while seconds < budget:
        trainer.lr_scheduler.step(trainer.num_epochs * seconds / budget)
        trainer.train_step(next(trainer.dataloader_train))
        seen += trainer.batch_size
        seconds = time.process_time() - started
    return seconds, seen


def predict(trainer: nnUNetTrainer, ids: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (id, uint8 map (height, width, 1)) of preprocessed images, at their own size."""
    plans, configuration = trainer.plans_manager, trainer.configuration_manager
    trainer.set_deep_supervision_enabled(False)
    with redirect_stdout(None):
        predictor = nnUNetPredictor(use_mirroring=False, device=CPU, allow_tqdm=False)
    predictor.manual_initialization(trainer.network, plans, configuration, None, trainer.dataset_json, "", None)
    images = trainer.dataset_class(trainer.preprocessed_dataset_folder, list(ids))
    for image_id in ids:
        image, _, _, properties = images.load_case(image_id)
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(image[:]))
        _, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits.float(), plans, configuration, trainer.label_manager, properties, True, num_threads_torch=1
        )
        yield image_id, to_map(probabilities[1, 0, :, :, None])
