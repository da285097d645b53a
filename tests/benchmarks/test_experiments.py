"""The tables that the experiments make of stored results, against sums by hand."""

from pathlib import Path

import ablations
import calibration
import chance
import experiments
import loss_gradients
import losses
import numpy as np
import pandas as pd
import pytest
import rehearsal
import searched_weights

from lib.base.errors import UserError
from lib.base.files import read_json, write_json
from lib.config.load import load_settings
from lib.config.schema import ThresholdSettings
from lib.data.competition import open_training
from lib.folds.split import read_folds
from lib.masks import rle
from lib.masks.metrics import count_images
from lib.prediction.map_store import MapStore, read_pairs
from lib.run.folder import open_run
from lib.tools.blue_marble import cut_tiles
from lib.tuning.thresholds import choose_thresholds
from tests import REPOSITORY
from tests.conftest import write_competition
from tests.tools.test_compare import finish_run

SETTINGS = ThresholdSettings(bootstrap=100)
SECTIONS = ("model", "augment", "infer")
DEMO = REPOSITORY / "configs" / "blue_marble.yaml"


def store_scores(work: Path, name: str, dice: dict[str, list[float]]) -> str:
    """A result whose Dice are given by class and image; IoU and boundary IoU are half and a quarter of it."""
    rows = [
        {"id": f"i{image}", "fold": image % 2, "group": f"g{image}", "run": name, "class": layer, "dice": value}
        for layer, values in dice.items()
        for image, value in enumerate(values)
    ]
    table = pd.DataFrame(rows).assign(iou=lambda t: t.dice / 2, boundary_iou=lambda t: t.dice / 4)
    folder = experiments.result_folder(name, work)
    folder.mkdir(parents=True)
    table.to_csv(folder / "images.csv", index=False)
    return name


def test_a_comparison_is_the_mean_over_images_and_seeds(tmp_path):
    first = [store_scores(tmp_path, "a0", {"x": [0.2, 0.4]}), store_scores(tmp_path, "a1", {"x": [0.4, 0.6]})]
    other = [store_scores(tmp_path, "b0", {"x": [0.6, 0.7]}), store_scores(tmp_path, "b1", {"x": [0.4, 0.9]})]
    table = experiments.comparison({"first": first, "other": other}, tmp_path)
    assert table.loc["first", "Dice"] == "0.4000 ± 0.1414"  # runs score .3 and .5
    assert table.loc["other", "Dice"] == "0.6500 ± 0.0000"
    assert table.loc["other", "IoU"].startswith("0.3250")
    assert table.loc["first", "difference in Dice"] == "baseline"
    # by image .5 - .3 and .8 - .5: their mean, and an interval that ends at the two images themselves
    assert table.loc["other", "difference in Dice"] == "+0.2500 [+0.2000, +0.3000]"
    assert table.loc["other", "difference in boundary IoU"] == "+0.0625 [+0.0500, +0.0750]"


def test_scores_are_read_by_class_and_only_of_the_same_images(tmp_path):
    names = [store_scores(tmp_path, "a", {"x": [0.1, 0.2, 0.3], "y": [0.4, 0.5, 0.6]})]
    scores, images = experiments.read_scores(names, tmp_path)
    assert scores.shape == (1, 3, 2, 3)
    assert scores[0, :, :, 0].tolist() == [[0.1, 0.4], [0.2, 0.5], [0.3, 0.6]]
    assert images.group.tolist() == ["g0", "g1", "g2"]
    names.append(store_scores(tmp_path, "b", {"x": [0.1, 0.2], "y": [0.4, 0.5]}))
    with pytest.raises(UserError, match="not of the same images"):
        experiments.read_scores(names, tmp_path)


def test_a_finished_run_is_skipped_unless_its_settings_are_others(tmp_path):
    run = experiments.Run("bce", 0, DEMO, tmp_path, ("loss.terms=bce",))
    assert not experiments.is_finished(run, tmp_path)
    write_json(tmp_path / "results" / "blue_marble-bce-0" / "result.json", {"overrides": ["loss.terms=bce"]})
    experiments.finish([run], tmp_path, parallel=1)  # would fail: there is no data
    assert experiments.finished_variants([run], tmp_path) == {"bce": ["blue_marble-bce-0"]}
    with pytest.raises(UserError, match="of other settings"):
        experiments.finish([run._replace(overrides=("loss.terms=dice",))], tmp_path, parallel=1)


def test_a_run_that_fails_is_named_with_its_log(tmp_path):
    run = experiments.Run("bce", 0, tmp_path / "absent.yaml", tmp_path)
    with pytest.raises(UserError, match=r"1 of 1 runs failed; see .*absent-bce-0.txt"):
        experiments.finish([run], tmp_path, parallel=1)
    assert "does not exist" in (tmp_path / "logs" / "absent-bce-0.txt").read_text()


@pytest.mark.parametrize("variant", losses.VARIANTS)
def test_every_loss_row_is_a_setting_of_its_own(variant):
    made = [load_settings(DEMO, list(losses.settings_of(name))).loss for name in losses.VARIANTS]
    assert made.count(load_settings(DEMO, list(losses.settings_of(variant))).loss) == 1


@pytest.mark.parametrize("variant", sorted(set(ablations.VARIANTS) - {"default"}))
def test_every_ablation_row_differs_from_the_first(variant):
    row, default = (load_settings(DEMO, [*ablations.BASE, *ablations.VARIANTS[name]]) for name in (variant, "default"))
    changed = [section for section in SECTIONS if getattr(row, section) != getattr(default, section)]
    assert len(changed) == 1
    assert row.model_copy(update={changed[0]: getattr(default, changed[0])}) == default


def test_an_average_is_scored_like_a_run(tmp_path):
    competition = write_competition(tmp_path / "data")
    names = [finish_run(tmp_path / "runs" / name, competition, noise).name for name, noise in (("a", 0.5), ("b", 4.0))]
    name = ablations.average(names, tmp_path)
    scores = pd.read_csv(experiments.result_folder(name, tmp_path) / "images.csv")

    run, settings = open_run(tmp_path / "runs" / "a")
    data = open_training(settings.data)
    table = read_folds(run.folds, data, settings.folds.count)
    stores = [MapStore(tmp_path / "runs" / name / "oof", tuple(data.classes)) for name in names]
    maps = {i: np.rint(sum(store.read(i).astype(float) for store in stores) / 2).astype(np.uint8) for i in table.id}
    counts = count_images(((i, maps[i], data.read_mask(i)) for i in table.id), data.classes)
    nested = choose_thresholds(counts, table.fold.to_numpy(), settings.threshold, table.group.to_numpy()).mean("nested")
    assert scores.dice.mean() == pytest.approx(nested, abs=1e-5)
    alone = [count_images(read_pairs(store, data, table.id, None), data.classes) for store in stores]
    assert not any(np.array_equal(counts.tp, other.tp) for other in alone)


def test_folds_against_one_fold_by_hand():
    results = [{"single": [0.6, 0.8], "all": 0.75}, {"single": [0.5, 0.7], "all": 0.75}]
    row = ablations.fold_table(results).loc["test Dice"]
    assert row["one fold's model"] == "0.6500 ± 0.0707"
    assert row["difference"] == "+0.1000 ± 0.0707"


def test_part_0_is_what_the_demo_holds_out():
    water = np.random.default_rng(0).integers(2, size=(180, 360), dtype=np.uint8)  # one pixel per degree
    tiles = cut_tiles(water, tile=10, stride=10)
    assert tiles.held_out.nunique() == 2
    assert [calibration.part_of_cell(cell) == 0 for cell in tiles.group] == tiles.held_out.tolist()


def test_each_part_holds_out_other_cells(tmp_path):
    source, random, rows = tmp_path / "demo", np.random.default_rng(0), []
    cells = [f"{latitude}{longitude}" for latitude in ("s30", "n00", "n30") for longitude in ("w030", "e000", "e030")]
    for cell in cells:
        for number in range(2):
            mask = (random.random((4, 4)) < 0.5).astype(np.uint8)
            rows.append({"id": f"{cell}_{number:02d}", "rle": rle.encode(mask)})
    for name, part in (("train", rows[4:]), ("test", rows[:4])):
        (source / f"{name}_images").mkdir(parents=True)
        for row in part:
            (source / f"{name}_images" / f"{row['id']}.png").write_bytes(row["id"].encode())
    pd.DataFrame(rows[4:]).assign(group="").to_csv(source / "train.csv", index=False)
    pd.DataFrame(rows[:4]).to_csv(source / "solution.csv", index=False)

    held_out = []
    for part in range(calibration.PARTS):
        folder = calibration.hold_out_part(source, part, tmp_path / f"part_{part}")
        train, test = (pd.read_csv(folder / f"{name}.csv") for name in ("train", "solution"))
        assert sorted([*train.id, *test.id]) == sorted(row["id"] for row in rows)
        assert not set(train.group) & set(test.id.str[:7])
        assert sorted(path.stem for path in (folder / "test_images").iterdir()) == sorted(test.id)
        assert all(path.read_text() == path.stem for path in (folder / "train_images").iterdir())
        held_out += test.id.tolist()
    assert sorted(held_out) == sorted(row["id"] for row in rows)


def test_the_errors_of_a_claim_by_hand():
    claims = pd.DataFrame({"part": ["p", "p", "q"], "run": ["0", "1", "2"]})
    for estimate in calibration.ESTIMATES:
        claims[estimate], claims[f"{estimate}: test"] = [0.8, 0.7, 0.9], [0.7, 0.75, 0.8]
    row = calibration.errors(claims, repeats=20).loc["threshold, nested"]
    assert row["claim - test"].startswith("+0.0500 [")
    assert row["absolute difference"].startswith("0.0833 [")
    assert row["correlation"].startswith("+0.5000 [")
    means = calibration.by_part(claims)
    assert means.loc["p", "runs"] == "2"
    assert means.loc["p", "threshold, nested"] == "0.7500"


def test_claims_come_from_where_the_stages_write_them(tmp_path):
    post = {"after": {"in_sample": 0.4, "nested": 0.3}}
    content = {"in_sample": 0.2, "nested": 0.1, "postprocess": post, "test_before": 0.5, "test_after": 0.6}
    write_json(experiments.result_folder("run", tmp_path) / "result.json", content)
    row = calibration.read_claims({"part0": ["run"]}, tmp_path).iloc[0]
    found = [(row[estimate], row[f"{estimate}: test"]) for estimate in calibration.ESTIMATES]
    assert found == [(0.2, 0.5), (0.1, 0.5), (0.4, 0.6), (0.3, 0.6)]
    assert read_json(tmp_path / "results" / "run" / "result.json") == content


@pytest.mark.parametrize("name", ["threshold", "objects behind a triplet"])
def test_noise_is_scored_by_rules_that_have_not_seen_it(name, monkeypatch):
    monkeypatch.setattr(chance, "NEW_IMAGES", 40)
    drawn = chance.draw(name, 0)
    assert 0 < drawn["new images"] < 1 and abs(drawn["nested - new"]) < 0.5
    pairs = chance.noise(np.random.default_rng(0), 40, empty_share=0)
    maps, truths = (np.stack([pair[part] for pair in pairs]).ravel() for part in (1, 2))
    assert abs(np.corrcoef(maps, truths)[0, 1]) < 0.1


def test_weights_searched_on_noise_flatter_what_is_not_tuned_on_blind_maps():
    scores = np.array([searched_weights.of_noise(2, seed) for seed in range(12)])
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores[:, 0].mean() > scores[:, 1].mean()


def test_a_rehearsal_tunes_on_some_cells_and_scores_on_the_others():
    random, count = np.random.default_rng(0), 60
    truths = random.integers(0, 2, (count, 8, 8, 1)).astype(np.uint8)
    maps = (truths * 80 + random.integers(0, 120, truths.shape)).astype(np.uint8)
    counts = count_images(((str(i), maps[i], truths[i]) for i in range(count)), ["x"])
    groups = np.arange(count) // 3
    table = pd.DataFrame({"fold": groups % 3, "group": groups})

    drawn = rehearsal.drawn_groups(groups, 20, np.random.default_rng(1))
    assert drawn.sum() == 21  # whole groups of three
    assert len(set(groups[drawn]) & set(groups[~drawn])) == 0
    result = choose_thresholds(rehearsal.of_images(counts, drawn), table.fold[drawn].to_numpy(), SETTINGS, None)
    masks, left = maps[~drawn] >= result.classes["x"].rule.threshold, truths[~drawn].astype(bool)
    dice = 2 * (masks & left).sum((1, 2, 3)) / (masks.sum((1, 2, 3)) + left.sum((1, 2, 3)))
    assert rehearsal.score_at(rehearsal.of_images(counts, ~drawn), result) == pytest.approx(dice.mean())

    draws = rehearsal.draw_all(counts, table, SETTINGS, repeats=3)
    assert draws.images.value_counts().to_dict() == {20: 3, 40: 3}  # there are not more images
    assert (draws.in_sample >= draws.nested - 0.01).all()


def test_what_the_number_of_images_does_by_hand():
    draws = pd.DataFrame({"images": 20, "in_sample": [0.9, 0.7], "nested": [0.8, 0.7], "left_out": [0.7, 0.8]})
    row = rehearsal.by_size(draws).loc["20 images"]
    assert (row["draws"], row["gap"]) == ("2", "+0.0500")
    assert (row["in-sample - left out"], row["nested - left out"]) == ("+0.0500", "+0.0000")
    assert (row["absolute, in-sample"], row["absolute, nested"]) == ("0.1500", "0.1000")


def test_where_a_loss_pulls_is_where_its_gradient_is():
    truth = np.zeros((16, 16, 1), np.uint8)
    truth[:, 8:] = 1
    maps = np.where(truth == 1, 200, 50).astype(np.uint8)
    maps[0, 0] = 255  # one pixel confidently wrong, far from the border
    rows = {row["term"]: row for row in loss_gradients.gradients(maps, truth)}
    # bce's slope by the logit is the probability less the truth, over the number of pixels
    slopes = np.abs(maps[..., 0] / 255 - truth[..., 0])
    slopes[0, 0] = 1 - loss_gradients.LEAST
    assert rows["bce"]["size"] == pytest.approx(slopes.mean(), rel=1e-4)
    assert rows["bce"]["on wrong"] == pytest.approx(slopes[0, 0] / slopes.sum(), rel=1e-4)
    assert rows["bce"]["near border"] == pytest.approx(slopes[:, 5:11].sum() / slopes.sum(), rel=1e-4)
    # boundary's is distance times p(1 - p): hardly anything where the model is sure
    assert rows["boundary"]["on wrong"] < 0.01
    assert rows["focal"]["on wrong"] > rows["bce"]["on wrong"]
    assert rows["border_bce"]["near border"] > rows["bce"]["near border"]
