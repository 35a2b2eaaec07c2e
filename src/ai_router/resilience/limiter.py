"""Gates in front of the backends, and the one queue before them: bounded, fair, and left at any time.

A gate admits as many calls as its cap allows and its breaker agrees to. Whoever is not admitted may wait, for one gate
or for whichever of several opens first. Of those who wait, clients take turns, each by order of arrival; a newcomer
passes nobody who waits for the same gate.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ai_router.resilience.breaker import Backoff, Breaker, BreakerRules, State, Why

_NEWEST_WEIGHT = 0.2


class QueueFull(Exception):
    """As many wait as may."""


@dataclass(frozen=True, slots=True)
class LimiterReport:
    """How a gate is doing."""

    state: State
    why: Why | None
    in_flight: int
    waiting: int


class _BackendLimit:
    """How many calls one backend may have, and its breaker. The limiter's lock guards it."""

    def __init__(self, cap: int, rules: BreakerRules, *, counts_streams: bool = True) -> None:
        self.cap = cap
        self.counts_streams = counts_streams
        """Whether a stream that has begun still counts."""
        self.streaming = 0
        self.breaker = Breaker(rules)
        self.in_flight = 0
        self.ramp: int | None = None
        """Places after a cooldown: few at first, twice as many with each success, so that a queue is no stampede."""
        self.limits_in_a_row = 0
        self.interval_s = 0.0
        """Seconds between two calls that end, lately."""
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

    def succeeded(self, now: float) -> None:
        if self.breaker.state(now) is State.HALF_OPEN:
            self.ramp = 2
        elif self.ramp is not None:
            self.ramp = None if self.ramp >= self.cap else 2 * self.ramp
        self.limits_in_a_row = 0
        self.breaker.succeeded(now)


class Permit:
    """Leave to make one call of ``backend``. Report what came of the call, then release; any number of times."""

    __slots__ = ("_begun", "_epoch", "_limiter", "_open", "_reported", "backend")

    def __init__(self, limiter: ConcurrencyLimiter, backend: str, epoch: int) -> None:
        self._limiter = limiter
        self._epoch = epoch
        self._open = True
        self._begun = False
        self._reported = False
        self.backend = backend

    def succeeded(self) -> None:
        """The backend answers."""
        self._reported = True
        self._limiter.record(self.backend, _BackendLimit.succeeded, self._epoch)

    def failed(self) -> None:
        """The backend did not answer, or broke off."""
        self._reported = True
        self._limiter.record(self.backend, lambda backend, now: backend.breaker.failed(now), self._epoch)

    def limited(self, seconds: float | None, why: Why = Why.LIMITED) -> None:
        """The backend is to be left alone for so long; None: it did not say how long."""
        self._reported = True
        self._limiter.limit(self.backend, seconds, why)

    def misconfigured(self) -> None:
        """The backend refuses our key or our address of it."""
        self._reported = True
        self._limiter.record(
            self.backend, lambda backend, now: backend.breaker.failed(now, Why.MISCONFIGURED), self._epoch
        )

    def stream_begun(self) -> None:
        """The backend's stream has begun and holds no thread any more: another call may be made meanwhile."""
        if self._open and not self._begun:
            self._begun = True
            self._limiter.stream_begun(self.backend)

    def release(self) -> None:
        """The call is over."""
        if self._open:
            self._open = False
            self._limiter.release(self.backend, self._epoch, reported=self._reported, begun=self._begun)


class QueueTicket:
    """A place in the queue, for ``wanted``, best first."""

    def __init__(self, limiter: ConcurrencyLimiter, wanted: Sequence[str], round_number: int) -> None:
        self._limiter = limiter
        self.wanted = tuple(wanted)
        self.round_number = round_number
        """Its place among its client's, counted from the turn that is served: lower goes first."""
        self.woken = threading.Event()
        self.permit: Permit | None = None

    def wait(self, seconds: float) -> Permit | None:
        """The pass, as soon as there is one; None after so long, or when woken."""
        self._limiter.admit_waiting()
        if self.permit is None:
            self.woken.wait(min(seconds, self._limiter.admits_in(self.wanted)))
            self.woken.clear()
            self._limiter.admit_waiting()
        return self.permit

    def wake(self) -> None:
        """Let whoever waits look around. From any thread."""
        self.woken.set()

    def release(self) -> None:
        """Give the place in the queue up, and the pass if it came just now."""
        self._limiter.remove(self)

    def estimate(self) -> tuple[int, float]:
        """Position, from 1, and about how many seconds it will take."""
        return self._limiter.estimate(self)


class ConcurrencyLimiter:
    """A limit for each backend, made when it is first named, and one queue before them all. Safe from any thread.

    ``cap``: how many calls a backend may have; ``caps`` has other numbers by name. ``size``: how many requests may
    wait. ``counts_streams``: whether a stream that has begun still counts for ``cap``; if not, the cap is about calls
    that the backend has not begun to answer, which is what piles up at one that is slow.
    """

    def __init__(
        self,
        cap: int,
        size: int,
        rules: BreakerRules,
        caps: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        random_source: Callable[[], float] = random.random,
        *,
        counts_streams: bool = True,
    ) -> None:
        self._size = size
        self._clock = clock
        self._lock = threading.RLock()
        self._caps = dict(caps or {})
        self._backends: dict[str, _BackendLimit] = defaultdict(
            lambda: _BackendLimit(cap, rules, counts_streams=counts_streams)
        )
        self._backoff = Backoff(rules.open_s)
        self._random_source = random_source
        self._waiting: list[QueueTicket] = []
        self._round = 0
        self._last_rounds: dict[str, int] = {}

    def acquire(self, wanted: Iterable[str], below: int | None = None) -> Permit | None:
        """A pass for the first that admits one more now, ahead of nobody; None if none does.

        ``below``: only where fewer calls than that are under way.
        """
        with self._lock:
            self.admit_waiting()
            now = self._clock()
            for name in wanted:
                backend = self._backend(name)
                if (below is None or backend.in_flight < below) and not self._has_waiters(name) and backend.admits(now):
                    backend.call_started(now)
                    return Permit(self, name, backend.breaker.epoch)
            return None

    def queue(self, wanted: Sequence[str], client: str) -> QueueTicket:
        """A place in the queue; leave it in any case. Raises RoomFull."""
        with self._lock:
            if len(self._waiting) >= self._size:
                raise QueueFull
            if not self._waiting:
                self._last_rounds.clear()
            round_number = max(self._round, self._last_rounds.get(client, 0)) + 1
            self._last_rounds[client] = round_number
            ticket = QueueTicket(self, wanted, round_number)
            self._waiting.append(ticket)
            return ticket

    def admits_in(self, wanted: Iterable[str]) -> float:
        """Seconds until the first of these may admit somebody, breakers considered and caps not."""
        with self._lock:
            now = self._clock()
            return min(
                (self._backend(name).breaker.admits_in(now) or _UNTIL_WOKEN_S for name in wanted),
                default=_UNTIL_WOKEN_S,
            )

    def blocked_for(self, name: str) -> tuple[float, Why | None]:
        """Seconds for which the breaker lets nobody pass, and why; 0 where a call may be tried."""
        with self._lock:
            breaker = self._backend(name).breaker
            return breaker.admits_in(self._clock()), breaker.why

    def report(self, name: str) -> LimiterReport:
        """How a gate is doing."""
        with self._lock:
            now, backend = self._clock(), self._backend(name)
            waiting = sum(name in ticket.wanted for ticket in self._waiting)
            state = backend.breaker.state(now)
            return LimiterReport(state, backend.breaker.why, backend.in_flight, waiting)

    def names(self) -> Sequence[str]:
        """The gates that there are."""
        with self._lock:
            return tuple(self._backends)

    @property
    def waiting(self) -> int:
        """How many wait, at all gates together."""
        return len(self._waiting)

    def record(self, name: str, update: Callable[[_BackendLimit, float], None], epoch: int) -> None:
        """What came of a call. If the breaker has opened since the call began, it is old news."""
        with self._lock:
            backend = self._backend(name)
            if backend.breaker.epoch == epoch:
                update(backend, self._clock())
                self._wake_waiting(name, backend)

    def limit(self, name: str, seconds: float | None, why: Why) -> None:
        """A backend wants to be left alone. From the second time in a row on, at least as long as the backoff says: a
        Retry-After of 0 must not be taken at its word for ever."""
        with self._lock:
            backend = self._backend(name)
            backend.limits_in_a_row += 1
            again = backend.limits_in_a_row if seconds is None else backend.limits_in_a_row - 1
            least_s = self._backoff.delay_s(again, self._random_source()) if again else 0.0
            backend.breaker.open(self._clock(), min(max(seconds or 0.0, least_s), _MAX_COOLDOWN_S), why)
            self._wake_waiting(name, backend)

    def stream_begun(self, name: str) -> None:
        """A stream has begun: where those are not counted, somebody who waits may have its permit."""
        with self._lock:
            self._backend(name).streaming += 1
            self.admit_waiting()

    def release(self, name: str, epoch: int, *, reported: bool, begun: bool) -> None:
        """A call is over."""
        with self._lock:
            now, backend = self._clock(), self._backend(name)
            if not reported and backend.breaker.epoch == epoch:
                backend.breaker.ended_without_result(now)
            backend.streaming -= begun
            backend.call_ended(now)
            self.admit_waiting()

    def admit_waiting(self) -> None:
        """Give passes to those whose turn it is."""
        with self._lock:
            if not self._waiting:
                return
            now = self._clock()
            for ticket in self._in_order():
                name = next((name for name in ticket.wanted if self._backend(name).admits(now)), None)
                if name is not None:
                    self._backend(name).call_started(now)
                    self._waiting.remove(ticket)
                    self._round = max(self._round, ticket.round_number)
                    ticket.permit = Permit(self, name, self._backend(name).breaker.epoch)
                    ticket.woken.set()

    def remove(self, ticket: QueueTicket) -> None:
        """Somebody waits no longer."""
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            elif ticket.permit is not None:
                ticket.permit.release()

    def estimate(self, ticket: QueueTicket) -> tuple[int, float]:
        """Position and expected wait of a ticket: what the breaker says, and the pace of those before it."""
        with self._lock:
            now, ahead = self._clock(), self._in_order()
            position = ahead.index(ticket) + 1 if ticket in ahead else 1
            return position, min(
                max(self._backend(name).breaker.admits_in(now), self._backend(name).interval_s * position)
                for name in ticket.wanted
            )

    def _wake_waiting(self, name: str, backend: _BackendLimit) -> None:
        """After news: admit whom it lets in; those who now have to wait until the breaker opens must learn of that."""
        self.admit_waiting()
        if backend.breaker.state(self._clock()) is State.OPEN:
            for ticket in self._waiting:
                if name in ticket.wanted:
                    ticket.wake()

    def _in_order(self) -> list[QueueTicket]:
        """Everybody's first, then everybody's second, and so on; of one turn, the first to come."""
        return sorted(self._waiting, key=lambda ticket: ticket.round_number)

    def _has_waiters(self, name: str) -> bool:
        return any(name in ticket.wanted for ticket in self._waiting)

    def _backend(self, name: str) -> _BackendLimit:
        backend = self._backends[name]
        if (cap := self._caps.get(name)) is not None:
            # A cap of the backend's own is what it can take: streams count.
            backend.cap, backend.counts_streams = cap, True
        return backend


_MAX_COOLDOWN_S = 3600.0
"""A backend that wants to be left alone for days, or until the year 9999, is asked again after an hour."""

_UNTIL_WOKEN_S = 3600.0
"""Longer than anybody waits: a gate that is full opens when somebody leaves, who says so."""
