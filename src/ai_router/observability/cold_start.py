"""How long it took from the start of the process to its first answer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ai_router.types import Cost, Outcome, Status


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
    """``born``: when the first process began. A client may ask hours later: what counts is how long its answer took."""

    def __init__(self, born: float, now: Callable[[], float] = time.time) -> None:
        self._ready_ms = (now() - born) * 1000
        self._first_ms: float | None = None

    def finished(self, outcome: Outcome, _cost: Cost) -> None:
        """See whether it is the first answer."""
        if self._first_ms is None and outcome.status is Status.OK:
            self._first_ms = outcome.timings["total_ms"]

    def seconds(self) -> float:
        """From the start to the first answer; NaN before there was one."""
        return float("nan") if self._first_ms is None else (self._ready_ms + self._first_ms) / 1000

    def described(self) -> Mapping[str, float | None]:
        """As people read it, in milliseconds."""
        first = self._first_ms
        return {
            "ready_ms": round(self._ready_ms, 1),
            "first_answer_ms": None if first is None else round(first, 1),
            "start_to_first_answer_ms": None if first is None else round(self._ready_ms + first, 1),
        }
