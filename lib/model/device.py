"""The device that the network runs on, and its precision."""

import ctypes
import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from lib.base.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
IS_GLIBC = platform.libc_ver()[0] == "glibc"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of its mallopt


def best_device() -> torch.device:
    """A GPU (this process's own under torchrun, else the first), Apple's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def keep_freed_memory(device: torch.device) -> None:
    """On a CPU, let the process keep the memory of freed tensors for the next ones, where the C library is glibc's.

    By itself glibc gives back each block of more than 32 MB, and the kernel clears every page of the next one: a third
    of the time of a training step of 16 crops of 256 pixels. The peak is that of one step and grows by a few percent.
    """
    if device.type == "cpu" and IS_GLIBC:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 28)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def pool_sharing_cores(workers: int) -> ThreadPoolExecutor:
    """Threads that share the cores of torch, each computing with its own ones.

    A network of small layers keeps two cores busier by two images than by halves of the same layers, at whose ends the
    cores wait for each other.
    """
    share = max(1, torch.get_num_threads() // workers)
    return ThreadPoolExecutor(workers, initializer=_compute_with, initargs=(share,))


def _compute_with(cores: int) -> None:
    """Let this thread compute with so many threads of OpenMP; torch.set_num_threads would hold for later ones, too."""
    torch.get_num_threads()  # the first call in a thread gives it the number of the process
    threadpool_limits(cores, user_api="openmp")


def give_back_memory() -> None:
    """Return what `keep_freed_memory` has kept."""
    if IS_GLIBC:
        ctypes.CDLL(None).malloc_trim(0)


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` as fp32, bf16 or fp16: half precision where the device computes in it in hardware.

    A CPU without bf16 instructions emulates them, at a tenth of the speed of fp32, or with AVX-512 at two fifths.
    Raises UserError for fp16 on a CPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError("train.precision=fp16 needs a GPU; use auto, fp32 or bf16 on a CPU")
    if precision != "auto":
        return precision
    if computes_in("bf16", device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"


def prediction_precision(trained: str, device: torch.device) -> str:
    """The precision for predicting with networks that were trained in fp32, bf16 or fp16.

    A GPU predicts in fp16 what was trained in bf16: as fast, and nearer to fp32 by three bits (`benchmarks/gpu.py`: no
    pixel of a map differs by more than 1/255 from fp32, in bf16 3 %); so GPUs with and without bf16 give the same maps.
    A device that does not compute in half precision predicts in fp32.
    """
    if trained != "fp32" and device.type == "cuda":
        return "fp16"
    return trained if computes_in(trained, device) else "fp32"


def computes_in(precision: str, device: torch.device) -> bool:
    """Whether the device computes in fp32, bf16 or fp16 in hardware."""
    if precision == "bf16" and device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16":
        return device.type == "cpu" and torch.cpu.is_available() and has_native_bf16()
    return precision == "fp32" or device.type != "cpu"


def has_native_bf16() -> bool:
    """Whether the CPU computes in bf16 by instructions, and torch by oneDNN, which builds as of macOS lack.

    On x86 oneDNN says yes to any CPU with AVX-512, even if it has to emulate bf16.
    """
    by_onednn = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return by_onednn() and (not is_x86 or torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory. On a CPU it raises a plain RuntimeError, so its message is matched."""
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in words)


def compute_slow_gradients_in_float32(network: nn.Module, device: torch.device, precision: str) -> None:
    """Let depthwise convolutions leave a CPU's bf16 autocast, in place, but for those of 3 x 3 without stride.

    Does nothing on other devices and in other precisions.

    oneDNN has a kernel for the gradients of just these; of the others bf16 gradients take up to 25 times as long as
    float32 ones (torch 2.14), which is half of a training step of an EfficientNet. Forward passes are not slower, so
    this is for a network that is trained. Its tensors keep their names.
    """
    if device.type != "cpu" or precision != "bf16":
        return
    for module in network.modules():
        is_depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        if is_depthwise and (module.kernel_size, module.stride, module.dilation) != ((3, 3), (1, 1), (1, 1)):
            module.forward = partial(_in_float32, module.forward)


def _in_float32(forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return forward(images.float())
