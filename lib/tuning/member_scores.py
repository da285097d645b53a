"""The contribution of each member of an ensemble: nested scores of the average, of the member alone, and without it.

Each score is computed as stage 03 does for any run, by choosing thresholds on the maps. So the average of identical
runs scores exactly what each of them scores.
"""

import pandas as pd

from lib.config.schema import Settings
from lib.data.competition import TrainingData
from lib.masks.metrics import Metric
from lib.prediction.ensemble import AveragedMaps, Weighting, member_maps, weights_of_images
from lib.tuning.blind_maps import build_blind_maps
from lib.tuning.thresholds import score_maps


def score_members(weighted: dict, nested: float, settings: Settings, data: TrainingData, table: pd.DataFrame) -> dict:
    """Add the scores to `weighted`, the result of `find_weights`; `nested` is the score of the averaged maps."""
    stores = member_maps(settings)
    scores = {}

    def score(of_part: dict[str, Weighting]) -> float:
        key = str(of_part)
        if key not in scores:
            maps = AveragedMaps(stores, weights_of_images(of_part, table), data.settings.are_exclusive)
            blind = build_blind_maps(of_part, stores, settings, data, table.id)
            scores[key] = score_maps(maps, blind, data, table, settings)[1].mean("nested")
        return scores[key]

    names = list(weighted["weights"])
    alone = {}
    for member, name in enumerate(names):
        weights = [float(other == member) for other in range(len(names))]
        alone[name] = score(dict.fromkeys(weighted["of_part"], weights))
    without = {name: score(of_part) for name, of_part in weighted["of_part_without"].items()}
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
