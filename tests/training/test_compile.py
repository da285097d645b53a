"""torch.compile changes how a network is computed, and nothing about its files."""

import pandas as pd
import torch
from safetensors.torch import load_file

from tests.stages import STAGES, completed, stage_words


def compile_without_compiler() -> None:
    """The graph is traced as ever, and run as it is: the compiler itself would take minutes."""
    compile_in_place = torch.nn.Module.compile
    torch.nn.Module.compile = lambda self: compile_in_place(self, backend="eager")


def test_a_compiled_training_writes_the_same_files(user):
    typed = [*stage_words(STAGES[1]), "--folds", "0", "train.compile=true", "--restart"]
    fold = user / "runs" / "blobs" / "fold_0"
    weights, histories = [], []
    for compiled in (False, True):
        if compiled:
            completed(user, *typed, plant=compile_without_compiler)
        weights.append(load_file(fold / "model.safetensors"))
        histories.append(pd.read_csv(fold / "history.csv"))
    plain, compiled = weights
    assert {name: tensor.shape for name, tensor in plain.items()} == {n: t.shape for n, t in compiled.items()}
    assert all(torch.allclose(plain[name].float(), compiled[name].float(), atol=1e-4) for name in plain)
    assert (histories[0].loss - histories[1].loss).abs().max() < 1e-4
