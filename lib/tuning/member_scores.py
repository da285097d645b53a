"""The contribution of each member of an ensemble: nested scores of the average, of the member alone, and without it.

Each score is computed as stage 03 does for any run, by choosing thresholds on the maps. So the average of identical
runs scores exactly what each of them scores.
"""

import pandas as pd

from lib.config.schema import Settings
from lib.data.competition import TrainingData
from lib.masks.metrics import Metric
from lib.prediction.ensemble import AveragedMaps, weights_of_images
from lib.prediction.map_store import MapStore
from lib.run.members import open_members
from lib.tuning.thresholds import score_maps


def score_members(weighted: dict, nested: float, settings: Settings, data: TrainingData, table: pd.DataFrame) -> dict:
    """Add the scores to `weighted`, the result of `find_weights`; `nested` is the score of the averaged maps."""
    stores = [MapStore(member.oof, tuple(data.classes)) for member, _ in open_members(settings)]
    scores = {}

    def score(of_fold: dict[str, list[float]]) -> float:
        key = str(of_fold)
        if key not in scores:
            maps = AveragedMaps(stores, weights_of_images(of_fold, table), data.settings.are_exclusive)
            _, result = score_maps(maps, data, table, settings)
            scores[key] = result.mean("nested")
        return scores[key]

    names = list(weighted["weights"])
    alone = {}
    for member, name in enumerate(names):
        weights = [float(other == member) for other in range(len(names))]
        alone[name] = score(dict.fromkeys(weighted["of_fold"], weights))
    without = {name: score(of_fold) for name, of_fold in weighted["of_fold_without"].items()}
    metric = str(Metric.of(settings.threshold))
    return weighted | {"metric": metric, "nested": nested, "alone": alone, "without": without}


def describe_members(content: dict) -> str:
    """Summarise ensemble.json: a line for the ensemble and one for each member."""
    lines = [f"ensemble of {len(content['weights'])} runs: {content['metric']} nested {content['nested']:.4f}"]
    for name, weight in content["weights"].items():
        alone, without = content["alone"][name], content["without"][name]
        lines.append(
            f"  {name}: weight {weight:.2f}, alone {alone:.4f}, the others without it {without:.4f}, "
            f"so it adds {content['nested'] - without:+.4f}"
        )
    return "\n".join(lines)
