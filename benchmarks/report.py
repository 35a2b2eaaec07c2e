"""What was measured, as tables in the terminal, as JSON and as one page of HTML that needs nothing else.

A section is a table with, perhaps, bars and plots, which only the page has: drawn as SVG, for light and dark screens.
"""

from __future__ import annotations

import html
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import orjson

from benchmarks.load import BUSY_MARK, BUSY_NOTE, percentile

Cell = str | float | int | None
Axis = Literal["percentile", "count"]


@dataclass(frozen=True)
class Line:
    """One server's points, from left to right. ``doubtful``: the indexes of points that say more about the load
    generator than about the server; they are drawn hollow."""

    name: str
    points: Sequence[tuple[float, float]]
    doubtful: Sequence[int] = ()


@dataclass(frozen=True)
class Plot:
    """Lines over one horizontal axis, which is named ``across``.

    ``axis``: ``percentile`` takes shares below 1 and gives the last hundredths as much room as the rest; ``count``
    takes numbers from 1 and has a mark at each. The vertical axis is logarithmic, in ``unit``; what is below ``least``
    is drawn at ``least``.
    """

    title: str
    axis: Axis
    across: str
    unit: str
    lines: Sequence[Line]
    least: float = 0.01


@dataclass(frozen=True)
class Section:
    """A table. ``bars`` names the column that the page draws as bars, with the first column as their labels."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    bars: str | None = None
    plots: Sequence[Plot] = ()


def shown(cell: Cell) -> str:
    """A cell as text: a number with three digits or so, ``-`` where there is none."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
    return str(cell)


def of_words(section: Section, column: int) -> bool:
    """Whether a column is text, and so aligned left: the first one, and those without a number in them."""
    cells = [row[column] for row in section.rows]
    return column == 0 or all(isinstance(cell, str) and not cell[:1].isdigit() for cell in cells)


_SHARES = (0.01, *(tenth / 20 for tenth in range(1, 19)), 0.925, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 0.999)


def latencies(title: str, values: Mapping[str, Sequence[float]], doubtful: Collection[str] = ()) -> Plot:
    """A plot of how long requests took, in milliseconds: percentiles from 1 to 99.9, each line as far as there are
    values for it. ``doubtful`` names those that say more about the load generator than about the server."""
    lines = []
    for name, series in values.items():
        ordered = sorted(series)
        far = [share for share in _SHARES if len(ordered) * (1 - share) >= 1]
        points = [(share, percentile(ordered, share)) for share in far]
        lines.append(Line(name, points, tuple(range(len(points))) if name in doubtful else ()))
    return Plot(title, "percentile", "share of requests that are no slower", "ms", lines)


@dataclass
class Report:
    """The sections so far, and what the run was: the command, the time and the machine."""

    command: str = field(default_factory=lambda: " ".join(sys.argv))
    when: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    machine: str = field(
        default_factory=lambda: f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    )
    sections: list[Section] = field(default_factory=list)

    def begin(self, what: str) -> None:
        """Show what is being measured, if this is a terminal."""
        if sys.stderr.isatty():
            print(f"\r\033[K... {what}", end="", file=sys.stderr, flush=True)

    def add(self, section: Section) -> None:
        """Print a table and keep it."""
        self.sections.append(section)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        print(_text(section), flush=True)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write the JSON file and the page; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"benchmark-{time.strftime('%Y%m%dT%H%M%S')}"
        as_json, as_page = folder / f"{stem}.json", folder / f"{stem}.html"
        as_json.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))
        as_page.write_text(page(self.sections, self.command, f"{self.when}; {self.machine}"), encoding="utf-8")
        return as_json, as_page


def _text(section: Section) -> str:
    cells = [list(section.columns), *([shown(cell) for cell in row] for row in section.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(section.columns))]
    words = [of_words(section, column) for column in range(len(section.columns))]
    lines = [
        "  " + "  ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in zip(row, widths, words, strict=True))
        for row in cells
    ]
    note = f"  {section.note}\n" if section.note else ""
    return f"{section.title}\n" + "\n".join(line.rstrip() for line in lines) + f"\n{note}"


_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #57606a; --rule: #d8dee4; --paper: #ffffff; --bar: #8c959f;
  LIGHT }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --soft: #9198a1; --rule: #30363d; --paper: #0d1117; --bar: #6e7681;
    DARK }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--text); background: var(--paper) }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2.5rem }
code { overflow-wrap: anywhere }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
div { overflow-x: auto }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid var(--rule) }
td { white-space: nowrap } th { vertical-align: bottom }
.words { text-align: left } .words:first-child { padding-left: 0 }
p { color: var(--soft) }
svg { display: block; max-width: 100%; height: auto; margin: 1rem 0 }
svg text { font: 13px system-ui, sans-serif; fill: var(--text) }
svg .soft { fill: var(--soft); font-size: 12px; font-weight: 400 } svg .title { font-weight: 600 }
svg .rule { stroke: var(--rule); fill: none }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round } svg .mark { stroke-width: 2 }
svg .hollow { fill: var(--paper) }
"""


def page(sections: Sequence[Section], command: str, about: str) -> str:
    """The whole page. A server has the same colour everywhere on it."""
    colours = Colours()
    body = "".join(_section(section, colours) for section in sections)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>ai-router benchmark</title><style>{_style()}</style>"
        f"<h1>ai-router benchmark</h1><p>{html.escape(about)}<br><code>{html.escape(command)}</code></p>{body}</html>\n"
    )


def _style() -> str:
    light, dark = (
        "; ".join(f"--c{number}: {colour}" for number, colour in enumerate(colours))
        for colours in (COLOURS_LIGHT, COLOURS_DARK)
    )
    return _STYLE.replace("LIGHT", light).replace("DARK", dark)


def _section(section: Section, colours: Colours) -> str:
    words = [of_words(section, column) for column in range(len(section.columns))]
    rows = "".join(_row(row, words, "td") for row in section.rows)
    plots = "".join(drawn(plot, colours) for plot in section.plots)
    note = f"<p>{html.escape(section.note)}</p>" if section.note else ""
    table = f"<div><table>{_row(section.columns, words, 'th')}{rows}</table></div>"
    return f"<h2>{html.escape(section.title)}</h2>{_bars(section, colours)}{plots}{table}{note}"


def _row(cells: Sequence[Cell], words: Sequence[bool], tag: str) -> str:
    sides = [" class=words" if left else "" for left in words]
    inside = (f"<{tag}{side}>{html.escape(shown(cell))}</{tag}>" for cell, side in zip(cells, sides, strict=True))
    return f"<tr>{''.join(inside)}</tr>"


_LABEL, _BAR, _ROW = 220, 420, 24


def _bars(section: Section, colours: Colours) -> str:
    """The section's chosen column as bars; rows without a number are left out."""
    if section.bars is None:
        return ""
    at = section.columns.index(section.bars)
    pairs = [
        (str(row[0]), float(v)) for row in section.rows if isinstance(v := row[at], (int, float)) and not math.isnan(v)
    ]
    top = max((value for _, value in pairs), default=0.0)
    if top <= 0:
        return ""
    bars = "".join(_bar(number, name, value, top, colours.of_bar(name)) for number, (name, value) in enumerate(pairs))
    return _svg(_LABEL + _BAR + 80, _ROW * len(pairs) + 28, section.bars, bars)


def _svg(width: int, height: int, title: str, inside: str, unit: str = "") -> str:
    label = html.escape(title, quote=True)
    heading = f'<text class="title" x="0" y="15">{html.escape(title)}{unit}</text>'
    return (
        f'<svg width="{width}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{heading}{inside}</svg>'
    )


def _bar(number: int, name: str, value: float, top: float, colour: str) -> str:
    y, length = number * _ROW + 24, max(1.0, _BAR * value / top)
    return (
        f'<text x="0" y="{y + 16}">{html.escape(name)}</text>'
        f'<rect x="{_LABEL}" y="{y + 3}" width="{length:.1f}" height="{_ROW - 6}" rx="2" fill="{colour}"/>'
        f'<text x="{_LABEL + length + 6:.1f}" y="{y + 16}">{shown(value)}</text>'
    )


COLOURS_LIGHT = ("#3b7dd8", "#d1495b", "#2f8f5b", "#b8860b", "#7b52ab", "#0f8b99", "#8c564b", "#59636e")
COLOURS_DARK = ("#6ca8ff", "#ff7b86", "#5fce8f", "#e3b341", "#c297ff", "#4fd1de", "#d9a08f", "#b1bac4")
"""By number, alike on light and dark screens. Each has a mark of its own as well, for readers who cannot tell the
colours apart."""
_MARKS = ("circle", "square", "diamond", "up", "down", "cross", "plus", "circle")

_LEFT, _TOP, _WIDTH, _HEIGHT, _LEGEND = 64, 34, 560, 260, 190
_TICK_SHARES = (0.01, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


class Colours:
    """A colour's number for each name, in the order of first use; after the last colour comes the first again."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The number of this name's colour."""
        return self._known.setdefault(name, len(self._known)) % len(COLOURS_LIGHT)

    def of_bar(self, name: str) -> str:
        """The CSS colour of a bar: that of the line of the same name, if there was one."""
        return f"var(--c{self.number(name)})" if name in self._known else "var(--bar)"


def drawn(plot: Plot, colours: Colours) -> str:
    """The plot as SVG; an empty text if no line has two points."""
    lines = [line for line in plot.lines if len(line.points) > 1]
    if not lines:
        return ""
    x, x_marks = _across(plot, lines)
    y, y_marks = _upwards(plot, lines)
    doubt = "; hollow: the generator's limit" if any(line.doubtful for line in lines) else ""
    unit = f'<tspan class="soft" dx="8">{html.escape(plot.unit + doubt)}</tspan>'
    parts = [_grid(plot, x_marks, y_marks)]
    parts += [_line(line, colours.number(line.name), x, y) for line in lines]
    parts += [_legend(at, line.name, colours.number(line.name)) for at, line in enumerate(lines)]
    return _svg(_LEFT + _WIDTH + _LEGEND, _TOP + _HEIGHT + 48, plot.title, "".join(parts), unit)


Scale = Callable[[float], float]
Marks = Sequence[tuple[float, str]]
"""Positions in pixels, and what is written there."""


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


def flagged(section: Section) -> Section:
    """The section, which says what the mark means if a row has it."""
    cells = [cell for row in section.rows for cell in row]
    marked = any(isinstance(cell, str) and cell.endswith(f"% {BUSY_MARK}") for cell in cells)
    return replace(section, note=f"{section.note} {BUSY_NOTE}".strip()) if marked else section
