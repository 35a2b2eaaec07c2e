"""What the router promises, and whether it keeps it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ai_router.observability.windows import Cell

OK, MISSED, NO_DATA = "ok", "missed", "no data"


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: ``value`` reads it off a day, None where there is nothing to read."""

    name: str
    limit: float
    unit: str
    value: Callable[[Cell], float | None]
    at_least: bool = False

    def judged(self, day: Cell) -> Mapping[str, Any]:
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


def uptime(lives: Sequence[tuple[float, float]], since: float, now: float) -> float | None:
    """The share of the time from ``since`` to ``now`` in which a process lived; the time before the first counts not.

    ``lives``: (started, last seen), in order of their starts; they may overlap. None without any.
    """
    if not lives:
        return None
    begin = max(since, lives[0][0])
    covered, reached = 0.0, begin
    for started, seen in lives:
        covered += max(0.0, min(seen, now) - max(started, reached))
        reached = max(reached, seen)
    return min(1.0, covered / (now - begin)) if now > begin else None
