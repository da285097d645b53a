"""What strengthens training at a price: accumulated gradients, a frozen encoder, pseudo-labels."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator

from lib.base.errors import UserError
from lib.base.files import write_json
from lib.config.schema import AugmentSettings, Settings, check_settings, save_settings
from lib.data.competition import open_test, open_training
from lib.data.inspection import inspect_all
from lib.masks.rules import Gate, Rule
from lib.prediction.map_store import MapStore
from lib.run.folder import RunFolder
from lib.training.batches import CropDataset, EpochSampler, ImageCache, batches, build_loader
from lib.training.pseudo_labels import judge, read_pseudo_labels
from lib.training.trainer import FoldTraining


def settings_of(competition, **train) -> Settings:
    content = {
        "name": "test",
        "data": {"root": str(competition)},
        "folds": {"count": 2},
        "model": {"encoder": "resnet10t", "weights": "random", "decoder_channels": [16, 8, 8, 8, 8]},
        "train": {"epochs": 2, "batch_size": 4, "workers": 0, "crop_size": 32} | train,
    }
    return check_settings(content, source=competition)


def training_of(settings: Settings, folder) -> FoldTraining:
    data = open_training(settings.data)
    table = pd.DataFrame(fact._asdict() for fact in inspect_all(data))
    table = table.assign(fold=np.arange(len(table)) % 2, coverage_mask=[row[0] for row in table.coverage])
    fold, accelerator = RunFolder(folder).fold(0), Accelerator(cpu=True)
    training = FoldTraining(0, fold, table, data, settings, {}, accelerator, "fp32", lambda fold, row: None)
    training.build()
    return training


def parameters(training: FoldTraining) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in training.network.named_parameters()}


def test_gradients_add_up_to_the_mean_of_the_batches_before_a_step(competition, tmp_path):
    training = training_of(settings_of(competition, accumulate=2), tmp_path)
    assert len(training.loader) == 3
    training.network.train()
    before, twin = parameters(training), copy.deepcopy(training.network)
    first, second, third = batches(training.loader)
    for batch in (first, second):
        total, _ = training.loss(twin(batch["images"]), batch["masks"], batch.get("distances"), 0.0)
        (total / 2).backward()
    norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), float("inf"))

    training.train_step(first, 0)
    assert all(torch.equal(before[name], now) for name, now in parameters(training).items())
    found = []
    clip = training.accelerator.clip_grad_norm_
    training.accelerator.clip_grad_norm_ = lambda *of: found.append(clip(*of))
    training.train_step(second, 1)
    assert torch.allclose(found[0], norm, rtol=0.02)  # the share of the boundary term grows a little with the step
    after = parameters(training)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    training.train_step(third, 2)  # alone at the end of the epoch: a step, of the whole gradient
    assert any(not torch.equal(after[name], now) for name, now in parameters(training).items())
    assert [training.batches_in_step(number) for number in (1, 2, 3)] == [2, 2, 1]


def test_the_encoder_stays_as_it_is_in_the_frozen_epochs(competition, tmp_path):
    from tqdm import tqdm

    training = training_of(settings_of(competition, freeze_epochs=1), tmp_path)
    states = [parameters(training)]
    for epoch in range(2):
        training.progress.epoch = epoch
        training.train_epoch(tqdm(disable=True))
        states.append(parameters(training))

    def changed(before: dict, after: dict) -> set[bool]:
        return {name.startswith("network.encoder.") for name in before if not torch.equal(before[name], after[name])}

    assert changed(states[0], states[1]) == {False}
    assert changed(states[1], states[2]) == {False, True}


def test_an_epoch_leaves_out_empty_images_others_each_time():
    empty = np.array([1, 4, 5, 8, 9, 10, 11, 15, 16, 19])
    turns = []
    for epoch in range(30):
        shares = []
        for process in range(2):
            sampler = EpochSampler(20, seed=3, process=process, processes=2, empty=empty, left_out=[6] * 30)
            sampler.epoch = epoch
            assert len(list(sampler)) == len(sampler) == 7
            shares += [index for _, index in sampler]
        assert len(set(shares)) == 14 and set(range(20)) - set(empty) <= set(shares)
        turns += set(shares) & set(empty)
    assert set(np.unique(turns, return_counts=True)[1]) <= set(range(4, 22))  # 12 of 30 epochs each, on average
    assert set(turns) == set(empty)


@pytest.mark.parametrize(("share", "expected"), [(None, 12), (0.5, 12), (0.1, 11), (0.0, 10)])
def test_empty_images_are_at_most_the_share_asked_for(competition, share, expected):
    settings = settings_of(competition, empty_share=share)
    data = open_training(settings.data)
    ids = data.ids[:12]
    empty = np.array([not data.read_mask(image_id).any() for image_id in ids])
    empty[[0, 7]], kept = True, empty.sum()
    assert kept <= 2 and empty.sum() == 2
    dataset = CropDataset(data, ids, settings, (32, 32), False, empty)
    sampler = build_loader(dataset, settings, 0, 1, torch.device("cpu")).sampler
    drawn = [index for _, index in sampler]
    assert len(drawn) == expected
    assert sum(empty[drawn]) == expected - 10


def test_the_share_of_empty_images_slides_from_the_first_epoch_to_the_last(competition, tmp_path):
    from tqdm import tqdm

    training = training_of(settings_of(competition, epochs=3, batch_size=2, empty_share=[0.0, 0.4]), tmp_path)
    sampler, lengths = training.loader.sampler, []
    empty = training.loader.dataset.empty
    assert len(empty) == 12 and empty.sum() == 3
    for sampler.epoch in range(3):
        drawn = [index for _, index in sampler]
        lengths.append(len(drawn))
        assert sum(empty[drawn]) == len(drawn) - 9
    assert lengths == [9, 11, 12]  # with 9 images that have a mask, 0, 2 and 6 without are 0, .2 and .4 of all
    assert training.first_steps == [0, 4, 9, 15] and training.steps == 15
    with tqdm(total=training.steps) as bar:
        training.run(bar)
    assert bar.n == 15


def test_nothing_but_empty_images_is_refused(competition):
    settings = settings_of(competition, empty_share=0.0)
    dataset = CropDataset(None, ["a", "b"], settings, (32, 32), False, np.array([True, True]))
    with pytest.raises(UserError, match=r"train\.empty_share leaves none"):
        build_loader(dataset, settings, 0, 1, torch.device("cpu"))


def test_a_mask_that_moves_with_the_threshold_is_not_sure():
    steep = np.where(np.arange(100) < 40, 250, 3).astype(np.uint8).reshape(10, 10, 1)
    assert judge(steep, {"a": Rule(128)}) == (1.0, False)
    flat = np.arange(0, 250, 2.5).astype(np.uint8).reshape(10, 10, 1)
    wide, narrow = (np.count_nonzero(flat >= threshold) for threshold in (128 - 51, 128 + 51))
    assert judge(flat, {"a": Rule(128)})[0] == pytest.approx(2 * narrow / (wide + narrow))
    assert judge(np.zeros_like(flat), {"a": Rule(128)}) == (1.0, True)
    assert judge(flat, {"a": Rule(128, Gate(top=255, area=1))}) == (1.0, True)
    both = np.concatenate([steep, flat], axis=2)
    assert judge(both, {"a": Rule(128), "b": Rule(128)})[0] == judge(flat, {"b": Rule(128)})[0]


def planted_run(settings: Settings, folder, sure: set[int]) -> RunFolder:
    """A run after 04: a bright square in each test map, whose borders are steep in the images of `sure` only."""
    run, data = RunFolder(folder), open_test(settings.data)
    save_settings(settings, run.config)
    write_json(run.threshold, {"classes": {"mask": {"rule": Rule(100).to_dict()}}})
    store = MapStore(run.test, tuple(data.classes))
    for number, image_id in enumerate(data.ids):
        height, width = data.image_size(image_id)
        maps = np.zeros((height, width, 1), np.uint8)
        maps[10:20, 10:30] = 255 if number in sure else 120
        store.write(image_id, maps)
    return run


def test_sure_test_images_are_learned_from_and_never_validated_on(competition, tmp_path):
    other = planted_run(settings_of(competition), tmp_path / "other", sure={1, 4})
    plain = training_of(settings_of(competition), tmp_path / "a")
    training = training_of(settings_of(competition, pseudo_labels=str(other.root)), tmp_path / "b")
    dataset = training.loader.dataset
    assert dataset.ids == [*plain.loader.dataset.ids, "pseudo:test_001", "pseudo:test_004"]
    assert training.validation_ids == plain.validation_ids
    expected = np.zeros_like(dataset.data.read_mask("pseudo:test_001"))
    expected[10:20, 10:30] = 1
    assert np.array_equal(dataset.data.read_mask("pseudo:test_001"), expected)
    test = open_test(training.settings.data)
    assert np.array_equal(dataset.data.read_image("pseudo:test_004"), test.read_image("test_004"))
    assert np.array_equal(dataset.data.read_mask("train_000"), training.data.read_mask("train_000"))
    assert dataset.empty.tolist()[-2:] == [False, False] and len(dataset.empty) == len(dataset.ids)


def test_a_run_that_is_sure_of_nothing_is_refused(competition, tmp_path):
    other = planted_run(settings_of(competition), tmp_path / "other", sure=set())
    with pytest.raises(UserError, match=r"sure of none of its 6 test images; lower train\.pseudo_agreement = 0\.95"):
        read_pseudo_labels(other.root, 0.95)


def test_several_crops_of_an_image_differ_and_the_cache_changes_none_of_them(competition):
    data = open_training(settings_of(competition).data)
    ids = data.ids[:5]

    def items(**train) -> list[torch.Tensor]:
        settings = settings_of(competition, **train).model_copy(update={"augment": AugmentSettings(preset="heavy")})
        dataset = CropDataset(data, ids, settings, (48, 64), False)
        return [dataset[(0, index)]["images"] for index in range(len(dataset))]

    once, thrice, cached = items(), items(crops_per_image=3), items(crops_per_image=3, cache_mb=1)
    assert (len(once), len(thrice)) == (5, 15)
    assert all(torch.equal(a, b) for a, b in zip(once, thrice, strict=False))
    assert all(torch.equal(a, b) for a, b in zip(thrice, cached, strict=True))
    assert not torch.equal(thrice[0], thrice[5]) and not torch.equal(thrice[5], thrice[10])


def test_the_cache_keeps_what_was_asked_for_last_within_its_room():
    cache, read = ImageCache(1), []

    def get(name: str, size: int) -> None:
        cache.get(name, lambda: read.append(name) or (np.zeros(size, np.uint8), np.zeros(100_000, np.uint8)))

    for name in "abcaabd":  # 300 KB each: three fit
        get(name, 200_000)
    assert read == ["a", "b", "c", "d"] and list(cache.kept) == ["a", "b", "d"]
    get("large", 2_000_000)
    assert "large" not in cache.kept and len(cache.kept) == 3
    assert sum(array.nbytes for both in cache.kept.values() for array in both) <= 1_000_000
