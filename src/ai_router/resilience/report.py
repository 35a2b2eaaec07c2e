"""What a limiter says of one backend."""

from __future__ import annotations

from dataclasses import dataclass

from ai_router.resilience.breaker import State, Why


@dataclass(frozen=True, slots=True)
class LimiterReport:
    """One backend now: its breaker's state and why it opened, calls that hold a permit, requests that wait for one."""

    state: State
    why: Why | None
    in_flight: int
    waiting: int
