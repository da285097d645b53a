"""Several processes, started by torchrun: the number of this one, its share of the work, a barrier."""

import os
from datetime import timedelta

NUMBER = int(os.environ.get("RANK", 0))
COUNT = int(os.environ.get("WORLD_SIZE", 1))
COUNT_HERE = int(os.environ.get("LOCAL_WORLD_SIZE", COUNT))  # those on this machine
PATIENCE = timedelta(days=1)  # torch's 10 minutes are too short where another process predicts large images


def is_first() -> bool:
    """True in the process that writes the files of the whole run."""
    return NUMBER == 0


def own_share(ids: list[str]) -> list[str]:
    """This process's share of the ids, every COUNT-th one; the shares together hold each id exactly once."""
    return ids[NUMBER::COUNT]


def wait_for_all() -> None:
    """Barrier: wait for all processes."""
    if COUNT > 1:
        import torch
        from accelerate import PartialState

        # without cpu=True accelerate does not connect processes that have no GPU
        PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE).wait_for_everyone()
