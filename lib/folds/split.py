"""The split of the training images into folds: groups kept whole, folds alike in size, coverage and content.

The split is stored in `folds.csv` alone; later stages only read it. It may be edited by hand, or its `fold` column
filled from elsewhere: `read_folds` lists what is checked.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lib.base.errors import UserError, listed
from lib.base.files import write_bytes
from lib.data.image_column import named_table_column
from lib.data.tables import read_table
from lib.folds.balance import EXACT, partition
from lib.run.folder import RunFolder
from lib.run.provenance import trained_folds

if TYPE_CHECKING:
    from lib.checks.inspection import ImageFacts
    from lib.config.schema import FoldSettings, Settings
    from lib.data.competition import TrainingData

MOST_BINS = 5  # the most coverage bins of a class
SIZE_WEIGHT = 4  # weight of a fold's number of images relative to any other property
LABELS = 20  # image sizes and class combinations that are balanced, the most common ones


def image_table(facts: list["ImageFacts"], groups: dict[str, str] | None, classes: list[str]) -> pd.DataFrame:
    """The table of the training images, sorted by id.

    Columns: id, group (missing if none is given), height, width, coverage_<class> (0 to 1), sha256 (of the pixels) and
    perceptual_hash.
    """
    table = pd.DataFrame(facts)
    table[coverage_columns(classes)] = table.pop("coverage").tolist()
    table["group"] = table.id.map(groups or {})
    return table.sort_values("id", ignore_index=True)


def coverage_columns(classes: Iterable[str]) -> list[str]:
    """Names of the columns that hold the share of mask pixels, one per class."""
    return [f"coverage_{name}" for name in classes]


def coverage_columns_of(table: pd.DataFrame) -> list[str]:
    return [name for name in table if name.startswith("coverage_")]


def are_empty(coverages: pd.DataFrame) -> pd.Series:
    """Whether each image has no mask of any class; `coverages` are the columns of all classes."""
    return (coverages == 0).all(axis=1)


def split(images: pd.DataFrame, data: "TrainingData", settings: "FoldSettings") -> pd.DataFrame:
    """The table of images with their folds: those of folds.given, or else those that `assign_folds` finds."""
    if not settings.given:
        return assign_folds(images, settings.count, settings.seed)
    path = data.settings.root / settings.given
    given = named_table_column(path, "folds.given", "fold", "folds.given", data.files, data.settings)
    table, warning = with_given_folds(_with_strata(images, settings.count), given, settings.count, path)
    print(warning, end="")
    return table


def assign_folds(images: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Split images into `count` folds, numbered from 0: a copy of the table, sorted by id, with columns fold, stratum.

    `images` has the columns id, group, height, width and coverage_<class>. No group is split and no fold is empty. The
    folds are balanced in the number of images, of empty images and of images in each coverage bin of each class, in
    class combinations, image sizes and total coverage. The sum over folds and properties of the squared deviations
    from an even share is minimised by a greedy start (largest groups first), then by moving and swapping groups until
    nothing helps; the best of several restarts is taken.

    The result depends on the rows and the seed, not on the order of the rows. Where only one split is best, as with
    few groups, all seeds find it. Raises UserError when there are no images or fewer groups than folds.
    """
    if len(images) == 0:
        raise UserError("there are no training images to put into folds; check data.train_images")
    images = _with_strata(images, count)
    group, names = pd.factorize(images.group)
    if len(names) < count:
        raise UserError(_too_few_groups(len(images), len(names), count))
    coverage = images[coverage_columns_of(images)].to_numpy(float)
    columns = _balanced_columns(images, coverage, coverage_bins(coverage, count))
    vectors = np.zeros((len(names), columns.shape[1]))
    np.add.at(vectors, group, columns)
    return images.assign(fold=partition(vectors, count, seed)[group])


def _with_strata(images: pd.DataFrame, count: int) -> pd.DataFrame:
    """A copy of the table, sorted by id, with the column stratum."""
    images = images.sort_values("id", ignore_index=True)
    coverage = images[coverage_columns_of(images)].to_numpy(float)
    return images.assign(stratum=_stratum_names(coverage_bins(coverage, count)))


def _too_few_groups(images: int, groups: int, folds: int) -> str:
    """The reason why there are fewer groups than folds, and what to set."""
    if images == 1:
        return f"1 image cannot fill {folds} folds; each needs at least one"
    if groups == 1:
        return (
            f"all {images} images are of 1 group (data.group) or copies of each other, so they cannot fill {folds} "
            "folds; set data.group to smaller groups, or to none where each image is on its own"
        )
    return f"{images} images in {groups} groups cannot fill {folds} folds; set folds.count to at most {groups}"


def with_given_folds(table: pd.DataFrame, given: dict[str, str], count: int, path: Path) -> tuple[pd.DataFrame, str]:
    """The table with the folds of `folds.given`, by id; a group that they split becomes a group in each fold.

    Second result: a warning where groups are split. Raises UserError unless the folds are 0 to count - 1.
    """
    known = {str(fold): fold for fold in range(count)}
    if (given_folds := set(given.values())) != known.keys():
        raise _other_folds(f"{path} (folds.given)", sorted(given_folds)[:9], count)
    table = table.assign(fold=table.id.map(given).map(known))
    is_split = table.groupby("group").fold.transform("nunique") > 1
    if not is_split.any():
        return table, ""
    groups = table.group[is_split].unique()
    warning = (
        f"warning   folds.given splits {len(groups)} of the groups, such as '{groups[0]}': its images belong "
        "together, so scores will be too good\n"
    )
    return table.assign(group=table.group.mask(is_split, table.group + " of fold " + table.fold.astype(str))), warning


def coverage_bins(coverage: np.ndarray, count: int) -> np.ndarray:
    """Stratum of each image and class, int (images, classes): 0 empty, else 1 (least coverage) upwards.

    Quantile bins of the images that are not empty, at most five and of about two images per fold or more.
    """
    bins = np.zeros(coverage.shape, int)
    for column, stratum in zip(coverage.T, bins.T, strict=True):
        present = column > 0
        number = np.clip(present.sum() // (2 * count), 1, MOST_BINS)
        if present.any():
            edges = np.unique(np.quantile(column[present], np.arange(1, number) / number))
            stratum[present] = 1 + np.searchsorted(edges, column[present])
    return bins


def write_folds(table: pd.DataFrame, classes: Iterable[str], path: Path) -> None:
    """Write `folds.csv`. Raises UserError when it is there already and says something else, and leaves it alone."""
    columns = ["id", "fold", "group", "stratum", "height", "width", *coverage_columns(classes), "sha256"]
    content = table[columns].to_csv(index=False, lineterminator="\n", float_format="%.6g").encode()
    if path.is_file() and path.read_bytes() != content:
        raise UserError(
            f"{path} holds other folds (made from other images or settings, or edited by hand), and models may be "
            f"trained on them; choose another name for this run (name=...), or remove {path} to replace them"
        )
    write_bytes(path, content)


def stored_folds(path: Path) -> pd.DataFrame:
    """The rows of `folds.csv` without the checks of `read_folds`; id and group are text."""
    return pd.read_csv(path, dtype={"id": str, "group": str}, keep_default_na=False)


def read_folds(path: Path, data: "TrainingData", count: int) -> pd.DataFrame:
    """Read `folds.csv`: fold, height and width are int, coverage_<class> float, the other columns text.

    Checked, for it may have been edited by hand: all columns are there; the ids are those of the training images, each
    once; the folds are 0 to count - 1 and none is empty; each group has a name and lies in one fold; sizes are whole
    and coverages are from 0 to 1. Not checked: that coverages and sha256 are those of the images. Raises UserError.
    """
    columns = read_table(path, "written by 01_prepare_folds.py")
    whole, shares = ["fold", "height", "width"], coverage_columns(data.classes)
    if missing := [name for name in ["id", "group", "stratum", "sha256", *whole, *shares] if name not in columns]:
        raise UserError(f"{path} has no column {', '.join(missing)}; remove it and run 01_prepare_folds.py")
    table = pd.DataFrame(columns)
    for name in whole + shares:
        table[name] = _numbers(table, name, name in whole, path)
    _check_ids(table.id, data.ids, path)
    if (folds := sorted(table.fold.unique())) != list(range(count)):
        raise _other_folds(path, folds, count)
    if (unnamed := table.group == "").any():
        raise UserError(f"{path}: '{table.id[unnamed].iloc[0]}' has no group; its own id will do")
    folds_of = table.groupby("group").fold.nunique()
    if len(torn := folds_of[folds_of > 1]):
        raise UserError(
            f"{path}: group '{torn.index[0]}' is in {torn.iloc[0]} folds; give its images one fold, or other groups "
            "if they have nothing to do with each other"
        )
    return table


def _other_folds(source: Path | str, folds: Sequence[object], count: int) -> UserError:
    """The error about a table whose folds are not those of folds.count."""
    return UserError(
        f"{source} has the folds {', '.join(map(str, folds))}, but folds.count is {count} (0 to {count - 1})"
    )


def read_trained(run: RunFolder, settings: "Settings", data: "TrainingData") -> pd.DataFrame:
    """The rows of `read_folds` whose fold has a model, so whose images have out-of-fold maps."""
    table = read_folds(run.folds, data, settings.folds.count)
    return table[table.fold.isin(trained_folds(run, settings))].reset_index(drop=True)


def _numbers(table: pd.DataFrame, name: str, whole: bool, path: Path) -> pd.Series:
    """A column as whole numbers from 0, or as shares from 0 to 1. Raises UserError naming the first wrong id."""
    numbers = pd.to_numeric(table[name], errors="coerce")
    right = numbers.between(0, 2**31) & (numbers % 1 == 0) if whole else numbers.between(0, 1)
    if not right.all():
        wrong = table[~right].iloc[0]
        raise UserError(
            f"{path}: {name} of '{wrong.id}' is '{wrong[name]}', not a {'whole number' if whole else 'share'}"
        )
    return numbers.astype(int if whole else float)


def _check_ids(ids: pd.Series, expected: list[str], path: Path) -> None:
    """Raises UserError unless the ids are the expected ones, each once."""
    if ids.duplicated().any():
        raise UserError(f"{path} lists '{ids[ids.duplicated()].iloc[0]}' twice")
    if lost := sorted(set(ids) - set(expected)):
        raise UserError(f"{path} lists ids that are not among the training images: {listed(lost)}")
    if new := sorted(set(expected) - set(ids)):
        raise UserError(
            f"{path} lacks {listed(new)} of the training images; add them, leave them out with "
            f"data.exclude, or remove {path} and run 01_prepare_folds.py"
        )


def fold_table(table: pd.DataFrame) -> str:
    """Images, empty ones, groups and mean coverage per fold and class, as aligned plain text for printing."""
    coverages = coverage_columns_of(table)
    table = table.assign(is_empty=are_empty(table[coverages]))
    lines = [["fold", "images", "empty", "groups", *(f"% {name.removeprefix('coverage_')}" for name in coverages)]]
    parts = [(str(fold), part) for fold, part in table.groupby("fold")]
    for name, part in [*parts, ("all", table)]:
        means = [f"{100 * mean:.2f}" for mean in part[coverages].mean()]
        lines.append([name, str(len(part)), str(part.is_empty.sum()), str(part.group.nunique()), *means])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("   ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def describe_folds(table: pd.DataFrame) -> str:
    """The smallest and the largest fold by images, groups and mean coverage, in a few words."""
    coverages = coverage_columns_of(table)
    by_fold = table.assign(percent=100 * table[coverages].mean(axis=1)).groupby("fold")
    parts = {"images": by_fold.size(), "groups": by_fold.group.nunique()}
    words = [f"{counts.min()} to {counts.max()} {name}" for name, counts in parts.items()]
    percent = by_fold.percent.mean()
    return ", ".join([*words, f"{percent.min():.2f} to {percent.max():.2f} % mask"])


def describe_groups(table: pd.DataFrame) -> str:
    """A line with the number of groups and the largest, and a second one if it is larger than a fold should be."""
    sizes = table.group.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    name, size, share = sizes.index[0], sizes.iloc[0], sizes.iloc[0] / len(table)
    if size == 1:
        return f"none, each of the {len(table)} images is on its own"
    text = f"{len(sizes)}, the largest '{name}' with {size} images"
    if share > 1 / table.fold.nunique():
        text += (
            f"\n'{name}' holds {share:.0%} of all images, more than a fold's share, so that the folds are uneven; "
            "folds.near_duplicates=false keeps apart what only looks alike (see duplicates.csv)"
        )
    return text


def _stratum_names(bins: np.ndarray) -> list[str]:
    """One word for each image: its classes' strata, joined by `-`; `q1` holds the least coverage."""
    words = np.array(["empty", *(f"q{number}" for number in range(1, MOST_BINS + 1))])
    return ["-".join(row) for row in words[bins]]


def _balanced_columns(images: pd.DataFrame, coverage: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """The properties to balance, float64 (images, properties), whole numbers from 0; the first column counts images.

    All columns but the first have the same length as vectors: a rare stratum counts as much as a common one.
    """
    labels = [*bins.T, images.height * (images.width.max() + 1) + images.width]
    if bins.shape[1] > 1:
        labels.append(np.unique(bins > 0, axis=0, return_inverse=True)[1].ravel())
    shared = [one_hot for label in labels for one_hot in _one_hot(np.asarray(label))]
    shared += [column for column in coverage.T if column.any()]
    columns = np.stack([np.ones(len(images)), *shared], axis=1)
    columns /= np.linalg.norm(columns, axis=0)
    columns[:, 0] *= np.sqrt(SIZE_WEIGHT)
    return np.rint(columns * np.sqrt(EXACT / (len(images) * (len(shared) + SIZE_WEIGHT))))


def _one_hot(labels: np.ndarray) -> list[np.ndarray]:
    """A 0/1 column for each of the most common labels; a label of a single image cannot be balanced."""
    values, counts = np.unique(labels, return_counts=True)
    common = np.argsort(-counts, kind="stable")[:LABELS]
    return [(labels == value).astype(float) for value in values[common[counts[common] > 1]]]
