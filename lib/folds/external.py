"""External images (data.external): every fold trains on them and none is validated on them.

01 checks them like the training images and writes `external.csv`: a row for each, and one for each training image of
which one is a duplicate, both with the same group. A fold that is validated on its group does not train on an external
image, so that no score is of an image that was learned from.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd

from lib.base.errors import UserError, listed
from lib.config.data_settings import DataSettings
from lib.config.external_source import external_sources
from lib.config.schema import Settings
from lib.data.competition import TrainingData, open_training
from lib.data.input_files import (
    ContentSource,
    present_state,
    read_known,
    require_unchanged,
    training_sources,
    update_known,
)
from lib.data.tables import read_table
from lib.folds.split import are_empty, coverage_columns
from lib.run.folder import RunFolder

TRAINING = "training"  # the source of training images in external.csv
REMEDY = "run 01_prepare_folds.py again with the run's settings file"


@dataclass(frozen=True)
class ExternalImages:
    """The images of a source. Each is drawn `weight` times as often in an epoch as a training image."""

    name: str
    weight: float
    data: TrainingData
    table: pd.DataFrame  # id, left_out_of (a set of folds), coverage_<class>, is_empty

    def outside(self, fold: int) -> pd.DataFrame:
        """The images that the fold's model may learn from."""
        return self.table[[fold not in folds for folds in self.table.left_out_of]]


def open_sources(settings: DataSettings) -> dict[str, tuple[float, TrainingData]]:
    """Weight and images of each source of data.external by its name."""
    opened = {}
    for number, source in enumerate(external_sources(settings), start=1):
        name = f"external {number}"
        with named_errors(name):
            opened[name] = source.weight, open_training(source.data)
    return opened


def open_external(run: RunFolder, settings: Settings, folds: pd.DataFrame) -> list[ExternalImages]:
    """The external images as 01 has checked them; `folds` is what read_folds returns.

    Raises UserError if images or masks are no longer those that 01 checked.
    """
    sources = open_sources(settings.data)
    if not sources:
        return []
    known = read_known(run.external_files)
    if not (run.external.is_file() and known):
        raise UserError(f"{run.root} does not know the images of data.external; {REMEDY}")
    current, changed = present_state(file_sources(sources), known)
    require_unchanged(changed, "external")
    update_known(run.external_files, known, known | current)  # with sources that are left out for once
    table = _read_table(run, settings.data.classes, folds)
    images = []
    for name, (weight, data) in sources.items():
        rows = table[table.source == name]
        if sorted(rows.id) != data.ids:
            raise UserError(f"{run.external} lists images different from those of {name}; {REMEDY}")
        images.append(ExternalImages(name, weight, data, rows))
    return images


def _read_table(run: RunFolder, classes: list[str], folds: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame(read_table(run.external, "written by 01_prepare_folds.py"))
    coverages = coverage_columns(classes)
    if missing := [name for name in ["source", "id", "group", *coverages] if name not in table]:
        raise UserError(f"{run.external} has no column {', '.join(missing)}; {REMEDY}")
    table[coverages] = table[coverages].apply(pd.to_numeric, errors="coerce")
    if table[coverages].isna().any(axis=None):
        raise UserError(f"{run.external} has a coverage that is not a number; {REMEDY}")
    twins = table[table.source == TRAINING].merge(folds[["id", "fold"]], on="id")
    folds_of = twins.groupby("group").fold.agg(frozenset).to_dict()
    table["left_out_of"] = [folds_of.get(group, frozenset()) for group in table.group]
    return table.assign(is_empty=are_empty(table[coverages]))


def describe_table(table: pd.DataFrame) -> str:
    """A sentence with the number of images in external.csv, and of those left out of a fold."""
    is_external = table.source != TRAINING
    twins = table.id[is_external & table.group.isin(table.group[~is_external])].tolist()
    counted = f"{is_external.sum()} images in all, which every fold trains on and none validates on"
    if not twins:
        return f"{counted}; no training image is among them"
    return (
        f"{counted}; those that are duplicates of training images or of their groups ({len(twins)}, such as "
        f"{listed(twins[:1])}) are left out of the folds that are validated on these"
    )


def file_sources(sources: dict[str, tuple[float, TrainingData]]) -> dict[str, ContentSource]:
    """Every image and mask of the sources, to notice where they change."""
    return {
        f"{name} {key}": source for name, (_, data) in sources.items() for key, source in training_sources(data).items()
    }


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Let errors name the source: `data` in them means its settings."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{name} (data.external): {error}") from None
