"""Trying until a backend answers: which is asked, again, instead, and what is waited for in between.

What is waited for is a value: an answer on its way is a generator of waits, and who drives it decides how to spend
them (docs/decisions/0014). A plain request just waits. A stream sends its headers after a moment, then a comment every
few seconds, and goes on with the same generator where it stood. An abort of the request ends every wait.

The rules, for as long as the client has not seen a byte and the request's deadline allows:

- A backend at its cap, or told to cool down after a 429, is waited for in the queue, within the request's queue budget.
- A failure of the backend's own (5xx) is retried twice, after a pause, if the retry budget of all requests agrees.
- Every other failure moves on to the next candidate at once; a refusal of the request itself ends the matter.
- A backend whose breaker is open is passed over; if all are, the soonest is waited for.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ai_router.dispatch.record import RequestRecord
from ai_router.errors import (
    RouterError,
    Source,
    UpstreamError,
    UpstreamLimited,
    UpstreamUnavailable,
)
from ai_router.http.calls import CancelScope
from ai_router.observability import log_lines
from ai_router.observability.metrics import ResilienceMetrics
from ai_router.providers.registry import Candidate
from ai_router.resilience.breaker import Backoff, Why
from ai_router.resilience.limiter import ConcurrencyLimiter, Permit, QueueFull, QueueTicket
from ai_router.resilience.retry import RetryBudget

T = TypeVar("T")


class Wait(Protocol):
    """Something that takes its time."""

    def wait(self, seconds: float) -> bool:
        """Wait for it, at most so long; whether it is over. Raises what the request was aborted for."""

    def notice(self) -> str:
        """What to tell a client meanwhile, in a few words."""


Waiting = Generator[Wait, None, T]


class TimedWait:
    """Nothing but time, before a call is made again."""

    def __init__(self, scope: CancelScope, seconds: float, what: str, clock: Callable[[], float]) -> None:
        self._scope = scope
        self._what = what
        self._clock = clock
        self._end = clock() + seconds

    def wait(self, seconds: float) -> bool:
        woken = threading.Event()
        with self._scope.on_abort(woken.set):
            woken.wait(max(0.0, min(seconds, self._end - self._clock())))
        self._scope.raise_if_aborted()
        return self._clock() >= self._end

    def notice(self) -> str:
        return f"{self._what}, trying again in {max(0.0, self._end - self._clock()):.0f} s"


class QueueWait:
    """A place in the queue, until ``end``."""

    def __init__(self, scope: CancelScope, ticket: QueueTicket, end: float, clock: Callable[[], float]) -> None:
        self._scope = scope
        self._ticket = ticket
        self._end = end
        self._clock = clock
        self.granted: Permit | None = None

    def wait(self, seconds: float) -> bool:
        end = min(self._end, self._clock() + seconds)
        with self._scope.on_abort(self._ticket.wake):
            while self.granted is None and self._scope.reason is None and (left := end - self._clock()) > 0:
                self.granted = self._ticket.wait(left)
        self._scope.raise_if_aborted()
        return self.granted is not None or self._clock() >= self._end

    def notice(self) -> str:
        position, expected_s = self._ticket.estimate()
        return f"waiting for {' or '.join(self._ticket.wanted)}: position {position}, about {expected_s:.0f} s"


class FutureWait:
    """Work under way on another thread, which ends by itself when the request's calls are aborted."""

    def __init__(self, work: Future[T], what: str) -> None:
        self._work = work
        self._what = what

    def wait(self, seconds: float) -> bool:
        wait_for([self._work], seconds)
        return self._work.done()

    def notice(self) -> str:
        return self._what


class WaitDriver(Generic[T]):
    """Steps under way."""

    def __init__(self, waiting: Waiting[T], clock: Callable[[], float] = time.monotonic) -> None:
        self._waiting = waiting
        self._clock = clock
        self._wait: Wait | None = None
        self._result: list[T] = []

    def run_for(self, patience_s: float = float("inf")) -> bool:
        """Go on until the end, or until so much time has passed; whether it is the end. Raises what a step raises."""
        end = self._clock() + patience_s
        while not self._result:
            try:
                if self._waited(min(max(0.0, end - self._clock()), _LONG_S)):
                    self._wait = next(self._waiting)
                elif self._clock() >= end:
                    return False
            except StopIteration as stop:
                self._result.append(stop.value)
        return True

    def _waited(self, seconds: float) -> bool:
        """Wait for what the steps wait for. What ends the wait is raised where they stand, so that they let go."""
        if self._wait is None:
            return True
        try:
            return self._wait.wait(seconds)
        except RouterError as reason:
            self._wait = self._waiting.throw(reason)
            return False

    @property
    def result(self) -> T:
        """What the steps came to."""
        return self._result[0]

    def notice(self) -> str:
        """What it waits for."""
        return "" if self._wait is None else self._wait.notice()

    def close(self) -> None:
        """Go no further; what the steps hold is let go."""
        self._waiting.close()


_LONG_S = 3600.0
"""Locks do not wait for infinity."""


Ask = Callable[[Candidate, Permit], Waiting[T]]
Held = tuple[float, Permit]
"""Since when a call is under way already, for the first candidate, and its pass."""

RETRIES = 2
_WORTH_WAITING = (None, Why.LIMITED, Why.BUSY)
"""Full, or told to come back: a backend that fails, or has no quota left, is passed over while others can answer."""
_TOLD_AS = {Why.LIMITED: (429, "rate_limit_exceeded"), Why.EXHAUSTED: (429, "insufficient_quota")}
GUESSES = 4
"""Waits of 1, 2, 4 and 8 s after a 429 that does not say how long to wait."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What all requests share: gates, budgets, patience (``queue_s`` to wait in queues, ``total_s`` for everything)."""

    limiter: ConcurrencyLimiter
    budget: RetryBudget
    backoff: Backoff
    metrics: ResilienceMetrics
    queue_s: float
    total_s: float
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random


class Dispatcher:
    """One request's."""

    def __init__(self, shared: RetryPolicy, record: RequestRecord, scope: CancelScope) -> None:
        self._shared = shared
        self._record = record
        self._scope = scope
        self._retries = 0
        self._guesses = 0
        self._turned_away = False
        self._waited_s = 0.0
        self._end = record.request.arrived_at + shared.total_s

    def first_success(self, candidates: Sequence[Candidate], ask: Ask[T], held: Held | None = None) -> Waiting[T]:
        """What ``ask`` makes of the first candidate that answers. Raises the first failure if none does, or what the
        request was aborted for.

        ``ask`` owns the pass that it is given, and raises UpstreamError; ``held`` is the first one.
        """
        left, failures = list(candidates), list[UpstreamError]()
        with ExitStack() as retrying:
            while left:
                if failures and self.left_s() <= 0:
                    raise failures[0]
                since, permit = held or (None, (yield from self._admitted(left, failures)))
                held, started = None, self._shared.clock() if since is None else since
                candidate = next(candidate for candidate in left if candidate.limiter_key == permit.backend)
                try:
                    return (yield from ask(candidate, permit))
                except UpstreamError as problem:
                    failures.append(problem)
                finally:
                    retrying.pop_all().close()
                left = yield from self._after(failures[-1], candidate, left, started, retrying)
        raise failures[0]

    def _after(
        self, problem: UpstreamError, candidate: Candidate, left: list[Candidate], started: float, retrying: ExitStack
    ) -> Waiting[list[Candidate]]:
        """Who is left to ask after a failure; a pause before a retry is spent here."""
        delay_s = self._again_in(problem, candidate, retrying)
        following = [] if not problem.recoverable else [other for other in left if other is not candidate]
        if delay_s is not None:
            self._record.failed(problem, started)
            self._record.retrying(candidate.backend.name, delay_s)
            log_lines.provider_failed(problem, f"asking it again in {delay_s:.1f} s")
            self._shared.metrics.retried(candidate.limiter_key)
            if not isinstance(problem, UpstreamLimited):
                self._record.phase = "backing off"
                yield TimedWait(self._scope, delay_s, f"{candidate.backend.name} failed", self._shared.clock)
            return left
        self._record.failed(problem, started)
        if following:
            self._record.fell_back(problem, following[0].backend.name)
            self._shared.metrics.fell_back(candidate.limiter_key, following[0].limiter_key)
        log_lines.provider_failed(
            problem, f"falling back to {following[0].backend.name}" if following else "no fallback left"
        )
        return following

    def _again_in(self, problem: UpstreamError, candidate: Candidate, retrying: ExitStack) -> float | None:
        """Seconds until the same backend is worth asking again; None if it is not.

        A 429 is waited for in the queue, as long as the budget for that allows; four times, where the backend does not
        say how long it will take.
        """
        if isinstance(problem, UpstreamLimited):
            return self._limited_for(problem, candidate)
        if not problem.transient or self._retries >= RETRIES:
            return None
        delay_s = problem.retry_after_s
        if delay_s is None:
            delay_s = self._shared.backoff.delay_s(self._retries + 1, self._shared.chance())
        if delay_s > self._patience_s() or not self._shared.budget.take():
            return None
        self._retries += 1
        retrying.callback(self._shared.budget.release)
        return delay_s

    def _limited_for(self, problem: UpstreamLimited, candidate: Candidate) -> float | None:
        closed_s, _ = self._shared.limiter.closed_for(candidate.limiter_key)
        if problem.retry_after_s is None:
            problem.retry_after_s = closed_s
            self._guesses += 1
        return closed_s if closed_s <= self._patience_s() > 0 and self._guesses <= GUESSES else None

    def _admitted(self, left: Sequence[Candidate], failures: Sequence[UpstreamError]) -> Waiting[Permit]:
        """A pass for one of the candidates. Raises the first failure, or UpstreamUnavailable, if none is to be had."""
        limiter = self._shared.limiter
        for candidate in left:
            permit = limiter.acquire([candidate.limiter_key])
            if permit is not None:
                return permit
            closed_s, why = limiter.closed_for(candidate.limiter_key)
            if why in _WORTH_WAITING and closed_s <= self._patience_s() > 0:
                permit = yield from self._queued([candidate.limiter_key])
                if permit is not None:
                    return permit
            if len(left) > 1:
                self._record.passed_over(candidate.backend.name, why or "all its places are taken")
        soon = [
            candidate.limiter_key
            for candidate in left
            if limiter.closed_for(candidate.limiter_key)[0] <= self._patience_s()
        ]
        permit = (yield from self._queued(soon)) if soon and not self._turned_away else None
        if permit is None:
            raise failures[0] if failures else self._unavailable(left)
        return permit

    def _queued(self, wanted: Sequence[str]) -> Waiting[Permit | None]:
        shared, started = self._shared, self._shared.clock()
        try:
            ticket = shared.limiter.queue(wanted, self._record.request.client)
        except QueueFull:
            shared.metrics.turned_away(wanted[0])
            self._turned_away = True
            return None
        self._record.phase = "queued"
        log_lines.queued(wanted, *ticket.estimate())
        waiting = QueueWait(self._scope, ticket, started + self._patience_s(), shared.clock)
        permit = None
        try:
            yield waiting
            permit = waiting.granted
            return permit
        finally:
            if permit is None:
                ticket.release()
            waited_s = shared.clock() - started
            self._waited_s += waited_s
            shared.metrics.waited(wanted[0], waited_s, admitted=permit is not None)
            self._record.waited(started, wanted, permit.backend if permit else None)

    def left_s(self) -> float:
        """What is left of the request's total time."""
        return max(0.0, self._end - self._shared.clock())

    def _patience_s(self) -> float:
        """How long this request may still wait in queues."""
        return max(0.0, min(self._shared.queue_s - self._waited_s, self.left_s()))

    def _unavailable(self, left: Sequence[Candidate]) -> UpstreamUnavailable:
        """Nobody was asked: say why, and when to come back."""
        closed = [(*self._shared.limiter.closed_for(candidate.limiter_key), candidate) for candidate in left]
        seconds, why, candidate = min(closed, key=lambda entry: entry[0])
        source = Source(candidate.backend.name, candidate.model)
        if why is None:
            return UpstreamUnavailable("all its places are taken, and too many wait already", source, retry_after_s=1.0)
        status, code = _TOLD_AS.get(why, (503, None))
        return UpstreamUnavailable(
            f"not asked, it is {why}; try again in {max(seconds, 1):.0f} s",
            source,
            status=status,
            code=code,
            retry_after_s=seconds,
        )
