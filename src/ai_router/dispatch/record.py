"""The request record: what has happened to one request. It becomes an Outcome, once, when the response closes."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ai_router.apis import Payload
from ai_router.config import SessionBodies
from ai_router.errors import Aborted, ClientGone, RouterError, UpstreamError
from ai_router.http.calls import CancelScope
from ai_router.keys.admission import Admitting
from ai_router.observability.redaction import kept_detail, kept_error
from ai_router.resilience.limiter import QueueTicket
from ai_router.types import (
    Attempt,
    ChatRequest,
    DecidedBy,
    Decision,
    Outcome,
    SpeculationResult,
    Status,
    Step,
)

Subscriber = Callable[[Outcome], None]
"""Takes each Outcome, on the thread that closes the response."""

UNROUTED = "none"
"""The route of a request that ended before one was decided."""

_PART_OF_PHASE = {
    "deciding": "decide",
    "searching": "enrichment",
    "queued": "queue",
    "backing off": "backoff",
    "asking": "ask",
    "streaming": "stream",
}
"""The phases of a request, and the name of their time in Outcome.parts."""


class RequestRecord:
    """Collects what happens to one request. ``close`` makes the Outcome and hands it to the subscribers, once.

    ``scope`` has the request's calls. ``scrub`` takes known keys out of a text. ``bodies``: what may be kept of errors
    that quote. Moments (``started``) are monotonic seconds. Steps, attempts, ``close`` are safe from any thread."""

    def __init__(
        self,
        request: ChatRequest,
        subscribers: Sequence[Subscriber],
        scope: CancelScope | None = None,
        scrub: Callable[[str], str] = str,
        bodies: SessionBodies = SessionBodies.FULL,
    ) -> None:
        self.request = request
        self.scrub = scrub
        self._bodies = bodies
        self._scope = scope or CancelScope()
        self._phase = "deciding"
        self._phase_began_at = time.monotonic()
        self._parts: dict[str, float] = {"receive": (self._phase_began_at - request.arrived_at) * 1000}
        self.route = UNROUTED
        self.decision: Decision | None = None
        self.speculation = SpeculationResult.SKIPPED
        self.model: str | None = None
        self.ticket: QueueTicket | None = None
        """Its place in the queue, while it is ``queued``."""
        self.admitting: Admitting | None = None
        """What the limits and budgets of its key say of it; None: it has none."""
        self.events_unread = 0
        """How many events of the answer were not valid JSON."""
        self.client_answer: Payload | None = None
        """The answer in the form of the client's API; None: that is chat completions, or there is none."""
        self._speculative = False
        self._accepted_call_ms: tuple[float, float] | None = None
        self._response: Mapping[str, Any] | None = None
        self._usage: Mapping[str, Any] | None = None
        self._search: tuple[int, Mapping[str, Any]] | None = None
        self._notes: list[str] = []
        self._warnings: Sequence[str] = ()
        self._not_as_named: str | None = None
        self.steps: list[Step] = []
        self._attempts: list[Attempt] = []
        self._timings: dict[str, float] = {}
        self._error: RouterError | None = None
        self._complete = False
        self.subscribers = list(subscribers)
        self._lock = threading.Lock()
        self._closed = False

    def ms(self, moment: float | None = None) -> float:
        """Milliseconds from the request's arrival to ``moment`` (None: now)."""
        return ((time.monotonic() if moment is None else moment) - self.request.arrived_at) * 1000

    @property
    def phase(self) -> str:
        """What the request is doing: a key of _PART_OF_PHASE. Setting it ends the time of the phase before."""
        return self._phase

    @phase.setter
    def phase(self, phase: str) -> None:
        now, part = time.monotonic(), _PART_OF_PHASE[self._phase]
        self._parts[part] = self._parts.get(part, 0.0) + (now - self._phase_began_at) * 1000
        self._phase, self._phase_began_at = phase, now

    @property
    def parts(self) -> Mapping[str, float]:
        """Milliseconds by what they were spent on, each counted once, until the beginning of the present phase.

        ``connect`` and ``ttft`` are those of the answering call, as far as the client waited for them (a speculative
        call had begun before). ``failed`` is the time of the calls before it.
        """
        parts = dict(self._parts)
        if "classification_ms" in self._timings:
            parts["classify"] = min(self._timings["classification_ms"], parts.get("decide", 0.0))
            parts["decide"] = parts.get("decide", 0.0) - parts["classify"]
        if (asked_ms := parts.pop("ask", None)) is not None:
            parts |= self._ask_parts(asked_ms)
        return parts

    def _ask_parts(self, asked_ms: float) -> dict[str, float]:
        """The parts of ``asked_ms``, the time in which backends were asked, until the answer began."""
        if self._accepted_call_ms is None:
            return {"failed": asked_ms}
        connect, whole = self._accepted_call_ms
        if self._speculative:
            return {"ttft": asked_ms}
        ttft = min(asked_ms, whole - connect)
        if not any(attempt.call_number is None for attempt in self._attempts):
            return {"connect": asked_ms - ttft, "ttft": ttft}
        connect = min(asked_ms - ttft, connect)
        return {"connect": connect, "ttft": ttft, "failed": asked_ms - ttft - connect}

    @property
    def ending(self) -> bool:
        """Whether the answer is complete or has failed, so that only its closing is left."""
        return self._complete or self._error is not None

    @property
    def reason(self) -> str:
        """The decision's reason, and notes of what happened after it, which may quote backends: without keys."""
        decided = self.decision.reason if self.decision else ""
        return self.scrub("; ".join(part for part in (decided, *self._notes) if part)) if self._notes else decided

    @property
    def warning(self) -> str:
        """What the client should know of the model that it named, and of its fields; empty: nothing."""
        of_model = [self.decision.warning, self._not_as_named] if self.decision else []
        return "; ".join(warning for warning in (*of_model, *self.request.warnings, *self._warnings) if warning)

    @property
    def timings(self) -> Mapping[str, float]:
        """The measured times until now, in milliseconds."""
        return self._timings

    def measure(self, name: str, duration_ms: float) -> None:
        """Record a time, under its name in logs and session files (``ttft_ms``...). The first value of a name stays."""
        self._timings.setdefault(name, duration_ms)

    def kept_detail(self, problem: UpstreamError) -> str:
        """What the log may tell of a backend's error, without the backend's name."""
        return kept_detail(problem, self._bodies)

    def kept_error(self, problem: UpstreamError) -> str:
        """The same with it."""
        return kept_error(problem, self._bodies)

    def classified(self, decision: Decision, started: float) -> None:
        """The classifier was asked at ``started``, and this is its decision."""
        self.measure("classification_ms", decision.duration_ms or 0.0)
        detail = {
            name: getattr(decision, name) for name in ("label", "decided_by", "confidence", "finish_reason", "failure")
        }
        self._step("classification", started, detail)

    def decided(self, decision: Decision, *, route: str, model: str, note: str | None) -> None:
        """The decision, with the route and the model that were planned for it. ``note``: why they differ from it."""
        self.decision = decision
        self.route = route
        self.model = model
        self.measure("decide_ms", (time.monotonic() - self._phase_began_at) * 1000)
        if note:
            self._notes.append(note)
            self._not_as_named = note if decision.decided_by is DecidedBy.EXPLICIT else None

    def speculated(self, result: SpeculationResult, started: float, decided_at: float, why: str) -> None:
        """The speculative call, begun at ``started``, was used (HIT), or aborted, or has failed (both CANCELLED), as
        ``why`` says. The decision was made at ``decided_at``."""
        self.speculation = result
        self.measure("speculate_ms", self.ms() - self.ms(started))
        self._step("speculation", started, {"result": result, "why": why, "decided_ms": round(self.ms(decided_at), 1)})

    def enriched(
        self,
        started: float,
        context: str | None,
        problem: UpstreamError | None = None,
        search: tuple[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """The web was searched, with ``context`` or ``problem`` as the result. ``search``: the number of the call, and
        the usage that it reported."""
        self._search = search
        self.measure("enrichment_ms", self.ms() - self.ms(started))
        why = None if problem is None else self.kept_detail(problem)
        self._step("enrichment", started, {"chars": len(context or ""), "context": context, "error": why})
        if why:
            self._notes.append(f"the web context is missing ({why})")

    def failed(self, problem: UpstreamError, started: float) -> None:
        """A call of a backend, begun at ``started``, failed."""
        self.add_attempt(
            Attempt(
                backend=problem.source.backend,
                model=problem.source.model,
                started_ms=self.ms(started),
                duration_ms=self.ms() - self.ms(started),
                stream=self.request.stream,
                error=self.kept_detail(problem),
                error_code=problem.code,
            )
        )

    def fell_back(self, problem: UpstreamError, to: str) -> None:
        """A backend failed with ``problem``, and the backend ``to`` is asked instead."""
        self._notes.append(f"{problem.source.backend} failed ({self.kept_detail(problem)}), asked {to} instead")
        self._step("fallback", time.monotonic(), {"to": to})

    def retrying(self, backend: str, delay_s: float) -> None:
        """A backend failed, and is asked again in ``delay_s`` seconds."""
        self._step("retry", time.monotonic(), {"backend": backend, "delay_ms": round(delay_s * 1000, 1)})

    def queued(self, ticket: QueueTicket) -> None:
        """The request waits in the queue now."""
        self.ticket = ticket
        self.phase = "queued"

    def waited(self, started: float, wanted: Sequence[str], admitted: str | None) -> None:
        """The request waited in the queue. ``admitted``: the backend that it got a permit of; None: it got none."""
        self.ticket = None
        self._timings["queue_ms"] = self._timings.get("queue_ms", 0.0) + self.ms() - self.ms(started)
        self._step("queue", started, {"wanted": list(wanted), "admitted": admitted})

    def passed_over(self, backend: str, why: str) -> None:
        """A candidate was skipped, because of ``why``."""
        self._notes.append(f"{backend} not asked ({why})")

    def answered_by(self, attempt: Attempt, *, speculative: bool, warnings: Sequence[str] = ()) -> None:
        """The answer of this call is sent to the client. ``warnings``: what became of the client's fields."""
        self._warnings = warnings
        self.model = attempt.model
        self._speculative = speculative
        whole_ms = attempt.ttft_ms if attempt.ttft_ms is not None else attempt.duration_ms
        self._accepted_call_ms = (attempt.connect_ms or 0.0, whole_ms)
        self.measure("upstream_ms", attempt.ttft_ms if attempt.ttft_ms is not None else attempt.duration_ms)

    def add_attempt(self, attempt: Attempt, problem: RouterError | None = None) -> None:
        """A call for the answer has ended. ``problem``: what ended it; None: nothing did, or ``attempt`` says it."""
        if problem is not None:
            attempt = dataclasses.replace(attempt, error=kept_error(problem, self._bodies), error_code=problem.code)
        if self._speculative and not attempt.speculative:
            attempt = dataclasses.replace(attempt, speculative=True)
        names = ("backend", "model", "speculative", "status", "connect_ms", "ttft_ms", "finish_reason", "error")
        with self._lock:
            self._attempts.append(attempt)
            detail = {name: _rounded(getattr(attempt, name)) for name in names}
            detail["leg"] = attempt.call_number
            self.steps.append(Step("provider_call", attempt.started_ms, attempt.duration_ms, detail))

    def set_answer(self, response: Mapping[str, Any] | None, usage: Mapping[str, Any] | None) -> None:
        """The message and the usage that the client got, as far as it got them."""
        self._response = response
        self._usage = usage

    def complete(self) -> None:
        """The whole answer was given to the client."""
        self._complete = True

    def fail(self, error: RouterError) -> None:
        """The request has failed with ``error``. The first error stays."""
        self._error = self._error or error

    def close(self) -> None:
        """The response has closed: make the outcome and call the subscribers. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if not self._complete:
            # Without an error of ours, an incomplete response was closed by the client, or cancelled while the client
            # did not read.
            self.fail(self._scope.reason or ClientGone())
        self.phase = self._phase
        outcome = self._outcome()
        for subscriber in self.subscribers:
            subscriber(outcome)

    def _step(self, kind: str, started: float, detail: Mapping[str, Any]) -> None:
        ended = time.monotonic()
        with self._lock:
            self.steps.append(Step(kind, self.ms(started), (ended - started) * 1000, detail))

    def _outcome(self) -> Outcome:
        answering = [attempt for attempt in self._attempts if attempt.error is None]
        if answering:
            self.measure("inference_ms", answering[-1].duration_ms)
        return Outcome(
            request=self.request,
            status=self._status(),
            route=self.route,
            decision=self.decision,
            reason=self.reason,
            speculation=self.speculation,
            steps=tuple(self.steps),
            attempts=tuple(self._attempts),
            response=self._response,
            client_answer=self.client_answer,
            usage=self._usage,
            timings=self._all_timings(),
            parts=self.parts,
            error=kept_error(self._error, self._bodies) if self._error else None,
            error_code=(self._error.code or self._error.type) if self._error else None,
            http_status=self._error.status if self._error else 200,
            model=self.model,
            events_unread=self.events_unread,
            search=self._search,
            traffic=self._scope.traffic(),
            reserved_usd=None if self.admitting is None else self.admitting.reserved_usd,
        )

    def _all_timings(self) -> Mapping[str, float]:
        """The timings with ``total_ms``, and ``cancel_ms`` (from the abort to the close) if it was aborted."""
        # The phases end at this moment: so their parts add up to the total.
        total, aborted_at = {"total_ms": self.ms(self._phase_began_at)}, self._scope.aborted_at
        if aborted_at is not None and isinstance(self._error, Aborted):
            total["cancel_ms"] = max(0.0, (self._phase_began_at - aborted_at) * 1000)
        return self._timings | total

    def _status(self) -> Status:
        if self._error is None:
            return Status.OK
        return Status.CANCELLED if isinstance(self._error, Aborted) else Status.ERROR


def _rounded(value: Any) -> Any:
    return round(value, 1) if isinstance(value, float) else value
