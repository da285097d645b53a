"""An interrupted training that cannot continue is refused before anything else changes."""

import pytest

from lib.base.errors import UserError
from lib.training import trainer
from lib.training.interrupted import require_continuable
from tests.training.jobs import jobs_of, settings_of, train

MADE_FROM = {"train": {"epochs": 3, "lr": 0.1}}


class Killed(Exception):
    pass


def test_other_settings_and_fewer_epochs_are_refused_and_more_epochs_are_not(competition, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "write_end", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train(settings_of(competition, epochs=3), tmp_path, made_from=MADE_FROM)

    def asked(epochs: int, lr: float = 0.1) -> None:
        made_from = {"train": {"epochs": epochs, "lr": lr}}
        require_continuable(jobs_of(settings_of(competition, epochs=epochs), tmp_path, (0, 1), made_from))

    asked(3)
    asked(5)
    with pytest.raises(
        UserError, match=r"fold_0 was begun with other inputs \(train\.lr: 0\.1 -> 0\.2\); undo that, or add --restart"
    ):
        asked(3, lr=0.2)
    with pytest.raises(UserError, match=r"fold 0 has trained 3 epochs already, more than train\.epochs = 2.*--restart"):
        asked(2)
    (job,) = jobs_of(settings_of(competition), tmp_path)
    job.folder.resume.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read.*--restart"):
        asked(3)
