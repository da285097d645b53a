"""Charts as inline SVG: a few KB each, without the import of matplotlib, and they follow the page's dark mode.

A chart is at most 400 units wide, so that its text stays readable on a phone. Colours are names of the style sheet.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 400, 230
SMALL_WIDTH, SMALL_HEIGHT = 200, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 36  # margins around the plot
SERIES = 7  # colours of series in the style sheet, --s0 to --s6
DASHES = ("", "5 3", "1.5 3")


@dataclass(frozen=True)
class Axis:
    """An axis of a chart, from `low` to `high`."""

    label: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, label: str, values: Sequence[float], log: bool = False) -> "Axis":
        """An axis that holds all finite values (on a log axis, the positive ones), with a small margin."""
        numbers = np.asarray(values, float).ravel()
        numbers = numbers[np.isfinite(numbers) & ((numbers > 0) | (not log))]
        if not len(numbers):
            return cls(label, 0.1 if log else 0, 1, log)
        low, high = float(numbers.min()), float(numbers.max())
        if log:
            return cls(label, low / 1.2, high * 1.2, log)
        room = 0.05 * (high - low) or max(abs(high) * 0.1, 1e-3)
        return cls(label, low - room, high + room)

    def place(self, values: np.ndarray) -> np.ndarray:
        """Positions along the axis, 0 at `low` and 1 at `high`; on a log axis nan for values that are not positive."""
        values = np.asarray(values, float)
        if not self.log:
            return (values - self.low) / (self.high - self.low)
        logs = np.full(values.shape, np.nan)
        np.log10(values, out=logs, where=values > 0)
        return (logs - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))

    def ticks(self) -> list[tuple[float, str]]:
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            decades = math.log10(self.high / self.low)
            factors = (1,) if decades > 3 else (1, 3) if decades > 1.2 else (1, 2, 5)
            numbers = [factor * 10.0**power for power in powers for factor in factors]
        else:
            rough = (self.high - self.low) / 5
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
            first = math.ceil(self.low / step - 1e-9)
            numbers = [step * number for number in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [(number, tick_text(number)) for number in numbers if 0 <= self.place(np.array(number)) <= 1]


@dataclass
class Chart:
    """A chart under construction; later parts are drawn over earlier ones."""

    title: str
    x: Axis
    y: Axis
    caption: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    x_names: Sequence[str] = ()  # of the places 0.5, 1.5, ... along the axis, instead of numbers
    y_names: Sequence[str] = ()  # the same from the bottom up
    legend: list[tuple[str, ...]] = field(default_factory=list)  # label, kind of swatch, colour, dashes if any
    parts: list[str] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Left margin: room for the numbers or names of the y axis."""
        return max(LEFT, 12 + 7 * max(map(len, self.y_names), default=0))

    def line(self, xs: Sequence[float], ys: Sequence[float], colour: str, dash: str = "", width: float = 1.8) -> None:
        """A line through the points, broken where one is not finite."""
        commands, drawing = [], False
        for x, y in zip(*self._points(xs, ys), strict=True):
            if math.isfinite(x) and math.isfinite(y):
                commands.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
            drawing = math.isfinite(x) and math.isfinite(y)
        dashes = f";stroke-dasharray:{dash}" if dash else ""
        style = f"fill:none;stroke:var(--{colour});stroke-width:{width}{dashes}"
        self.parts.append(f'<path d="{"".join(commands)}" style="{style}"/>')

    def steps(self, edges: Sequence[float], heights: Sequence[float], colour: str, width: float = 1.8) -> None:
        """The outline of a histogram with these bin edges."""
        self.line(np.repeat(edges, 2), np.concatenate(([0], np.repeat(heights, 2), [0])), colour, width=width)

    def bars(self, edges: Sequence[float], heights: Sequence[float], colour: str) -> None:
        """A histogram with these bin edges."""
        lefts, bottoms = self._points(edges[:-1], np.zeros(len(heights)))
        rights, tops = self._points(edges[1:], heights)
        for left, right, bottom, top, height in zip(lefts, rights, bottoms, tops, heights, strict=True):
            if height > 0:
                self.parts.append(
                    f'<rect x="{left + 0.5:.1f}" y="{top:.1f}" width="{max(right - left - 1, 0.5):.1f}" '
                    f'height="{bottom - top:.1f}" style="fill:var(--{colour})"/>'
                )

    def cloud(self, xs: Sequence[float], ys: Sequence[float], colour: str) -> None:
        """Many small dots, as one path of about ten bytes a dot."""
        points = [point for point in zip(*self._points(xs, ys), strict=True) if all(map(math.isfinite, point))]
        dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in points)
        style = f"stroke:var(--{colour});stroke-width:4;stroke-linecap:round;opacity:.45"
        self.parts.append(f'<path d="{dots}" style="{style}"/>')

    def dot(self, x: float, y: float, colour: str, text: str) -> None:
        """One dot that shows `text` on hover."""
        [[left], [top]] = self._points([x], [y])
        if math.isfinite(left) and math.isfinite(top):
            circle = f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4.2" style="fill:var(--{colour})" class="dot">'
            self.parts.append(f"{circle}<title>{escape(text)}</title></circle>")

    def band(self, low: float, high: float, colour: str) -> None:
        """A span of the x axis, shaded."""
        [left, right], [bottom, top] = self._points([low, high], [self.y.low, self.y.high])
        self.parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 1):.1f}" height="{bottom - top:.1f}" '
            f'style="fill:var(--{colour});opacity:.22"/>'
        )

    def upright(self, x: float, colour: str, dash: str = "") -> None:
        """A vertical line over the whole height."""
        self.line([x, x], [self.y.low, self.y.high], colour, dash)

    def word(self, x: float, y: float, text: str) -> None:
        [[left], [top]] = self._points([x], [y])
        self.parts.append(f'<text x="{left:.1f}" y="{top - 4:.1f}" text-anchor="middle">{escape(text)}</text>')

    def svg(self) -> Markup:
        bottom = self.height - BOTTOM
        across, up = (self.left + self.width - RIGHT) / 2, (TOP + bottom) / 2
        lines = [
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.title)}">',
            f'<text x="{across}" y="{self.height - 5}" text-anchor="middle">{escape(self.x.label)}</text>',
            f'<text x="12" y="{up}" text-anchor="middle" transform="rotate(-90 12 {up})">{escape(self.y.label)}</text>',
        ]
        rows = [(place + 0.5, escape(name)) for place, name in enumerate(self.y_names)]
        for number, text in rows or self.y.ticks():
            top = bottom - float(self.y.place(np.array(number))) * (bottom - TOP)
            lines.append(f'<path class="grid" d="M{self.left} {top:.1f}H{self.width - RIGHT}"/>')
            lines.append(f'<text x="{self.left - 4}" y="{top + 4:.1f}" text-anchor="end">{text}</text>')
        named = [(place + 0.5, escape(name)) for place, name in enumerate(self.x_names)]
        for number, text in named or self.x.ticks():
            left = self.left + float(self.x.place(np.array(number))) * (self.width - RIGHT - self.left)
            lines.append(f'<path class="tick" d="M{left:.1f} {bottom}v4"/>')
            lines.append(f'<text x="{left:.1f}" y="{bottom + 15}" text-anchor="middle">{text}</text>')
        lines.append(f'<path class="tick" d="M{self.left} {bottom}H{self.width - RIGHT}"/>')
        return Markup("\n".join([*lines, *self.parts, "</svg>"]))

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
        """Positions in the picture; values beyond an axis are clipped to its end."""
        across, up = np.clip(self.x.place(xs), 0, 1), np.clip(self.y.place(ys), 0, 1)
        bottom = self.height - BOTTOM
        return (self.left + across * (self.width - RIGHT - self.left)).tolist(), (bottom - up * (bottom - TOP)).tolist()


def shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The share of the values in each bin of a histogram, in %."""
    return 100 * np.histogram(values, edges)[0] / max(len(values), 1)


def series(number: int) -> tuple[str, str]:
    """Colour and dash pattern of the line with this number."""
    return f"s{number % SERIES}", DASHES[number // SERIES % len(DASHES)]


def tick_text(number: float) -> str:
    if number and (abs(number) >= 1e5 or abs(number) < 1e-3):
        mantissa, power = f"{number:.0e}".split("e")
        return f"{mantissa}e{int(power)}"
    return f"{number:.6g}"
