"""The scores of a run, printed: only those of the present settings."""

from argparse import Namespace
from pathlib import Path

import pytest

from lib.base.errors import UserError
from lib.tools.summary import summarise
from tests.stages import STAGES


def test_a_setting_of_05_changed_afterwards_makes_its_scores_old(user, monkeypatch, capsys):
    monkeypatch.chdir(user)
    arguments = Namespace(run=Path("runs/blobs"), solution=None)
    summarise(arguments)
    assert "dice, nested" in capsys.readouterr().out
    config = Path("runs/blobs/config.yaml")
    config.write_text(config.read_text().replace("areas:\n  - 16\n", "areas:\n  - 17\n"))
    with pytest.raises(UserError, match=rf"postprocess.areas: .*17.*; run {STAGES[4]}.py --run runs/blobs"):
        summarise(arguments)
