"""The page's numbers on presence, against counts by hand."""

from dataclasses import replace

import numpy as np

from lib.base.files import write_json
from lib.config.schema import ThresholdSettings
from lib.masks.metrics import count_images
from lib.report.presence_part import presence_part
from lib.run.folder import RunFolder
from lib.tuning.thresholds import choose_thresholds
from tests.tuning.test_presence import false_alarms

FOLDS = np.arange(36) // 3 % 3


def written(root, presence: np.ndarray | None) -> RunFolder:
    """A run folder with the counts and the choice of 36 images."""
    made, _ = false_alarms(36)
    counts = replace(count_images(made, ["class0"]), presence=presence)
    run = RunFolder(root)
    counts.save(run.oof_counts)
    write_json(run.threshold, choose_thresholds(counts, FOLDS, ThresholdSettings(bootstrap=100), None).to_dict())
    return run


def test_the_page_counts_what_the_gate_empties(tmp_path):
    there = np.arange(36) % 3 == 0
    presence = np.where(there, 220, 40).astype(np.uint8)
    presence[0], presence[1] = 10, 250  # one of either kind that presence gets wrong
    (row,) = presence_part(written(tmp_path, presence[:, None]))["rows"]
    assert 40 < row["required"] <= 220 and row["reason_against"] == ""
    assert row["shut"] == [(23, 24), (1, 12)]
    assert f"asked for: {row['required'] / 255:.2f}" in [label for label, *_ in row["chart"].legend]
    pairs = [(a > b) + (a == b) / 2 for a in presence[there].astype(int) for b in presence[~there].astype(int)]
    assert abs(row["area"] - np.mean(pairs)) < 1e-12


def test_a_gate_that_is_not_adopted_empties_nothing(tmp_path):
    (row,) = presence_part(written(tmp_path, np.full((36, 1), 99, np.uint8)))["rows"]
    assert row["required"] is None and row["reason_against"] and row["shut"] == [(0, 24), (0, 12)]


def test_without_presence_there_is_no_part(tmp_path):
    assert presence_part(written(tmp_path, None)) is None
