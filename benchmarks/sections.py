"""What a report is made of: tables, and the lines that the page draws beside them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Cell = str | float | int | None
Axis = Literal["percentile", "count"]


@dataclass(frozen=True)
class Line:
    """One contender's points, from left to right. ``doubtful``: the numbers of those that tell of the generator more
    than of the contender; they are drawn hollow."""

    name: str
    points: Sequence[tuple[float, float]]
    doubtful: Sequence[int] = ()


@dataclass(frozen=True)
class Plot:
    """Lines over one axis. ``axis``: ``percentile`` takes shares below 1 and stretches towards the slowest of a
    hundred, of a thousand; ``count`` takes numbers from 1 and has a mark at each. The other axis is logarithmic, and
    what is below ``least`` is drawn there.
    """

    title: str
    axis: Axis
    across: str
    unit: str
    lines: Sequence[Line]
    least: float = 0.01


@dataclass(frozen=True)
class Section:
    """A table. ``bars`` names the column that the page draws, against the first."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    bars: str | None = None
    plots: Sequence[Plot] = ()


def shown(cell: Cell) -> str:
    """A figure with as many digits as say something."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
    return str(cell)


def of_words(section: Section, column: int) -> bool:
    """Whether a column is to be read, not compared: the first, and those with text that is no figure."""
    cells = [row[column] for row in section.rows]
    return column == 0 or all(isinstance(cell, str) and not cell[:1].isdigit() for cell in cells)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all do not exceed; NaN without any."""
    return _of_ordered(sorted(values), share)


_SHARES = (0.01, *(tenth / 20 for tenth in range(1, 19)), 0.925, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 0.999)


def latencies(title: str, values: Mapping[str, Sequence[float]], doubtful: Collection[str] = ()) -> Plot:
    """From the fastest of a hundred to the slowest of a thousand, milliseconds; each as far as it has values for.

    ``doubtful`` names those that tell of the generator.
    """
    lines = []
    for name, series in values.items():
        ordered = sorted(series)
        far = [share for share in _SHARES if len(ordered) * (1 - share) >= 1]
        points = [(share, _of_ordered(ordered, share)) for share in far]
        lines.append(Line(name, points, tuple(range(len(points))) if name in doubtful else ()))
    return Plot(title, "percentile", "share of requests that are no slower", "ms", lines)


def _of_ordered(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
