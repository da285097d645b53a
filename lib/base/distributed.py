"""Which of several processes this one is, where torchrun has started them."""

import os
from datetime import timedelta

NUMBER = int(os.environ.get("RANK", 0))
COUNT = int(os.environ.get("WORLD_SIZE", 1))
PATIENCE = timedelta(days=1)  # torch's 10 minutes are short for waiting on another's share of large images


def is_first() -> bool:
    """Whether this process is the one that writes what belongs to the whole run."""
    return NUMBER == 0


def own_share(ids: list[str]) -> list[str]:
    """Every COUNT-th id: the processes' shares hold each id exactly once."""
    return ids[NUMBER::COUNT]


def wait_for_all() -> None:
    """Return once all processes are here."""
    if COUNT > 1:
        import torch
        from accelerate import PartialState

        # without cpu=True accelerate takes processes that have no GPU for strangers to each other
        PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE).wait_for_everyone()
