"""Which rules and which score are final: those of 05, of objects where each row is one, or else those of 03."""

from pathlib import Path
from typing import NamedTuple

from lib.base.files import read_json
from lib.config.schema import Settings
from lib.masks.metrics import Metric
from lib.masks.objects import ObjectRule, Rules
from lib.masks.rules import Rule, read_rules
from lib.run.folder import RunFolder


class OofScore(NamedTuple):
    """An out-of-fold score, the mean over the classes."""

    metric: str
    nested: float
    in_sample: float
    interval: tuple[float, float]  # 95 %, of the nested score


def final_rules_file(run: RunFolder, settings: Settings) -> Path:
    """The file of the rules that 05 chooses for the submission."""
    return run.objects if settings.submission.rows == "instance" else run.postprocess


def read_final_rules(path: Path, settings: Settings) -> Rules:
    """The rules of a file, of objects where the submission's rows are objects."""
    kind = ObjectRule if settings.submission.rows == "instance" else Rule
    return read_rules(path, settings.data.classes, kind)


def final_score(run: RunFolder, settings: Settings, processed: bool) -> OofScore:
    """The score of the submission once 05 is done (`processed`), else that of the thresholds of 03."""
    if processed and settings.submission.rows == "instance":
        objects = read_json(run.objects)
        return OofScore(objects["metric"], objects["nested"], objects["in_sample"], tuple(objects["interval"]))
    return mask_score(run, processed)


def mask_score(run: RunFolder, processed: bool) -> OofScore:
    """The score of the masks by threshold.metric, whatever the rows of the submission."""
    threshold = read_json(run.threshold)
    content = read_json(run.postprocess) if processed else threshold
    scores = content["after"] if processed else content
    metric = str(Metric(**threshold["metric"]))
    return OofScore(metric, scores["nested"], scores["in_sample"], tuple(content["interval"]))
