"""Whether the loader keeps up with the GPU: the share of time in which the training waits for batches."""

import time
from collections.abc import Iterable, Iterator

from lib.config.training_settings import TrainSettings
from lib.training.batches import Batch, cores_of_process, loader_processes
from lib.training.fold_job import FoldJob

WORTH_SAYING = 0.2  # of the time
COSTLY_PRESETS = ("medium", "heavy")


class LoaderWait:
    """The time spent waiting for batches, and the time between them, over all epochs passed through `timed`."""

    def __init__(self) -> None:
        self.waited = self.worked = 0.0  # seconds

    @property
    def share(self) -> float:
        """The waiting time as a share of the whole, 0 to 1."""
        whole = self.waited + self.worked
        return self.waited / whole if whole else 0.0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield an epoch's batches; the wait for the first, while processes start, does not count."""
        asked = None
        for batch in batches:
            given = time.monotonic()
            self.waited += 0.0 if asked is None else given - asked
            yield batch
            asked = time.monotonic()
            self.worked += asked - given

    def advice(self, job: FoldJob) -> str:
        """`sentence` for a GPU; empty on a CPU, where the loader and the network share the cores."""
        if job.device.type == "cpu":
            return ""
        train = job.settings.train
        workers = loader_processes(train.workers, job.device)
        return self.sentence(train, job.settings.augment.preset, workers, cores_of_process())

    def sentence(self, train: TrainSettings, preset: str, workers: int, cores: int) -> str:
        """A line for 02's end with the setting to change; empty where the loader keeps up."""
        if self.share < WORTH_SAYING:
            return ""
        remedies = []
        if workers < cores:
            remedies.append(f"train.workers={cores} uses all {cores} cores (now {workers})")
        if preset in COSTLY_PRESETS:
            remedies.append("augment.preset=light takes less time a crop")
        remedies.append(f"train.cache_mb (now {train.cache_mb}) saves decoding where it holds the images of a process")
        return f"loader    the GPU waited for batches {self.share:.0%} of the time: {'; '.join(remedies)}"
