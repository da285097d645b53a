"""Training: what a batch is, the schedule, the averaged weights, and resuming as if nothing had happened."""

import pickle
import weakref
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from lib.base.errors import UserError
from lib.config.loss_terms import parse_terms
from lib.config.schema import Settings
from lib.data.competition import open_training
from lib.training import trainer
from lib.training.augment import random_crop, random_mask_pixel
from lib.training.batches import CropDataset, EpochSampler, batches, build_loader, loader_processes
from lib.training.losses import signed_distances
from lib.training.schedule import averaging_decay, learning_rate
from lib.training.trainer import train_folds, train_step
from tests.training.jobs import TINY, Begun, images_of, jobs_of, settings_of, train


@pytest.fixture
def settings(competition) -> Settings:
    return settings_of(competition, epochs=3, crop_size=256)


@pytest.fixture
def data(settings):
    return open_training(settings.data)


def test_a_batch_depends_on_seed_and_epoch_but_not_on_workers(competition, tmp_path):
    def epoch_of(workers: int, epoch: int) -> list[torch.Tensor]:
        (job,) = jobs_of(settings_of(competition, workers=workers), tmp_path)
        loader = build_loader(job, with_distances=True)
        return [batch[name] for batch in batches(loader, epoch) for name in ("images", "masks", "distances")]

    assert all(torch.equal(a, b) for a, b in zip(epoch_of(0, 1), epoch_of(2, 1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(epoch_of(0, 1), epoch_of(0, 0), strict=True))


def test_distances_are_those_of_the_augmented_mask(settings, data):
    dataset = CropDataset(images_of(data, data.ids), settings, (48, 64), with_distances=True)
    item = dataset[(0, 0)]
    copied = pickle.loads(pickle.dumps(dataset))[(0, 0)]  # as loader processes get it on Windows and macOS
    assert all(torch.equal(copied[name], item[name]) for name in item)
    assert np.array_equal(item["distances"], signed_distances(item["masks"].numpy().transpose(1, 2, 0)))


def test_processes_share_out_the_images_of_an_epoch():
    shares = [list(EpochSampler(11, seed=3, process=process, processes=3)) for process in range(3)]
    assert {len(share) for share in shares} == {3}
    assert len({key for share in shares for key in share}) == 9


@pytest.mark.parametrize(
    ("device", "cores", "processes", "expected"),
    [
        ("cpu", 2, 1, 0),
        ("cpu", 16, 1, 4),
        ("cpu", 16, 4, 1),
        ("cpu", 128, 1, 16),
        ("cuda", 16, 1, 16),
        ("cuda", 64, 1, 16),
        ("cuda", 16, 4, 4),
        ("cuda", 64, 8, 8),
        ("cuda", 2, 4, 1),
    ],
)
def test_loader_processes_fit_the_machine(monkeypatch, device, cores, processes, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(cores), raising=False)
    monkeypatch.setattr("lib.base.distributed.COUNT", 2 * processes)  # on two machines
    monkeypatch.setattr("lib.base.distributed.COUNT_HERE", processes)
    assert loader_processes(None, torch.device(device)) == expected
    assert loader_processes(3, torch.device(device)) == 3


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"damaged")])
def test_a_worker_error_keeps_its_one_sentence(competition, tmp_path, spoil):
    (job,) = jobs_of(settings_of(competition, workers=1), tmp_path)
    loader = build_loader(job, with_distances=False)
    for path in (competition / "train_images").iterdir():
        spoil(path)
    with pytest.raises(UserError) as caught:
        list(batches(loader, 0))
    assert "\n" not in str(caught.value)
    assert "train_0" in str(caught.value)


def test_crops_hold_foreground_as_often_as_asked():
    image = np.zeros((100, 100, 3), np.uint8)
    mask = np.zeros((100, 100, 1), np.uint8)
    mask[70, 20] = 1
    random = np.random.default_rng(0)
    for share in (0.0, 1.0):
        hits = np.mean([random_crop(image, mask, (16, 16), share, random)[1].any() for _ in range(500)])
        assert hits == 1 if share == 1 else hits < 0.1


def test_a_random_mask_pixel_is_the_one_that_listing_them_gives():
    random = np.random.default_rng(0)
    for classes, share in ((1, 0.3), (3, 0.05), (1, 1.0)):
        mask = (random.random((40, 25, classes)) < share).astype(np.uint8)
        rows, columns = np.nonzero(mask.any(axis=2))
        for seed in range(50):
            number = np.random.default_rng(seed).integers(len(rows))
            assert random_mask_pixel(mask, np.random.default_rng(seed)) == (rows[number], columns[number])
    assert random_mask_pixel(np.zeros((4, 5, 2), np.uint8), random) is None


def test_small_images_are_mirrored_up_to_the_crop():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    mask = np.array([[1, 0], [0, 0]], np.uint8)[..., None]
    crop, cropped_mask = random_crop(image, mask, (3, 4), 0.5, np.random.default_rng(0))
    assert crop[..., 0].tolist() == [[0, 3, 3, 0], [6, 9, 9, 6], [6, 9, 9, 6]]
    assert cropped_mask[..., 0].tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("presence", [0, 0.5])
def test_an_interrupted_training_ends_with_the_same_files(competition, tmp_path, monkeypatch, presence):
    settings = settings_of(competition, {"model": TINY | {"presence": presence}}, epochs=3)
    whole = train(settings, tmp_path / "whole")
    validate, calls = trainer.validate, []

    def killed_at_the_second_epoch(*arguments) -> tuple:
        calls.append(arguments)
        if len(calls) == 2:
            raise Killed
        return validate(*arguments)

    monkeypatch.setattr(trainer, "validate", killed_at_the_second_epoch)
    with pytest.raises(Killed):
        train(settings, tmp_path / "broken")
    broken = train(settings, tmp_path / "broken")

    expected, found = load_file(whole.fold(0).weights), load_file(broken.fold(0).weights)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    histories = [pd.read_csv(run.fold(0).history).drop(columns="images_per_second") for run in (whole, broken)]
    pd.testing.assert_frame_equal(*histories)
    assert not broken.fold(0).resume.exists()
    assert (
        ("loss_presence" in histories[0]) == any("classification_head" in name for name in expected) == (presence > 0)
    )


def test_the_presence_head_learns_and_is_averaged_like_the_rest(competition, tmp_path):
    begun = Begun(settings_of(competition, {"model": TINY | {"presence": 0.5}}), tmp_path)
    head, averaged = (net.network.classification_head[3].weight for net in (begun.state.module, begun.state.averaged))
    first = head.detach().clone()
    begun.state.train_mode(begun.job.settings.train, epoch=0)
    decay = averaging_decay(0, begun.job.settings.train.ema_decay)
    losses = train_step(begun.job, begun.state, begun.loss_of, next(begun.batches()), 0)
    terms = parse_terms(begun.job.settings.loss.terms)
    shared = sum(
        weight * losses[f"loss_{name}"] * (0.01 if name == "boundary" else 1) for name, weight in terms.items()
    )
    assert float(losses["loss"]) == pytest.approx(float(shared + 0.5 * losses["loss_presence"]), abs=1e-5)
    assert not torch.equal(head, first)
    assert torch.allclose(averaged, first.lerp(head, 1 - decay))


def test_a_state_of_other_settings_is_refused(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "write_end", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train(settings, tmp_path, made_from={"train": {"lr": 3}})
    with pytest.raises(UserError, match="train.lr: 3 -> 4.*--restart"):
        train(settings, tmp_path, made_from={"train": {"lr": 4}})


def test_the_learning_rate_warms_up_and_ends_near_zero(settings):
    rates = [learning_rate(step, 30, settings.train) for step in range(30)]
    peak = int(np.argmax(rates))
    assert rates[peak] <= settings.train.lr
    assert rates == sorted(rates[: peak + 1]) + sorted(rates[peak + 1 :], reverse=True)
    assert 0 < rates[-1] < settings.train.lr / 10


def test_a_loss_that_is_no_number_is_reported_and_the_weights_stay(settings, tmp_path, monkeypatch):
    step = trainer.train_step

    def diverging(job, state, *rest):
        losses = step(job, state, *rest)
        return losses if state.epoch == 0 else {name: value * float("nan") for name, value in losses.items()}

    monkeypatch.setattr(trainer, "train_step", diverging)
    with pytest.raises(UserError, match="no longer a number in epoch 2.*train.lr"):
        train(settings, tmp_path)
    assert (tmp_path / "fold_0" / "model.safetensors").is_file()


def test_the_bar_counts_every_step(settings, tmp_path, monkeypatch):
    bars = []
    monkeypatch.setattr(trainer, "progress", lambda what, **options: bars.append(tqdm(**options)) or bars[-1])
    train(settings, tmp_path, folds=[0, 1])
    assert bars[0].n == bars[0].total == 2 * 3 * 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])  # accelerate wraps the network in half precision
def test_each_fold_is_freed_before_the_next_one(competition, tmp_path, monkeypatch, precision):
    """Networks, averages and optimizers of earlier folds are gone, and so are their loader processes."""
    references, alive = [], []
    begin = trainer.load_or_begin

    def watched(job, accelerator):
        alive.append((sum(reference() is not None for reference in references), len(active_children())))
        state = begin(job, accelerator)
        parts = (state.module, state.averaged, state.optimizer, state.optimizer.optimizer)
        references.extend(weakref.ref(part) for part in parts)
        return state

    monkeypatch.setattr(trainer, "load_or_begin", watched)
    children = []
    settings = settings_of(competition, workers=2, precision=precision)
    train_folds(jobs_of(settings, tmp_path, [0, 1, 0]), lambda job, row: children.append(len(active_children())))
    assert children == [2] * 3 * 2
    assert alive == [(0, 0)] * 3
