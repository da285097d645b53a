"""Training: what a batch is, the schedule, the averaged weights, and resuming as if nothing had happened."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from lib.base.errors import UserError
from lib.config.schema import Settings, check_settings
from lib.data.competition import open_training
from lib.data.folds import image_table
from lib.data.inspection import inspect_all
from lib.training.augment import random_crop, random_mask_pixel
from lib.training.batches import CropDataset, EpochSampler, batches, build_loader
from lib.training.losses import signed_distances
from lib.training.trainer import FoldTraining, train_folds


@pytest.fixture
def settings(competition) -> Settings:
    return check_settings(
        {
            "name": "test",
            "data": {"root": str(competition)},
            "folds": {"count": 2},
            "model": {"encoder": "resnet10t", "weights": "random", "decoder_channels": [16, 8, 8, 8, 8]},
            "train": {"epochs": 3, "batch_size": 4, "workers": 0},
        },
        source=competition,
    )


@pytest.fixture
def data(settings):
    return open_training(settings.data)


@pytest.fixture
def table(data) -> pd.DataFrame:
    images = image_table(inspect_all(data), data.groups, data.classes)
    return images.assign(fold=np.arange(len(images)) % 2, group=images.id)


def test_a_batch_depends_on_seed_and_epoch_but_not_on_workers(settings, data):
    def epoch_of(workers: int, epoch: int) -> list[torch.Tensor]:
        changed = settings.model_copy(update={"train": settings.train.model_copy(update={"workers": workers})})
        dataset = CropDataset(data, data.ids, changed, (48, 64), with_distances=True)
        loader = build_loader(dataset, changed, process=0, processes=1, device=torch.device("cpu"))
        loader.sampler.epoch = epoch
        return [batch[name] for batch in batches(loader) for name in ("images", "masks", "distances")]

    assert all(torch.equal(a, b) for a, b in zip(epoch_of(0, 1), epoch_of(2, 1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(epoch_of(0, 1), epoch_of(0, 2), strict=True))


def test_distances_are_those_of_the_augmented_mask(settings, data):
    item = CropDataset(data, data.ids, settings, (48, 64), with_distances=True)[(0, 0)]
    assert np.array_equal(item["distances"], signed_distances(item["masks"].numpy().transpose(1, 2, 0)))


def test_processes_share_out_the_images_of_an_epoch():
    shares = [list(EpochSampler(11, seed=3, process=process, processes=3)) for process in range(3)]
    assert {len(share) for share in shares} == {3}
    assert len({key for share in shares for key in share}) == 9


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize(
    ("device", "cores", "processes", "expected"),
    [("cpu", 2, 1, 0), ("cpu", 16, 1, 4), ("cpu", 16, 4, 1), ("cuda", 16, 1, 8), ("cuda", 16, 4, 4), ("cuda", 2, 4, 1)],
)
def test_loader_processes_fit_the_machine(settings, data, monkeypatch, device, cores, processes, expected):
    monkeypatch.setattr("lib.training.batches.THREADS", cores)
    changed = settings.model_copy(update={"train": settings.train.model_copy(update={"workers": None})})
    dataset = CropDataset(data, data.ids, changed, (48, 64), with_distances=False)
    assert build_loader(dataset, changed, 0, processes, torch.device(device)).num_workers == expected


def test_a_worker_error_keeps_its_one_sentence(settings, data, competition):
    changed = settings.model_copy(update={"train": settings.train.model_copy(update={"workers": 1})})
    dataset = CropDataset(data, data.ids, changed, (48, 64), with_distances=False)
    loader = build_loader(dataset, changed, process=0, processes=1, device=torch.device("cpu"))
    for path in (competition / "train_images").iterdir():
        path.unlink()
    with pytest.raises(UserError) as caught:
        list(batches(loader))
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


def test_an_interrupted_training_ends_with_the_same_files(settings, data, table, tmp_path, monkeypatch):
    from lib.run.folder import RunFolder

    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    train_folds([0], whole, table, data, settings, {"made": "from"})

    validate = FoldTraining.validate
    calls = []

    def killed_at_the_second_epoch(self) -> dict:
        calls.append(self)
        if len(calls) == 2:
            raise Killed
        return validate(self)

    monkeypatch.setattr(FoldTraining, "validate", killed_at_the_second_epoch)
    with pytest.raises(Killed):
        train_folds([0], broken, table, data, settings, {"made": "from"})
    assert not broken.fold(0).metrics.exists()
    train_folds([0], broken, table, data, settings, {"made": "from"})

    expected, found = load_file(whole.fold(0).weights), load_file(broken.fold(0).weights)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    histories = [pd.read_csv(run.fold(0).history).drop(columns="images_per_second") for run in (whole, broken)]
    pd.testing.assert_frame_equal(*histories)
    assert not broken.fold(0).resume.exists()


def test_a_state_of_other_settings_is_refused(settings, data, table, tmp_path, monkeypatch):
    from lib.run.folder import RunFolder

    run = RunFolder(tmp_path / "run")
    monkeypatch.setattr(FoldTraining, "finish", lambda self: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train_folds([0], run, table, data, settings, {"train": {"epochs": 3}})
    with pytest.raises(UserError, match="train.epochs: 3 -> 4.*--restart"):
        train_folds([0], run, table, data, settings, {"train": {"epochs": 4}})


def test_the_learning_rate_warms_up_and_ends_near_zero(settings, data, table, tmp_path):
    from accelerate import Accelerator

    from lib.run.folder import RunFolder

    folder, accelerator = RunFolder(tmp_path).fold(0), Accelerator(cpu=True)
    training = FoldTraining(0, folder, table, data, settings, {}, accelerator, "fp32", lambda fold, row: None)
    rates = [training.lr(step) for step in range(training.steps)]
    peak = int(np.argmax(rates))
    assert rates[peak] <= settings.train.lr
    assert rates == sorted(rates[: peak + 1]) + sorted(rates[peak + 1 :], reverse=True)
    assert 0 < rates[-1] < settings.train.lr / 10


def test_a_loss_that_is_no_number_is_told_and_the_best_weights_stay(settings, data, table, tmp_path, monkeypatch):
    from lib.run.folder import RunFolder

    run = RunFolder(tmp_path / "run")
    step = FoldTraining.train_step

    def diverging(self, batch, number):
        losses = step(self, batch, number)
        return losses if number < len(self.loader) else {name: value * float("nan") for name, value in losses.items()}

    monkeypatch.setattr(FoldTraining, "train_step", diverging)
    with pytest.raises(UserError, match="no longer a number in epoch 2.*train.lr"):
        train_folds([0], run, table, data, settings, {})
    assert run.fold(0).weights.is_file()


def test_the_bar_counts_every_step(settings, data, table, tmp_path, monkeypatch):
    from lib.run.folder import RunFolder

    bars = []
    monkeypatch.setattr(
        "lib.training.trainer.progress", lambda what, **options: bars.append(tqdm(**options)) or bars[-1]
    )
    train_folds([0, 1], RunFolder(tmp_path / "run"), table, data, settings, {})
    assert bars[0].n == bars[0].total == 2 * 3 * 3
