import argparse
import importlib
import itertools
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.base.errors import UserError
from lib.config.data_settings import DataSettings
from lib.config.schema import FoldSettings
from lib.folds.balance import partition
from lib.folds.split import (
    assign_folds,
    coverage_bins,
    describe_groups,
    fold_table,
    image_table,
    read_folds,
    split,
    with_given_folds,
    write_folds,
)
from lib.run.lock import HELD
from lib.run.stage import opened
from tests import REPOSITORY
from tests.stages import leave_out_pictures

ROOT = REPOSITORY


def make_images(seed: int, count: int, groups: int | None = None, classes: int = 1) -> pd.DataFrame:
    """Images whose coverage goes with their group, a third of them empty; groups of very different sizes."""
    rng = np.random.default_rng(seed)
    names = np.arange(count) if groups is None else (groups * rng.random(count) ** 2).astype(int)
    effect = rng.normal(0, 0.8, (names.max() + 1, classes))[names]
    coverage = np.clip(np.exp(effect + rng.normal(0, 1, (count, classes)) - 2.5), 0, 0.95)
    coverage[rng.random((count, classes)) < 1 / 3] = 0
    table = pd.DataFrame({"id": [f"{i:04d}" for i in rng.permutation(count)], "group": [f"g{name}" for name in names]})
    table[["height", "width"]] = 128
    table[[f"coverage_{name}" for name in range(classes)]] = coverage
    return table


def folds_by_id(table: pd.DataFrame) -> dict[str, int]:
    return dict(zip(table.id, table.fold, strict=True))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(2, 7),
    images=st.integers(7, 60),
    groups=st.one_of(st.none(), st.integers(20, 60)),
    classes=st.integers(1, 3),
)
def test_every_id_once_groups_whole_no_fold_empty_any_row_order(seed, count, images, groups, classes):
    table = make_images(seed, images, groups, classes)
    if table.group.nunique() < count:
        with pytest.raises(UserError, match="folds.count"):
            assign_folds(table, count, seed)
        return
    split = assign_folds(table, count, seed)
    assert sorted(split.id) == sorted(table.id)
    assert sorted(split.fold.unique()) == list(range(count))
    assert (split.groupby("group").fold.nunique() == 1).all()
    kept = split.merge(table, on="id", suffixes=("", "_before"))
    assert (kept.group == kept.group_before).all() and (kept.coverage_0 == kept.coverage_0_before).all()
    shuffled = table.sample(frac=1, random_state=seed)
    assert folds_by_id(assign_folds(shuffled, count, seed)) == folds_by_id(split)


def test_group_names_do_not_matter_but_the_seed_does():
    table = make_images(0, 200, 60)
    renamed = table.assign(group=table.group.map(lambda name: "x" + name[::-1]))
    assert folds_by_id(assign_folds(table, 5, 0)) == folds_by_id(assign_folds(renamed, 5, 0))
    assert folds_by_id(assign_folds(table, 5, 0)) != folds_by_id(assign_folds(table, 5, 1))


@pytest.mark.parametrize("images", [23, 100, 501])
@pytest.mark.parametrize("count", [2, 5])
def test_without_groups_sizes_and_strata_differ_by_one(images, count):
    table = assign_folds(make_images(images, images), count, 0)
    assert np.ptp(np.bincount(table.fold)) <= 1
    per_stratum = table.groupby(["stratum", "fold"]).size().unstack(fill_value=0)
    assert (per_stratum.max(axis=1) - per_stratum.min(axis=1)).max() <= 1


def test_rare_images_are_spread():
    table = make_images(1, 60)
    table["coverage_0"] = 0.2
    table.loc[:2, "coverage_0"] = 0.0  # three empty ones
    table.loc[3:9, ["height", "width"]] = [256, 512]  # seven of another size
    split = assign_folds(table, 5, 0)
    assert sorted(split[split.coverage_0 == 0].fold.value_counts()) == [1, 1, 1]
    assert sorted(split[split.width == 512].fold.value_counts()) == [1, 1, 1, 2, 2]


def test_classes_present_together_are_spread():
    """Both classes are balanced by themselves even if all images with both are in one fold; that must not happen."""
    rng = np.random.default_rng(0)
    present = np.array([[1, 1]] * 20 + [[1, 0]] * 30 + [[0, 1]] * 30 + [[0, 0]] * 20)
    coverage = present * rng.uniform(0.05, 0.3, present.shape)
    table = pd.DataFrame({"id": [f"{i:03d}" for i in range(100)]}).assign(group=lambda t: t.id, height=8, width=8)
    table[["coverage_a", "coverage_b"]] = coverage
    split = assign_folds(table, 5, 0)
    patterns = split.groupby([split.coverage_a > 0, split.coverage_b > 0, "fold"]).size().unstack()
    assert (patterns.nunique(axis=1) == 1).all()


def imbalance(table: pd.DataFrame, folds: np.ndarray, count: int) -> tuple[float, float, float]:
    """Spread of sizes over their mean; worst total variation between strata of a fold and of all; same of coverage."""
    sizes = np.bincount(folds, minlength=count)
    strata = pd.crosstab(folds, table.stratum, normalize="index") - table.stratum.value_counts(normalize=True)
    coverage = table.coverage_0.groupby(folds).mean()
    return np.ptp(sizes) / sizes.mean(), strata.abs().sum(axis=1).max() / 2, coverage.std() / coverage.mean()


def test_more_even_than_stratified_group_k_fold():
    from sklearn.model_selection import StratifiedGroupKFold

    ours, theirs = [], []
    for seed, groups in itertools.product(range(2), (60, 200)):
        table = assign_folds(make_images(seed, 400, groups), 5, seed)
        ours.append(imbalance(table, table.fold.to_numpy(), 5))
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        folds = np.empty(len(table), int)
        with warnings.catch_warnings(action="ignore"):
            for fold, (_, members) in enumerate(splitter.split(table, table.stratum, table.group)):
                folds[members] = fold
        theirs.append(imbalance(table, folds, 5))
    size, strata, coverage = np.mean(ours, axis=0) / np.mean(theirs, axis=0)
    assert size < 0.2 and strata < 0.75 and coverage < 0.5


def cost(vectors: np.ndarray, parts: np.ndarray) -> float:
    return sum(np.square(vectors[parts == part].sum(axis=0)).sum() for part in set(parts))


def random_vectors(seed: int, most: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 1000, (rng.integers(4, most + 1), rng.integers(1, 5))).astype(float) + [1]


@pytest.mark.parametrize("seed", range(20))
def test_partition_finds_the_optimum_of_small_problems(seed):
    vectors = random_vectors(seed, most=8)
    count = 2 + seed % 2
    everything = (np.array(parts) for parts in itertools.product(range(count), repeat=len(vectors)))
    assert cost(vectors, partition(vectors, count, 0)) == min(cost(vectors, parts) for parts in everything)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 4))
def test_no_move_and_no_swap_improves_a_partition(seed, count):
    vectors = random_vectors(seed, most=25)
    parts = partition(vectors, count, seed)
    assert set(parts) == set(range(count))
    reached = cost(vectors, parts)
    for i, j in itertools.combinations(range(len(vectors)), 2):
        swapped = parts.copy()
        swapped[[i, j]] = parts[[j, i]]
        assert cost(vectors, swapped) >= reached
    for i, part in itertools.product(range(len(vectors)), range(count)):
        moved = parts.copy()
        moved[i] = part
        assert cost(vectors, moved) >= reached


def test_bins_by_hand():
    coverage = np.array([[0, 0.5], [0.1, 0.5], [0.2, 0.5], [0.3, 0.5], [0.4, 0.5], [0, 0.5], [0.5, 0.5], [0.6, 0.5]])
    assert coverage_bins(coverage, 1)[:, 0].tolist() == [0, 1, 1, 2, 2, 0, 3, 3]  # six images, two a bin
    assert coverage_bins(coverage, 2)[:, 0].tolist() == [0, 1, 1, 1, 1, 0, 1, 1]  # too few for a second bin
    assert coverage_bins(coverage, 1)[:, 1].tolist() == [1] * 8  # all alike
    assert coverage_bins(np.zeros((3, 1)), 2).tolist() == [[0]] * 3
    assert np.bincount(coverage_bins(np.linspace(0.1, 1, 500)[:, None], 5)[:, 0]).tolist() == [0, *[100] * 5]


def test_stratum_names():
    table = make_images(0, 40, classes=2).sort_values("id", ignore_index=True)
    table.loc[0, ["coverage_0", "coverage_1"]] = 0
    table.loc[1, ["coverage_0", "coverage_1"]] = [0, 0.95]
    strata = assign_folds(table, 2, 0).stratum
    assert strata[0] == "empty-empty" and strata[1] == "empty-q5"


def test_too_few_images_or_groups():
    with pytest.raises(UserError, match="no training images"):
        assign_folds(make_images(0, 5).iloc[:0], 2, 0)
    with pytest.raises(UserError, match="5 images in 3 groups.*at most 3"):
        assign_folds(make_images(0, 5).assign(group=list("aabbc")), 4, 0)
    with pytest.raises(UserError, match="images are of 1 group .*data.group to smaller groups"):
        assign_folds(make_images(0, 5).assign(group="a"), 2, 0)


def test_image_table_is_sorted_and_takes_groups_by_id():
    facts = [
        SimpleNamespace(id=id, height=4, width=6, coverage=(share, 0.0), sha256="s" + id, perceptual_hash="")
        for id, share in (("b", 0.25), ("a", 0.5))
    ]
    facts = [vars(fact) for fact in facts]
    table = image_table(facts, {"a": "x", "b": "y"}, ["c", "d"])
    assert table.id.tolist() == ["a", "b"] and table.group.tolist() == ["x", "y"]
    assert table.coverage_c.tolist() == [0.5, 0.25] and table.coverage_d.tolist() == [0, 0]
    assert image_table(facts, None, ["c", "d"]).group.isna().all()


@pytest.fixture
def written(tmp_path) -> tuple[Path, SimpleNamespace]:
    """folds.csv of images with names that a careless reader takes for numbers or for missing values."""
    ids = ["007", "1e5", "NA", "a,b", "null", 'q"q', "z 9", "ü"]
    table = make_images(3, 8).sort_values("id", ignore_index=True).assign(id=ids, sha256="0" * 64)
    table.loc[0, "coverage_0"] = 1e-9
    write_folds(assign_folds(table, 3, 0), ["0"], tmp_path / "folds.csv")
    return tmp_path / "folds.csv", SimpleNamespace(ids=ids, classes=["0"])


def test_folds_survive_the_file(written):
    path, data = written
    table = read_folds(path, data, 3)
    assert table.id.tolist() == data.ids
    assert table.coverage_0[0] == 1e-9
    before = path.read_bytes()
    write_folds(table, data.classes, path)
    assert path.read_bytes() == before


def test_other_folds_are_not_replaced(written):
    path, data = written
    before = path.read_bytes()
    table = read_folds(path, data, 3)
    with pytest.raises(UserError, match="holds other folds"):
        write_folds(table.assign(fold=2 - table.fold), data.classes, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns=["fold", "stratum"]), "no column stratum, fold"),
        (lambda table: table.rename(columns={"coverage_0": "coverage_x"}), "no column coverage_0"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "'007' twice"),
        (lambda table: table.iloc[1:], "lacks '007'"),
        (
            lambda table: table.assign(id=["new", *table.id[1:]]),
            "lists ids that are not among the training images: 'new'",
        ),
        (lambda table: table.assign(fold=["1.5", *table.fold[1:]]), "fold of '007' is '1.5'"),
        (lambda table: table.assign(fold=["", *table.fold[1:]]), "fold of '007' is ''"),
        (lambda table: table.assign(fold=["-1", *table.fold[1:]]), "fold of '007' is '-1'"),
        (lambda table: table.assign(fold="0"), "folds 0, but folds.count is 3"),
        (lambda table: table.assign(fold=table.fold.astype(int) + 1), "folds 1, 2, 3, but"),
        (lambda table: table.assign(height=["many", *table.height[1:]]), "height of '007' is 'many'"),
        (lambda table: table.assign(coverage_0=["7", *table.coverage_0[1:]]), "coverage_0 of '007' is '7'"),
        (lambda table: table.assign(group=["", *table.group[1:]]), "'007' has no group"),
        (lambda table: table.assign(group="one"), "group 'one' is in 3 folds"),
    ],
)
def test_edited_folds_are_checked(written, change, message):
    path, data = written
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)
    with pytest.raises(UserError, match=message):
        read_folds(path, data, 3)


def test_edited_folds_are_obeyed(written):
    path, data = written
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["fold"] = ["0", "1", "2"] * 2 + ["0", "1"]
    table["group"] = table["id"]
    table.to_csv(path, index=False)
    assert read_folds(path, data, 3).fold.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_missing_folds(tmp_path):
    with pytest.raises(UserError, match="01_prepare_folds.py"):
        read_folds(tmp_path / "folds.csv", SimpleNamespace(ids=[], classes=["0"]), 2)


def test_printed_table():
    table = pd.DataFrame({"fold": [0, 1, 1, 0, 1], "group": list("aabbc"), "coverage_sea": [0.5, 0, 0.25, 0.5, 0]})
    assert fold_table(table) == (
        "fold   images   empty   groups   % sea\n"
        "   0        2       0        2   50.00\n"
        "   1        3       2        3    8.33\n"
        " all        5       2        3   25.00"
    )
    assert describe_groups(table).startswith("3, the largest 'a' with 2 images")
    crowded = describe_groups(table.assign(group=list("aaaab")))
    assert crowded.splitlines()[1].startswith("'a' holds 80%")
    assert describe_groups(table.assign(group=list("abcde"))) == "none, each of the 5 images is on its own"


def prepare(*overrides: str) -> str:
    """Run the stage in the present folder and return what it says is to be typed next."""
    arguments = argparse.Namespace(config=Path("demo.yaml"), overrides=list(overrides))
    summary = importlib.import_module("01_prepare_folds").prepare_folds(*opened(arguments), arguments)
    HELD.pop().close()  # the lock, for the next process
    return summary.next_command


def test_stage_from_images_to_folds(tmp_path, competition, monkeypatch, capsys):
    """A planted exact duplicate with another mask and a planted near one must be found and share a fold."""
    images, table = competition / "train_images", pd.read_csv(competition / "train.csv", keep_default_na=False)
    (images / "copy.png").write_bytes((images / "train_000.png").read_bytes())
    changed = cv2.imread(str(images / "train_001.png"))
    cv2.imwrite(str(images / "brighter.png"), cv2.add(changed, (10, 10, 10, 0)))
    rles = dict(zip(table.id, table.rle, strict=True))
    extra = pd.DataFrame({"id": ["copy", "brighter"], "rle": ["1 5", rles["train_001"]]})
    pd.concat([table, extra]).to_csv(competition / "train.csv", index=False)
    (tmp_path / "demo.yaml").write_text("data: {root: data, channels: 1}\nfolds: {count: 4}\n")

    monkeypatch.chdir(tmp_path)
    leave_out_pictures(monkeypatch.setattr)

    assert prepare() == "python 02_train.py --run runs/demo"
    printed = capsys.readouterr().out
    assert "1 exact and 1 near duplicates" in printed and "warning   1 exact" in printed
    run = tmp_path / "runs" / "demo"
    folds = pd.read_csv(run / "folds.csv").set_index("id")
    assert len(folds) == 26 and sorted(folds.fold.unique()) == [0, 1, 2, 3]
    assert folds.fold["copy"] == folds.fold["train_000"] and folds.fold["brighter"] == folds.fold["train_001"]
    listed = pd.read_csv(run / "duplicates.csv")
    assert set(zip(listed.id, listed.duplicate_id, strict=True)) == {("copy", "train_000"), ("brighter", "train_001")}
    assert (folds.stratum == "empty").sum() == 3

    before = (run / "folds.csv").read_bytes()
    command = [sys.executable, ROOT / "01_prepare_folds.py", "--config", "demo.yaml", "folds.seed=1"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and "holds other folds" in refused.stderr and "Traceback" not in refused.stderr
    assert (run / "folds.csv").read_bytes() == before
    prepare("folds.near_duplicates=false", "name=apart")
    assert "1 exact and 0 near duplicates" in capsys.readouterr().out


def test_given_folds_are_taken(tmp_path, competition, monkeypatch, capsys):
    (tmp_path / "demo.yaml").write_text("data: {root: data, channels: 1}\nfolds: {hidden_groups: off}\n")
    monkeypatch.chdir(tmp_path)
    leave_out_pictures(monkeypatch.setattr)
    ids = sorted(path.stem for path in (competition / "train_images").iterdir())
    given_folds = {image_id: n % 3 for n, image_id in enumerate(ids)}
    rows = [f"{image_id}.png,x,{fold}" for image_id, fold in reversed(given_folds.items())]
    (competition / "mine.csv").write_text("\n".join(["image,note,fold", *rows]) + "\n")
    prepare("folds.given=mine.csv", "folds.count=3")
    assert folds_by_id(pd.read_csv(tmp_path / "runs/demo/folds.csv", dtype={"id": str})) == given_folds
    assert "folds.given" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"has the folds 0, 1, 2, but folds.count is 4 \(0 to 3\)"):
        prepare("folds.given=mine.csv", "folds.count=4", "name=other")


def test_given_folds_may_be_more_than_the_groups(tmp_path, capsys):
    images = make_images(0, 6).assign(group=list("ggghhh"))
    given_folds = {image_id: number % 3 for number, image_id in enumerate(images.id)}
    (tmp_path / "mine.csv").write_text("id,fold\n" + "".join(f"{pair[0]},{pair[1]}\n" for pair in given_folds.items()))
    data = SimpleNamespace(settings=DataSettings(root=tmp_path), files=dict.fromkeys(images.id, []))
    table = split(images, data, FoldSettings(count=3, given="mine.csv"))
    assert folds_by_id(table) == given_folds and "splits 2 of the groups" in capsys.readouterr().out
    assert table.stratum.tolist() == assign_folds(images.assign(group=images.id), 3, 0).stratum.tolist()


def test_a_group_that_given_folds_split_is_warned_of_and_split():
    table = pd.DataFrame({"id": list("abcd"), "group": ["g", "g", "h", "h"], "fold": [0, 0, 1, 1]})
    taken, warning = with_given_folds(table, {"a": "0", "b": "1", "c": "1", "d": "1"}, 2, Path("x.csv"))
    assert taken.fold.tolist() == [0, 1, 1, 1] and taken.group.tolist() == ["g of fold 0", "g of fold 1", "h", "h"]
    assert "splits 1 of the groups, such as 'g'" in warning
    assert with_given_folds(table, {"a": "1", "b": "1", "c": "0", "d": "0"}, 2, Path("x.csv"))[1] == ""
