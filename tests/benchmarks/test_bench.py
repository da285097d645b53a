"""The benchmarks of 03 and 05 on a few small maps: they still run, and both sides of each agree."""

import importlib
import sys

import pytest

SMALL = {
    "thresholds": ["--images", "20", "--side", "48", "--rounds", "1"],
    "submission_speed": ["--rounds", "1"],
}


@pytest.mark.parametrize("name", SMALL)
def test_benchmark_runs(name, monkeypatch, capsys):
    benchmark = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *SMALL[name]])
    if name == "submission_speed":
        monkeypatch.setattr(benchmark, "SETS", ((120, 33, 40),))
    benchmark.main()
    assert capsys.readouterr().out
