"""The report as one page of HTML that needs nothing else: tables, bars and lines as SVG, light or dark."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from benchmarks.plots import COLOURS_DARK, COLOURS_LIGHT, Colours, drawn
from benchmarks.sections import Cell, Section, of_words, shown

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
    """The whole page. A contender has one colour on all of it."""
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
    """The chosen column as bars, longest to the edge; rows without a number are left out."""
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
    width, height = _LABEL + _BAR + 80, _ROW * len(pairs) + 28
    title = f'<text class="title" x="0" y="15">{html.escape(section.bars)}</text>'
    label = html.escape(section.bars, quote=True)
    return f'<svg width="{width}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{title}{bars}</svg>'


def _bar(number: int, name: str, value: float, top: float, colour: str) -> str:
    y, length = number * _ROW + 24, max(1.0, _BAR * value / top)
    return (
        f'<text x="0" y="{y + 16}">{html.escape(name)}</text>'
        f'<rect x="{_LABEL}" y="{y + 3}" width="{length:.1f}" height="{_ROW - 6}" rx="2" fill="{colour}"/>'
        f'<text x="{_LABEL + length + 6:.1f}" y="{y + 16}">{shown(value)}</text>'
    )
