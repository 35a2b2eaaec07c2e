"""The circuit breaker of one backend, its cap, and the backoff between retries.

After failures a backend gets no calls for a while, then one call as a probe, then all calls again.

CLOSED --(failures in a row, or too large a share of them)---> OPEN
CLOSED --(429, for as long as the backend says; refused key)--> OPEN
OPEN ----(its time is up)------------------------------------> HALF_OPEN
HALF_OPEN --(the probe succeeds)-----------------------------> CLOSED
HALF_OPEN --(the probe fails)--------------------------------> OPEN, twice as long
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

_SAME_BODY_S = 30.0
_JITTER = 0.25
"""A wait is up to a quarter shorter or longer, so that calls that failed together are not retried together."""


class State(StrEnum):
    """The state of a breaker. The values appear in GET /health and in metrics."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Why(StrEnum):
    """Why a breaker opened. The values appear in messages to clients, GET /health and metrics."""

    FAILING = "failing"
    LIMITED = "rate limited"
    BUSY = "busy"
    EXHAUSTED = "out of quota"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """The breaker of ``backend`` has opened for ``seconds``, for the reason ``why``; both None: it has closed."""

    backend: str
    seconds: float | None
    why: Why | None


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens, and for how long.

    It opens after ``failures_in_a_row``, or when ``failure_share`` (0 to 1) of the calls of the last ``window_s``
    seconds failed and those were at least ``min_calls``. It stays open for ``open_s`` seconds; each failed probe
    doubles that, up to ``max_open_s``.
    """

    failures_in_a_row: int = 5
    failure_share: float = 0.5
    min_calls: int = 20
    window_s: float = 30.0
    open_s: float = 1.0
    max_open_s: float = 30.0


class Breaker:
    """The breaker of one backend. Every method takes the time, in monotonic seconds.

    Not safe from several threads: the caller holds a lock.
    """

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._state = State.CLOSED
        self._half_open_at = 0.0
        self._failures_in_a_row = 0
        self._openings = 0
        self._probing = False
        self.epoch = 0
        """How often it has opened. The result of a call that began in an earlier epoch is out of date."""
        self._recent: deque[tuple[float, bool]] = deque(maxlen=200)
        self._failed_bodies: dict[int, float] = {}
        """When each body failed that counted, by its hash."""
        self.why: Why | None = None
        """Why it opened; None while it is closed."""

    def state(self, now: float) -> State:
        """The state at ``now``. OPEN becomes HALF_OPEN when its time is up, without any call."""
        if self._state is State.OPEN and now >= self._half_open_at:
            self._state = State.HALF_OPEN
            self._probing = False
        return self._state

    def admits(self, now: float) -> bool:
        """Whether a call may begin: any while closed, one at a time while half-open, none while open."""
        state = self.state(now)
        return state is State.CLOSED or (state is State.HALF_OPEN and not self._probing)

    def admits_in(self, now: float) -> float:
        """Seconds until it stops being open; 0 if it is not open (a half-open one may still wait for its probe)."""
        return max(0.0, self._half_open_at - now) if self._state is State.OPEN else 0.0

    def call_started(self, now: float) -> None:
        """A call begins; while half-open it is the probe."""
        self._probing = self._probing or self.state(now) is State.HALF_OPEN

    def succeeded(self, now: float) -> None:
        """A call ended with an answer. A refusal of the request itself (400, 404...) is an answer, too."""
        self._recent.append((now, True))
        self._failures_in_a_row = 0
        if self.state(now) is State.HALF_OPEN:
            self.close()

    def failed(self, now: float, why: Why = Why.FAILING, body: bytes | None = None) -> None:
        """A call ended without an answer, or with half of one. ``Why.MISCONFIGURED`` opens the breaker at once.

        ``body``: what was sent, if the backend has said that it failed, so that this may be why. While the breaker is
        closed, the failures of one body count once in 30 s: one that a server cannot digest, and that its client sends
        again and again, must not stop all others.
        """
        if body is not None and self.state(now) is State.CLOSED and self._has_failed_with(body, now):
            return
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
        """Open for ``seconds``. If it is open for longer already, that stays."""
        self._half_open_at = max(now + seconds, self._half_open_at if self._state is State.OPEN else 0.0)
        self._state, self.why, self._probing = State.OPEN, why, False
        self.epoch += 1

    def close(self) -> None:
        """Let all calls through again: a probe has succeeded, here or in another process."""
        self._state, self.why, self._openings, self._probing = State.CLOSED, None, 0, False
        self._failures_in_a_row = 0
        self._recent.clear()

    def ended_without_result(self, now: float) -> None:
        """A call ended and says nothing of the backend, as one that was aborted. Another may be the probe."""
        if self.state(now) is State.HALF_OPEN:
            self._probing = False

    def _has_failed_with(self, body: bytes, now: float) -> bool:
        """Whether this body has failed in the last 30 s. From now on it has."""
        key, known = hash(body), self._failed_bodies
        before = known.get(key)
        for old in [old for old, at in known.items() if now - at > _SAME_BODY_S]:
            del known[old]
        if before is not None and now - before <= _SAME_BODY_S:
            return True
        known[key] = now
        return False

    def _too_many(self, now: float) -> bool:
        calls = [well for at, well in self._recent if now - at <= self._rules.window_s]
        return len(calls) >= self._rules.min_calls and calls.count(False) >= self._rules.failure_share * len(calls)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff: ``first_s`` seconds before the first retry, then 2, 4 and 8 times that, and no more."""

    first_s: float = 1.0

    def delay_s(self, number: int, random_value: float) -> float:
        """Seconds before retry ``number``, from 1. ``random_value`` in [0, 1): a quarter less to a quarter more."""
        plain = self.first_s * float(2 ** min(number - 1, 3))
        return plain * (1 - _JITTER + 2 * _JITTER * random_value)


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
