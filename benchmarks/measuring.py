"""Measure time and memory of methods that take turns, and print medians, ranges and ratios."""

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def timed(function: Callable, *arguments: object) -> tuple[float, float]:
    """Wall and processor seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - wall, time.process_time() - processor


def peak_megabytes() -> float:
    """The peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def run_measured(command: list[str], folder: Path, **environment: str) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak megabytes of a command in `folder`; its output goes to commands.log.

    Exits naming the log if the command fails.
    """
    log, started = folder / "commands.log", time.perf_counter()
    with log.open("a") as output:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6


def print_ratios(measured: dict[str, list[float]], unit: str, ratios: list[tuple[str, str]]) -> None:
    """Median and range of each kind, then the median over the rounds of each ratio (numerator, denominator)."""
    for name, values in measured.items():
        print(f"  {name:12s} {statistics.median(values):9.2f} {unit}   ({min(values):.2f} to {max(values):.2f})")
    for numerator, denominator in ratios:
        rounds = [top / bottom for top, bottom in zip(measured[numerator], measured[denominator], strict=True)]
        spread = f"({min(rounds):.2f} to {max(rounds):.2f})"
        print(f"  {numerator} / {denominator}: {statistics.median(rounds):.2f}   {spread}")
