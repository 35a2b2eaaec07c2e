"""A breaker: after failures a backend is left alone for a while, then tried with one call, then trusted again.

CLOSED --(failures in a row, or too large a share of them)--> OPEN
CLOSED --(429, or a key that is refused)---------------------> OPEN, for as long as said
OPEN ----(time is up)----------------------------------------> HALF_OPEN
HALF_OPEN --(the probe succeeds)-----------------------------> CLOSED
HALF_OPEN --(it fails)---------------------------------------> OPEN, twice as long
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

_JITTER = 0.25
"""A wait may be a quarter shorter or longer, so that those who failed together do not come back together."""


class State(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Why(StrEnum):
    """Why it opened last."""

    FAILING = "failing"
    LIMITED = "rate limited"
    BUSY = "busy"
    EXHAUSTED = "out of quota"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When to open and for how long, in seconds: ``open_s`` at first, doubled with each failed probe up to
    ``max_open_s``."""

    failures_in_a_row: int = 5
    failure_share: float = 0.5
    min_calls: int = 20
    window_s: float = 30.0
    open_s: float = 1.0
    max_open_s: float = 30.0


class Breaker:
    """Of one backend. Every call says what time it is (monotonic seconds). Not safe from several threads by itself."""

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._state = State.CLOSED
        self._half_open_at = 0.0
        self._failures_in_a_row = 0
        self._openings = 0
        self._probing = False
        self.epoch = 0
        """How often it has opened: calls begun before the last time say nothing of what is now."""
        self._recent: deque[tuple[float, bool]] = deque(maxlen=200)
        self.why: Why | None = None
        """Why it is not closed; None while it is."""

    def state(self, now: float) -> State:
        """The state; time alone turns OPEN into HALF_OPEN."""
        if self._state is State.OPEN and now >= self._half_open_at:
            self._state = State.HALF_OPEN
            self._probing = False
        return self._state

    def admits(self, now: float) -> bool:
        """Whether a call may be made: any while closed, one at a time while half-open."""
        state = self.state(now)
        return state is State.CLOSED or (state is State.HALF_OPEN and not self._probing)

    def admits_in(self, now: float) -> float:
        """Seconds until a call may be tried; 0 when it may be now, or as soon as a probe is back."""
        return max(0.0, self._half_open_at - now) if self._state is State.OPEN else 0.0

    def call_started(self, now: float) -> None:
        """A call begins."""
        self._probing = self._probing or self.state(now) is State.HALF_OPEN

    def succeeded(self, now: float) -> None:
        """The backend answered: also with a refusal of what is in the request."""
        self._recent.append((now, True))
        self._failures_in_a_row = 0
        if self.state(now) is State.HALF_OPEN:
            self._state, self.why, self._openings, self._probing = State.CLOSED, None, 0, False
            self._recent.clear()

    def failed(self, now: float, why: Why = Why.FAILING) -> None:
        """The backend did not answer, or broke off; a refusal of our key is enough by itself."""
        self._recent.append((now, False))
        self._failures_in_a_row += 1
        state = self.state(now)
        enough = (
            why is Why.MISCONFIGURED or self._failures_in_a_row >= self._rules.failures_in_a_row or self._too_many(now)
        )
        if state is State.HALF_OPEN or (state is State.CLOSED and enough):
            wait_s = min(self._rules.open_s * 2**self._openings, self._rules.max_open_s)
            self._openings = min(self._openings + 1, 16)
            self.open(now, wait_s, why)

    def open(self, now: float, seconds: float, why: Why) -> None:
        """Leave the backend alone for so long; a longer wait that is on already stays."""
        self._half_open_at = max(now + seconds, self._half_open_at if self._state is State.OPEN else 0.0)
        self._state, self.why, self._probing = State.OPEN, why, False
        self.epoch += 1

    def ended_without_result(self, now: float) -> None:
        """A call ended without telling anything of the backend: another may probe."""
        if self.state(now) is State.HALF_OPEN:
            self._probing = False

    def _too_many(self, now: float) -> bool:
        calls = [well for at, well in self._recent if now - at <= self._rules.window_s]
        return len(calls) >= self._rules.min_calls and calls.count(False) >= self._rules.failure_share * len(calls)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between tries, in seconds: ``first_s``, twice that, four times; never above eight times."""

    first_s: float = 1.0

    def delay_s(self, number: int, random_value: float) -> float:
        """The wait before retry ``number``, from 1; ``random_value`` in [0, 1) spreads those who failed together."""
        plain = self.first_s * float(2 ** min(number - 1, 3))
        return plain * (1 - _JITTER + 2 * _JITTER * random_value)
