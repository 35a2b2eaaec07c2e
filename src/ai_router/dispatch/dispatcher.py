"""Trying candidates until one answers: permits, the queue, retries and fallbacks.

Each wait is a value: the code that finds an answer is a generator that yields ``Wait``s, and a ``WaitDriver`` runs it
(docs/decisions/0014). A plain request just waits. A streamed one sends its headers after a moment, then a comment every
few seconds, and goes on with the same generator. An abort of the request ends every wait.

The rules, while the client has not got a byte and the request's deadline allows (docs/decisions/0015):

- For a backend at its cap, or in a cooldown after a 429, the request waits in the queue, within its queue budget. How
  a Retry-After becomes that wait: ``error_from_response`` (providers/errors.py) reads it, ``record_result``
  (resilience/retry.py) reports it to the permit, ``ConcurrencyLimiter.limit`` begins the cooldown, and
  ``_permit_from_queue`` (below) waits, at most ``_max_wait_s``. A stream's client gets ``QueueWait.notice``.
- A failure of the backend's own (5xx) is retried twice, after a pause, if the retry budget of all requests agrees.
- After an error that is not the backend's (_ASKED_ANEW) it is asked once more, at once, if nobody else can be asked.
  One that does not speak the client's API is asked again in its own, whoever else there is.
- After any other failure the next candidate is asked at once. If the request itself is refused, none is.
- A backend whose breaker is open is skipped. If all are open, the request waits for the first to let calls through.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ai_router.dispatch.nobody_asked import nobody_asked
from ai_router.dispatch.record import RequestRecord
from ai_router.errors import (
    ApiNotSpoken,
    IdleConnectionSilent,
    RaisedLimitRefused,
    RouterError,
    UpstreamError,
    UpstreamLimited,
)
from ai_router.http.calls import CancelScope
from ai_router.observability import log_lines
from ai_router.observability.metrics import ResilienceMetrics
from ai_router.providers.registry import Candidate
from ai_router.resilience.breaker import Backoff, Why
from ai_router.resilience.limiter import ConcurrencyLimiter, Permit, QueueTicket
from ai_router.resilience.queue_ticket import QueueFull
from ai_router.resilience.retry import RetryBudget

T = TypeVar("T")


class Wait(Protocol):
    """Something to wait for."""

    def wait(self, seconds: float) -> bool:
        """Wait, at most ``seconds``. Returns whether the wait is over. Raises the reason if the request was aborted."""

    def notice(self) -> str:
        """A few words for the client, sent as an SSE comment."""


Waiting = Generator[Wait, None, T]
"""A generator that yields waits and returns a T."""


class TimedWait:
    """A pause of ``seconds`` before a retry; ``what`` says why."""

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
    """The wait for the permit of a queue ticket, until ``end`` at the latest, in seconds of ``clock``."""

    def __init__(self, scope: CancelScope, ticket: QueueTicket, end: float, clock: Callable[[], float]) -> None:
        self._scope = scope
        self._ticket = ticket
        self._end = end
        self._clock = clock
        self.permit: Permit | None = None

    def wait(self, seconds: float) -> bool:
        end = min(self._end, self._clock() + seconds)
        with self._scope.on_abort(self._ticket.wake):
            while self.permit is None and self._scope.reason is None and (left_s := end - self._clock()) > 0:
                self.permit = self._ticket.wait(left_s)
        self._scope.raise_if_aborted()
        return self.permit is not None or self._clock() >= self._end

    def notice(self) -> str:
        position, expected_s = self._ticket.estimate()
        return f"waiting for {' or '.join(self._ticket.wanted)}: position {position}, about {expected_s:.0f} s"


class WaitDriver(Generic[T]):
    """Runs a generator of waits, in one go or in parts."""

    def __init__(self, waiting: Waiting[T], clock: Callable[[], float] = time.monotonic) -> None:
        self._waiting = waiting
        self._clock = clock
        self._wait: Wait | None = None
        self._result: list[T] = []

    def run_for(self, limit_s: float = float("inf")) -> bool:
        """Run for at most ``limit_s``; whether there is a ``result`` now. Raises what the generator raises."""
        end = self._clock() + limit_s
        while not self._result:
            try:
                if self._wait_once(min(max(0.0, end - self._clock()), _MAX_SINGLE_WAIT_S)):
                    self._wait = next(self._waiting)
                elif self._clock() >= end:
                    return False
            except StopIteration as stop:
                self._result.append(stop.value)
        return True

    def _wait_once(self, seconds: float) -> bool:
        """Wait for the present wait. An error of it is raised inside the generator, which releases what it holds."""
        if self._wait is None:
            return True
        try:
            return self._wait.wait(seconds)
        except RouterError as reason:
            self._wait = self._waiting.throw(reason)
            return False

    @property
    def result(self) -> T:
        """What the generator returned."""
        return self._result[0]

    def notice(self) -> str:
        """The notice of the present wait; empty if there is none."""
        return "" if self._wait is None else self._wait.notice()

    def close(self) -> None:
        """Close the generator, which releases tickets and permits."""
        self._waiting.close()


_MAX_SINGLE_WAIT_S = 3600.0
"""Locks cannot wait for an infinite time."""


Ask = Callable[[Candidate, Permit], Waiting[T]]
"""Makes one call of a candidate; it owns the permit. Raises UpstreamError."""
BegunCall = tuple[float, Permit]
"""A call of the first candidate that is under way already: its start, in monotonic seconds, and its permit."""

MAX_RETRIES = 2
_ASKED_ANEW = (IdleConnectionSilent, RaisedLimitRefused)
"""Errors that are not the backend's: it is asked once more, at once, on a new connection, or without a raised limit."""
_WORTH_WAITING = (None, Why.LIMITED, Why.BUSY)
"""Full (None), or limited for a known time. A backend that fails or has no quota left is skipped instead."""
MAX_GUESSED_WAITS = 4
"""How often a request waits after a 429 without a Retry-After: for the backend's cooldown, about 1, 2, 4 and 8 s."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What all requests share. ``queue_s``: the longest wait in queues; ``total_s``: the limit for a whole request."""

    limiter: ConcurrencyLimiter
    budget: RetryBudget
    backoff: Backoff
    metrics: ResilienceMetrics
    queue_s: float
    total_s: float
    clock: Callable[[], float] = time.monotonic
    random_source: Callable[[], float] = random.random


class Dispatcher:
    """Finds the answer of one request among its candidates."""

    def __init__(self, policy: RetryPolicy, record: RequestRecord, scope: CancelScope) -> None:
        self._policy = policy
        self._record = record
        self._scope = scope
        self._retries = 0
        self._guessed_waits = 0
        self._asked_anew = False
        self._queue_was_full = False
        self._waited_s = 0.0
        self._end = record.request.arrived_at + policy.total_s

    def first_success(self, candidates: Sequence[Candidate], ask: Ask[T], begun: BegunCall | None = None) -> Waiting[T]:
        """The result of ``ask`` for the first candidate that answers. ``begun``: its first call, if that was made.

        Raises the first failure if no candidate answers, or the reason for which the request was aborted.
        """
        remaining, failures = list(candidates), list[UpstreamError]()
        with ExitStack() as retry:
            while remaining:
                if failures and self.left_s() <= 0:
                    raise failures[0]
                since, permit = begun or (None, (yield from self._permit_for_one_of(remaining, failures)))
                begun, started = None, self._policy.clock() if since is None else since
                candidate = next(candidate for candidate in remaining if candidate.limiter_key == permit.backend)
                try:
                    return (yield from ask(candidate, permit))
                except UpstreamError as problem:
                    failures.append(problem)
                finally:
                    retry.pop_all().close()
                remaining = yield from self._candidates_after(failures[-1], candidate, remaining, started, retry)
                if isinstance(failures[-1], ApiNotSpoken):
                    failures.pop()
        raise failures[0]

    def _candidates_after(
        self, problem: UpstreamError, candidate: Candidate, remaining: list[Candidate], started: float, retry: ExitStack
    ) -> Waiting[list[Candidate]]:
        """Record a failure, and pause before a retry. Returns the candidates to ask next, best first."""
        others = [other for other in remaining if other is not candidate and problem.recoverable]
        delay_s = self._retry_delay_s(problem, candidate, retry, alone=not others)
        self._record.failed(problem, started)
        told = self._record.kept_detail(problem)
        if delay_s is not None:
            self._record.retrying(candidate.backend.name, delay_s)
            log_lines.provider_failed(problem.source.backend, told, f"asking it again in {delay_s:.1f} s")
            self._policy.metrics.retried(candidate.limiter_key)
            if not isinstance(problem, (UpstreamLimited, ApiNotSpoken, *_ASKED_ANEW)):
                self._record.phase = "backing off"
                yield TimedWait(self._scope, delay_s, f"{candidate.backend.name} failed", self._policy.clock)
            return remaining
        if others:
            self._record.fell_back(problem, others[0].backend.name)
            self._policy.metrics.fell_back(candidate.limiter_key, others[0].limiter_key)
        log_lines.provider_failed(
            problem.source.backend, told, f"falling back to {others[0].backend.name}" if others else "no fallback left"
        )
        return others

    def _retry_delay_s(
        self, problem: UpstreamError, candidate: Candidate, retry: ExitStack, *, alone: bool
    ) -> float | None:
        """Seconds until the same backend is asked again; None: it is not.

        ``alone``: whether there is nobody else to ask. ``retry`` gets the release of the retry budget. After a 429 the
        request waits in the queue, within its queue budget, and at most MAX_GUESSED_WAITS times if the backend does
        not say for how long.
        """
        if isinstance(problem, UpstreamLimited):
            return self._delay_after_limit_s(problem, candidate)
        if isinstance(problem, ApiNotSpoken):
            return 0.0
        if isinstance(problem, _ASKED_ANEW):
            asked_anew, self._asked_anew = self._asked_anew, True
            return 0.0 if alone and not asked_anew else None
        if not problem.transient or self._retries >= MAX_RETRIES:
            return None
        delay_s = problem.retry_after_s
        if delay_s is None:
            delay_s = self._policy.backoff.delay_s(self._retries + 1, self._policy.random_source())
        if delay_s > self._max_wait_s() or not self._policy.budget.acquire():
            return None
        self._retries += 1
        retry.callback(self._policy.budget.release)
        return delay_s

    def _delay_after_limit_s(self, problem: UpstreamLimited, candidate: Candidate) -> float | None:
        blocked_s, _ = self._policy.limiter.blocked_for(candidate.limiter_key)
        if problem.retry_after_s is None:
            problem.retry_after_s = blocked_s
            self._guessed_waits += 1
        return blocked_s if blocked_s <= self._max_wait_s() > 0 and self._guessed_waits <= MAX_GUESSED_WAITS else None

    def _permit_for_one_of(self, remaining: Sequence[Candidate], failures: Sequence[UpstreamError]) -> Waiting[Permit]:
        """A permit of one of the candidates. Raises the first failure, or UpstreamUnavailable, if there is none."""
        limiter = self._policy.limiter
        for candidate in remaining:
            permit = limiter.acquire([candidate.limiter_key])
            if permit is not None:
                return permit
            blocked_s, why = limiter.blocked_for(candidate.limiter_key)
            if why in _WORTH_WAITING and blocked_s <= self._max_wait_s() > 0:
                permit = yield from self._permit_from_queue([candidate.limiter_key])
                if permit is not None:
                    return permit
            if len(remaining) > 1:
                self._record.passed_over(candidate.backend.name, why or "all its places are taken")
        available = [
            candidate.limiter_key
            for candidate in remaining
            if limiter.blocked_for(candidate.limiter_key)[0] <= self._max_wait_s()
        ]
        permit = (yield from self._permit_from_queue(available)) if available and not self._queue_was_full else None
        if permit is None:
            raise failures[0] if failures else nobody_asked(limiter, remaining)
        return permit

    def permit_at_once(self, candidates: Sequence[Candidate]) -> tuple[Candidate, Permit] | None:
        """The first candidate that can be asked this moment, with a permit; None: there is none."""
        for candidate in candidates:
            if (permit := self._policy.limiter.acquire([candidate.limiter_key])) is not None:
                return candidate, permit
        return None

    def _permit_from_queue(self, wanted: Sequence[str]) -> Waiting[Permit | None]:
        policy, started = self._policy, self._policy.clock()
        try:
            ticket = policy.limiter.queue(wanted, self._record.request.client)
        except QueueFull:
            policy.metrics.turned_away(wanted[0])
            self._queue_was_full = True
            return None
        self._record.queued(ticket)
        log_lines.queued(wanted, *ticket.estimate())
        waiting = QueueWait(self._scope, ticket, started + self._max_wait_s(), policy.clock)
        permit = None
        try:
            yield waiting
            permit = waiting.permit
            return permit
        finally:
            if permit is None:
                ticket.release()
            waited_s = policy.clock() - started
            self._waited_s += waited_s
            policy.metrics.waited(wanted[0], waited_s, admitted=permit is not None)
            self._record.waited(started, wanted, permit.backend if permit else None)

    def left_s(self) -> float:
        """Seconds that are left of the request's total time."""
        return max(0.0, self._end - self._policy.clock())

    def _max_wait_s(self) -> float:
        """Seconds that the request may still wait in queues."""
        return max(0.0, min(self._policy.queue_s - self._waited_s, self.left_s()))
