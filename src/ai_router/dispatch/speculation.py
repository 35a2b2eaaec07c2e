"""Speculation: calling the primary while the classifier is still being asked.

If the decision leads to the primary with the same messages (ENRICH changes them), the call is the answer: it is read
whole, or up to its first event, while the rest waits in the socket's buffer. If not, pipeline.py gives it up
(``give_up_speculation``) and ``SpeculativeCall.abort`` shuts its socket at once; the client has got no byte of it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from ai_router.config import SpeculationMode
from ai_router.dispatch.answer import Answer
from ai_router.dispatch.beginning import Beginning
from ai_router.errors import RouterError, ShuttingDown, SpeculationLost, UpstreamError
from ai_router.http.calls import Timeouts, UpstreamCall, UpstreamRequest
from ai_router.http.session import BackendSession
from ai_router.observability.metrics import RoutingMetrics
from ai_router.providers.catalogue import PRIMARY
from ai_router.providers.registry import Backend
from ai_router.resilience.limiter import ConcurrencyLimiter, Permit
from ai_router.routing.head.model import Guess
from ai_router.types import Attempt, Cost, Label, Outcome, SpeculationResult, Status


class SpeculativeCall:
    """One speculative call. It begins, on a thread of ``executor``, when this is made. Raises ShuttingDown."""

    def __init__(
        self, executor: Executor, forward: Callable[[UpstreamCall, Permit], Answer], call: UpstreamCall, permit: Permit
    ) -> None:
        self.started = time.monotonic()
        self.permit = permit
        self._call = call
        self._ended: float | None = None
        try:
            self._answer: Future[Answer] = executor.submit(forward, call, permit)
        except RuntimeError:  # the executor is shut down: the router is stopping
            permit.release()
            raise ShuttingDown("the router is being stopped") from None
        self._answer.add_done_callback(self._note_end)

    def confirm(self) -> Answer:
        """Wait for the answer and take it. Raises what the call raised, a RouterError."""
        return self._answer.result()

    def beginning(self, chars: int) -> Beginning | None:
        """What its answer says until now, without waiting for more: so many characters at least, if they have come.
        None: it has none yet, or it has failed."""
        if not self._answer.done() or self._answer.exception() is not None:
            return None
        return self._answer.result().catch_up(chars)

    def age_ms(self) -> float:
        """Milliseconds since its start; until its failure, if it has failed; a stream that runs counts until now."""
        failed = self._ended is not None and self._answer.done() and self._answer.exception() is not None
        return ((self._ended if failed and self._ended else time.monotonic()) - self.started) * 1000

    def _note_end(self, _: Future[Answer]) -> None:
        self._ended = time.monotonic()

    def abort(self) -> None:
        """Abort the call, which is not used. Returns at once."""
        self._call.abort(SpeculationLost("another route was decided"))
        self._answer.add_done_callback(_close_unused)


def _close_unused(answer: Future[Answer]) -> None:
    """Close an answer that came too late to be aborted. A RouterError is of no interest here."""
    problem = answer.exception()
    if problem is None:
        answer.result().close()
    elif not isinstance(problem, RouterError):
        raise problem


UNLIKELY = 0.25
"""Below this probability of MODERATE at least three of four speculative calls would be aborted."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """How busy the primary is. ``waiting``: requests in its own queue; None: unknown. ``budget_left_s``: seconds of
    wasted work that the budget allows. ``in_memory``: whether its model is; None: unknown. Whether a slot is free is
    checked when the permit is acquired."""

    waiting: int | None
    budget_left_s: float
    in_memory: bool | None = None


def why_not(mode: SpeculationMode, guess: Guess | None, pressure: Pressure) -> str | None:
    """Why not to speculate, as one word for metrics; None: speculate. ``guess``: of the classification head."""
    if mode is SpeculationMode.OFF:
        return "off"
    if mode is SpeculationMode.ALWAYS:
        return None
    if guess is not None and guess.probabilities[Label.MODERATE] < UNLIKELY:
        return "unlikely"
    if pressure.in_memory is False:
        return "unloaded"
    if pressure.waiting:
        return "saturated"
    if pressure.budget_left_s <= 0:
        return "budget"
    return None


class Budget:
    """A budget for the primary's time in lost speculations: ``per_minute`` seconds, refilled continuously.

    A call that is under way when it runs out overdraws it. Each of ``processes`` has its part of it. Safe from any
    thread.
    """

    def __init__(
        self,
        per_minute: float,
        clock: Callable[[], float] = time.monotonic,
        processes: Callable[[], int] = lambda: 1,
    ) -> None:
        self._per_minute = per_minute
        self._processes = processes
        self._clock = clock
        self._left = per_minute
        self._counted_at = clock()
        self._lock = threading.Lock()

    def change(self, per_minute: float) -> None:
        """Another budget from now on."""
        with self._lock:
            self._refill()
            self._per_minute, self._left = per_minute, min(self._left, per_minute)

    def left_s(self) -> float:
        """Seconds that are left now; negative if overdrawn."""
        with self._lock:
            self._refill()
            return self._left

    def spend(self, seconds: float) -> None:
        """A lost call has taken ``seconds``."""
        with self._lock:
            self._refill()
            self._left -= seconds

    def _refill(self) -> None:
        now, per_minute = self._clock(), self._per_minute / self._processes()
        self._left = min(per_minute, self._left + (now - self._counted_at) * per_minute / 60)
        self._counted_at = now


class SpeculationController:
    """Decides whether to speculate, and counts the results. ``slots``: how many requests the primary serves at once, of
    which each of ``processes`` has its part."""

    def __init__(
        self,
        mode: SpeculationMode,
        load: PrimaryLoad,
        limiter: ConcurrencyLimiter,
        budget: Budget,
        metrics: RoutingMetrics,
        *,
        slots: int,
        processes: Callable[[], int] = lambda: 1,
    ) -> None:
        self._mode = mode
        self._limiter = limiter
        self._load = load
        self.budget = budget
        self._metrics = metrics
        self.slots = slots
        self._processes = processes
        self.result_without_call = SpeculationResult.OFF if mode is SpeculationMode.OFF else SpeculationResult.SKIPPED
        """What to report for a request without a speculative call."""

    def permit_for(self, guess: Guess | None, in_memory: bool | None = None) -> Permit | None:
        """A permit for a speculative call of the primary; None: do not speculate. ``in_memory``: as of Pressure."""
        self._load.keep_polling()
        pressure = Pressure(self._load.waiting, self.budget.left_s(), in_memory)
        why = why_not(self._mode, guess, pressure)
        permit = None
        if why is None:
            slots = None if self._mode is SpeculationMode.ALWAYS else max(1, self.slots // self._processes())
            permit = self._limiter.acquire([PRIMARY], below=slots)
            why = None if permit else "saturated"
        if why is not None:
            self._metrics.not_speculated(why)
        return permit

    def won(self, ahead_ms: float, attempt: Attempt) -> None:
        """The call is the answer. It began ``ahead_ms`` earlier than without speculation.

        The saved time is at most the time until the answer began: an answer that was there earlier had to wait for the
        decision.
        """
        until_answer_ms = attempt.duration_ms if attempt.ttft_ms is None else attempt.ttft_ms
        written_ms = max(ahead_ms - until_answer_ms, 0.0) if attempt.ttft_ms is not None else 0.0
        tokens = self._load.tokens_in(written_ms / 1000)
        self._metrics.speculated(SpeculationResult.HIT, min(ahead_ms, until_answer_ms), tokens)

    def lost(self, took_ms: float) -> None:
        """The call was aborted, or failed, after ``took_ms``."""
        self.budget.spend(took_ms / 1000)
        self._metrics.speculated(SpeculationResult.CANCELLED, took_ms, self._load.tokens_in(took_ms / 1000))


POLL_S = 1.0
_STOP_AFTER_S = 10.0
"""Polling stops when ``keep_polling`` has not been called for so long."""
_NO_GAUGE_POLL_S = 60.0
"""The pause between two polls of a primary without such a gauge."""
_TIMEOUT_S = 2.0
_MAX_BODY_BYTES = 4 << 20
_NEWEST_WEIGHT = 0.2
"""The weight of the newest answer in the moving average of tokens per second."""
_WAITING_GAUGE = re.compile(
    rb"^(?:vllm:num_requests_waiting|llamacpp:requests_deferred)(?:\{.*\})?\s+(\d+)(?:\.0*)?\s*$", re.M
)
"""The gauges of vLLM 0.33 (one line for each engine) and of llama.cpp's server."""


def waiting_in(metrics: bytes) -> int | None:
    """The requests in a backend's queue, from its Prometheus text; None: it has no such gauge."""
    found = _WAITING_GAUGE.findall(metrics)
    return sum(map(int, found)) if found else None


class PrimaryLoad:
    """How busy and how fast the primary is: polls its GET /metrics every POLL_S while decisions depend on it.

    Polls on a thread of its own, from ``start`` to ``close``. Safe from any thread.
    """

    def __init__(self, session: BackendSession, primary: Backend, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._primary = primary
        self._clock = clock
        self._tokens_per_s = 0.0
        self._needed_at = float("-inf")
        self._polling = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="primary-load", daemon=True)
        self.waiting: int | None = None
        """Requests in the primary's own queue, about a second ago; None if unknown: not polled, or no such gauge."""

    def keep_polling(self) -> None:
        """Poll for the next 10 seconds: a decision depends on the load."""
        self._needed_at = self._clock()
        if not self._polling.is_set():
            self._polling.set()

    def finished(self, outcome: Outcome, _cost: Cost | None = None) -> None:
        """Add the speed of an answer of the primary to the average. A sink of the recorder."""
        usage, last = outcome.usage or {}, outcome.attempts[-1] if outcome.attempts else None
        tokens = usage.get("completion_tokens")
        if outcome.status is not Status.OK or last is None or last.backend != self._primary.name:
            return
        writing_s = (last.duration_ms - (last.ttft_ms or 0)) / 1000
        if isinstance(tokens, int) and tokens > 1 and writing_s > 0:
            tokens_per_s, before = tokens / writing_s, self._tokens_per_s
            self._tokens_per_s = before + _NEWEST_WEIGHT * (tokens_per_s - before) if before else tokens_per_s

    def tokens_in(self, seconds: float) -> int:
        """About how many tokens the primary writes in ``seconds``; 0 before its first answer."""
        return round(max(seconds, 0.0) * self._tokens_per_s)

    def start(self) -> None:
        """Start the thread, which waits for the first ``keep_polling``."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stopped.set()
        self._polling.set()

    def _poll(self) -> None:
        while True:
            self._polling.wait()
            if self._stopped.is_set():
                return
            if self._clock() - self._needed_at > _STOP_AFTER_S:
                self._polling.clear()
                self.waiting = None
                continue
            try:
                self.waiting = self._read_gauge()
            except UpstreamError:
                # Too busy to answer, or down: keep the last value, and poll again soon.
                self._stopped.wait(POLL_S)
            else:
                self._stopped.wait(POLL_S if self.waiting is not None else _NO_GAUGE_POLL_S)

    def _read_gauge(self) -> int | None:
        upstream_request = UpstreamRequest(
            source=self._primary.source,
            method="GET",
            url=f"{self._primary.base_url}/metrics",
            timeouts=Timeouts(connect=_TIMEOUT_S, total=_TIMEOUT_S, idle=_TIMEOUT_S),
            headers=self._primary.headers,
            secret=self._primary.key,
        )
        response = self._session.fetch(upstream_request, _MAX_BODY_BYTES)
        return waiting_in(response.body) if response.status == 200 else None
