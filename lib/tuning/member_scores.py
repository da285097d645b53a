"""What each member of an ensemble is worth: nested scores of the average, of each member alone, and without it.

All are made as stage 03 makes any run's, by choosing thresholds on the maps. So an average of equal runs scores what
each of them does.
"""

import pandas as pd

from lib.config.schema import Settings
from lib.data.competition import TrainingData
from lib.masks.metrics import Metric, count_images
from lib.prediction.ensemble import averaged_pairs
from lib.prediction.map_store import MapStore
from lib.run.members import open_members
from lib.tuning.thresholds import choose_thresholds


def score_members(found: dict, nested: float, settings: Settings, data: TrainingData, table: pd.DataFrame) -> dict:
    """The weights that `find_weights` found, and the scores; `nested` is that of the averaged maps."""
    stores = [MapStore(member.oof, tuple(data.classes)) for member, _ in open_members(settings)]
    known = {}

    def score(of_fold: dict[str, list[float]]) -> float:
        key = str(of_fold)
        if key not in known:
            pairs = averaged_pairs(stores, of_fold, data, table, settings.submission.size)
            counts = count_images(pairs, data.classes)
            result = choose_thresholds(counts, table.fold.to_numpy(), settings.threshold, table.group.to_numpy())
            known[key] = result.mean("nested")
        return known[key]

    names = list(found["weights"])
    alone = {}
    for member, name in enumerate(names):
        weights = [float(other == member) for other in range(len(names))]
        alone[name] = score(dict.fromkeys(found["of_fold"], weights))
    without = {name: score(of_fold) for name, of_fold in found["of_fold_without"].items()}
    metric = str(Metric.of(settings.threshold))
    return found | {"metric": metric, "nested": nested, "alone": alone, "without": without}


def describe_members(content: dict) -> str:
    """What ensemble.json says, in a line for all members and one for each."""
    lines = [f"ensemble of {len(content['weights'])} runs: {content['metric']} nested {content['nested']:.4f}"]
    for name, weight in content["weights"].items():
        alone, without = content["alone"][name], content["without"][name]
        lines.append(
            f"  {name}: weight {weight:.2f}, alone {alone:.4f}, the others without it {without:.4f}, "
            f"so it adds {content['nested'] - without:+.4f}"
        )
    return "\n".join(lines)
