"""The demo types what README says, and stops where a command fails."""

from types import SimpleNamespace

import pytest

from lib.tools import demo


def test_the_commands_are_those_of_the_five_stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = demo.demo_commands()
    assert [words[0].rpartition("/")[2] for words in typed] == [
        "-m",
        "01_prepare_folds.py",
        "02_train.py",
        "03_oof_threshold.py",
        "04_infer.py",
        "05_postprocess.py",
        "-m",
    ]
    (tmp_path / "data" / "blue_marble").mkdir(parents=True)
    assert demo.demo_commands() == typed[1:]


def test_a_failing_command_ends_the_demo_with_its_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = []
    monkeypatch.setattr(demo.subprocess, "run", lambda command: run.append(command) or SimpleNamespace(returncode=3))
    with pytest.raises(SystemExit) as ended:
        demo.demo(None)
    assert ended.value.code == 3 and len(run) == 1
