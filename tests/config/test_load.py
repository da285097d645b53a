"""Settings files and `section.key=value`: what is taken as meant, and what is refused."""

import re
from pathlib import Path

import pytest

from lib.base.errors import UserError
from lib.config.external_source import external_sources
from lib.config.load import load_settings, read_value, with_overrides


@pytest.fixture
def settings_file(tmp_path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text("data: {root: images}\n")
    return path


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("data:\n  root: a\ntrain:\n  lr: 0.1\ntrain:\n  epochs: 3\n", "'train' is given twice, in lines 3 and 5"),
        ("train:\n  lr: 0.1\n  epochs: 3\n  lr: 0.2\n", "'lr' is given twice, in lines 2 and 4"),
        ("data: {rle: {base: 0, base: 1}}\n", "'base' is given twice, in lines 1 and 1"),
    ],
)
def test_a_key_given_twice_is_refused_with_its_lines(settings_file, text, line):
    settings_file.write_text(text)
    with pytest.raises(UserError, match=line):
        load_settings(settings_file)


def test_references_and_merged_keys_are_no_repetition(settings_file):
    settings_file.write_text("train: &t {epochs: 3}\nfolds: {count: 4}\nloss: {terms: dice}\ninfer: {<<: {}}\n")
    assert load_settings(settings_file).train.epochs == 3


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.image_id={id}", "{id}"),
        ("data.image_id={day}_slice_{slice}", "{day}_slice_{slice}"),
        ("data.train_images=*.png", "*.png"),
        ("data.train_images=[ab]_{id}.png", "[ab]_{id}.png"),
        ("data.train_images='{id}/images/*.png'", "{id}/images/*.png"),
        ("data.train_images=train/{case}/*.png", "train/{case}/*.png"),
    ],
)
def test_patterns_on_the_command_line_are_text(settings_file, override, expected):
    key = override.partition("=")[0].removeprefix("data.")
    assert getattr(load_settings(settings_file, [override]).data, key) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", 3), ("[1, 2]", [1, 2]), ("null", None), ("{a: 1}", {"a": 1}), ("{}", {}), ("[1, {a: 2}]", [1, {"a": 2}])],
)
def test_other_values_are_yaml(text, expected):
    assert read_value(text) == expected


def test_ids_that_yaml_would_change_stay_as_written(settings_file):
    ids = ["010", "-007", "1:30", "7_12", "0x10", "0b11", "2021-02-30", "2021-02-03", "0o17", "00"]
    ids += ["1.5e+10", "12345678901234567.5", "0.00001"]
    ids += ["1_100", "1.10", ".5", "+5", "-0", "no", "Yes", "on", "off", "1:30.5"]
    settings_file.write_text(f"data: {{exclude: [{', '.join(ids)}], classes: {{010: 1, 1: 2}}}}\n")
    settings = load_settings(settings_file, [f"data.group={ids[6]}"])
    assert settings.data.exclude == ids and settings.data.classes == ["010", "1"] and settings.data.group == ids[6]


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-3", -3), ("0.5", 0.5), ("-1.0", -1), ("1.5e-05", 1.5e-5)])
def test_decimal_numbers_are_numbers(text, number):
    assert read_value(text) == number and read_value(f"[{text}]") == [number]


def test_settings_understand_numbers_and_switches_in_other_forms(settings_file):
    words = ["data.max_pixels=2_000_000_000", "train.lr=.0010", "data.value_range=[+0, 1.50]", "data.nodata=[-9999.00]"]
    words += [
        "data.instances=yes",
        "data.masks.alpha=off",
        "folds.hidden_groups=off",
        "data.external=[{root: x, weight: .50}]",
    ]
    settings = load_settings(settings_file, words)
    data = settings.data
    assert (data.max_pixels, settings.train.lr, data.value_range) == (2 * 10**9, 0.001, (0, 1.5))
    assert data.nodata == (-9999,) and data.instances is True and data.masks.alpha is False
    assert settings.folds.hidden_groups == "off" and external_sources(data)[0].weight == 0.5


def test_a_class_of_the_value_0_is_no_placeholder(settings_file):
    data = load_settings(settings_file, ["data.classes={mask: 0}"]).data
    assert data.classes == ["mask"] and data.masks.values == {"mask": [0]}


def test_overrides_leave_the_mapping_they_are_for_as_it_is():
    content = {"data": {"rle": {"base": 1}}}
    assert with_overrides(content, ["data.rle.base=0"]) == {"data": {"rle": {"base": 0}}}
    assert content == {"data": {"rle": {"base": 1}}}


def test_an_override_changes_one_of_the_places_that_refer_to_one_mapping(settings_file):
    settings_file.write_text("data: {masks: &shared {above: 3}, external: [{root: other, masks: *shared}]}\n")
    data = load_settings(settings_file, ["data.masks.above=100"]).data
    assert (data.masks.above, data.external[0]["masks"]["above"]) == (100, 3)


def test_given_folds_may_be_in_the_home_folder(settings_file, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert load_settings(settings_file, ["folds.given=~/folds.csv"]).folds.given == "/home/ann/folds.csv"


def test_a_value_that_is_no_yaml_is_named_by_its_setting(settings_file):
    with pytest.raises(UserError, match=r"postprocess.radii.* = '\[1, 2'"):
        load_settings(settings_file, ["postprocess.radii=[1, 2"])


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999"])
@pytest.mark.parametrize("setting", ["train.lr", "train.weight_decay", "loss.border_width", "threshold.beta"])
def test_infinite_numbers_are_refused(settings_file, setting, value):
    with pytest.raises(UserError, match=setting):
        load_settings(settings_file, [f"{setting}={value}"])


def test_an_infinite_range_is_refused(settings_file):
    with pytest.raises(UserError, match=r"data.value_range"):
        load_settings(settings_file, ["data.value_range=[0, .inf]"])


@pytest.mark.parametrize("name", ["a" * 201, "ä" * 101, 260 * "b"])
def test_a_class_too_long_for_a_folder_is_refused(settings_file, name):
    with pytest.raises(UserError, match="longer than 200 bytes"):
        load_settings(settings_file, [f"data.classes=[{name}]"])
    assert load_settings(settings_file, [f"data.classes=[{'b' * 200}]"]).data.classes == ["b" * 200]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.masks.values={a: 1}", "section 'data': classes must be the same as those of masks.values"),
        ("submission.pixels=[1, 2]", "yaml: submission.pixels has 2 values for 1 classes"),
        ("data.external=[{root: b, train_mask: c}]", "yaml: data.external, source 1: unknown setting 'train_mask'"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings_file, override, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_settings(settings_file, [override])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.lr=x", "setting 'train.lr' = 'x': input should be a valid number, unable to parse string as a number"),
        ("train.lrr=1", "unknown setting 'train.lrr', did you mean 'lr'?"),
        ("train=", "section 'train' has no settings; remove the line or add some"),
        ("data.rle=null", "section 'data.rle' has no settings; remove the line or add some"),
        (
            "data.classes={a: 3, b: '#ff0000'}",
            "the values of data.classes and masks.ignore must all be numbers or all be colours",
        ),
        (
            "data.external=[{root: b, train_mask: c, rle: {base: 2}}]",
            "data.external, source 1: unknown setting 'train_mask', did you mean 'train_masks'?; "
            "setting 'rle.base' = 2: input should be 0 or 1",
        ),
        (
            "data.external=[{root: b, masks: {tolerance: 3}}]",
            "data.external, source 1: section 'masks': tolerance is for colours; for gray values set masks.above",
        ),
    ],
)
def test_the_whole_sentence_about_a_wrong_setting(settings_file, override, sentence):
    with pytest.raises(UserError) as caught:
        load_settings(settings_file, [override])
    assert str(caught.value) == f"{settings_file}: {sentence}"
