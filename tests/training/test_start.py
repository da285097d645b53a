"""A fold's training begins, is interrupted, and begins anew; which epoch's weights it keeps."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from lib.base.errors import UserError
from lib.config.check import save_settings
from lib.folds.split import write_folds
from lib.run.folder import RunFolder, starting_run
from lib.training import fold_job, trainer
from lib.training.start import load_or_begin, starting_network, try_out
from lib.training.state import CHECKPOINT_KEYS, read_checkpoint
from lib.training.trainer import build_accelerator, train_folds
from tests.training.jobs import TINY, jobs_of, settings_of, table_of, train


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def metrics_of(folder) -> dict:
    return json.loads((folder / "fold_0" / "metrics.json").read_text())


def weights_of(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "fold_0" / "model.safetensors")


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def scored(monkeypatch, scores: list[float]) -> None:
    """Let the epochs' validation scores be these, whatever the weights."""
    following = iter(scores)
    monkeypatch.setattr(trainer, "validate", lambda *_: (next(following), 100))


def test_the_last_epoch_is_kept_and_the_best_only_where_asked(competition, tmp_path, monkeypatch):
    seen = []

    def watch(job, row) -> None:
        seen.append(weights_of(job.run.root))

    for keep, kept in (("last", 3), ("best", 2)):
        scored(monkeypatch, [0.5, 0.9, 0.7])
        seen.clear()
        settings = settings_of(competition, epochs=3, keep=keep)
        train_folds(jobs_of(settings, tmp_path / keep), watch)
        metrics = metrics_of(tmp_path / keep)
        assert (metrics["epoch"], metrics["val_dice"]) == (kept, {3: 0.7, 2: 0.9}[kept])
        assert metrics["last"] == {"epoch": 3, "score": 0.7, "threshold": 100}
        assert metrics["best"] == {"epoch": 2, "score": 0.9, "threshold": 100}
        assert metrics["finished"] and metrics["epochs"] == 3
        assert equal(weights_of(tmp_path / keep), seen[kept - 1])
    assert not equal(weights_of(tmp_path / "last"), weights_of(tmp_path / "best"))


def test_a_fold_without_any_mask_is_trained_like_the_others(competition, tmp_path):
    """Its score is 1 as soon as nothing is predicted, from the first epoch on; the best epoch was then the first."""
    table = pd.read_csv(competition / "train.csv", keep_default_na=False)
    table.loc[::2, "rle"] = ""  # fold 0 of two in turn
    table.to_csv(competition / "train.csv", index=False)
    train(settings_of(competition, epochs=3), tmp_path)
    metrics, history = metrics_of(tmp_path), pd.read_csv(tmp_path / "fold_0" / "history.csv")
    assert history.val_dice.tolist() == [1.0] * 3
    assert metrics["epoch"] == 3 and metrics["best"]["epoch"] == 1


def stopped_in_epoch_2(settings, folder, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        step = trainer.train_step

        def stops(job, state, *rest):
            if state.epoch == 1:
                raise Killed
            return step(job, state, *rest)

        patched.setattr(trainer, "train_step", stops)
        with pytest.raises(Killed):
            train(settings, folder, made_from={"train": {"epochs": settings.train.epochs}})


def test_a_stopped_training_leaves_weights_that_are_marked_and_goes_on_with_other_epochs(
    competition, tmp_path, monkeypatch
):
    stopped_in_epoch_2(settings_of(competition, epochs=4), tmp_path, monkeypatch)
    metrics = metrics_of(tmp_path)
    assert not metrics["finished"] and (metrics["epoch"], metrics["epochs"]) == (1, 4)
    assert not RunFolder(tmp_path).fold(0).is_done
    weights_of(tmp_path)

    run = train(settings_of(competition, epochs=2), tmp_path, made_from={"train": {"epochs": 2}})
    history = pd.read_csv(run.fold(0).history)
    assert history.epoch.tolist() == [1, 2] and history.lr[1] < history.lr[0] / 10
    assert metrics_of(tmp_path)["finished"] and run.fold(0).is_done


@pytest.mark.parametrize(("begun", "now"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_a_training_goes_on_where_auto_means_another_precision(competition, tmp_path, monkeypatch, capsys, begun, now):
    """As on another machine; metrics.json names the present one, in which 03 and 04 then predict."""
    settings = settings_of(competition)
    monkeypatch.setattr(fold_job, "resolve_precision", lambda *_: begun)
    stopped_in_epoch_2(settings, tmp_path, monkeypatch)
    assert metrics_of(tmp_path)["precision"] == begun
    AcceleratorState._reset_state(reset_partial_state=True)  # as in another process
    monkeypatch.setattr(fold_job, "resolve_precision", lambda *_: now)
    train(settings, tmp_path, made_from={"train": {"epochs": 2}})
    assert f"fold 0 was started in {begun} and continues in {now}" in capsys.readouterr().out
    assert metrics_of(tmp_path)["finished"] and metrics_of(tmp_path)["precision"] == now
    assert len(pd.read_csv(tmp_path / "fold_0" / "history.csv")) == 2


def test_fewer_epochs_than_are_done_are_refused(competition, tmp_path, monkeypatch):
    settings = settings_of(competition, epochs=3)
    monkeypatch.setattr(trainer, "write_end", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train(settings, tmp_path, made_from={"train": {"epochs": 3}})
    with pytest.raises(UserError, match=r"3 epochs already, more than train\.epochs = 2.*--restart"):
        train(settings_of(competition, epochs=2), tmp_path, made_from={"train": {"epochs": 2}})


def test_a_fold_begun_anew_keeps_its_files_until_the_first_epoch(competition, tmp_path, monkeypatch):
    settings = settings_of(competition)
    run = train(settings, tmp_path)
    before = weights_of(tmp_path)
    run.fold(0).begin_anew()
    assert not run.fold(0).is_done and metrics_of(tmp_path)["finished"]
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "validate", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(settings, tmp_path)
    assert equal(weights_of(tmp_path), before) and metrics_of(tmp_path)["finished"]
    train(settings_of(competition, seed=1), tmp_path)
    assert not equal(weights_of(tmp_path), before) and run.fold(0).is_done


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(3), "not written by this version"),
        ({"network": {}, "progress": {}}, "not written by this version"),
        ([1, 2], "not written by this version"),
        (dict.fromkeys(CHECKPOINT_KEYS), "not written by this version"),
        (dict.fromkeys(CHECKPOINT_KEYS) | {"made_from": {}, "history": []}, "does not fit the network"),
    ],
)
def test_a_state_file_that_holds_something_else_is_one_sentence(competition, tmp_path, content, words):
    (job,) = jobs_of(settings_of(competition), tmp_path)
    job.folder.resume.parent.mkdir(parents=True)
    torch.save(content, job.folder.resume)
    with pytest.raises(UserError, match=f"{words}.*--restart"):
        load_or_begin(job, build_accelerator(job))


def test_a_flipped_bit_in_the_state_is_found(competition, tmp_path, monkeypatch):
    stopped_in_epoch_2(settings_of(competition), tmp_path, monkeypatch)
    path = RunFolder(tmp_path).fold(0).resume
    content, random = path.read_bytes(), np.random.default_rng(0)
    assert read_checkpoint(path)["history"]
    tensors = content.index(b"data/0") + 1000, content.rindex(b"PK\x05\x06") - 100_000
    for place in random.integers(*tensors, 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with pytest.raises(UserError, match=r"state\.pt cannot be read"):
            read_checkpoint(path)


def finished_run(competition, folder, folds=(0,), made_from: dict | None = None) -> RunFolder:
    settings = settings_of(competition, epochs=1)
    run = train(settings, folder, folds, made_from)
    save_settings(settings, run.config)
    write_folds(table_of(settings).assign(stratum="q1"), settings.data.classes, run.folds)
    return run


def test_a_fold_starts_from_the_fold_of_another_run(competition, tmp_path):
    other = finished_run(competition, tmp_path / "a")
    settings = settings_of(competition, {"model": {"weights": str(other.root)}, "loss": {"terms": "bce"}})
    (job,) = jobs_of(settings, tmp_path / "b")
    (tmp_path / "b").mkdir()
    job.run.folds.write_bytes(other.folds.read_bytes())
    built = starting_network(job)
    assert equal(built.network.state_dict(), weights_of(other.root))
    assert built.weights_source == f"fold 0 of {other.root}"

    table = pd.read_csv(other.folds, dtype=str)
    swapped = table.assign(fold=["1", "0", *table.fold[2:]])
    swapped.to_csv(tmp_path / "b" / "folds.csv", index=False)
    with pytest.raises(UserError, match="other images or folds"):
        starting_network(job)


def test_weights_exchanged_in_another_run_are_no_start(competition, tmp_path):
    """Fold 1 in place of fold 0, all of whose images it has seen; weights that training did not write; old folds."""
    other = finished_run(competition, tmp_path / "a", folds=(0, 1), made_from={"left_out_images": "x"})
    settings = settings_of(competition, {"model": {"weights": str(other.root)}})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "folds.csv").write_bytes(other.folds.read_bytes())
    (job,) = jobs_of(settings, tmp_path / "b", made_from={"left_out_images": "x"})
    starting_network(job)
    with pytest.raises(UserError, match="fold 0 of .* was trained before .*folds.csv was changed"):
        starting_network(replace(job, made_from={"left_out_images": "y"}))
    weights = other.fold(0).weights.read_bytes()
    other.fold(0).weights.write_bytes(other.fold(1).weights.read_bytes())
    with pytest.raises(UserError, match=r"fold_0/model.safetensors is not what training wrote"):
        starting_network(job)
    other.fold(0).weights.write_bytes(weights)
    other.fold(0).root.rename(tmp_path / "kept")
    other.fold(1).root.rename(other.fold(0).root)
    with pytest.raises(UserError, match="fold_0 holds fold 1"):
        starting_network(job)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"data": {"channels": 1}}, "data.channels=3, this run has 1"),
        ({"data": {"classes": ["other"]}}, "data.classes"),
        ({"model": {"encoder": "resnet18"}}, "model.encoder=test_resnet, this run has resnet18"),
        ({"model": {"presence": 0.5}}, r"model.presence=0.0, this run has 0.5"),
    ],
)
def test_a_run_of_another_network_is_no_start(competition, tmp_path, sections, words):
    other = finished_run(competition, tmp_path / "a")
    sections["model"] = TINY | sections.get("model", {}) | {"weights": str(other.root)}
    (job,) = jobs_of(settings_of(competition, sections), beside(other))
    with pytest.raises(UserError, match=words):
        starting_network(job)


@pytest.mark.parametrize(
    ("place", "words"), [("fold_0", "is not a run"), ("fold_0/model.safetensors", "a whole network")]
)
def test_one_fold_of_a_run_is_no_start_for_all(competition, tmp_path, place, words):
    """Its model has seen what the other folds leave out."""
    other = finished_run(competition, tmp_path / "a")
    (job,) = jobs_of(settings_of(competition, {"model": {"weights": str(other.root / place)}}), beside(other))
    with pytest.raises(UserError, match=f"{words}.*; name (the|its) run"):
        starting_network(job)


def test_a_run_without_the_fold_is_no_start(competition, tmp_path):
    other = finished_run(competition, tmp_path / "a")
    settings = settings_of(competition, {"model": {"weights": str(other.root)}})
    (job,) = jobs_of(settings, beside(other), folds=[1])
    with pytest.raises(UserError, match="fold 1 of .* is not trained; run 02_train.py .* --folds 1$"):
        starting_network(job)
    (job,) = jobs_of(settings, tmp_path / "b", folds=["all"])
    with pytest.raises(UserError, match="fold all of .* --folds all train.all_images=true$"):
        starting_network(job)
    (job,) = jobs_of(settings, other.root)
    with pytest.raises(UserError, match="is this run itself"):
        starting_network(job)


def beside(run: RunFolder) -> Path:
    """The folder of another run on the same folds."""
    folder = run.root.with_name("b")
    folder.mkdir()
    (folder / "folds.csv").write_bytes(run.folds.read_bytes())
    return folder


@pytest.mark.parametrize("architecture", ["deeplabv3+", "pan", "upernet"])
def test_a_batch_of_one_image_is_one_sentence_where_batch_norm_needs_more(competition, tmp_path, architecture):
    model = {"architecture": architecture, "decoder_channels": None}
    (job,) = jobs_of(settings_of(competition, {"model": TINY | model}, batch_size=1), tmp_path)
    with pytest.raises(UserError, match=r"batches of 1 crop of 32 x 32 pixels.*train\.batch_size"):
        try_out([job])


@pytest.mark.parametrize(("frozen", "is_refused"), [("all", False), (1, True)])
def test_a_batch_of_one_image_is_enough_where_no_batch_norm_of_the_encoder_learns(
    competition, tmp_path, frozen, is_refused
):
    """At 32 pixels the encoder's last maps are one pixel, the decoder's two or more."""
    (job,) = jobs_of(settings_of(competition, batch_size=1, freeze_epochs=frozen), tmp_path)
    with pytest.raises(UserError, match="batches of 1 crop of 32 x 32") if is_refused else nullcontext():
        try_out([job])


def test_trying_out_writes_nothing(competition, tmp_path):
    (job,) = jobs_of(settings_of(competition), tmp_path / "run")
    try_out([job])
    assert not (tmp_path / "run").exists()


def test_weights_of_a_network_wrapped_for_several_processes_are_read(competition, tmp_path):
    import timm

    tensors = timm.create_model("test_resnet").state_dict()
    save_file({f"module.{name}": tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "w.safetensors")
    (job,) = jobs_of(settings_of(competition, {"model": TINY | {"weights": str(tmp_path / "w.safetensors")}}), tmp_path)
    encoder = starting_network(job).network.network.encoder.model
    assert torch.equal(encoder.state_dict()["layer1.0.conv1.weight"], tensors["layer1.0.conv1.weight"])


def test_the_weights_that_have_a_name_are_no_run_whatever_folders_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("imagenet", "random", "a"):
        Path(name).mkdir()
    assert [starting_run(name) is not None for name in ("imagenet", "random", "a", "b")] == [False, False, True, False]
