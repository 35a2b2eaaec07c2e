"""Concurrency limits of the backends, and the one queue for all of them: bounded, fair, and cancellable at any time.

A call needs a ``Permit`` of its backend. A backend grants as many at a time as its cap allows, and none while its
breaker is open. A request that gets no permit may wait in the queue, for one backend or for the first of several. The
queue serves clients in rotation, and the requests of one client in order of arrival. A new request does not overtake
those that wait for the same backend.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from ai_router.resilience.breaker import BackendLimit, Backoff, BreakerChange, BreakerRules, State, Why
from ai_router.resilience.queue_ticket import QueueFull, Ticket
from ai_router.resilience.report import LimiterReport

_MAX_COOLDOWN_S = 60.0
"""However long a backend asks to be left alone, a call is tried once a minute: such numbers are often wrong, and quotas
are raised. (A Retry-After of 31 years has been seen.)"""
_UNTIL_WOKEN_S = 3600.0
"""How long to wait for a backend that is merely full. Its next release wakes the waiting request long before that."""


class Permit:
    """Permission for one call of ``backend``: report the result of the call, then release. Safe from any thread."""

    __slots__ = ("_begun", "_epoch", "_limiter", "_open", "_reported", "backend", "body")

    def __init__(self, limiter: ConcurrencyLimiter, backend: str, epoch: int) -> None:
        self._limiter = limiter
        self._epoch = epoch
        self._open = True
        self._begun = False
        self._reported = False
        self.backend = backend
        self.body: bytes | None = None
        """What is sent, so that the failures of one body count once (see Breaker.failed)."""

    def succeeded(self) -> None:
        """The backend answered."""
        self._reported = True
        self._limiter.record(self.backend, BackendLimit.succeeded, self._epoch)

    def failed(self, *, answered: bool = False) -> None:
        """The backend did not answer, or broke off in the middle. ``answered``: it said itself that it has failed."""
        self._reported, body = True, self.body if answered else None
        self._limiter.record(self.backend, lambda backend, now: backend.breaker.failed(now, body=body), self._epoch)

    def limited(self, seconds: float | None, why: Why = Why.LIMITED) -> None:
        """The backend wants no calls for ``seconds``; None: it did not say for how long."""
        self._reported = True
        self._limiter.limit(self.backend, seconds, why)

    def misconfigured(self) -> None:
        """The backend rejects our key, or sends us elsewhere: its settings have to be changed."""
        self._reported = True
        self._limiter.record(
            self.backend, lambda backend, now: backend.breaker.failed(now, Why.MISCONFIGURED), self._epoch
        )

    def stream_begun(self) -> None:
        """The answer is a stream and has begun. If the cap does not count streams, another call may begin now."""
        if self._open and not self._begun:
            self._begun = True
            self._limiter.stream_begun(self.backend)

    def release(self) -> None:
        """The call has ended, with or without a result. Idempotent."""
        if self._open:
            self._open = False
            self._limiter.release(self.backend, self._epoch, reported=self._reported, begun=self._begun)


class QueueTicket(Ticket[Permit]):
    """One request in the queue."""


class ConcurrencyLimiter:
    """A limit for each backend, made when its name is first used, and one queue for all. Safe from any thread.

    ``cap``: how many calls a backend may have at a time; ``caps``: other numbers, by the backend's name. ``size``: how
    many requests may wait. ``clock``: monotonic seconds; ``random_source``: numbers in [0, 1).

    ``counts_streams``: whether a stream that has begun still counts for ``cap``. If not, the cap limits the calls that
    a backend has not begun to answer, since those pile up at a slow one. A cap of ``caps`` always counts streams.
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
        self._cap, self._counts_streams = cap, counts_streams
        self._backends: dict[str, BackendLimit] = defaultdict(
            lambda: BackendLimit(self._cap, rules, counts_streams=self._counts_streams)
        )
        self.on_breaker: Callable[[BreakerChange], None] = lambda _change: None
        """Is told when a breaker has opened or closed for what was seen here. It must return at once."""
        self.share_of: Callable[[str, int], int] = lambda _name, cap: cap
        """How much of a backend's cap is this process's; the rest is that of others (dispatch/shared_caps.py)."""
        self.on_refused: Callable[[Iterable[str]], None] = lambda _names: None
        """Is told of which backends a call got no permit now. It must return at once."""
        self._backoff = Backoff(rules.open_s)
        self._random_source = random_source
        self._waiting: list[QueueTicket] = []
        self._round = 0
        self._last_rounds: dict[str, int] = {}

    def change(self, cap: int, size: int, caps: Mapping[str, int], *, counts_streams: bool) -> None:
        """Other limits from now on. Calls that are under way stay."""
        with self._lock:
            self._cap, self._size, self._caps, self._counts_streams = cap, size, dict(caps), counts_streams
            self.admit_waiting()

    def acquire(self, wanted: Sequence[str], below: int | None = None) -> Permit | None:
        """A permit of the first of the backends ``wanted`` that can grant one now; None if none can.

        No request that waits for the same backend is overtaken. ``below``: only if fewer calls than that are under way.
        """
        with self._lock:
            self.admit_waiting()
            now = self._clock()
            for name in wanted:
                backend = self._backend(name)
                if (below is None or backend.in_flight < below) and not self._has_waiters(name) and backend.admits(now):
                    backend.call_started(now)
                    return Permit(self, name, backend.breaker.epoch)
            self.on_refused(wanted)
            return None

    def queue(self, wanted: Sequence[str], client: str) -> QueueTicket:
        """Join the queue for one of ``wanted``. ``client``: in whose name, for the rotation. Raises QueueFull."""
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
        """Seconds until one of the open breakers of ``wanted`` lets calls through; an hour where none is open."""
        with self._lock:
            now = self._clock()
            return min(
                (self._backend(name).breaker.admits_in(now) or _UNTIL_WOKEN_S for name in wanted),
                default=_UNTIL_WOKEN_S,
            )

    def blocked_for(self, name: str) -> tuple[float, Why | None]:
        """For how many more seconds the breaker of ``name`` stays open (0: it is not), and why it opened."""
        with self._lock:
            breaker = self._backend(name).breaker
            return breaker.admits_in(self._clock()), breaker.why

    def report(self, name: str) -> LimiterReport:
        """The present state of the backend ``name``."""
        with self._lock:
            now, backend = self._clock(), self._backend(name)
            waiting = sum(name in ticket.wanted for ticket in self._waiting)
            state = backend.breaker.state(now)
            return LimiterReport(state, backend.breaker.why, backend.in_flight, waiting)

    def names(self) -> Sequence[str]:
        """The backends that have been named so far."""
        with self._lock:
            return tuple(self._backends)

    @property
    def waiting(self) -> int:
        """How many requests wait in the queue."""
        return len(self._waiting)

    def record(self, name: str, update: Callable[[BackendLimit, float], None], epoch: int) -> None:
        """Record the result of a call of ``name``. Ignored if the breaker has opened since: it is out of date then."""
        with self._lock:
            backend = self._backend(name)
            if backend.breaker.epoch == epoch:
                was_closed = backend.breaker.state(self._clock()) is State.CLOSED
                update(backend, self._clock())
                self._tell(name, backend, epoch, was_closed=was_closed)
                self._wake_waiting(name, backend)

    def limit(self, name: str, seconds: float | None, why: Why) -> None:
        """Open the breaker of ``name`` for ``seconds``, at most a minute; None: as long as the backoff says. From the
        second time in a row on the backoff is the least: "Retry-After: 0" must not lead to a tight loop."""
        with self._lock:
            backend = self._backend(name)
            backend.limits_in_a_row += 1
            again = backend.limits_in_a_row if seconds is None else backend.limits_in_a_row - 1
            least_s = self._backoff.delay_s(again, self._random_source()) if again else 0.0
            epoch = backend.breaker.epoch
            backend.breaker.open(self._clock(), min(max(seconds or 0.0, least_s), _MAX_COOLDOWN_S), why)
            self._tell(name, backend, epoch, was_closed=False)
            self._wake_waiting(name, backend)

    def follow(self, change: BreakerChange) -> None:
        """Do as another process, which has seen a breaker open or close."""
        with self._lock:
            backend = self._backend(change.backend)
            backend.follow(self._clock(), change)
            self._wake_waiting(change.backend, backend)

    def stream_begun(self, name: str) -> None:
        """A stream of ``name`` has begun. If streams do not count, a waiting request may get a permit."""
        with self._lock:
            self._backend(name).streaming += 1
            self.admit_waiting()

    def release(self, name: str, epoch: int, *, reported: bool, begun: bool) -> None:
        """A call of ``name`` has ended; ``reported``: its result was recorded; ``begun``: it was a stream."""
        with self._lock:
            now, backend = self._clock(), self._backend(name)
            if not reported and backend.breaker.epoch == epoch:
                backend.breaker.ended_without_result(now)
            backend.streaming -= begun
            backend.call_ended(now)
            self.admit_waiting()

    def admit_waiting(self) -> None:
        """Grant all permits that can be granted to waiting requests now."""
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
        """Take ``ticket`` out of the queue, and release its permit if it has one."""
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            elif ticket.permit is not None:
                ticket.permit.release()

    def estimate(self, ticket: QueueTicket) -> tuple[int, float]:
        """The position of ``ticket``, from 1, and its expected wait in seconds, by the breaker and the recent pace."""
        with self._lock:
            now, ahead = self._clock(), self._in_order()
            position = ahead.index(ticket) + 1 if ticket in ahead else 1
            return position, min(
                max(self._backend(name).breaker.admits_in(now), self._backend(name).interval_s * position)
                for name in ticket.wanted
            )

    def _tell(self, name: str, backend: BackendLimit, epoch: int, *, was_closed: bool) -> None:
        """Tell of the breaker, if it is another than it was: of ``epoch``, and closed or not."""
        now, breaker = self._clock(), backend.breaker
        if breaker.epoch != epoch:
            self.on_breaker(BreakerChange(name, breaker.admits_in(now), breaker.why))
        elif not was_closed and breaker.state(now) is State.CLOSED:
            self.on_breaker(BreakerChange(name, None, None))

    def _wake_waiting(self, name: str, backend: BackendLimit) -> None:
        """After a result: grant what can be granted. If the breaker is open now, wake those who wait for it, so that
        they wait for the breaker instead."""
        self.admit_waiting()
        if backend.breaker.state(self._clock()) is State.OPEN:
            for ticket in self._waiting:
                if name in ticket.wanted:
                    ticket.wake()

    def _in_order(self) -> list[QueueTicket]:
        """The queue in the order of service: by round, and within a round by arrival."""
        return sorted(self._waiting, key=lambda ticket: ticket.round_number)

    def _has_waiters(self, name: str) -> bool:
        return any(name in ticket.wanted for ticket in self._waiting)

    def _backend(self, name: str) -> BackendLimit:
        backend = self._backends[name]
        # A cap that is set for this backend says what it can take, streams included.
        own = self._caps.get(name)
        cap, counts_streams = (self._cap, self._counts_streams) if own is None else (own, True)
        backend.cap, backend.counts_streams = self.share_of(name, cap) if counts_streams else cap, counts_streams
        return backend

    def set_cap(self, name: str) -> int | None:
        """The cap that somebody has set for a backend; None: it has the default, for what holds a thread."""
        with self._lock:
            return self._caps.get(name, self._cap if self._counts_streams else None)
