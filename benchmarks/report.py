"""What was measured: tables in the terminal as they come, and at the end a JSON file and a page that stands alone."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson

from benchmarks.page import page
from benchmarks.sections import Section, of_words, shown


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
