"""The same number by every road: thresholds, morphology, round trip, comparison, scored csv and summary agree."""

import csv
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.base.files import write_json
from lib.checks.inspection import inspect_all
from lib.config.schema import Settings
from lib.data.competition import open_test, open_training
from lib.folds.split import assign_folds, image_table
from lib.masks.metrics import Metric
from lib.masks.rle import encode
from lib.masks.rules import Rule, read_rules
from lib.prediction.map_store import MapStore, count_maps, read_pairs, scored_masks, scored_truth
from lib.report.measures import OofScores
from lib.run.folder import RunFolder
from lib.submission.outputs import predicted
from lib.submission.round_trip import round_trip_score
from lib.submission.write import write_submission
from lib.tools.compare import ScoredRun, measures_of, score_images
from lib.tools.score import score_submission
from lib.tools.summary import oof_lines
from lib.training.pseudo_labels import PseudoLabels
from lib.tuning.morphology_search import search_morphology
from lib.tuning.thresholds import choose_thresholds

SIZES = [None, (24, 32), (40, 40)]
MORPHOLOGY = [[], ["remove"], ["opening", "fill"]]
CLASSES = [["mask"], ["cell", "wall"]]


def plant(root: Path, classes: list[str], seed: int, with_presence: bool) -> MapStore:
    """Twelve images with a mask image for each class, some empty, and maps that nearly find them.

    With presence half of them are empty, and presence mostly tells which.
    """
    random, store = np.random.default_rng(seed), MapStore(root / "run" / "oof", tuple(classes))
    for number in range(12):
        image_id, maps, is_empty = f"{number:02d}", [], number % (2 if with_presence else 4) == 0
        for name in classes:
            heights = cv2.GaussianBlur(random.standard_normal((48, 64)), (0, 0), 5)
            truth = (heights > heights.std() * (9 if is_empty else 0.8)).astype(np.uint8)
            noise = cv2.GaussianBlur(random.standard_normal((48, 64)), (0, 0), 1.5)
            maps.append(np.clip(100 + 90 * heights / np.abs(heights).max() + 200 * noise, 0, 255).astype(np.uint8))
            path = root / "masks" / name / f"{image_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), 255 * truth)
        presence = random.integers(*((0, 120) if is_empty else (100, 256)), len(classes)).astype(np.uint8)
        store.write(image_id, np.stack(maps, axis=-1), presence if with_presence else None)
        (root / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(root / "images" / f"{image_id}.png"), maps[0])
    return store


def settings_of(root: Path, classes: list[str], metric: str, rule: str, size, steps: list[str]) -> Settings:
    data = {"root": str(root), "classes": classes, "channels": 1, "sample_submission": None}
    masks = "masks/mask/{id}.png" if len(classes) == 1 else "masks/{class}/{id}.png"
    data |= {"train_images": "images/{id}.png", "train_masks": masks, "test_images": "images/{id}.png"}
    threshold = {"metric": metric, "beta": 2.0, "rule": rule, "bootstrap": 100}
    postprocess = {"steps": steps, "radii": [1], "areas": [8, 32]}
    sections = {"threshold": threshold, "postprocess": postprocess, "submission": {"size": size}}
    return Settings(name="planted", data=data, **sections)


@given(
    seed=st.integers(0, 10**6),
    classes=st.sampled_from(CLASSES),
    metric=st.sampled_from(["dice", "dice_global", "iou", "iou_sweep", "f_beta"]),
    rule=st.sampled_from(["threshold", "triplet"]),
    size=st.sampled_from(SIZES),
    steps=st.sampled_from(MORPHOLOGY),
    with_presence=st.booleans(),
)
@settings(max_examples=4, deadline=None)
def test_all_roads_give_one_score(seed, classes, metric, rule, size, steps, with_presence):
    with TemporaryDirectory() as folder:
        check_roads(Path(folder), seed, classes, metric, rule, size, steps, with_presence)


@pytest.mark.parametrize("rule", ["threshold", "triplet"])
def test_all_roads_give_one_score_at_another_size_for_pooled_pixels_of_two_classes(rule, tmp_path):
    check_roads(tmp_path, 3, CLASSES[1], "dice_global", rule, (24, 32), ["remove"], False)


@pytest.mark.parametrize(("rule", "classes"), [("threshold", CLASSES[0]), ("triplet", CLASSES[1])])
def test_all_roads_ask_for_presence(rule, classes, tmp_path):
    rules = check_roads(tmp_path, 0, classes, "dice", rule, (40, 40), ["remove"], True)
    assert all(rule.presence is not None for rule in rules.values())


def check_roads(
    root: Path, seed: int, classes: list[str], metric: str, rule: str, size, steps: list[str], with_presence: bool
) -> dict[str, Rule]:
    """The rules chosen, once all roads have given one score."""
    store, run = plant(root, classes, seed, with_presence), RunFolder(root / "run")
    made = settings_of(root, classes, metric, rule, size, steps)
    data, test = open_training(made.data), open_test(made.data)
    facts = inspect_all(data).facts
    groups = {fact.id: fact.id for fact in facts}
    table = assign_folds(image_table(facts, groups, data.classes), 3, seed=0)
    folds, groups = table.fold.to_numpy(), table.group.to_numpy()

    counts = count_maps(store, data, table.id, size)
    chosen = choose_thresholds(counts, folds, made.threshold, groups)
    read = partial(read_pairs, store, data, size=size)
    result = search_morphology(read, counts, folds, groups, made.threshold, made.postprocess)
    write_json(run.threshold, chosen.to_dict())
    write_json(run.postprocess, result.to_dict())
    nested, in_sample = chosen.mean("nested"), chosen.mean("in_sample")
    assert result.mean("before", "nested") == nested and result.mean("before", "in_sample") == in_sample

    finished = ScoredRun.of_counts(store, made, counts, table)
    measures = measures_of(Metric.of(made.threshold))
    scores = score_images([finished], data, table, Metric.of(made.threshold))[0].mean(axis=(0, 1))
    name = metric if metric in measures else str(Metric.of(made.threshold))
    assert scores[measures.index(name)] == pytest.approx(nested, abs=1e-9)

    write_solution(root / "solution.csv", data, table.id, size)
    for path, reported in (run.threshold, in_sample), (run.postprocess, result.mean("after", "in_sample")):
        rules = read_rules(path, data.classes)
        assert round_trip_score(read(table.id), rules, made, store) == pytest.approx(reported, abs=1e-9)
        write_submission(run.submission, test, store, rules, made)
        scored = score_submission(run.submission, root / "solution.csv", made)
        assert scored.score == pytest.approx(reported, abs=1e-9)
        assert scored.all_empty == pytest.approx(chosen.mean("all_empty"), abs=1e-9)
        pseudo = PseudoLabels(test, store, rules, size, {}).read_mask("05")
        submitted = scored_masks(store, "05", rules, size)
        written = {image_id: masks for image_id, _, masks in predicted(test, store, rules, made)}
        assert np.array_equal(written["05"], submitted)
        assert np.array_equal(
            pseudo, cv2.resize(submitted, (64, 48), interpolation=cv2.INTER_NEAREST).reshape(pseudo.shape)
        )
    if metric == "dice":
        assert OofScores.of(counts, read_rules(run.threshold, data.classes)).dice.mean() == pytest.approx(in_sample)
    lines = dict(oof_lines(chosen.to_dict(), result.to_dict()))
    assert f"{nested:.4f}" in lines[f"{Metric.of(made.threshold)}, nested"]
    assert f"{result.mean('after', 'nested'):.4f}" in lines["with morphology"]
    return rules


def write_solution(path: Path, data, ids, size) -> None:
    """The true masks at the size that is scored, in the columns of a submission."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(["class"] if len(data.classes) > 1 else []), "rle"])
        for image_id in ids:
            truth = scored_truth(data, image_id, size)
            for class_index, name in enumerate(data.classes):
                text = encode(np.ascontiguousarray(truth[..., class_index]))
                writer.writerow([image_id, *([name] if len(data.classes) > 1 else []), text])
