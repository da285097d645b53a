"""Maps to tune on that are blind to the images scored, where out-of-fold maps are not.

The rule for a part of the images is tuned on the maps of the other parts. The models behind these have learned from the
part's images, but nothing was chosen by how well it suits them. With ensemble.weights=search something is: the maps of
the others are averaged with weights found on all parts but their own, this one included. The rule for a part is
therefore tuned on maps that are all averaged with the weights found without it. They are averaged as they are read, and
not stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from lib.base.errors import UserError
from lib.base.files import read_json
from lib.config.schema import Settings
from lib.data.competition import TrainingData
from lib.masks.metrics import Counts
from lib.prediction.ensemble import AveragedMaps, Weighting, member_maps
from lib.prediction.map_store import MapReader, MapStore, count_maps
from lib.run.folder import RunFolder


@dataclass(frozen=True)
class BlindMaps:
    """Maps of all images that are blind to some parts of them, and their pixel counts."""

    parts: tuple[int, ...]
    maps: MapReader
    counts: Counts


def blind_maps_of(run: RunFolder, settings: Settings, data: TrainingData, table: pd.DataFrame) -> list[BlindMaps]:
    """Those of an ensemble, by its ensemble.json; none of any other run. Raises UserError if that lacks the weights."""
    if not settings.ensemble.members:
        return []
    content = read_json(run.ensemble)
    if "of_part" not in content:
        remedy = run.command("03_oof_threshold")
        raise UserError(f"{run.ensemble} was written by an earlier version of these scripts; run {remedy}")
    return build_blind_maps(content["of_part"], member_maps(settings), settings, data, table.id)


def build_blind_maps(
    of_part: Mapping[str, Sequence[float]],
    stores: list[MapStore],
    settings: Settings,
    data: TrainingData,
    ids: Sequence[str],
) -> list[BlindMaps]:
    """One for each weighting in `of_part`, the weights found without each part; none if all are the same."""
    parts_of: dict[Weighting, list[int]] = {}
    for part, weights in of_part.items():
        parts_of.setdefault(tuple(weights), []).append(int(part))
    if len(parts_of) == 1:  # found without any part alike, so no part had a share in them
        return []
    found = []
    for weights, parts in parts_of.items():
        maps = AveragedMaps(stores, dict.fromkeys(ids, weights), data.settings.are_exclusive)
        found.append(BlindMaps(tuple(parts), maps, count_maps(maps, data, ids, settings.submission.size)))
    return found
