"""Operations that a CPU computes slowly are computed another way, with the same result."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from lib.config.training_settings import ModelSettings
from lib.model.device import (
    autocast,
    best_device,
    compute_slow_gradients_in_float32,
    computes_in,
    has_native_bf16,
    is_out_of_memory,
    resolve_precision,
)
from lib.model.network import build_untrained
from tests import REPOSITORY

FAULTS = """
import resource, sys, torch
from lib.model.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory(torch.device("cpu"))
b"x" * 100_000_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    b"x" * 100_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


CORES = """
import torch
from threading import Barrier, Thread
from lib.model.device import pool_sharing_cores

assert torch.get_num_threads() == 6
pool, together, seen = pool_sharing_cores(3), Barrier(3, timeout=200), []
work = torch.ones(300, 300)

def compute(_):
    together.wait()  # each task in a thread of its own
    return torch.get_num_threads(), float((work @ work)[0, 0]), torch.get_num_threads()

assert list(pool.map(compute, range(9))) == [(2, 300, 2)] * 9
later = Thread(target=lambda: seen.append(torch.get_num_threads()))
later.start()
later.join()
assert torch.get_num_threads() == 6 and seen == [6]
"""


def test_only_depthwise_convolutions_other_than_plain_ones_leave_bf16():
    kinds = {
        "dense": nn.Conv2d(4, 4, 5),
        "grouped": nn.Conv2d(4, 4, 5, groups=2),
        "one channel": nn.Conv2d(1, 1, 5),
        "plain": nn.Conv2d(4, 4, 3, padding=1, groups=4),
        "large": nn.Conv2d(4, 4, 5, groups=4),
        "strided": nn.Conv2d(4, 4, 3, stride=2, groups=4),
        "dilated": nn.Conv2d(4, 4, 3, dilation=2, groups=4),
    }
    network = nn.ModuleDict(kinds)
    compute_slow_gradients_in_float32(network, torch.device("cpu"), "bf16")
    with torch.autocast("cpu", torch.bfloat16):
        types = {name: layer(torch.ones(1, layer.in_channels, 16, 16)).dtype for name, layer in kinds.items()}
    assert {name for name, dtype in types.items() if dtype == torch.float32} == {"large", "strided", "dilated"}


def test_an_efficientnet_keeps_its_names_and_computes_the_same():
    torch.manual_seed(0)
    network = build_untrained(ModelSettings(weights="random"), class_count=1).eval()  # statistics of no batch
    names = list(network.state_dict())
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)

    def gradient(bf16: bool) -> torch.Tensor:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(images)
        logits.float().sigmoid().mean().backward()
        return torch.cat([parameter.grad.flatten() for parameter in network.network.encoder.parameters()])

    expected = gradient(bf16=False)
    compute_slow_gradients_in_float32(network, torch.device("cpu"), "bf16")
    assert list(network.state_dict()) == names
    assert torch.equal(gradient(bf16=False), expected)
    assert torch.nn.functional.cosine_similarity(gradient(bf16=True), expected, dim=0) > 0.9


def test_freed_memory_is_used_again_without_being_mapped_anew():
    def faults(kind: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, kind], capture_output=True, text=True, check=True)
        return int(done.stdout)

    given_back, kept = faults("given back"), faults("kept")
    assert given_back > 100  # at most 2 MB a fault, where the kernel has large pages
    assert kept < given_back / 10


def test_auto_is_what_the_device_computes_in(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    for native in (True, False):
        monkeypatch.setattr("lib.model.device.has_native_bf16", lambda native=native: native)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert resolve_precision("auto", cpu) == ("bf16" if native else "fp32")
        assert resolve_precision("auto", gpu) == ("bf16" if native else "fp16")
        assert computes_in("bf16", cpu) == computes_in("bf16", gpu) == native
    assert [computes_in("fp16", device) for device in (cpu, gpu)] == [False, True]


@pytest.mark.parametrize("machine", ["x86_64", "AMD64", "aarch64"])
@pytest.mark.parametrize("by_onednn", [True, False])
@pytest.mark.parametrize("has_instructions", [True, False])
def test_avx_512_alone_is_no_native_bf16(monkeypatch, machine, by_onednn, has_instructions):
    """oneDNN says yes to all of AVX-512, and of ARM's CPUs to those with bf16 only."""
    monkeypatch.setattr("lib.model.device.platform.machine", lambda: machine)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: by_onednn, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    assert has_native_bf16() == (by_onednn and (has_instructions or machine == "aarch64"))


def test_a_build_without_onednn_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not has_native_bf16() and resolve_precision("auto", torch.device("cpu")) == "fp32"


def test_apples_gpu_is_taken_and_computes_in_float32(monkeypatch):
    """By fakes: no such device is here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = best_device()
    assert device.type == "mps" and resolve_precision("auto", device) == "fp32"
    assert not autocast(device, "fp32")._enabled
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17.97 GB)"))


def test_no_weight_is_float64():
    """Apple's GPUs have none."""
    network = build_untrained(ModelSettings(encoder="resnet10t", weights="random"), class_count=1)
    assert not [name for name, tensor in network.state_dict().items() if tensor.dtype == torch.float64]


def test_threads_that_share_the_cores_compute_with_their_own():
    """In a process of its own, since torch does not take back all that it sets up for six cores."""
    environment = os.environ | {"OMP_NUM_THREADS": "6", "MKL_NUM_THREADS": "6", "MKL_DYNAMIC": "false"}
    subprocess.run([sys.executable, "-c", CORES], env=environment, cwd=REPOSITORY, check=True, timeout=300)
