"""The cost of encoders: parameters, stride, and memory of a training step with and without gradients in the encoder.

    python benchmarks/encoders.py [--batch 4] [--size 256] [--architecture unet] [ENCODER ...]

Random weights, float32, on the CPU; each encoder in a process of its own, whose peak resident memory is that of the
step and of the network, less what the process held before. `frozen` is train.freeze_epochs=all, `low rank`
train.lora_rank=8.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import torch

from lib.base.cli import plain_parser
from lib.base.errors import UserError
from lib.config.training_settings import ModelSettings
from lib.model.low_rank import learn_low_rank
from lib.model.network import build_untrained, require_any_size

ENCODERS = [
    "tf_efficientnet_lite0",
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "maxvit_tiny_rw_224",
    "mit_b2",
    "coat_lite_small",
    "sam2_hiera_tiny",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "vit_base_patch16_dinov3",
]
WAYS = ("all learn", "frozen", "low rank")


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("encoders", nargs="*", metavar="ENCODER", default=ENCODERS)
    parser.add_argument("--batch", type=int, default=4, help="images of a step")
    parser.add_argument("--size", type=int, default=256, help="their side in pixels")
    parser.add_argument("--architecture", default="unet")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(measure(arguments, arguments.encoders[0]))
        return
    shared = ["--batch", str(arguments.batch), "--size", str(arguments.size), "--architecture", arguments.architecture]
    print("| encoder | parameters | stride |", " | ".join(WAYS), "|")
    print("|---|---|---|" + "---|" * len(WAYS))
    for encoder in arguments.encoders:
        cells = []
        for way in WAYS:
            command = [sys.executable, __file__, encoder, "--way", way, *shared]
            ended = subprocess.run(command, capture_output=True, text=True)
            cells.append(["", "", "-"] if ended.returncode else ended.stdout.strip().split("\t"))
        print(
            f"| `{encoder}` | {cells[0][0]} | {cells[0][1]} |", " | ".join(cell[2] for cell in cells), "|", flush=True
        )


def measure(arguments: argparse.Namespace, encoder: str) -> str:
    """Parameters, stride, and GiB of a step, separated by tabs."""
    settings = ModelSettings(encoder=encoder, architecture=arguments.architecture, weights="random")
    before = current_memory()
    network = build_untrained(settings, class_count=1)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    try:
        require_any_size(network, settings, channels=3)
        if arguments.way == "frozen":
            network.network.encoder.requires_grad_(False)
        if arguments.way == "low rank":
            learn_low_rank(network.network.encoder, 8, encoder)
    except UserError as error:
        sys.exit(str(error))
    optimizer = torch.optim.AdamW(parameter for parameter in network.parameters() if parameter.requires_grad)
    images = torch.zeros(arguments.batch, 3, arguments.size, arguments.size, dtype=torch.uint8)
    for _ in range(2):  # the second step has the optimizer's moments
        network.train()(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return f"{parameters / 1e6:.0f} M\t{network.stride}\t{(peak - before) / (1 << 30):.1f} GB"


def current_memory() -> int:
    """Bytes that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
