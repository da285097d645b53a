"""The start of a fold's training: from encoder weights, from another run's fold, or from a checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path

import pandas as pd
from accelerate import Accelerator
from torch.utils.data import default_collate

from lib.base.errors import UserError, plural
from lib.base.files import read_json
from lib.data.tables import read_table
from lib.model.device import autocast, is_out_of_memory
from lib.model.low_rank import learn_low_rank
from lib.model.network import BuiltModel, build_pretrained, load_weights, start_at_shares
from lib.run.folder import ALL, open_run, starting_run
from lib.run.provenance import require_weights
from lib.training.batches import build_dataset
from lib.training.fold_job import FoldJob
from lib.training.interrupted import read_interrupted
from lib.training.losses import SegmentationLoss
from lib.training.state import TrainState, begin_state, seed_all, set_train_mode
from lib.training.tracking import require_tracker

NETWORK_SETTINGS = (
    "data.classes",
    "data.channels",
    "data.neighbours",
    "model.architecture",
    "model.encoder",
    "model.decoder_channels",
    "model.presence",
)


def load_or_begin(job: FoldJob, accelerator: Accelerator) -> TrainState:
    """The state of an interrupted training, or of a new one. Raises UserError as `read_interrupted` does."""
    seed_all(job.settings.train.seed, job.seed)
    built = starting_network(job)
    state = begin_state(built.network, built.weights_source, job, accelerator)
    content = read_interrupted(job)
    if content is None:
        return state
    if content["precision"] != job.precision and accelerator.is_main_process:
        print(f"note      fold {job.fold} was started in {content['precision']} and continues in {job.precision}")
    state.load(job.folder.resume, content)
    return state


def starting_network(job: FoldJob) -> BuiltModel:
    """The network before its first step. Raises UserError if the weights are not available or do not fit.

    An encoder that never learns gets no gradients, so its feature maps need no memory beyond the forward pass.
    """
    settings, classes = job.settings, job.data.classes
    if starting_run(settings.model.weights):
        built = network_of_run(job)
    else:
        built = build_pretrained(settings.model, len(classes), settings.data.network_channels)
        start_at_shares(built.network, job.images.class_shares)
    if settings.train.lora_rank:
        learn_low_rank(built.network.network.encoder, settings.train.lora_rank, settings.model.encoder)
    elif settings.train.freeze_epochs == "all":
        built.network.network.encoder.requires_grad_(False)
    return built


def network_of_run(job: FoldJob) -> BuiltModel:
    """The whole network of the same fold of another run, which has not seen the images left out here.

    Raises UserError where that run has other folds, classes or another network, has not finished the fold, or its
    weights are not those that its training wrote.
    """
    run, settings = open_run(Path(job.settings.model.weights))
    if not run.folds.is_file():
        raise UserError(
            f"model.weights={run.root} is not a run folder (no folds.csv); name the run itself and not one of its "
            "folds, so that each fold starts from that of the same number"
        )
    if run.root.resolve() == job.run.root.resolve():
        raise UserError(f"model.weights={run.root} is this run itself; make another one with 01 (name=...)")
    require_same_folds(job.run.folds, run.folds)
    for name in NETWORK_SETTINGS:
        mine, theirs = (attrgetter(name)(each) for each in (job.settings, settings))
        same = bool(mine) == bool(theirs) if name == "model.presence" else mine == theirs  # the head is there or not
        if not same:
            raise UserError(
                f"model.weights={run.root} has {name}={theirs}, this run has {mine}; "
                "set the same here, or start from the encoder's weights"
            )
    folder = run.fold(job.fold)
    if not folder.is_done:
        words = ["--folds", job.fold, *(["train.all_images=true"] if job.fold == ALL else [])]
        command = run.command("02_train", *words)
        raise UserError(f"model.weights: fold {job.fold} of {run.root} is not trained; run {command}")
    require_weights(run, job.fold)
    left_out = read_json(folder.metrics).get("made_from", {}).get("left_out_images")
    if left_out and left_out != job.made_from.get("left_out_images"):
        raise UserError(
            f"model.weights: fold {job.fold} of {run.root} was trained before {run.folds} was changed, so it may have "
            "seen what is left out here; train it again there, or start from the encoder's weights"
        )
    network = load_weights(
        folder.weights, job.settings.model, len(job.data.classes), job.settings.data.network_channels
    )
    return BuiltModel(network, f"fold {job.fold} of {run.root}")


def require_same_folds(folds: Path, others: Path) -> None:
    """Raise UserError unless two folds.csv have the same images in the same folds."""
    columns = ["id", "fold", "sha256"]
    tables = (pd.DataFrame(read_table(path, "model.weights")) for path in (folds, others))
    mine, theirs = (table[columns].sort_values("id").to_numpy().tolist() for table in tables)
    if mine != theirs:
        raise UserError(
            f"model.weights: {others} has other images or folds than {folds}, so its models may have seen what is left "
            "out here; use a run on the same folds, or start from the encoder's weights"
        )


def try_out(jobs: list[FoldJob]) -> None:
    """Build the first fold's network and learn from one batch, in memory only; discard both.

    This finds problems with names, weights, images and memory before a file of the run changes. Raises UserError.
    """
    require_tracker(jobs[0].settings.train.tracker)
    if starting_run(jobs[0].settings.model.weights):
        for job in jobs[1:]:
            starting_network(job)
    learn_from_one_batch(jobs[0])


def learn_from_one_batch(job: FoldJob) -> None:
    """Make a training step without an update, on a network that is then discarded. Raises UserError if it fails."""
    with explained_errors(job):
        network = starting_network(job).network.to(job.device)
        set_train_mode(network, job.settings.train, epoch=job.settings.train.epochs - 1)  # the last: most of it learns
        loss_of = SegmentationLoss.of(job.settings).to(job.device)
        dataset = build_dataset(job, loss_of.needs_distance)
        batch = default_collate([dataset[0, index] for index in range(job.plan.batch_size)])
        batch = {name: tensor.to(job.device) for name, tensor in batch.items()}
        with autocast(job.device, job.precision):
            output = network(batch["images"])
        loss, _ = loss_of(output, batch["masks"], batch.get("distances"), done_share=0.0)
        loss.backward()


@contextmanager
def explained_errors(job: FoldJob) -> Iterator[None]:
    """Turn torch's errors on lack of memory, and on batches with one value per channel, into UserErrors.

    A loader process that is killed, as the kernel does when memory is short, may be noticed in the validation as well.
    """
    crops = f"{plural(job.plan.batch_size, 'crop')} of {' x '.join(map(str, job.crop))} pixels"
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"model.architecture={job.settings.model.architecture} cannot learn from batches of {crops}: batch "
            "normalisation is left with a single value; raise train.batch_size to 2 or more (with a single training "
            "image train.crops_per_image too), or train.crop_size"
        ) from None
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise UserError(
                f"a loader process was killed in fold {job.fold}, most likely for lack of memory; lower train.workers "
                "and run 02_train.py again: it continues after the last complete epoch"
            ) from None
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory in fold {job.fold} with batches of {crops}; lower train.batch_size or train.crop_size, or "
            "choose a smaller model.encoder"
        ) from None
