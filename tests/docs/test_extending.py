"""docs/extending.md: each patch is applied to a copy of lib/ and used, each snippet of Python is run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from lib.config.check import check_settings
from lib.config.external_source import external_sources
from tests import REPOSITORY

PAGE = (REPOSITORY / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
USES = {
    "A model class": """
from lib.config.training_settings import ModelSettings
from lib.model.network import build_untrained, start_at_shares
settings = ModelSettings(architecture="attention_unet", encoder="test_resnet", weights="random")
network = build_untrained(settings, 2).eval()
start_at_shares(network, [0.1, 0.2])
assert network(torch.zeros(1, 3, 40, 70, dtype=torch.uint8)).shape == (1, 2, 40, 70)
assert "AttentionUnet" in type(network.network).__name__
""",
    "A loss term": """
from lib.config.training_settings import LossSettings
from lib.training.losses import SegmentationLoss
loss = SegmentationLoss(LossSettings(terms="bce + log_cosh_dice"))
truth = (torch.rand(2, 1, 8, 8) > 0.5).float()
total, terms = loss(20 * truth - 10, truth, None, 0.0)
worse, _ = loss(10 - 20 * truth, truth, None, 0.0)
assert set(terms) == {"bce", "log_cosh_dice"} and total < 0.01 < worse
""",
    "An augmentation": """
import numpy as np
from lib.config.training_settings import AugmentSettings
from lib.training.augment import build_augmentation
augment = build_augmentation(AugmentSettings(preset="none", downscale=1), square=True, channels=3)
image, mask = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8), np.ones((32, 32, 1), np.uint8)
changed = augment(image=image, mask=mask)
assert (changed["image"] != image).any() and (changed["mask"] == mask).all()
""",
    "A metric": """
import numpy as np
from lib.config.schema import ThresholdSettings
from lib.masks.metrics import Metric
metric = Metric.of(ThresholdSettings(metric="iou_50"))
tp, fp, fn = np.array([6, 4, 0]), np.array([2, 4, 0]), np.array([2, 2, 0])  # IoU .6, .4, both empty
assert metric.score(tp, fp, fn) == 2 / 3
""",
}


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)


def change(folder: Path, patch: str) -> None:
    """Make the change of a block: a path, then lines that are there (" "), go ("-") or come ("+")."""
    for name, body in re.findall(r"^# (\S+)\n(.*?)(?=^# |\Z)", patch, re.MULTILINE | re.DOTALL):
        marked, text = body.splitlines(), (folder / name).read_text().split("\n")
        before = [line[1:] for line in marked if line[0] != "+"]
        places = [n for n in range(len(text)) if all(map(str.startswith, text[n : n + len(before)], before))]
        assert len(places) == 1, f"docs/extending.md: {name} does not hold, once, {before}"
        old = iter(text[places[0] : places[0] + len(before)])  # whole lines, comments at their ends included
        after = []
        for line in marked:
            kept = next(old) if line[0] != "+" else line[1:]
            after += [] if line[0] == "-" else [kept]
        text[places[0] : places[0] + len(before)] = after
        (folder / name).write_text("\n".join(text))


def test_the_changes_of_the_page_do_what_it_says(tmp_path):
    shutil.copytree(REPOSITORY / "lib", tmp_path / "lib")
    for section in USES:
        for snippet in blocks(section, "python"):
            (tmp_path / "my_models.py").write_text(snippet)
        [patch] = blocks(section, "diff")
        change(tmp_path, patch)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    code = "import torch\n" + "".join(USES.values())
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_sources_of_external_data_are_settings():
    [snippet] = blocks("External data", "yaml")
    page = (REPOSITORY / "docs" / "external_data.md").read_text()
    for text, weights in ((snippet, [0.5]), (re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1], [0.5, 1])):
        settings = check_settings({"name": "mine"} | yaml.safe_load(text), Path("mine.yaml"))
        assert [source.weight for source in external_sources(settings.data)] == weights
