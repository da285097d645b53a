"""The images on which a fold's model is trained and validated: training data, pseudo-labels, external images."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from lib.config.schema import Settings
from lib.data.competition import TrainingData
from lib.folds.external import TRAINING, ExternalImages
from lib.folds.split import are_empty, coverage_columns
from lib.run.folder import Fold
from lib.training.kept_images import SeenImages, seen_in_training
from lib.training.pseudo_labels import PseudoLabelled, read_pseudo_labels

PSEUDO = "pseudo"


class LabelledImages(Protocol):
    """A source of crops: images and their masks, by id."""

    def read_image(self, image_id: str) -> np.ndarray: ...
    def read_mask(self, image_id: str) -> np.ndarray: ...


@dataclass(frozen=True)
class SeveralSources:
    """Images of several sources: SOURCE/ID is an image of a named source, ID one of the training data, named "".

    Ids of images hold no slash, so they cannot be confused.
    """

    sources: dict[str, LabelledImages]

    def read_image(self, image_id: str) -> np.ndarray:
        source, _, own_id = image_id.rpartition("/")
        return self.sources[source].read_image(own_id)

    def read_mask(self, image_id: str) -> np.ndarray:
        source, _, own_id = image_id.rpartition("/")
        return self.sources[source].read_mask(own_id)


@dataclass(frozen=True)
class Pool:
    """Images that share a number of turns in each epoch, in an endless round.

    If the turns are no multiple of the images, so that epochs differ, either all masks are empty or none is.
    """

    ids: list[str]
    is_empty: np.ndarray  # bool (ids,): the mask is empty
    turns: int

    def id_of(self, epoch: int, turn: int) -> str:
        return self.ids[(epoch * self.turns + turn) % len(self.ids)]


@dataclass(frozen=True)
class FoldImages:
    """The images from which a fold's model learns, and those on which it is validated."""

    source: LabelledImages  # of the ids in pools, at the size at which the network sees them
    pools: list[Pool]
    validated: SeenImages  # of the ids in validation, at that size
    validation: list[str]  # images of the training data, never pseudo-labelled or external ones
    class_shares: list[float]  # share of each class among the pixels learned from, 0 to 1

    @property
    def empty_turns(self) -> np.ndarray:
        """True for the turns of an epoch that show an image without any mask, (turns,), the same in every epoch."""
        return np.concatenate([np.resize(pool.is_empty, pool.turns) for pool in self.pools])

    def id_of(self, epoch: int, turn: int) -> str:
        """The image of a turn of an epoch."""
        for pool in self.pools:
            if turn < pool.turns:
                return pool.id_of(epoch, turn)
            turn -= pool.turns
        raise IndexError(f"an epoch has {turn} turns fewer")


def fold_images(
    fold: Fold,
    table: pd.DataFrame,
    data: TrainingData,
    settings: Settings,
    kept: Path,
    external: Iterable[ExternalImages],
) -> FoldImages:
    """The images of the other folds to learn from, and pseudo-labelled and external ones if the settings say so.

    Resized images are kept below the folder `kept`.
    """
    others = table[table.fold != fold]
    coverages = others[coverage_columns(data.classes)]
    coverage, is_empty = coverages.to_numpy(), are_empty(coverages).to_numpy()
    seen = seen_in_training(data, kept / TRAINING)
    sources, ids = {"": seen}, others.id.tolist()
    if settings.train.pseudo_labels:
        pseudo = read_pseudo_labels(settings.train.pseudo_labels, settings.train.pseudo_agreement, settings.data)
        sources[PSEUDO] = seen_in_training(PseudoLabelled(settings.data, pseudo), kept / PSEUDO)
        ids = ids + [f"{PSEUDO}/{image_id}" for image_id in pseudo.empty]
        is_empty = np.append(is_empty, list(pseudo.empty.values()))
    crops = settings.train.crops_per_image
    pools, means, turns = [Pool(ids, is_empty, len(ids) * crops)], [coverage.mean(axis=0)], [len(coverage) * crops]
    for source in external:
        rows = source.outside(fold)
        sources[source.name] = seen_in_training(source.data, kept / source.name)
        for of_pool in (rows[rows.is_empty], rows[~rows.is_empty]):
            if len(of_pool):
                pools.append(_external_pool(source, of_pool, crops, settings.train.seed))
                means.append(of_pool[coverage_columns(data.classes)].to_numpy().mean(axis=0))
                turns.append(pools[-1].turns)
    shares = np.divide(turns, sum(turns)) @ np.stack(means)
    validation = table.id[table.fold == fold].tolist()
    return FoldImages(SeveralSources(sources), pools, seen, validation, shares.tolist())


def _external_pool(source: ExternalImages, rows: pd.DataFrame, crops: int, seed: int) -> Pool:
    """Images of a source in random order: with weight .5 one epoch shows one half, the next the other."""
    ids = [f"{source.name}/{image_id}" for image_id in np.random.default_rng(seed).permutation(rows.id)]
    return Pool(ids, rows.is_empty.to_numpy(), max(1, round(source.weight * len(ids) * crops)))
