"""What the network runs on, and in which precision."""

import os

import torch

from lib.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def best_device() -> torch.device:
    """A GPU (this process's own under torchrun, else the first), Apple's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` as fp32, bf16 or fp16: the fastest the device computes in hardware.

    A CPU without bf16 instructions emulates them, at a tenth of the speed of fp32. Raises UserError for fp16 on a CPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError("train.precision=fp16 needs a GPU; use auto, fp32 or bf16 on a CPU")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    native = device.type == "cpu" and torch.cpu.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if native else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context of a resolved precision."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch failed for want of memory, which it says in words only where the device is no GPU."""
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in words)
