"""What was measured: tables in the terminal as they come, and at the end a JSON file and a page that stands alone."""

from __future__ import annotations

import html
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson

Cell = str | float | int | None


@dataclass(frozen=True)
class Section:
    """A table. ``bars`` names the column that the page draws, against the first."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    bars: str | None = None


@dataclass
class Report:
    """Grows section by section."""

    command: str = field(default_factory=lambda: " ".join(sys.argv))
    when: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    machine: str = field(
        default_factory=lambda: f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    )
    sections: list[Section] = field(default_factory=list)

    def begin(self, what: str) -> None:
        """Say what is going on, where somebody is looking."""
        if sys.stderr.isatty():
            print(f"\r\033[K... {what}", end="", file=sys.stderr, flush=True)

    def add(self, section: Section) -> None:
        """Print a table and keep it."""
        self.sections.append(section)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        print(_text(section), flush=True)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The two files; returns where they are."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"benchmark-{time.strftime('%Y%m%dT%H%M%S')}"
        as_json, page = folder / f"{stem}.json", folder / f"{stem}.html"
        as_json.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))
        page.write_text(_page(self), encoding="utf-8")
        return as_json, page


def shown(cell: Cell) -> str:
    """A figure with as many digits as say something."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
    return str(cell)


def _text(section: Section) -> str:
    cells = [list(section.columns), *([shown(cell) for cell in row] for row in section.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(section.columns))]
    lines = [
        "  " + "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    note = f"  {section.note}\n" if section.note else ""
    return f"{section.title}\n" + "\n".join(line.rstrip() for line in lines) + f"\n{note}"


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2.5rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #d8dee4 }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
p { color: #57606a } svg text { font: 13px system-ui, sans-serif; fill: #1b1f24 } svg rect { fill: #3b82c4 }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3 } th, td { border-color: #30363d } p { color: #9198a1 }
  svg text { fill: #e6edf3 }
}
"""


def _page(report: Report) -> str:
    body = "".join(_section(section) for section in report.sections)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>ai-router benchmark</title><style>{_STYLE}</style>"
        f"<h1>ai-router benchmark</h1><p>{html.escape(report.when)}; {html.escape(report.machine)}<br>"
        f"<code>{html.escape(report.command)}</code></p>{body}</html>\n"
    )


def _section(section: Section) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in section.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(shown(cell))}</td>" for cell in row) + "</tr>" for row in section.rows
    )
    note = f"<p>{html.escape(section.note)}</p>" if section.note else ""
    return f"<h2>{html.escape(section.title)}</h2>{_bars(section)}<table><tr>{head}</tr>{rows}</table>{note}"


_LABEL, _BAR, _ROW = 200, 420, 24


def _bars(section: Section) -> str:
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
    drawn = "".join(_bar(number, name, value, top) for number, (name, value) in enumerate(pairs))
    height = _ROW * len(pairs) + 4
    return f'<svg width="{_LABEL + _BAR + 80}" height="{height}" role="img" aria-label="{section.bars}">{drawn}</svg>'


def _bar(number: int, name: str, value: float, top: float) -> str:
    y, length = number * _ROW, max(1.0, _BAR * value / top)
    return (
        f'<text x="0" y="{y + 16}">{html.escape(name)}</text>'
        f'<rect x="{_LABEL}" y="{y + 3}" width="{length:.1f}" height="{_ROW - 6}" rx="2"/>'
        f'<text x="{_LABEL + length + 6:.1f}" y="{y + 16}">{shown(value)}</text>'
    )
