"""One model per fold: epochs, averaged weights, validation at every threshold, and a state that resumes exactly."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

from lib.base.errors import UserError
from lib.base.files import atomic_path, write_json, write_text
from lib.base.progress import progress
from lib.config.schema import Settings, save_settings
from lib.data.competition import TrainingData
from lib.data.folds import coverage_columns
from lib.masks.metrics import Metric, count_images
from lib.model.device import (
    best_device,
    compute_slow_gradients_in_float32,
    is_out_of_memory,
    keep_freed_memory,
    resolve_precision,
)
from lib.model.network import SegmentationNet, build_pretrained, save_weights, start_at_shares
from lib.prediction.predictor import Predictor
from lib.report.page import refresh_report
from lib.run.folder import FoldFolder, RunFolder
from lib.run.provenance import differences
from lib.training.batches import Batch, CropDataset, batches, build_loader
from lib.training.losses import SegmentationLoss
from lib.training.pseudo_labels import WithPseudoLabels, read_pseudo_labels
from lib.training.tracking import require_tracker, tracked

BAR_SECONDS = 0.5  # reading the loss waits for the device, so the bar does it seldom


@dataclass
class Progress:
    """How far a fold's training is: all that is not a tensor."""

    epoch: int = 0
    best_score: float = -math.inf
    best_epoch: int = -1
    history: list[dict] = field(default_factory=list)


class FoldTraining:
    """The training of one fold's model, from wherever its folder says it stopped."""

    def __init__(
        self,
        fold: int,
        folder: FoldFolder,
        table: pd.DataFrame,
        data: TrainingData,
        settings: Settings,
        made_from: dict,
        accelerator: Accelerator,
        precision: str,
        after_epoch: Callable[[int, dict], None],
    ) -> None:
        self.fold, self.folder, self.data, self.settings = fold, folder, data, settings
        self.made_from, self.accelerator, self.precision = made_from, accelerator, precision
        self.after_epoch = after_epoch
        on_cpu = accelerator.device.type == "cpu"  # cpu:0 of several processes, where torch copies what is on a cpu
        self.device = torch.device("cpu") if on_cpu else accelerator.device
        self.validation_ids = table.id[table.fold == fold].tolist()
        others = table[table.fold != fold]
        coverage = others[coverage_columns(data.classes)].to_numpy()
        self.shares, empty = coverage.mean(axis=0).tolist(), (coverage == 0).all(axis=1)
        self.metric = Metric.of(settings.threshold)
        self.score_name = f"val_{self.metric.name}"
        self.loss = SegmentationLoss(settings.loss).to(self.device)
        crop = (
            min(settings.train.crop_size, int(table.height.max())),
            min(settings.train.crop_size, int(table.width.max())),
        )
        training_ids, source = others.id.tolist(), data
        if settings.train.pseudo_labels:
            pseudo = read_pseudo_labels(settings.train.pseudo_labels, settings.train.pseudo_agreement)
            training_ids, source = training_ids + pseudo.ids, WithPseudoLabels(data, pseudo)
            empty = np.append(empty, list(pseudo.empty.values()))
        dataset = CropDataset(source, training_ids, settings, crop, self.loss.needs_distance, empty)
        self.loader = build_loader(dataset, settings, accelerator.process_index, accelerator.num_processes, self.device)
        self.first_steps = self._first_steps()
        self.steps = self.first_steps[-1]
        self.progress = Progress()

    def _first_steps(self) -> list[int]:
        """The first step of each epoch, and of the one after the last; epochs may differ in length."""
        first = [0]
        for epoch in range(self.settings.train.epochs):
            self.loader.sampler.epoch = epoch
            first.append(first[-1] + len(self.loader))
        return first

    def build(self) -> None:
        """Make the network, its average and the optimizer, and load the state of an interrupted training."""
        seed_all(self.settings.train.seed, self.fold)
        built = build_pretrained(self.settings.model, len(self.data.classes), self.settings.data.channels)
        self.weights_source = built.weights_source
        start_at_shares(built.network, self.shares)
        self.average = ModelEmaV3(built.network.to(self.device), decay=self.settings.train.ema_decay, use_warmup=True)
        compute_slow_gradients_in_float32(built.network, self.device, self.precision)
        if self.settings.train.compile:
            built.network.compile()  # in place, so that the tensors keep their names
        optimizer = build_optimizer(built.network, self.settings)
        self.network, self.optimizer = self.accelerator.prepare(built.network, optimizer)
        # listed once: walking through the modules in each step costs as much as averaging them does
        self.parameters = list(built.network.parameters())
        self.learned, self.averaged = floats(built.network), floats(self.average.module)
        if self.folder.resume.is_file():
            self.load_state()

    def run(self, bar: tqdm) -> dict:
        """Train the epochs that are left and return what `metrics.json` says of the fold.

        Raises UserError where the device's memory is too small for a batch.
        """
        try:
            return self._run(bar)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            batch, crop = self.loader.batch_size, " x ".join(map(str, self.loader.dataset.crop))
            raise UserError(
                f"out of memory in fold {self.fold} with batches of {batch} crops of {crop} pixels; lower "
                "train.batch_size or train.crop_size, or choose a smaller model.encoder"
            ) from None

    def _run(self, bar: tqdm) -> dict:
        self.build()
        bar.update(self.first_steps[self.progress.epoch])
        while self.progress.epoch < self.settings.train.epochs:
            row = self.train_epoch(bar)
            row |= self.validate()
            self.keep(row)
        return self.finish()

    def train_epoch(self, bar: tqdm) -> dict:
        """One pass over the fold's training images; the means of the loss and its terms."""
        epoch = self.progress.epoch
        seed_all(self.settings.train.seed, self.fold, epoch, self.accelerator.process_index)
        self.loader.sampler.epoch = epoch
        self.network.train()
        sums: dict[str, torch.Tensor] = {}
        started = shown = time.monotonic()
        for number, batch in enumerate(batches(self.loader)):
            step = self.first_steps[epoch] + number
            for name, value in self.train_step(batch, step).items():
                sums[name] = sums.get(name, 0) + value
            bar.update()
            if time.monotonic() - shown > BAR_SECONDS:
                shown = time.monotonic()
                self.require_number(sums["loss"])
                speed = (number + 1) * len(batch["images"]) * self.accelerator.num_processes / (shown - started)
                bar.set_description(f"fold {self.fold} epoch {epoch + 1}/{self.settings.train.epochs}")
                bar.set_postfix_str(
                    f"loss {float(sums['loss']) / (number + 1):.3f} lr {self.lr(step):.1e} {speed:.1f} img/s "
                    f"best {self.score_name} {max(self.progress.best_score, 0):.4f}"
                )
        sums = {name: self.accelerator.reduce(value, "mean") for name, value in sums.items()}
        self.require_number(sums["loss"])
        means = {name: float(value) / len(self.loader) for name, value in sums.items()}
        seconds = time.monotonic() - started
        trained = len(self.loader) * self.loader.batch_size * self.accelerator.num_processes
        return {"epoch": epoch + 1, "lr": self.lr(step), "images_per_second": round(trained / seconds, 2)} | means

    def require_number(self, loss: torch.Tensor) -> None:
        """Raise UserError where the loss is infinite or not a number any more."""
        if not torch.isfinite(loss):
            kept = f"; the best weights so far stay in {self.folder.weights}" if self.progress.history else ""
            raise UserError(
                f"the loss of fold {self.fold} is no longer a number in epoch {self.progress.epoch + 1}{kept}; "
                "lower train.lr or train.clip_norm, or set train.precision=fp32"
            )

    def train_step(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """One batch, and an optimizer step after each train.accumulate; the loss and its terms, still on the device."""
        batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        for group in self.optimizer.param_groups:
            is_frozen = group["is_encoder"] and self.progress.epoch < self.settings.train.freeze_epochs
            group["lr"] = 0.0 if is_frozen else self.lr(step) * group["lr_factor"]
        total, terms = self.loss(
            self.network(batch["images"]), batch["masks"], batch.get("distances"), step / self.steps
        )
        number, whole = step - self.first_steps[self.progress.epoch] + 1, self.settings.train.accumulate
        self.accelerator.backward(total / self.batches_in_step(number))
        if number % whole == 0 or number == len(self.loader):
            self.accelerator.clip_grad_norm_(self.parameters, self.settings.train.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            torch._foreach_lerp_(self.averaged, self.learned, 1 - self.average.get_decay(step))
        return {"loss": total.detach()} | {f"loss_{name}": term for name, term in terms.items()}

    def batches_in_step(self, number: int) -> int:
        """How many batches make the optimizer step that batch `number` (from 1) of an epoch belongs to."""
        whole = self.settings.train.accumulate
        before = (number - 1) // whole * whole
        return min(whole, len(self.loader) - before)

    def lr(self, step: int) -> float:
        """The learning rate of a step: a linear warm-up, then half a cosine down to zero."""
        warmup = self.settings.train.warmup_share * self.steps
        if step < warmup:
            return self.settings.train.lr * (step + 1) / (warmup + 1)
        return self.settings.train.lr * (1 + math.cos(math.pi * (step - warmup) / (self.steps - warmup))) / 2

    def validate(self) -> dict:
        """Score the averaged weights on the fold's own images, at the threshold that serves them best.

        The best of all thresholds, not a fixed one, so that epochs and losses compare whatever their calibration.
        Several processes share out the images.
        """
        if self.accelerator.num_processes > 1:
            for statistics in self.average.module.buffers():  # of each process's own batches; the first one's are saved
                torch.distributed.broadcast(statistics, src=0)
        one_view = self.settings.infer.model_copy(update={"tta": "none"})
        predictor = Predictor([self.average.module], one_view, self.device, self.precision)
        mine = self.validation_ids[self.accelerator.process_index :: self.accelerator.num_processes]
        stream = (
            (image_id, probability_map, self.data.read_mask(image_id))
            for image_id, probability_map in predictor.predict(self.data, mine)
        )
        parts = gather_object([count_images(stream, self.data.classes)] if mine else [])
        counts = ([getattr(part, name) for part in parts] for name in ("tp", "fp", "fn"))
        scores = self.metric.score(*map(np.concatenate, counts)).mean(axis=0)
        return {self.score_name: float(scores.max()), "threshold": int(scores.argmax()) + 1}

    def keep(self, row: dict) -> None:
        """Write what the epoch gave: history, the weights when they are the best so far, and the state to resume from.

        The state comes last: killed before it, the epoch is trained again and writes the same files again.
        """
        self.progress.epoch += 1
        self.progress.history.append(row)
        if row[self.score_name] > self.progress.best_score:
            self.progress.best_score, self.progress.best_epoch = row[self.score_name], row["epoch"]
            self._on_main_process(self._save_weights)
        self._on_main_process(self._save_history)
        self._on_main_process(self._save_state)
        self.after_epoch(self.fold, row)

    def finish(self) -> dict:
        """Write `metrics.json`, which marks the fold as done, and remove the state."""
        metrics = {
            "fold": self.fold,
            self.score_name: self.progress.best_score,
            "epoch": self.progress.best_epoch,
            "weights_source": self.weights_source,
            "precision": self.precision,
            "made_from": self.made_from,
        }
        if self.accelerator.is_main_process:
            save_settings(self.settings, self.folder.config)
            write_json(self.folder.metrics, metrics)
            shutil.rmtree(self.folder.resume.parent)
        self.accelerator.wait_for_everyone()
        return metrics

    def load_state(self) -> None:
        """Go on where `keep` stopped. Raises UserError when the state is of other folds or settings, or damaged."""
        remedy = "add --restart to train the fold from the beginning"
        try:
            state = torch.load(self.folder.resume, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise UserError(f"{self.folder.resume} cannot be read ({type(error).__name__}); {remedy}") from None
        changed = differences(state["made_from"], self.made_from)
        if changed:
            raise UserError(f"{self.folder.root} was begun with other inputs ({'; '.join(changed[:3])}); {remedy}")
        self.accelerator.unwrap_model(self.network).load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])

    def _save_state(self) -> None:
        state = {
            "network": self.accelerator.unwrap_model(self.network).state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None,
            "progress": asdict(self.progress),
            "made_from": self.made_from,
        }
        with atomic_path(self.folder.resume) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError:  # where other writers raise OSError
                raise UserError(f"{self.folder.resume} cannot be written; the disk may be full") from None

    def _save_weights(self) -> None:
        save_weights(self.average.module, self.folder.weights)

    def _save_history(self) -> None:
        write_text(self.folder.history, pd.DataFrame(self.progress.history).to_csv(index=False))

    def _on_main_process(self, write: Callable[[], None]) -> None:
        if self.accelerator.is_main_process:
            write()


def build_optimizer(network: SegmentationNet, settings: Settings) -> torch.optim.AdamW:
    """AdamW with a learning-rate factor for the encoder, and no decay of biases and normalisation weights."""
    groups = []
    for in_encoder in (True, False):
        for decays in (True, False):
            parameters = [
                parameter
                for name, parameter in network.named_parameters()
                if name.startswith("network.encoder.") == in_encoder and (parameter.ndim > 1) == decays
            ]
            groups.append(
                {
                    "params": parameters,
                    "is_encoder": in_encoder,
                    "lr_factor": settings.train.encoder_lr_factor if in_encoder else 1.0,
                    "weight_decay": settings.train.weight_decay if decays else 0.0,
                }
            )
    return torch.optim.AdamW(groups, lr=settings.train.lr, fused=True)


def floats(network: nn.Module) -> list[torch.Tensor]:
    """The network's parameters and statistics, which share their memory with it."""
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]


def seed_all(*seed: int) -> None:
    """Seed python, numpy and torch from a tuple of integers, such as (seed, fold, epoch)."""
    set_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))


def train_folds(
    folds: list[int], run: RunFolder, table: pd.DataFrame, data: TrainingData, settings: Settings, made_from: dict
) -> list[dict]:
    """Train the folds one after another under one progress bar; what each fold's `metrics.json` says."""
    device = best_device()
    keep_freed_memory(device)
    precision = resolve_precision(settings.train.precision, device)
    tracker = settings.train.tracker
    require_tracker(tracker)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=None if tracker == "none" else tracker,
        project_dir=run.root / "tracker",
    )
    seen = gather_object([[(fold, run.fold(fold).resume.is_file()) for fold in folds]])
    if any(one != seen[0] for one in seen):
        raise UserError(
            f"the processes see different files in {run.root}; it must be on a disk that all machines share"
        )

    def after_epoch(fold: int, row: dict) -> None:
        accelerator.log(row, step=row["epoch"])
        if accelerator.is_main_process:
            if bar.disable:
                numbers = "   ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
                print(f"fold {fold} epoch {row['epoch']}/{settings.train.epochs}   {numbers}", flush=True)
            refresh_report(run, settings)

    trainings = [
        FoldTraining(fold, run.fold(fold), table, data, settings, made_from, accelerator, precision, after_epoch)
        for fold in folds
    ]
    scores = []
    with progress("training", total=sum(training.steps for training in trainings), unit="step") as bar:
        for training in trainings:
            with tracked(accelerator, settings, training.fold):
                scores.append(training.run(bar))
            name = training.score_name
            if accelerator.is_main_process:
                bar.write(
                    f"fold {training.fold}   {name} {scores[-1][name]:.4f} at epoch {scores[-1]['epoch']} of "
                    f"{settings.train.epochs}   encoder weights: {scores[-1]['weights_source']}"
                )
    return scores
