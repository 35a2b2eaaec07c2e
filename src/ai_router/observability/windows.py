"""What GET /api/metrics shows, kept in memory: the last five minutes, hour and day, the targets, and the cold start.

Time is cut into slots, of a minute for the last hour and of ten minutes for the last day; a slot has a cell for each
route and model. Durations fall into buckets whose limits grow by 4 %: a percentile is right within 2 % of itself.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ai_router.types import Cost, Outcome, Status

WINDOWS: Mapping[str, float] = {"5m": 300.0, "1h": 3600.0, "24h": 86_400.0}
_FINE_S, _COARSE_S = 60.0, 600.0
_FINE_FOR_S = 3600.0
_LOG_GROWTH = math.log(1.04)


class Durations:
    """A histogram of milliseconds."""

    __slots__ = ("_buckets", "count")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0

    def add(self, ms: float) -> None:
        """Count one."""
        self._buckets[math.ceil(math.log(max(ms, 0.01)) / _LOG_GROWTH)] += 1
        self.count += 1

    def merge(self, other: Durations) -> None:
        """Count all of another's."""
        self._buckets.update(other._buckets)
        self.count += other.count

    def percentile(self, share: float) -> float | None:
        """The value that ``share`` of all do not exceed; None without any."""
        rank, seen = math.ceil(share * self.count), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                # The middle of the bucket, in the logarithm.
                return math.exp((bucket - 0.5) * _LOG_GROWTH)
        return None


_COUNTS = ("requests", "errors", "failed", "cancelled", "retries", "input_tokens", "output_tokens", "cost_unknown")
_SUMS = ("cost_usd", "gpu_seconds")


@dataclass(slots=True)
class Cell:
    """What happened in a time, on a route, with a model."""

    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*_COUNTS, *_SUMS), 0))
    ttft: Durations = field(default_factory=Durations)
    total: Durations = field(default_factory=Durations)
    cancel: Durations = field(default_factory=Durations)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a request; ``row`` is one of telemetry.usage_rows. Durations are those of answers."""
        counts = self.counts
        counts["requests"] += 1
        counts["errors"] += row["status"] == Status.ERROR
        counts["failed"] += bool(row["failed"])
        counts["cancelled"] += row["status"] == Status.CANCELLED
        counts["cost_unknown"] += bool(row["cost_unknown"])
        for name in ("retries", "input_tokens", "output_tokens", *_SUMS):
            counts[name] += row[name]
        if row["status"] == Status.OK:
            self.total.add(row["total_ms"])
            if row["ttft_ms"] is not None:
                self.ttft.add(row["ttft_ms"])
        if row["cancel_ms"] is not None:
            self.cancel.add(row["cancel_ms"])

    def merge(self, other: Cell) -> None:
        """Count all of another's."""
        for name, value in other.counts.items():
            self.counts[name] += value
        for mine, its in ((self.ttft, other.ttft), (self.total, other.total), (self.cancel, other.cancel)):
            mine.merge(its)

    @property
    def error_rate(self) -> float | None:
        """How many failed of those that could have gone well: neither called off nor wrong themselves; None without."""
        own = self.counts["errors"] - self.counts["failed"]
        counted = self.counts["requests"] - self.counts["cancelled"] - own
        return self.counts["failed"] / counted if counted else None


Key = tuple[str, str]
"""Route and model."""


class Windows:
    """Outcomes of the last day. Safe from any thread; ``now`` gives seconds since 1970."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self._lock = threading.Lock()
        self._fine: dict[int, dict[Key, Cell]] = {}
        self._coarse: dict[int, dict[Key, Cell]] = {}

    def add(self, row: Mapping[str, Any], ended: float | None = None) -> None:
        """Count a request that has ended just now, or at ``ended``."""
        now = self.now()
        at = now if ended is None else ended
        slots, length = (self._fine, _FINE_S) if now - at < _FINE_FOR_S else (self._coarse, _COARSE_S)
        with self._lock:
            slot = slots.get(int(at // length))
            if slot is None:
                slot = slots[int(at // length)] = {}
                self._expire(now)
            key = row["route"], row["model"]
            cell = slot.get(key)
            if cell is None:
                cell = slot[key] = Cell()
            cell.add(row)

    def within(self, seconds: float) -> dict[Key, Cell]:
        """What happened in the last ``seconds``, by route and model; up to one slot more."""
        merged: dict[Key, Cell] = {}
        with self._lock:
            for slots, length in ((self._fine, _FINE_S), (self._coarse, _COARSE_S)):
                first = int((self.now() - seconds) // length)
                for cells in (cells for number, cells in slots.items() if number >= first):
                    _merge_into(cells, merged)
        return merged

    def _expire(self, now: float) -> None:
        """Minutes that are over an hour old become part of their ten; what is over a day old goes."""
        for number in [number for number in self._fine if number < int((now - _FINE_FOR_S) // _FINE_S)]:
            ten = int(number * _FINE_S // _COARSE_S)
            _merge_into(self._fine.pop(number), self._coarse.setdefault(ten, {}))
        for number in [number for number in self._coarse if number < int((now - WINDOWS["24h"]) // _COARSE_S)]:
            del self._coarse[number]


def _merge_into(cells: Mapping[Key, Cell], into: dict[Key, Cell]) -> None:
    for key, cell in cells.items():
        into.setdefault(key, Cell()).merge(cell)


def merge_cells(cells: Iterable[Cell]) -> Cell:
    """All of them in one."""
    whole = Cell()
    for cell in cells:
        whole.merge(cell)
    return whole


def by_route(cells: Mapping[Key, Cell]) -> Mapping[str, Cell]:
    """The cells of each route in one, routes in the order of their names."""
    return _merge_by(cells, 0)


def by_model(cells: Mapping[Key, Cell]) -> Mapping[str, Cell]:
    """The cells of each model in one, models in the order of their names."""
    return _merge_by(cells, 1)


def _merge_by(cells: Mapping[Key, Cell], position: int) -> Mapping[str, Cell]:
    names = sorted({key[position] for key in cells})
    return {name: merge_cells(cell for key, cell in cells.items() if key[position] == name) for name in names}


def cell_json(cell: Cell) -> dict[str, Any]:
    """A cell as people read it."""
    counts = {name: cell.counts[name] for name in _COUNTS}
    return {
        **counts,
        "error_rate": cell.error_rate,
        "cost_usd": cell.counts["cost_usd"],
        "gpu_seconds": round(cell.counts["gpu_seconds"], 3),
        "ttft_ms": _percentiles(cell.ttft),
        "latency_ms": _percentiles(cell.total),
        "cancel_ms": _percentiles(cell.cancel),
    }


def _percentiles(durations: Durations) -> dict[str, float | None]:
    return {f"p{share}": _rounded(durations.percentile(share / 100)) for share in (50, 95, 99)}


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 1)


def preload(windows: Windows, rows: Sequence[Mapping[str, Any]]) -> None:
    """Count what an earlier process has seen."""
    for row in rows:
        windows.add(row, row["at"] + row["total_ms"] / 1000)


OK, MISSED, NO_DATA = "ok", "missed", "no data"


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: ``value`` reads it off a day, None where there is nothing to read."""

    name: str
    limit: float
    unit: str
    value: Callable[[Cell], float | None]
    at_least: bool = False

    def report(self, day: Cell) -> Mapping[str, Any]:
        """The target beside what is."""
        actual = self.value(day)
        kept = actual is not None and (actual >= self.limit if self.at_least else actual <= self.limit)
        return {
            "name": self.name,
            "target": f"{'>=' if self.at_least else '<='} {self.limit:g} {self.unit}".rstrip(),
            "actual": None if actual is None else round(actual, 4),
            "unit": self.unit,
            "status": NO_DATA if actual is None else OK if kept else MISSED,
        }


def targets(uptime: float | None) -> Sequence[Target]:
    """All of them; ``uptime`` is the share of the last day, or of the time since the first start, that was served."""
    return (
        Target("ttft_p95", 1500, "ms", lambda day: day.ttft.percentile(0.95)),
        Target("latency_p50", 3500, "ms", lambda day: day.total.percentile(0.5)),
        Target("latency_p95", 6000, "ms", lambda day: day.total.percentile(0.95)),
        Target("error_rate", 0.01, "", lambda day: day.error_rate),
        Target("cancel_p99", 300, "ms", lambda day: day.cancel.percentile(0.99)),
        Target("uptime", 0.995, "", lambda _: uptime, at_least=True),
    )


def uptime(runs: Sequence[tuple[float, float]], since: float, now: float) -> float | None:
    """The share of the time from ``since`` to ``now`` in which a process lived; the time before the first counts not.

    ``runs``: (started, last seen), in order of their starts; they may overlap. None without any.
    """
    if not runs:
        return None
    begin = max(since, runs[0][0])
    covered, reached = 0.0, begin
    for started, seen in runs:
        covered += max(0.0, min(seen, now) - max(started, reached))
        reached = max(reached, seen)
    return min(1.0, covered / (now - begin)) if now > begin else None


def process_started() -> float:
    """When this process began, in seconds since 1970; now, where the system does not tell."""
    try:
        # proc(5): the name, which may hold anything, ends with the last bracket; starttime is the 22nd field.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return time.time()
    return time.time() - age


class ColdStart:
    """``process_start``: when the first process began. A client may ask hours later: what counts is how long its answer
    took."""

    def __init__(self, process_start: float, now: Callable[[], float] = time.time) -> None:
        self._ready_ms = (now() - process_start) * 1000
        self._first_ms: float | None = None

    def finished(self, outcome: Outcome, _cost: Cost) -> None:
        """See whether it is the first answer."""
        if self._first_ms is None and outcome.status is Status.OK:
            self._first_ms = outcome.timings["total_ms"]

    def seconds(self) -> float:
        """From the start to the first answer; NaN before there was one."""
        return float("nan") if self._first_ms is None else (self._ready_ms + self._first_ms) / 1000

    def as_json(self) -> Mapping[str, float | None]:
        """As people read it, in milliseconds."""
        first = self._first_ms
        return {
            "ready_ms": round(self._ready_ms, 1),
            "first_answer_ms": None if first is None else round(first, 1),
            "start_to_first_answer_ms": None if first is None else round(self._ready_ms + first, 1),
        }
