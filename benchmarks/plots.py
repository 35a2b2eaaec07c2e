"""Lines as SVG. Pure: numbers in, text out; the page's style has the colours."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from benchmarks.sections import Line, Plot

COLOURS_LIGHT = ("#3b7dd8", "#d1495b", "#2f8f5b", "#b8860b", "#7b52ab", "#0f8b99", "#8c564b", "#59636e")
COLOURS_DARK = ("#6ca8ff", "#ff7b86", "#5fce8f", "#e3b341", "#c297ff", "#4fd1de", "#d9a08f", "#b1bac4")
"""By number, alike in both schemes; each has a mark of its own as well, for those who do not tell colours apart."""
_MARKS = ("circle", "square", "diamond", "up", "down", "cross", "plus", "circle")

_LEFT, _TOP, _WIDTH, _HEIGHT, _LEGEND = 64, 34, 560, 260, 190
_TICK_SHARES = (0.01, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


class Colours:
    """Numbers for names, in the order in which they are asked for; after the last the first again."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The same for the same name."""
        return self._known.setdefault(name, len(self._known)) % len(COLOURS_LIGHT)

    def of_bar(self, name: str) -> str:
        """What a bar is filled with: the colour of the line of that name, if there was one."""
        return f"var(--c{self.number(name)})" if name in self._known else "var(--bar)"


def drawn(plot: Plot, colours: Colours) -> str:
    """The plot; nothing if there is no line with two points."""
    lines = [line for line in plot.lines if len(line.points) > 1]
    if not lines:
        return ""
    x, x_marks = _across(plot, lines)
    y, y_marks = _upwards(plot, lines)
    doubt = "; hollow: the generator's limit" if any(line.doubtful for line in lines) else ""
    unit = f'<tspan class="soft" dx="8">{html.escape(plot.unit + doubt)}</tspan>'
    parts = [f'<text class="title" x="0" y="15">{html.escape(plot.title)}{unit}</text>']
    parts.append(_grid(plot, x_marks, y_marks))
    parts += [_line(line, colours.number(line.name), x, y) for line in lines]
    parts += [_legend(at, line.name, colours.number(line.name)) for at, line in enumerate(lines)]
    width, height = _LEFT + _WIDTH + _LEGEND, _TOP + _HEIGHT + 48
    label = html.escape(plot.title, quote=True)
    head = f'<svg width="{width}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
    return head + "".join(parts) + "</svg>"


Scale = Callable[[float], float]
Marks = Sequence[tuple[float, str]]
"""Where, in pixels, and what is written there."""


def _across(plot: Plot, lines: Sequence[Line]) -> tuple[Scale, Marks]:
    values = sorted({x for line in lines for x, _ in line.points})
    stretch: Scale = (lambda share: -math.log10(1 - share)) if plot.axis == "percentile" else math.log10
    scale = _scale(stretch, values[0], values[-1], _LEFT, _LEFT + _WIDTH)
    if plot.axis == "percentile":
        return scale, [(scale(s), f"p{s * 100:g}") for s in _TICK_SHARES if values[0] <= s <= values[-1]]
    return scale, [(scale(value), f"{value:g}") for value in values]


def _upwards(plot: Plot, lines: Sequence[Line]) -> tuple[Scale, Marks]:
    values = [max(y, plot.least) for line in lines for _, y in line.points]
    ticks = ticks_around(min(values), max(values))
    scale = _scale(math.log10, ticks[0], ticks[-1], _TOP + _HEIGHT, _TOP)
    cut = any(y < plot.least for line in lines for _, y in line.points)
    written = [("or less: " if cut and tick == ticks[0] else "") + _short(tick) for tick in ticks]
    return lambda value: scale(max(value, ticks[0])), [(scale(t), w) for t, w in zip(ticks, written, strict=True)]


def ticks_around(low: float, high: float) -> list[float]:
    """Round numbers around both, all above 0: 1, 2 and 5 of each power of ten, or, between the first and the last of
    them, the powers alone where there are many."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    first = max(at for at, tick in enumerate(ticks) if tick <= low * _NEARLY)
    last = min(at for at, tick in enumerate(ticks) if tick >= high / _NEARLY)
    around = ticks[first : max(last, first + 1) + 1]
    if len(around) <= _MOST_TICKS:
        return around
    inner = [tick for tick in around[1:-1] if _is_power(tick) and around[0] * 1.9 < tick < around[-1] / 1.9]
    return [around[0], *inner, around[-1]]


_MOST_TICKS, _NEARLY = 9, 1.000001


def _is_power(value: float) -> bool:
    return abs(math.log10(value) - round(math.log10(value))) < 1e-9


def _scale(stretch: Scale, low: float, high: float, first: float, last: float) -> Scale:
    begin = stretch(low)
    span = (stretch(high) - begin) or 1.0
    return lambda value: first + (stretch(value) - begin) / span * (last - first)


def _short(value: float) -> str:
    return f"{value:g}" if value < 1000 else f"{value / 1000:g}k"


def _grid(plot: Plot, x_marks: Marks, y_marks: Marks) -> str:
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    parts = [f'<text class="soft" x="{right}" y="{bottom + 38}" text-anchor="end">{html.escape(plot.across)}</text>']
    for y, written in y_marks:
        parts.append(f'<path class="rule" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text class="soft" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{written}</text>')
    for x, written in x_marks:
        parts.append(f'<path class="rule" d="M{x:.1f} {_TOP}V{bottom + 4}"/>')
        parts.append(f'<text class="soft" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{written}</text>')
    return "".join(parts)


def _line(line: Line, number: int, x: Scale, y: Scale) -> str:
    places = [(x(across), y(value)) for across, value in line.points]
    path = "L".join(f"{across:.1f} {up:.1f}" for across, up in places)
    # A curve of many points has a mark at every fourth only.
    every = 4 if len(places) > 10 else 1
    marks = "".join(
        _mark(*place, number, hollow=at in line.doubtful)
        for at, place in enumerate(places)
        if at % every == number % every
    )
    return f'<path class="line" style="stroke:var(--c{number})" d="M{path}"/>{marks}'


def _legend(at: int, name: str, number: int) -> str:
    x, y = _LEFT + _WIDTH + 24, _TOP + 12 + at * 22
    rule = f'<path class="line" style="stroke:var(--c{number})" d="M{x - 9} {y}h18"/>'
    return f'{rule}{_mark(x, y, number)}<text x="{x + 16}" y="{y + 4}">{html.escape(name)}</text>'


_SHAPES = {
    "circle": "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "square": "m-3.5 -3.5h7v7h-7z",
    "diamond": "m0 -5l5 5l-5 5l-5 -5z",
    "up": "m0 -5l4.5 8h-9z",
    "down": "m0 5l4.5 -8h-9z",
    "cross": "m-4 -4l8 8m0 -8l-8 8",
    "plus": "m0 -5v10m-5 -5h10",
}


def _mark(x: float, y: float, number: int, *, hollow: bool = False) -> str:
    shape = _SHAPES[_MARKS[number]]
    style = f"stroke:var(--c{number})" + ("" if hollow else f";fill:var(--c{number})")
    return f'<path class="mark{" hollow" if hollow else ""}" style="{style}" d="M{x:.1f} {y:.1f}{shape}"/>'
