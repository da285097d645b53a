"""The lines that a stage prints on new settings, and the records of its files."""

import json
import re
from pathlib import Path

import pytest

from lib.base.errors import UserError
from lib.base.files import read_json, write_json, write_text
from lib.config.check import save_settings
from lib.config.load import load_settings
from lib.config.schema import Settings
from lib.run import record
from lib.run.folder import RunFolder, open_run
from lib.run.record import StageRecord, differences, is_intact, require_same, require_written, sealed
from tests import REPOSITORY


@pytest.fixture
def run(tmp_path) -> RunFolder:
    run = RunFolder(tmp_path / "a run")
    save_settings(Settings(name="run"), run.config)
    return run


def test_new_settings_are_said_when_they_become_the_runs(run, capsys):
    settings = load_settings(run.config, ["train.epochs=50", "data.rle.base=0", "postprocess.radii=[3]"])
    StageRecord(run, "02_train").begin(settings)
    assert capsys.readouterr().out.splitlines() == [
        "setting   data.rle.base 1 -> 0 is now the run's setting",
        "setting   train.epochs 30 -> 50 is now the run's setting",
        "setting   postprocess.radii [1, 2, 4, 8] -> [3] is now the run's setting",
    ]
    assert load_settings(run.config) == settings
    StageRecord(run, "02_train").begin(settings)
    assert capsys.readouterr().out == ""


def test_of_a_first_run_nothing_is_new(tmp_path, capsys):
    StageRecord(RunFolder(tmp_path), "01_prepare_folds").begin(Settings(name="run"))
    assert capsys.readouterr().out == ""


def test_files_other_than_a_stage_wrote_are_refused(run):
    write_text(run.threshold, '{"t": 100}')
    stage = StageRecord(run, "03_oof_threshold")
    stage.write({"a": 1}, [run.threshold])
    require_written(stage.path, "again")
    write_text(run.threshold, '{"t": 101}')
    with pytest.raises(UserError, match=r"threshold.json is not what 03_oof_threshold wrote .*; again"):
        require_written(stage.path, "again")
    run.threshold.unlink()
    with pytest.raises(UserError, match="threshold.json does not exist; again"):
        require_written(stage.path, "again")


def test_a_command_that_finds_everything_done_leaves_the_seconds_of_the_work(run, monkeypatch):
    clock = iter([0, 100, 200, 203, 300, 307])  # start and end of three commands
    monkeypatch.setattr(record.time, "monotonic", lambda: next(clock))
    totals = []
    for made_from in ({"folds": "a"}, {"folds": "a"}, {"folds": "b"}):
        stage = StageRecord(run, "02_train")
        stage.begin(Settings(name="run"))
        this_command = stage.write(made_from)
        totals.append((this_command, read_json(stage.path)["seconds"]))
    assert totals == [(100, 100), (3, 103), (7, 7)]


def test_a_seal_breaks_with_any_value(run):
    content = {"score": 0.1 + 0.2, "made_from": {"size": (1, 2), "names": ["é"]}}
    write_json(run.threshold, sealed(content))
    read = read_json(run.threshold)
    assert is_intact(read) and is_intact(content)
    for broken in (read | {"score": 0.3}, read | {"more": 1}, {**read, "made_from": {}}):
        assert not is_intact(broken) and is_intact(sealed(broken))


@pytest.mark.parametrize("content", [{}, {"made_from": None}, {"made_from": [1]}, {"wrote": {}}])
def test_a_record_that_says_nothing_is_refused(run, content):
    write_json(run.record("04_infer"), content)
    with pytest.raises(UserError, match="does not say what it was made from; again"):
        require_same(run.record("04_infer"), {"maps": {}}, "again")


@pytest.mark.parametrize("text", ["", "[]", "null", '{"made_from": ', "\0" * 30, "[" * 100_000])
def test_a_damaged_record_is_an_error_and_no_traceback(run, text):
    run.record("04_infer").write_text(text)
    with pytest.raises(UserError, match=r"04_infer.json is damaged .*; remove it"):
        read_json(run.record("04_infer"))


def test_digests_are_shown_short():
    before, after = ({"maps": {"fold_0": 32 * "ab"}}, {"maps": {"fold_0": 32 * "cd", "fold_1": 32 * "ef"}})
    assert differences(before, after) == [
        "maps.fold_0: abababab... -> cdcdcdcd...",
        "maps.fold_1: None -> efefefef...",
    ]


def test_the_disk_is_flushed_before_a_record_says_that_all_is_there(run, monkeypatch):
    done = []
    monkeypatch.setattr(record, "flush_disk", lambda folder: done.append(str(folder)))
    monkeypatch.setattr(record, "write_json", lambda path, content: done.append(json.dumps(content["made_from"])))
    StageRecord(run, "04_infer").write({"maps": 1})
    assert done == [str(run.root), '{"maps": 1}']


def test_what_to_type_is_quoted():
    typed = RunFolder(Path("my runs/a $1")).command("02_train", "--folds", 1, 2)
    assert typed == "02_train.py --run 'my runs/a $1' --folds 1 2"


def test_no_message_holds_a_command_with_an_unquoted_path():
    """A folder with blanks would be two words, and the command another one."""
    unquoted = re.compile(r"(\.py|--run|--out|--rules|lib\.tools\.\w+) \{(?!shlex)")
    assert unquoted.search('f"run 02_train.py --run {run.root}"') and not unquoted.search("--out {shlex.quote(out)}")
    files = [*(REPOSITORY / "lib").rglob("*.py"), *REPOSITORY.glob("0*.py")]
    found = {path.name: unquoted.findall(path.read_text(encoding="utf-8")) for path in files}
    assert {name for name, commands in found.items() if commands} == set()


def end_stage(run: RunFolder, stage: str, settings: Settings) -> None:
    record = StageRecord(run, stage)
    record.begin(settings)
    record.write({})


def test_a_setting_edited_in_the_file_is_said_like_one_on_the_command_line(run, capsys):
    end_stage(run, "03_oof_threshold", load_settings(run.config))
    write_text(run.config, run.config.read_text().replace("rows: mask", "rows: instance"))
    _, settings = open_run(run.root)
    StageRecord(run, "05_postprocess").begin(settings)
    assert capsys.readouterr().out == "setting   submission.rows mask -> instance is now the run's setting\n"


@pytest.mark.parametrize("cut", ["name:", "\nsubmission:", "  rule: threshold", "train:\n  epochs"])
def test_a_file_of_settings_that_was_cut_short_is_refused(run, cut):
    end_stage(run, "04_infer", load_settings(run.config))
    whole = run.config.read_text()
    write_text(run.config, whole[: whole.index(cut)])
    with pytest.raises(UserError, match=r"config.yaml no longer has '.*04_infer.json keeps under 'settings'"):
        open_run(run.root)
    write_text(run.config, json.dumps(read_json(run.record("04_infer"))["settings"]))  # the advice
    assert open_run(run.root)[1] == Settings(name="run")


def test_settings_of_a_run_that_lost_its_file_are_in_its_record(run):
    end_stage(run, "04_infer", load_settings(run.config, ["train.epochs=7"]))
    run.config.unlink()
    with pytest.raises(UserError, match=r"config.yaml does not exist; .*04_infer.json keeps under 'settings'"):
        open_run(run.root)
    write_text(run.config, json.dumps(read_json(run.record("04_infer"))["settings"]))  # the advice
    assert open_run(run.root)[1].train.epochs == 7


def test_a_setting_that_was_lost_may_be_given_on_the_command_line(run):
    end_stage(run, "04_infer", load_settings(run.config))
    write_text(run.config, run.config.read_text().replace("  rows: mask\n", ""))
    with pytest.raises(UserError, match="no longer has 'submission.rows'; put back"):
        open_run(run.root)
    assert open_run(run.root, ["submission.rows=instance"])[1].submission.rows == "instance"


def test_a_section_given_whole_has_defaults_for_what_it_leaves_out(run):
    end_stage(run, "01_prepare_folds", load_settings(run.config, ["augment.rotate=0.9"]))
    augment = open_run(run.root, ["augment={preset: heavy, blur: 0.7}"])[1].augment
    assert (augment.preset, augment.blur, augment.rotate) == ("heavy", 0.7, None)
    write_text(run.config, run.config.read_text().replace("  rows: mask\n", ""))
    with pytest.raises(UserError, match="no longer has 'submission.rows'; put back"):
        open_run(run.root, ["augment={preset: heavy}"])


def test_settings_are_those_of_the_stage_that_ended_last_and_records_without_them_do_not_count(run, capsys):
    end_stage(run, "05_postprocess", load_settings(run.config, ["train.lr=0.1"]))
    end_stage(run, "03_oof_threshold", load_settings(run.config, ["train.lr=0.2"]))
    content = read_json(run.record("03_oof_threshold")) | {"finished": "2999-01-01T00:00:00+00:00"}
    del content["settings"]["train"]["epochs"]  # as if by a version that did not have the setting
    write_json(run.record("03_oof_threshold"), content)
    write_json(run.record("04_infer"), {"finished": "3000-01-01T00:00:00+00:00"})  # by a version that kept no settings
    run.record("02_train").write_text("damaged")
    capsys.readouterr()
    StageRecord(run, "05_postprocess").begin(load_settings(run.config, ["train.lr=0.3"]))
    assert capsys.readouterr().out == "setting   train.lr 0.2 -> 0.3 is now the run's setting\n"
