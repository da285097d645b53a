"""What blind maps are worth (lib/tuning/blind_maps.py): the nested score of ensembles with and without them.

    python benchmarks/searched_weights.py [--draws 200]
    python benchmarks/searched_weights.py --runs runs/both ...

With ensemble.weights=search the threshold for fold K could be tuned on the out-of-fold maps of the other folds; but
their weights were searched with fold K. 03 tunes it on maps that are all averaged with the weights found without K. The
difference is what the leak would add to the score. Without --runs the members' maps are pure noise (see chance.py),
where a search has most to choose.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import chance
import numpy as np
import pandas as pd

from lib.base.cli import plain_parser, run_command, silence
from lib.base.errors import UserError
from lib.config.schema import Settings
from lib.data.input_files import open_unchanged_training
from lib.folds.split import read_trained
from lib.prediction.ensemble import AveragedMaps, find_weights, member_maps, weights_of_images
from lib.prediction.map_store import MapReader
from lib.run.folder import open_run
from lib.tuning.blind_maps import build_blind_maps
from lib.tuning.thresholds import score_maps


@dataclass(frozen=True)
class Noise:
    """The maps of a member by image, as `MapStore` has them."""

    maps: dict[str, np.ndarray]
    are_exclusive: bool = False

    def read(self, image_id: str) -> np.ndarray:
        return self.maps[image_id]

    def presence(self, image_id: str) -> None:
        return None


def score_both_ways(
    stores: Sequence[MapReader], settings: Settings, data: object, table: pd.DataFrame
) -> tuple[float, float]:
    """The nested score tuned on the out-of-fold maps and on blind maps; `table` has the columns id, fold and group."""
    with silence():
        of_part = find_weights(stores, settings, data, table)["of_part"]
        maps = AveragedMaps(stores, weights_of_images(of_part, table), data.settings.are_exclusive)
        blind = build_blind_maps(of_part, stores, settings, data, table.id)
        leaking, honest = (score_maps(maps, each, data, table, settings)[1].mean("nested") for each in ([], blind))
    return leaking, honest


def of_noise(members: int, seed: int) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    first, *others = (chance.noise(random, chance.IMAGES, [0, 0.3, 0.6][seed % 3]) for _ in range(members))
    ids = [image_id for image_id, *_ in first]
    stores = [Noise({image_id: maps for image_id, maps, _ in pairs}) for pairs in (first, *others)]
    truths = {image_id: truth for image_id, _, truth in first}
    data = SimpleNamespace(
        classes=["noise"], settings=SimpleNamespace(are_exclusive=False), read_mask=lambda image_id: truths[image_id]
    )
    names = [f"runs/{number}" for number in range(members)]
    settings = Settings(name="noise", ensemble={"members": names, "weights": "search"}, threshold={"bootstrap": 100})
    return score_both_ways(
        stores, settings, data, pd.DataFrame({"id": ids, "fold": chance.FOLDS, "group": chance.GROUPS})
    )


def of_run(root: Path) -> tuple[float, float]:
    run, settings = open_run(root)
    if not settings.ensemble.members:
        raise UserError(f"{root} is not an ensemble")
    settings = settings.model_copy(update={"ensemble": settings.ensemble.model_copy(update={"weights": "search"})})
    data = open_unchanged_training(run, settings)
    return score_both_ways(member_maps(settings), settings, data, read_trained(run, settings, data))


def searched_weights(arguments: argparse.Namespace) -> None:
    print("| ensemble | tuned on the out-of-fold maps | on blind maps | difference |\n| --- | --- | --- | --- |")
    for root in arguments.runs:
        leaking, honest = of_run(root)
        print(f"| {root} | {leaking:.4f} | {honest:.4f} | {leaking - honest:+.4f} |", flush=True)
    for members in () if arguments.runs else (2, 3):
        scores = np.array([of_noise(members, seed) for seed in range(arguments.draws)])
        leaking, honest = scores.mean(axis=0)
        differences = scores[:, 0] - scores[:, 1]
        error = differences.std(ddof=1) / np.sqrt(len(differences))
        difference = f"{differences.mean():+.4f} ± {error:.4f}"
        print(f"| noise, {members} members | {leaking:.4f} | {honest:.4f} | {difference} |", flush=True)


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("--draws", type=int, default=200, help="ensembles of noise, of two and of three members each")
    command.add_argument("--runs", nargs="+", type=Path, default=[], help="ensembles that have gone through 03")
    run_command(searched_weights, command)
