"""What GET /api/metrics shows, kept in memory: the last five minutes, hour and day, the targets, and the cold start.

Time is cut into slots, of a minute for the last hour and of ten minutes for the last day; each slot has a cell for each
route and model. Durations are counted in buckets whose limits grow by 4 %, so that a percentile is right within 2 %.
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
"""Names of the windows and their lengths in seconds."""
_FINE_S, _COARSE_S = 60.0, 600.0
"""The lengths of slots, in seconds."""
_FINE_FOR_S = 3600.0
"""How long fine slots are kept before they are merged into coarse ones."""
_LOG_GROWTH = math.log(1.04)


class Durations:
    """A histogram of durations in milliseconds. Two of them can be merged, which percentiles cannot.

    ``buckets``: how many there are in each.
    """

    __slots__ = ("buckets", "count")

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self.buckets: Counter[int] = Counter(buckets or {})
        self.count = sum(self.buckets.values())

    def add(self, ms: float) -> None:
        """Count a duration."""
        self.buckets[math.ceil(math.log(max(ms, 0.01)) / _LOG_GROWTH)] += 1
        self.count += 1

    def merge(self, other: Durations) -> None:
        """Add all durations of another."""
        self.buckets.update(other.buckets)
        self.count += other.count

    def percentile(self, share: float) -> float | None:
        """The duration that ``share`` (0 to 1) of all do not exceed, in milliseconds; None without any."""
        rank, seen = math.ceil(share * self.count), 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                # The middle of the bucket, on the logarithmic scale.
                return math.exp((bucket - 0.5) * _LOG_GROWTH)
        return None


_COUNTS = ("requests", "errors", "failed", "cancelled", "retries", "input_tokens", "output_tokens", "cost_unknown")
_SUMS = ("cost_usd", "gpu_seconds")


@dataclass(slots=True)
class Cell:
    """Counts, sums and durations of requests: those of one slot, route and model, or of several such cells merged.

    ``ttft`` and ``total``: of answers only. ``cancel``: from a client's departure to the end of its upstream calls.
    """

    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*_COUNTS, *_SUMS), 0))
    ttft: Durations = field(default_factory=Durations)
    total: Durations = field(default_factory=Durations)
    cancel: Durations = field(default_factory=Durations)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a request; ``row`` is its row of usage (storage.usage_rows)."""
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
        """Add all that another has."""
        for name, value in other.counts.items():
            self.counts[name] += value
        for mine, its in ((self.ttft, other.ttft), (self.total, other.total), (self.cancel, other.cancel)):
            mine.merge(its)

    @property
    def error_rate(self) -> float | None:
        """The share of requests that failed, without those that were cancelled or were errors of the client; None
        without any."""
        client_errors = self.counts["errors"] - self.counts["failed"]
        counted = self.counts["requests"] - self.counts["cancelled"] - client_errors
        return self.counts["failed"] / counted if counted else None


Key = tuple[str, str]
"""Route and model."""


class Windows:
    """The requests of the last day. May be used from any thread. ``now`` returns seconds since 1970."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self._lock = threading.Lock()
        self._fine: dict[int, dict[Key, Cell]] = {}
        self._coarse: dict[int, dict[Key, Cell]] = {}

    def add(self, row: Mapping[str, Any], ended: float | None = None) -> None:
        """Count a request that has ended just now, or at ``ended`` (seconds since 1970). ``row``: as for Cell.add."""
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

    def within(self, seconds: float, before: float = math.inf) -> dict[Key, Cell]:
        """The requests of the last ``seconds``, by route and model, in slots that began ``before`` that moment, in
        seconds since 1970. The oldest slot counts as a whole."""
        merged: dict[Key, Cell] = {}
        with self._lock:
            for slots, length in ((self._fine, _FINE_S), (self._coarse, _COARSE_S)):
                first = int((self.now() - seconds) // length)
                for number, cells in slots.items():
                    if number >= first and number * length < before:
                        _merge_into(cells, merged)
        return merged

    def _expire(self, now: float) -> None:
        """Merge fine slots that are over an hour old into coarse ones; delete coarse ones that are over a day old."""
        for number in [number for number in self._fine if number < int((now - _FINE_FOR_S) // _FINE_S)]:
            ten = int(number * _FINE_S // _COARSE_S)
            _merge_into(self._fine.pop(number), self._coarse.setdefault(ten, {}))
        for number in [number for number in self._coarse if number < int((now - WINDOWS["24h"]) // _COARSE_S)]:
            del self._coarse[number]


def _merge_into(cells: Mapping[Key, Cell], into: dict[Key, Cell]) -> None:
    for key, cell in cells.items():
        into.setdefault(key, Cell()).merge(cell)


def merge_cells(cells: Iterable[Cell]) -> Cell:
    """One cell of all."""
    whole = Cell()
    for cell in cells:
        whole.merge(cell)
    return whole


def by_route(cells: Mapping[Key, Cell]) -> Mapping[str, Cell]:
    """The cells of each route merged, sorted by route."""
    return _merge_by(cells, 0)


def by_model(cells: Mapping[Key, Cell]) -> Mapping[str, Cell]:
    """The cells of each model merged, sorted by model."""
    return _merge_by(cells, 1)


def _merge_by(cells: Mapping[Key, Cell], position: int) -> Mapping[str, Cell]:
    names = sorted({key[position] for key in cells})
    return {name: merge_cells(cell for key, cell in cells.items() if key[position] == name) for name in names}


def cell_json(cell: Cell) -> dict[str, Any]:
    """A cell as in the answer of GET /api/metrics: counts, sums, and percentiles in milliseconds, None without data."""
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


def preload(windows: Windows, rows: Sequence[Mapping[str, Any]], before: float = math.inf) -> None:
    """Count requests of earlier processes, that had ended ``before`` that moment. ``rows``: of the database. Times in
    seconds since 1970."""
    for row in rows:
        if (ended := row["at"] + row["total_ms"] / 1000) < before:
            windows.add(row, ended)


OK, MISSED, NO_DATA = "ok", "missed", "no data"


@dataclass(frozen=True, slots=True)
class Target:
    """What the router promises: that ``value`` of a day's requests is at most ``limit``, or ``at_least`` that.

    ``value`` returns None where there is no data. ``unit``: that of the limit, "" for a share.
    """

    name: str
    limit: float
    unit: str
    value: Callable[[Cell], float | None]
    at_least: bool = False

    def report(self, day: Cell) -> Mapping[str, Any]:
        """The target, what it was on ``day``, and whether it was met, as in the answer of GET /api/metrics."""
        actual = self.value(day)
        met = actual is not None and (actual >= self.limit if self.at_least else actual <= self.limit)
        return {
            "name": self.name,
            "target": f"{'>=' if self.at_least else '<='} {self.limit:g} {self.unit}".rstrip(),
            "actual": None if actual is None else round(actual, 4),
            "unit": self.unit,
            "status": NO_DATA if actual is None else OK if met else MISSED,
        }


def targets(uptime: float | None) -> Sequence[Target]:
    """All targets. ``uptime``: as the function of that name returns it."""
    return (
        Target("ttft_p95", 1500, "ms", lambda day: day.ttft.percentile(0.95)),
        Target("latency_p50", 3500, "ms", lambda day: day.total.percentile(0.5)),
        Target("latency_p95", 6000, "ms", lambda day: day.total.percentile(0.95)),
        Target("error_rate", 0.01, "", lambda day: day.error_rate),
        Target("cancel_p99", 300, "ms", lambda day: day.cancel.percentile(0.99)),
        Target("uptime", 0.995, "", lambda _: uptime, at_least=True),
    )


def uptime(runs: Sequence[tuple[float, float]], since: float, now: float) -> float | None:
    """The share of the time from ``since`` to ``now`` in which a process ran. The time before the first start does not
    count. None without any run.

    ``runs``: when processes started and when they were last seen, in the order of their starts; they may overlap. All
    times in seconds since 1970.
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
    """When this process was started, in seconds since 1970. The present time where /proc does not say."""
    try:
        # proc(5): the name, which may have any character, ends with the last bracket; starttime is the 22nd field, in
        # clock ticks since the system booted.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return time.time()
    return time.time() - age


class ColdStart:
    """How long the router took from the start of its process until it was ready, and then for its first answer.

    ``process_start``: when the first process was started, in seconds since 1970. The time in which no client asked does
    not count.
    """

    def __init__(self, process_start: float, now: Callable[[], float] = time.time) -> None:
        self._ready_ms = (now() - process_start) * 1000
        self._first_ms: float | None = None

    def finished(self, outcome: Outcome, _cost: Cost) -> None:
        """Note how long the first answer took. A sink of the recorder."""
        if self._first_ms is None and outcome.status is Status.OK:
            self._first_ms = outcome.timings["total_ms"]

    def seconds(self) -> float:
        """From the start to the first answer; NaN before there is one."""
        return float("nan") if self._first_ms is None else (self._ready_ms + self._first_ms) / 1000

    def as_json(self) -> Mapping[str, float | None]:
        """As in the answer of GET /api/metrics, in milliseconds."""
        first = self._first_ms
        return {
            "ready_ms": round(self._ready_ms, 1),
            "first_answer_ms": None if first is None else round(first, 1),
            "start_to_first_answer_ms": None if first is None else round(self._ready_ms + first, 1),
        }
