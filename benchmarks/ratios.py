"""How the benchmarks print what they measured: medians, spread, and ratios of what ran in turn."""

import statistics


def print_ratios(measured: dict[str, list[float]], unit: str, ratios: list[tuple[str, str]]) -> None:
    """Median and range of each kind, then the median over the rounds of each ratio (numerator, denominator)."""
    for name, values in measured.items():
        print(f"  {name:12s} {statistics.median(values):9.2f} {unit}   ({min(values):.2f} to {max(values):.2f})")
    for numerator, denominator in ratios:
        rounds = [top / bottom for top, bottom in zip(measured[numerator], measured[denominator], strict=True)]
        spread = f"({min(rounds):.2f} to {max(rounds):.2f})"
        print(f"  {numerator} / {denominator}: {statistics.median(rounds):.2f}   {spread}")
