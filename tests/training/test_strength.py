"""What strengthens training at a price: accumulated gradients, a frozen encoder, pseudo-labels."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from tqdm import tqdm

from lib.base.errors import UserError
from lib.base.files import write_json
from lib.config.check import save_settings
from lib.config.schema import Settings
from lib.config.training_settings import AugmentSettings
from lib.data.competition import open_test, open_training
from lib.masks.rules import Gate, Rule
from lib.model.low_rank import merged_state
from lib.model.network import load_weights
from lib.prediction.run_maps import open_test_maps
from lib.run.folder import RunFolder
from lib.training import pseudo_labels
from lib.training.batches import CropDataset, EpochSampler, ImageCache, batches
from lib.training.fold_files import write_epoch
from lib.training.loader_wait import LoaderWait
from lib.training.pseudo_labels import measure_agreement, read_pseudo_labels
from lib.training.schedule import batches_per_update, plan_epochs
from lib.training.start import load_or_begin
from lib.training.trainer import train_epoch, train_fold, train_step
from tests.newer_timm import needs_newer_timm
from tests.training.jobs import TINY, Begun, images_of, jobs_of, settings_of


def parameters(begun: Begun) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in begun.state.module.named_parameters()}


def test_gradients_add_up_to_the_mean_of_the_batches_before_a_step(competition, tmp_path):
    begun = Begun(settings_of(competition, accumulate=2), tmp_path)
    assert begun.job.plan.lengths == [3, 3]
    begun.state.network.train()
    before, twin = parameters(begun), copy.deepcopy(begun.state.network)
    first, second, third = batches(begun.loader, 0)
    for batch in (first, second):
        batch = {name: tensor.to(begun.job.device) for name, tensor in batch.items()}
        total, _ = begun.loss_of(twin(batch["images"]), batch["masks"], batch.get("distances"), 0.0)
        (total / 2).backward()
    norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), float("inf"))

    train_step(begun.job, begun.state, begun.loss_of, first, 0)
    assert all(torch.equal(before[name], now) for name, now in parameters(begun).items())
    norms = []
    clip = begun.accelerator.clip_grad_norm_
    begun.accelerator.clip_grad_norm_ = lambda *of: norms.append(clip(*of))
    train_step(begun.job, begun.state, begun.loss_of, second, 1)
    assert torch.allclose(norms[0], norm, rtol=0.02)  # the share of the boundary term grows a little with the step
    after = parameters(begun)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    train_step(begun.job, begun.state, begun.loss_of, third, 2)  # alone at the end: a step, of the whole gradient
    assert any(not torch.equal(after[name], now) for name, now in parameters(begun).items())
    assert [batches_per_update(number, 3, 2) for number in range(3)] == [2, 2, 1]


def test_the_encoder_stays_as_it_is_in_the_frozen_epochs(competition, tmp_path):
    begun = Begun(settings_of(competition, freeze_epochs=1), tmp_path)
    states = [parameters(begun)]
    for _ in range(2):
        row = train_epoch(begun.job, begun.state, begun.loss_of, begun.batches(), tqdm(disable=True), LoaderWait())
        begun.state.history.append(row | {"val_dice": 0.0})
        states.append(parameters(begun))

    def changed(before: dict, after: dict) -> set[bool]:
        return {name.startswith("network.encoder.") for name in before if not torch.equal(before[name], after[name])}

    assert changed(states[0], states[1]) == {False}
    assert changed(states[1], states[2]) == {False, True}


def test_a_frozen_encoder_keeps_its_batch_norm_statistics(competition, tmp_path):
    begun = Begun(settings_of(competition, freeze_epochs=1), tmp_path)
    before = {name: tensor.clone() for name, tensor in begun.state.module.state_dict().items()}
    train_epoch(begun.job, begun.state, begun.loss_of, begun.batches(), tqdm(disable=True), LoaderWait())
    for state in (begun.state.module, begun.state.averaged):
        for name, tensor in state.state_dict().items():
            if name.startswith("network.encoder."):
                assert torch.equal(tensor, before[name]), name
    begun.state.train_mode(begun.job.settings.train, epoch=1)
    assert all(module.training for module in begun.state.module.modules())


def test_an_encoder_frozen_in_all_epochs_gets_no_gradients_and_the_rest_learns_the_same(competition, tmp_path):
    """As with freeze_epochs = epochs, but for the clipping, which no longer counts gradients that nobody follows."""
    ends = []
    for frozen in ("all", 2):
        begun = Begun(settings_of(competition, freeze_epochs=frozen, clip_norm=1e9), tmp_path)
        encoder = begun.state.module.network.encoder
        for _ in range(2):
            row = train_epoch(begun.job, begun.state, begun.loss_of, begun.batches(), tqdm(disable=True), LoaderWait())
            begun.state.history.append(row | {"val_dice": 0.0})
        ends.append(begun.state.averaged.state_dict())
        moments = begun.state.optimizer.state
        assert any(parameter in moments for parameter in encoder.parameters()) == (frozen != "all")
    assert all(torch.allclose(tensor, ends[1][name], atol=1e-6) for name, tensor in ends[0].items())


QKVB = pytest.param("vit_tiny_patch16_dinov3_qkvb", marks=needs_newer_timm)


@pytest.mark.parametrize("encoder", ["test_vit", QKVB, "mobilevit_xxs"])  # attention that reads qkv.weight; batch norms
def test_of_an_encoder_only_updates_of_low_rank_learn_and_the_file_holds_their_sums(competition, tmp_path, encoder):
    model = TINY | {"encoder": encoder}
    settings = settings_of(competition, {"model": model}, lora_rank=2, epochs=1, ema_decay=0.0, lr=0.1)
    begun = Begun(settings, tmp_path)
    before = merged_state(copy.deepcopy(begun.state.averaged.network.encoder).cpu())
    row = train_epoch(begun.job, begun.state, begun.loss_of, begun.batches(), tqdm(disable=True), LoaderWait())
    begun.state.history.append(row | {"val_dice": 0.0, "threshold": 0.5})
    write_epoch(begun.job, begun.state)
    loaded = load_weights(begun.job.folder.weights, settings.model, class_count=1).eval()
    for name, tensor in loaded.network.encoder.state_dict().items():
        change = tensor - before[name]
        assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 2 if change.ndim == 2 else not change.any(), name
    after = loaded.network.encoder.state_dict()
    for layer in ("attn.qkv", "attn.proj", "mlp.fc1"):
        name = next(name for name in after if name.endswith(f"{layer}.weight"))
        assert not torch.equal(after[name], before[name])
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(loaded(images), copy.deepcopy(begun.state.averaged).cpu()(images), atol=1e-3)
    resumed = load_or_begin(begun.job, begun.accelerator)
    now = begun.state.module.state_dict()
    assert resumed.epoch == 1
    assert all(torch.equal(tensor, now[name]) for name, tensor in resumed.module.state_dict().items())


@needs_newer_timm
def test_weights_that_blocks_share_are_averaged_once(competition, tmp_path):
    """CoaT's position encodings have a name in each block."""
    begun = Begun(settings_of(competition, {"model": TINY | {"encoder": "coat_lite_tiny"}}), tmp_path)
    before = {name: tensor.clone() for name, tensor in begun.state.averaged.state_dict().items()}
    with torch.no_grad():
        for parameter in begun.state.module.parameters():
            parameter.add_(1)
    begun.state.update_average(0.75)
    for name, parameter in begun.state.averaged.named_parameters():
        assert torch.allclose(parameter, before[name] + 0.25, atol=1e-5), name


def test_low_rank_updates_need_linear_layers(competition, tmp_path):
    with pytest.raises(UserError, match=r"linear layers, which model\.encoder=\S+ lacks"):
        Begun(settings_of(competition, lora_rank=4), tmp_path)
    with pytest.raises(UserError, match=r"'train.lora_rank' = 4: updates of an encoder that train.freeze_epochs=all"):
        settings_of(competition, freeze_epochs="all", lora_rank=4)


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
    plan = plan_epochs(12, 2, settings.train, processes=1)
    empty = np.isin(np.arange(12), [0, 7])
    drawn = [index for _, index in EpochSampler(12, 0, 0, 1, np.flatnonzero(empty), plan.left_out)]
    assert len(drawn) == expected
    assert sum(empty[drawn]) == expected - 10


def test_the_share_of_empty_images_slides_from_the_first_epoch_to_the_last(competition, tmp_path):
    begun = Begun(settings_of(competition, epochs=3, batch_size=2, empty_share=[0.0, 0.4]), tmp_path)
    sampler, lengths = begun.loader.sampler, []
    empty = begun.job.images.empty_turns
    assert len(empty) == 12 and empty.sum() == 3
    for sampler.epoch in range(3):
        drawn = [index for _, index in sampler]
        lengths.append(len(drawn))
        assert sum(empty[drawn]) == len(drawn) - 9
    assert lengths == [9, 11, 12]  # with 9 images that have a mask, 0, 2 and 6 without are 0, .2 and .4 of all
    plan = begun.job.plan
    assert [plan.first_step(epoch) for epoch in range(4)] == [0, 4, 9, 15] and plan.steps == 15
    with tqdm(total=plan.steps) as bar:
        train_fold(begun.job, begun.accelerator, lambda job, row: None, bar, LoaderWait())
    assert bar.n == 15


def test_nothing_but_empty_images_is_refused(competition):
    with pytest.raises(UserError, match=r"all masks are empty, and train\.empty_share leaves no crop"):
        plan_epochs(2, 2, settings_of(competition, empty_share=0.0).train, processes=1)


def test_fewer_images_than_processes_are_refused(competition):
    with pytest.raises(UserError, match="3 crops for 4 processes"):
        plan_epochs(3, 0, settings_of(competition).train, processes=4)
    assert plan_epochs(3, 0, settings_of(competition).train, processes=3).lengths == [1, 1]


def test_a_mask_that_moves_with_the_threshold_is_not_sure():
    steep = np.where(np.arange(100) < 40, 250, 3).astype(np.uint8).reshape(10, 10, 1)
    assert measure_agreement(steep, {"a": Rule(128)}, None) == (1.0, False)
    flat = np.arange(0, 250, 2.5).astype(np.uint8).reshape(10, 10, 1)
    wide, narrow = (np.count_nonzero(flat >= threshold) for threshold in (128 - 51, 128 + 51))
    assert measure_agreement(flat, {"a": Rule(128)}, None)[0] == pytest.approx(2 * narrow / (wide + narrow))
    assert measure_agreement(np.zeros_like(flat), {"a": Rule(128)}, None) == (1.0, True)
    assert measure_agreement(flat, {"a": Rule(128, Gate(top=255, area=1))}, None) == (1.0, True)
    for presence, expected in ((255, (1.0, False)), (160, (0.0, False)), (90, (0.0, True)), (10, (1.0, True))):
        assert measure_agreement(steep, {"a": Rule(128, presence=128)}, np.array([presence], np.uint8)) == expected
    both = np.concatenate([steep, flat], axis=2)
    assert (
        measure_agreement(both, {"a": Rule(128), "b": Rule(128)}, None)[0]
        == measure_agreement(flat, {"b": Rule(128)}, None)[0]
    )


@pytest.fixture(autouse=True)
def without_models(monkeypatch):
    """Maps are planted, of no models."""
    monkeypatch.setattr(pseudo_labels, "require_maps", lambda run, settings: {})


def planted_run(settings: Settings, folder, sure: set[int]) -> RunFolder:
    """A run after 04: a square in the first class's test maps, whose borders are steep in the images of `sure` only."""
    run, data = RunFolder(folder), open_test(settings.data)
    save_settings(settings, run.config)
    write_json(run.threshold, {"classes": {name: {"rule": Rule(100).to_dict()} for name in data.classes}})
    store = open_test_maps(run, settings, data, {})
    for number, image_id in enumerate(data.ids):
        height, width = data.image_size(image_id)
        maps = np.zeros((height, width, len(data.classes)), np.uint8)
        maps[10:20, 10:30, 0] = 255 if number in sure else 120
        store.write(image_id, maps)
    return run


def test_sure_test_images_are_learned_from_and_never_validated_on(competition, tmp_path):
    other = planted_run(settings_of(competition), tmp_path / "other", sure={1, 4})
    (plain,) = jobs_of(settings_of(competition), tmp_path)
    (job,) = jobs_of(settings_of(competition, pseudo_labels=str(other.root)), tmp_path)
    images = job.images
    [pool], [plain_pool] = images.pools, plain.images.pools
    assert pool.ids == [*plain_pool.ids, "pseudo/test_001", "pseudo/test_004"]
    assert images.validation == plain.images.validation
    expected = np.zeros_like(images.source.read_mask("pseudo/test_001"))
    expected[10:20, 10:30] = 1
    assert np.array_equal(images.source.read_mask("pseudo/test_001"), expected)
    test = open_test(job.settings.data)
    assert np.array_equal(images.source.read_image("pseudo/test_004"), test.read_image("test_004"))
    assert np.array_equal(images.source.read_mask("train_000"), job.data.read_mask("train_000"))
    assert pool.is_empty.tolist()[-2:] == [False, False] and len(pool.is_empty) == len(pool.ids)


def test_a_run_that_is_sure_of_nothing_is_refused(competition, tmp_path):
    other = planted_run(settings_of(competition), tmp_path / "other", sure=set())
    with pytest.raises(UserError, match=r"confident of none of 6 test images; lower train\.pseudo_agreement = 0\.95"):
        read_pseudo_labels(other.root, 0.95, settings_of(competition).data)


def test_pseudo_labels_are_matched_by_the_names_of_the_classes(competition, tmp_path):
    two_classes(competition)
    other = planted_run(settings_of(competition, {"data": {"classes": ["a", "b"]}}), tmp_path / "other", sure={1, 4})
    masks = []
    for classes in (["a", "b"], ["b", "a"]):
        settings = settings_of(competition, {"data": {"classes": classes}})
        pseudo = read_pseudo_labels(other.root, 0.95, settings.data)
        masks.append(pseudo.read_mask(next(iter(pseudo.empty))))
    assert masks[0][..., 0].any() and not masks[0][..., 1].any()
    assert np.array_equal(masks[0], masks[1][..., ::-1])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"classes": ["a", "c"]}, "has the classes a, b, this run a, c"),
        ({"classes": ["a", "b"], "channels": 1}, "data.channels=3, this run with 1"),
        ({"classes": ["a", "b"], "value_range": [0, 100]}, "data.value_range=None"),
    ],
)
def test_pseudo_labels_of_other_classes_or_images_are_refused(competition, tmp_path, data, words):
    two_classes(competition)
    other = planted_run(settings_of(competition, {"data": {"classes": ["a", "b"]}}), tmp_path / "other", sure={1})
    with pytest.raises(UserError, match=words):
        read_pseudo_labels(other.root, 0.95, settings_of(competition, {"data": data}).data)


def two_classes(competition) -> None:
    """The masks twice, as classes a and b."""
    for name in ("train", "sample_submission"):
        path = competition / f"{name}.csv"
        table = pd.read_csv(path, keep_default_na=False)
        pd.concat([table.assign(id=table.id + f"_{kind}") for kind in "ab"]).to_csv(path, index=False)


def test_several_crops_of_an_image_differ_and_the_cache_changes_none_of_them(competition):
    data = open_training(settings_of(competition).data)
    ids = data.ids[:5]

    def items(**train) -> list[torch.Tensor]:
        settings = settings_of(competition, **train).model_copy(update={"augment": AugmentSettings(preset="heavy")})
        dataset = CropDataset(
            images_of(data, ids, settings.train.crops_per_image), settings, (48, 64), with_distances=False
        )
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
