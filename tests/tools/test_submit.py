"""A submission by rules set by hand: its masks and score are those of numpy and scipy."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from lib.base.errors import UserError
from lib.config.schema import Settings
from lib.masks.objects import ObjectRule
from lib.masks.rules import Gate, Rule, Step
from lib.tools.submit import changed_rules
from tests.competitions import Rle
from tests.stages import completed, final_files, script

TWO = Settings(name="x", data={"classes": ["dent", "scratch.deep"]})


def by_hand(probability_map: np.ndarray) -> np.ndarray:
    """Pixels from .6 up, without components (through corners) of fewer than 30."""
    labels, count = ndimage.label(probability_map >= 0.6 * 255, np.ones((3, 3)))
    sizes = ndimage.sum_labels(labels > 0, labels, np.arange(count + 1))
    return (sizes >= 30)[labels] & (labels > 0)


def test_masks_and_score_are_those_of_the_rules_and_the_run_stays_as_it_is(user):
    before = final_files(user)
    words = ["-m", "lib.tools.submit", "runs/blobs", "threshold=0.6", "remove=30", "fill=off", "--out", "uploads/a"]
    ended = completed(user, *words, "--json")
    assert final_files(user) == before
    result = json.loads(ended.out)

    rows = pd.read_csv(user / "uploads/a/submission.csv", keep_default_na=False)
    sample = pd.read_csv(user / "data/blobs/sample_submission.csv", keep_default_na=False)
    assert rows.id.tolist() == sample.id.tolist() and result["wrote"][0] == "uploads/a/submission.csv"
    for image_id, text in zip(rows.id, rows.rle, strict=True):
        test_map = cv2.imread(str(user / f"runs/blobs/test/{image_id}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(Rle().read(text, test_map.shape), by_hand(test_map))

    truths = pd.read_csv(user / "data/blobs/train.csv", keep_default_na=False)
    scores = []
    for image_id, text in zip(truths.id, truths.rle, strict=True):
        mask = by_hand(cv2.imread(str(user / f"runs/blobs/oof/{image_id}.png"), cv2.IMREAD_UNCHANGED))
        truth, total = Rle().read(text, mask.shape), mask.sum()
        scores.append(2 * (mask & (truth > 0)).sum() / (total + truth.sum()) if total + truth.sum() else 1)
    assert result["score"] == pytest.approx(np.mean(scores))
    reported = json.loads((user / "runs/blobs/postprocess.json").read_text())
    assert json.loads((user / "uploads/a/written.json").read_text())["written"] == result["wrote"][:1]
    assert result["run_score"] == reported["after"]["in_sample"]

    ended = script(user, *words[:-1], "runs/blobs")
    assert ended.code == 2 and "is the run itself" in ended.err


def test_a_bundle_takes_the_rules_set_by_hand_as_long_as_they_are_of_its_models(user):
    words = ["-m", "lib.tools.submit", "runs/blobs", "threshold=0.6", "remove=30", "--out"]
    completed(user, *words, "uploads/a")
    export = ["-m", "lib.tools.export", "runs/blobs", "--weights", "float32", "--rules"]
    completed(user, *export, "uploads/a/rules.json")
    completed(user, "-m", "lib.tools.apply", "bundles/blobs", "--out", "applied", f"data.root={user / 'data/blobs'}")
    written, chosen = (user / f"{folder}/submission.csv" for folder in ("uploads/a", "runs/blobs"))
    assert (user / "applied/submission.csv").read_bytes() == written.read_bytes() != chosen.read_bytes()

    run = user / "runs/blobs/config.yaml"
    run.write_text(run.read_text().replace("test_images: test_images", "test_images: null"))
    completed(user, "05_postprocess.py", "--run", "runs/blobs")
    ended = completed(user, *words, "uploads/b")  # as with a test set that is hidden until the submission
    assert f"{words[1]} runs/blobs --rules uploads/b/rules.json".replace("submit", "export") in ended.out
    assert (user / "uploads/b/rules.json").read_bytes() == (user / "uploads/a/rules.json").read_bytes()
    content = json.loads((user / "uploads/b/rules.json").read_text())
    content["made_from"]["maps"]["fold_0"] = "of another training"
    (user / "uploads/b/rules.json").write_text(json.dumps(content))
    ended = script(user, *export, "uploads/b/rules.json")
    assert ended.code == 2 and "rules.json was made from other inputs (maps.fold_0" in ended.err
    ended = script(user, "-m", "lib.tools.export", "bundles/blobs", "--rules", "uploads/a/rules.json", "--out", "c")
    assert ended.code == 2 and "keeps its rules" in ended.err


def test_words_change_the_rules_that_they_name():
    rules = {"dent": Rule(79, steps=(Step("remove", 16),)), "scratch.deep": Rule(90, Gate(200, 5))}
    words = ["threshold=0.5", "dent.remove=off", "scratch.deep.gate=off", "dent.gate=[0.8,300]", "hull=on", "fill=64"]
    changed = changed_rules(rules, words, TWO)
    steps = (Step("fill", 64), Step("hull"))
    assert changed == {"dent": Rule(128, Gate(204, 300), steps), "scratch.deep": Rule(128, None, steps)}
    assert rules["dent"].threshold == 79
    objects = {"dent": ObjectRule(Rule(79), min_area=8), "scratch.deep": ObjectRule(Rule(90))}
    changed = changed_rules(objects, ["dent.threshold=1"], TWO)
    assert changed == {"dent": ObjectRule(Rule(255), min_area=8), "scratch.deep": ObjectRule(Rule(90))}


def test_a_class_with_an_equals_sign_in_its_name_is_named_like_any_other():
    rules = {"a=b": Rule(79), "c": Rule(90)}
    changed = changed_rules(rules, ["a=b.threshold=0.5"], Settings(name="x", data={"classes": list(rules)}))
    assert changed == {"a=b": Rule(128), "c": Rule(90)}


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("treshold=0.5", "there is no rule 'treshold'; rules are threshold, gate, opening"),
        ("car.threshold=0.5", "no class 'car'; classes are dent, scratch.deep"),
        ("threshold=128", "a probability is above 0 and at most 1"),
        ("threshold=on", "a probability"),
        ("gate=0.8", "as in gate=.0.8,300."),
        ("gate=[0.8,300", "as in gate=.0.8,300."),
        ("remove=0", "pixels from 1, or off"),
        ("remove=on", "pixels from 1, or off"),
        ("remove=0200", "pixels from 1, or off"),  # octal in YAML
        ("remove=1:30", "pixels from 1, or off"),  # of 60 in YAML
        ("gate=[0.8,0300]", "as in gate=.0.8,300."),
        ("remove=", "pixels from 1, or off"),
        ("largest=3", "largest is on or off"),
    ],
)
def test_a_word_that_makes_no_sense_is_quoted(word, problem):
    with pytest.raises(UserError, match=problem) as raised:
        changed_rules({"dent": Rule(79), "scratch.deep": Rule(90)}, [word], TWO)
    assert word in str(raised.value)


def test_classes_that_exclude_each_other_do_not_grow():
    settings = Settings(name="x", data={"classes": {"a": 1, "b": 2}, "train_masks": "masks"})
    with pytest.raises(UserError, match="fill could give a pixel to two of them"):
        changed_rules({"a": Rule(79), "b": Rule(90)}, ["fill=on"], settings)
