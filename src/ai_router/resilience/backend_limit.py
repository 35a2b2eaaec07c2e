"""How many calls of one backend may be under way: its cap, and its breaker."""

from __future__ import annotations

from ai_router.resilience.breaker import Breaker, BreakerChange, BreakerRules, State

_NEWEST_WEIGHT = 0.2


class BackendLimit:
    """The cap and the breaker of one backend. Guarded by the limiter's lock."""

    def __init__(self, cap: int, rules: BreakerRules, *, counts_streams: bool = True) -> None:
        self.cap = cap
        self.counts_streams = counts_streams
        """Whether a stream that has begun still counts for the cap."""
        self.streaming = 0
        self.breaker = Breaker(rules)
        self.in_flight = 0
        self.ramp: int | None = None
        """A lower cap after a cooldown: 2, then doubled with each success, so that the queue returns slowly."""
        self.limits_in_a_row = 0
        self.interval_s = 0.0
        """Seconds between the ends of two calls: a moving average."""
        self._ended_at: float | None = None

    def admits(self, now: float) -> bool:
        limit = self.cap if self.ramp is None else min(self.cap, self.ramp)
        counted = self.in_flight if self.counts_streams else self.in_flight - self.streaming
        return counted < limit and self.breaker.admits(now)

    def call_started(self, now: float) -> None:
        self.in_flight += 1
        self.breaker.call_started(now)

    def call_ended(self, now: float) -> None:
        self.in_flight -= 1
        if self._ended_at is not None:
            self.interval_s += _NEWEST_WEIGHT * (now - self._ended_at - self.interval_s)
        self._ended_at = now

    def follow(self, now: float, change: BreakerChange) -> None:
        """Another process has seen the breaker open or close."""
        if change.seconds is not None and change.why is not None:
            if self.breaker.admits_in(now) < change.seconds:
                self.breaker.open(now, change.seconds, change.why)
        elif self.breaker.state(now) is not State.CLOSED:
            self.ramp, self.limits_in_a_row = 2, 0
            self.breaker.close()

    def succeeded(self, now: float) -> None:
        if self.breaker.state(now) is State.HALF_OPEN:
            self.ramp = 2
        elif self.ramp is not None:
            self.ramp = None if self.ramp >= self.cap else 2 * self.ramp
        self.limits_in_a_row = 0
        self.breaker.succeeded(now)
