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


class FutureWait:
    """Work under way on another thread, which ends by itself when the request's calls are aborted."""

    def __init__(self, future: Future[T], what: str) -> None:
        self._future = future
        self._what = what

    def wait(self, seconds: float) -> bool:
        wait_for([self._future], seconds)
        return self._future.done()

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
                if self._wait_once(min(max(0.0, end - self._clock()), _MAX_SINGLE_WAIT_S)):
                    self._wait = next(self._waiting)
                elif self._clock() >= end:
                    return False
            except StopIteration as stop:
                self._result.append(stop.value)
        return True

    def _wait_once(self, seconds: float) -> bool:
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


_MAX_SINGLE_WAIT_S = 3600.0
"""Locks do not wait for infinity."""


Ask = Callable[[Candidate, Permit], Waiting[T]]
BegunCall = tuple[float, Permit]
"""Since when a call is under way already, for the first candidate, and its pass."""

MAX_RETRIES = 2
_WORTH_WAITING = (None, Why.LIMITED, Why.BUSY)
"""Full, or told to come back: a backend that fails, or has no quota left, is passed over while others can answer."""
_STATUS_AND_CODE = {Why.LIMITED: (429, "rate_limit_exceeded"), Why.EXHAUSTED: (429, "insufficient_quota")}
MAX_GUESSED_WAITS = 4
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
    random_source: Callable[[], float] = random.random


class Dispatcher:
    """One request's."""

    def __init__(self, policy: RetryPolicy, record: RequestRecord, scope: CancelScope) -> None:
        self._policy = policy
        self._record = record
        self._scope = scope
        self._retries = 0
        self._guessed_waits = 0
        self._queue_was_full = False
        self._waited_s = 0.0
        self._end = record.request.arrived_at + policy.total_s

    def first_success(self, candidates: Sequence[Candidate], ask: Ask[T], begun: BegunCall | None = None) -> Waiting[T]:
        """What ``ask`` makes of the first candidate that answers. Raises the first failure if none does, or what the
        request was aborted for.

        ``ask`` owns the pass that it is given, and raises UpstreamError; ``begun`` is the first one.
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
        raise failures[0]

    def _candidates_after(
        self, problem: UpstreamError, candidate: Candidate, remaining: list[Candidate], started: float, retry: ExitStack
    ) -> Waiting[list[Candidate]]:
        """Who is left to ask after a failure; a pause before a retry is spent here."""
        delay_s = self._retry_delay_s(problem, candidate, retry)
        others = [] if not problem.recoverable else [other for other in remaining if other is not candidate]
        self._record.failed(problem, started)
        if delay_s is not None:
            self._record.retrying(candidate.backend.name, delay_s)
            log_lines.provider_failed(problem, f"asking it again in {delay_s:.1f} s")
            self._policy.metrics.retried(candidate.limiter_key)
            if not isinstance(problem, UpstreamLimited):
                self._record.phase = "backing off"
                yield TimedWait(self._scope, delay_s, f"{candidate.backend.name} failed", self._policy.clock)
            return remaining
        if others:
            self._record.fell_back(problem, others[0].backend.name)
            self._policy.metrics.fell_back(candidate.limiter_key, others[0].limiter_key)
        log_lines.provider_failed(
            problem, f"falling back to {others[0].backend.name}" if others else "no fallback left"
        )
        return others

    def _retry_delay_s(self, problem: UpstreamError, candidate: Candidate, retry: ExitStack) -> float | None:
        """Seconds until the same backend is worth asking again; None if it is not.

        A 429 is waited for in the queue, as long as the budget for that allows; four times, where the backend does not
        say how long it will take.
        """
        if isinstance(problem, UpstreamLimited):
            return self._delay_after_limit_s(problem, candidate)
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
        """A pass for one of the candidates. Raises the first failure, or UpstreamUnavailable, if none is to be had."""
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
            raise failures[0] if failures else self._unavailable(remaining)
        return permit

    def _permit_from_queue(self, wanted: Sequence[str]) -> Waiting[Permit | None]:
        policy, started = self._policy, self._policy.clock()
        try:
            ticket = policy.limiter.queue(wanted, self._record.request.client)
        except QueueFull:
            policy.metrics.turned_away(wanted[0])
            self._queue_was_full = True
            return None
        self._record.phase = "queued"
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
        """What is left of the request's total time."""
        return max(0.0, self._end - self._policy.clock())

    def _max_wait_s(self) -> float:
        """How long this request may still wait in queues."""
        return max(0.0, min(self._policy.queue_s - self._waited_s, self.left_s()))

    def _unavailable(self, remaining: Sequence[Candidate]) -> UpstreamUnavailable:
        """Nobody was asked: say why, and when to come back."""
        blocked = [(*self._policy.limiter.blocked_for(candidate.limiter_key), candidate) for candidate in remaining]
        seconds, why, candidate = min(blocked, key=lambda entry: entry[0])
        source = Source(candidate.backend.name, candidate.model)
        if why is None:
            return UpstreamUnavailable("all its places are taken, and too many wait already", source, retry_after_s=1.0)
        status, code = _STATUS_AND_CODE.get(why, (503, None))
        return UpstreamUnavailable(
            f"not asked, it is {why}; try again in {max(seconds, 1):.0f} s",
            source,
            status=status,
            code=code,
            retry_after_s=seconds,
        )
