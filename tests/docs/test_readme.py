"""README's commands work as typed, in their order, and so do its lines of Python."""

import re
import shlex

import cv2
import numpy as np
import pandas as pd
import yaml

from lib.masks import rle
from tests import REPOSITORY
from tests.docs.readme import blocks, commands, write_own_competition
from tests.stages import script

INSTALLATION = ("python3 -m venv", "source ", "pip install", "make ")  # typed by `python -m tests.docs.readme`


def test_the_commands_of_readme_take_a_competition_to_a_submission_and_a_comparison(tmp_path, monkeypatch):
    write_own_competition(tmp_path)
    typed = [command for command in commands() if not command.startswith(INSTALLATION)]
    assert len(typed) >= 10
    for command in typed:
        python, *words = shlex.split(command)
        ended = script(tmp_path, *words)
        assert python == "python" and ended.code == 0, f"{command}\n{ended.out}{ended.err}"
    assert (tmp_path / "runs" / "leaderboard.html").is_file()
    rows = pd.read_csv(tmp_path / "runs/mine/submission.csv", keep_default_na=False)
    sample = pd.read_csv(tmp_path / "data/mine/sample_submission.csv", keep_default_na=False)
    assert rows.id.tolist() == sample.id.tolist()

    monkeypatch.chdir(tmp_path)
    [snippet] = blocks("python")
    for image_id, text in list(zip(rows.id, rows.rle, strict=True))[:2]:
        image = cv2.cvtColor(cv2.imread(f"data/mine/test_images/{image_id}.png"), cv2.COLOR_BGR2RGB)
        names = {"image": image}
        exec(snippet, names)
        assert names["masks"].shape == (*image.shape[:2], 1)
        assert np.array_equal(names["masks"][..., 0], rle.decode(text, image.shape[:2]))

    page = (REPOSITORY / "docs" / "extending.md").read_text()
    stacking = re.search(r"^## Stacking\n.*?```python\n(.*?)```", page, re.MULTILINE | re.DOTALL)[1]
    names = {}
    exec(stacking, names)
    assert len(names["maps"]) == 24 and all(0 <= each.min() <= each.max() <= 1 for each in names["maps"].values())
    assert names["maps"]["train_000"].shape == cv2.imread("data/mine/train_images/train_000.png").shape[:2]


def test_the_rest_of_readme_is_there():
    words = set(yaml.safe_load(blocks("yaml")[0])["data"])
    assert {"root", "train_images", "train_masks", "test_images", "sample_submission", "classes"} <= words
    readme = (REPOSITORY / "README.md").read_text()
    headings = [line[3:].lower() for line in readme.splitlines() if line.startswith("## ")]
    anchors = {"".join(c for c in heading if c.isalnum() or c in " -").replace(" ", "-") for heading in headings}
    linked = {part.split(")")[0] for part in readme.split("](#")[1:]}
    assert linked <= anchors, linked - anchors
