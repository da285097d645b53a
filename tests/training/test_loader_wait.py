"""The time waited for batches by a clock that the test moves."""

import pytest

from lib.config.training_settings import TrainSettings
from lib.training import loader_wait
from lib.training.loader_wait import LoaderWait


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def trained(monkeypatch, load: float, step: float, epochs: int = 2, length: int = 5) -> LoaderWait:
    """Epochs whose batches take `load` seconds each, the first of an epoch 30, and whose steps take `step`."""
    clock, wait = Clock(), LoaderWait()
    monkeypatch.setattr(loader_wait, "time", clock)

    def loader():
        for number in range(length):
            clock.now += load if number else 30
            yield {}

    for _ in range(epochs):
        for _ in wait.timed(loader()):
            clock.now += step
    return wait


@pytest.mark.parametrize(("load", "step", "share"), [(0.0, 1.0, 0.0), (1.0, 1.0, 4 / 9), (3.0, 1.0, 12 / 17)])
def test_share_of_the_time_is_that_of_the_fake_clock(monkeypatch, load, step, share):
    assert trained(monkeypatch, load, step).share == pytest.approx(share)


def test_only_a_slow_loader_is_spoken_of_with_what_to_change(monkeypatch):
    train = TrainSettings()
    assert trained(monkeypatch, 0.1, 1.0).sentence(train, "medium", 8, 16) == ""
    slow = trained(monkeypatch, 1.0, 1.0)
    line = slow.sentence(train, "medium", 8, 16)
    assert "waited for batches 44% of the time" in line
    assert "train.workers=16" in line and "augment.preset=light" in line and "train.cache_mb (now 256)" in line
    at_its_end = slow.sentence(train, "light", 16, 16)
    assert "workers" not in at_its_end and "preset" not in at_its_end and "cache_mb" in at_its_end


def test_nothing_is_said_before_anything_is_trained():
    assert LoaderWait().sentence(TrainSettings(), "medium", 8, 16) == ""
