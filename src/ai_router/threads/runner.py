"""Runs the answers of threads: the same way as any request's, but for readers who may leave and come back.

Each has a thread of an executor, which passes what the pipeline's reply says on as events, and writes the message into
the database when it has ended. While any is under way, one more thread renews their leases.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from ai_router.config import SessionBodies
from ai_router.dispatch.in_flight import InFlight, RequestLimit
from ai_router.dispatch.record import RequestRecord, Subscriber
from ai_router.dispatch.reply import StreamReply
from ai_router.envelope import envelope
from ai_router.errors import INTERNAL, InternalError, RequestCancelled, RouterError, ShuttingDown, StoreUnavailable
from ai_router.http.calls import CancelScope
from ai_router.http.sse import Event, SSEDecoder
from ai_router.http.timers import TimerThread
from ai_router.pipeline import Pipeline
from ai_router.routing.router import shown_ask
from ai_router.storage.lazy_store import LazyStore
from ai_router.storage.thread_rows import CANCELLED, COMPLETE, ERROR, INTERRUPTED, LEASE_S, STREAMING, Row
from ai_router.threads.answer import ThreadAnswer
from ai_router.types import ChatRequest, Cost, Outcome, Status

if TYPE_CHECKING:
    from ai_router.storage.threads import ThreadStore

log = logging.getLogger(__name__)

_STATUS = {Status.OK: COMPLETE, Status.CANCELLED: CANCELLED, Status.ERROR: ERROR}
_REASONING = ("reasoning", "reasoning_content")
_SAVE_TRIES, _SAVE_PAUSE_S = 10, 1.0


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """``threads``: how many answers may be under way; ``resume_s``: how long one goes on without a reader."""

    threads: int
    resume_s: float
    scrub: Callable[[str], str] = str
    bodies: SessionBodies = SessionBodies.FULL


class ThreadRunner:
    """Starts answers, and knows those under way. Safe from any thread."""

    def __init__(
        self,
        pipeline: Pipeline,
        in_flight: InFlight,
        limit: RequestLimit,
        subscribers: Sequence[Subscriber],
        cost_of: Callable[[Outcome], Cost],
        open_threads: LazyStore[ThreadStore],
        timers: TimerThread,
        settings: RunnerSettings,
    ) -> None:
        self._pipeline = pipeline
        self._in_flight = in_flight
        self._limit = limit
        self._subscribers = subscribers
        self._cost_of = cost_of
        self._open_threads = open_threads
        self._timers = timers
        self._settings = settings
        self.owner = uuid.uuid4().hex
        """The name of this process in leases."""
        self._executor = ThreadPoolExecutor(settings.threads, thread_name_prefix="thread-answer")
        self._lock = threading.Lock()
        self._answers: dict[str, ThreadAnswer] = {}
        self._closing = threading.Event()
        self._leases: threading.Thread | None = None

    def start(
        self, request: ChatRequest, thread: str, user_message: Mapping[str, Any], *, counted: bool = False
    ) -> ThreadAnswer:
        """Keep the user's message, and begin to answer it. ``counted``: the caller has counted the request as one that
        is under way, until its response closes. Raises Overloaded and StoreUnavailable."""
        release = _nothing if counted else partial(self._limit.release, request.client)
        if not counted:
            self._limit.acquire(request.client)
        try:
            answer_row = {
                "role": "assistant",
                "content": "",
                "status": STREAMING,
                "asked_for": request.model,
                "request_id": request.request_id,
                "session_id": request.session_id,
                "owner": self.owner,
            }
            store = self._open_threads.store()
            asked, begun = store.add(thread, user_message, {**answer_row, "lease_until": store.lease()})
        except BaseException:  # raised again
            release()
            raise
        scope = CancelScope(request.trace)
        answer = ThreadAnswer(thread, begun["id"], scope, self._timers, self._settings.resume_s)
        with self._lock:
            self._answers[answer.message] = answer
            self._renew_leases()
        ids = {"message_id": begun["id"], "thread_id": thread, "user_message_id": asked["id"]}
        answer.publish("message", ids | {"request_id": request.request_id, "session_id": request.session_id})
        self._executor.submit(self._run, answer, request, scope, release)
        return answer

    def find(self, message: str) -> ThreadAnswer | None:
        """The answer of that message, if it is under way here."""
        with self._lock:
            return self._answers.get(message)

    def cancel(self, message: str) -> bool:
        """End an answer early; False if it is not under way here."""
        answer = self.find(message)
        if answer is None:
            return False
        answer.cancel(RequestCancelled())
        return True

    def cancel_thread(self, thread: str) -> None:
        """End all answers of a thread early."""
        with self._lock:
            answers = [answer for answer in self._answers.values() if answer.thread == thread]
        for answer in answers:
            answer.cancel(RequestCancelled())

    def close(self) -> None:
        """End what is under way."""
        self._closing.set()
        with self._lock:
            answers = list(self._answers.values())
        for answer in answers:
            answer.cancel(ShuttingDown("the router is being stopped"))
        self._executor.shutdown(wait=True)

    def _run(self, answer: ThreadAnswer, request: ChatRequest, scope: CancelScope, release: Callable[[], None]) -> None:
        outcomes: list[Outcome] = []
        subscribers = (*self._subscribers, outcomes.append)
        record = RequestRecord(request, subscribers, scope, self._settings.scrub, self._settings.bodies)
        remove = self._in_flight.add(record, scope)
        problem: RouterError | None = None
        citations: list[Any] = []
        try:
            problem = self._relay(answer, record, scope, citations)
        finally:
            scope.close()
            record.close()
            remove()
            release()
            self._finish(answer, outcomes[0], problem, citations)

    def _relay(
        self, answer: ThreadAnswer, record: RequestRecord, scope: CancelScope, citations: list[Any]
    ) -> RouterError | None:
        """Pass the reply on as events. Returns what it failed with; None: it did not, or the record knows it."""
        try:
            reply = self._pipeline.answer(record, scope)
        except RouterError as error:
            return error
        except Exception:  # the pipeline has told the record that it was a defect of ours
            log.exception("a thread's answer failed for a reason of our own")
            return InternalError(INTERNAL)
        if not isinstance(reply, StreamReply):
            raise TypeError("answers of threads are streams")
        answer.publish("decision", decision_json(record))
        decoder = SSEDecoder()
        try:
            for portion in reply.body():
                for event in decoder.feed(portion):
                    _publish(answer, event, citations)
        except Exception:  # at the edge of a background thread: the message has to end, and say why
            log.exception("a thread's answer failed for a reason of our own")
            record.fail(InternalError(INTERNAL))
        finally:
            reply.close()
        return None

    def _finish(
        self, answer: ThreadAnswer, outcome: Outcome, problem: RouterError | None, citations: Sequence[Any]
    ) -> None:
        try:
            values = message_values(outcome, self._cost_of(outcome), problem, citations, self._settings.scrub)
            saved = self._save(answer.message, values)
            last = {"message_id": answer.message, "saved": saved, **values}
            answer.publish(last_event(values["status"]), last)
        finally:
            with self._lock:
                self._answers.pop(answer.message, None)
            answer.end()

    def _save(self, message: str, values: Mapping[str, Any]) -> bool:
        for attempt in range(_SAVE_TRIES):
            try:
                self._open_threads.store().finish(message, values)
            except StoreUnavailable as error:
                log.warning("A thread's message is not saved yet: %s", error.detail)
                if attempt == _SAVE_TRIES - 1 or self._closing.wait(_SAVE_PAUSE_S):
                    return False
            else:
                return True
        return False

    def _renew_leases(self) -> None:
        """Start the thread that renews leases, if it does not run. To be called with the lock held."""
        if self._leases is None:
            self._leases = threading.Thread(target=self._renew, name="thread-leases", daemon=True)
            self._leases.start()

    def _renew(self) -> None:
        while not self._closing.wait(LEASE_S / 3):
            with self._lock:
                if not self._answers:
                    self._leases = None
                    return
            try:
                self._open_threads.store().renew(self.owner)
            except StoreUnavailable as error:
                log.warning("Leases of threads are not renewed: %s", error.detail)


def _nothing() -> None: ...


def last_event(status: str) -> str:
    """The name of a message's last event."""
    return "error" if status in (ERROR, INTERRUPTED) else "done"


def decision_json(record: RequestRecord) -> Mapping[str, Any]:
    """What is known of a request's way when its answer begins, or has to wait."""
    decision = record.decision
    if decision is None:
        return {"route": record.route}
    return {
        "route": record.route,
        "model": record.model,
        "label": decision.label,
        "decided_by": decision.decided_by,
        "confidence": decision.confidence,
        "reason": record.reason,
        "ask": shown_ask(decision, record.scrub),
        "speculation": record.speculation,
        "warning": record.warning or None,
    }


def message_values(
    outcome: Outcome,
    cost: Cost,
    problem: RouterError | None,
    citations: Sequence[Any],
    scrub: Callable[[str], str] = str,
) -> dict[str, Any]:
    """The values of an answer that has ended, for its row and its last event."""
    message, decision, usage = outcome.response or {}, outcome.decision, cost.usage
    status = INTERRUPTED if outcome.error_code == ShuttingDown.code else _STATUS[outcome.status]
    error = None
    if outcome.error is not None:
        error = (
            envelope(problem)["error"]
            if problem is not None
            else {"message": outcome.error, "type": "server_error", "param": None, "code": outcome.error_code}
        )
    return {
        "status": status,
        "content": message.get("content") or "",
        "reasoning": next((message[name] for name in _REASONING if message.get(name)), ""),
        "error": error,
        "details": {
            "route": outcome.route,
            "model": outcome.model,
            "backend": outcome.attempts[-1].backend if outcome.attempts else None,
            "label": decision.label if decision else None,
            "decided_by": decision.decided_by if decision else None,
            "confidence": decision.confidence if decision else None,
            "reason": outcome.reason,
            "ask": shown_ask(decision, scrub) if decision else "",
            "speculation": outcome.speculation,
            "finish_reason": message.get("finish_reason"),
            "tool_calls": message.get("tool_calls"),
            "citations": list(citations) or None,
            "ttft_ms": outcome.timings.get("ttft_ms"),
            "total_ms": outcome.timings["total_ms"],
            "parts": dict(outcome.parts),
            "input_tokens": usage.input if usage else None,
            "output_tokens": usage.output if usage else None,
            "tokens_estimated": usage.estimated if usage else None,
            "cost_usd": cost.usd,
            "known_cost_usd": cost.known_usd,
        },
    }


def _publish(answer: ThreadAnswer, event: Event, citations: list[Any]) -> None:
    """Pass an event of the reply on: a comment as a notice, a chunk as a delta."""
    if event.data is None:
        notice = " ".join(line[1:].strip() for line in event.raw.decode("utf-8", "replace").splitlines() if line)
        if notice:
            answer.publish("notice", {"text": notice})
        return
    try:
        chunk = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return  # [DONE], or what no strict parser can read
    if not isinstance(chunk, dict):
        return
    if isinstance(found := chunk.get("citations"), list):
        citations[:] = found
    if said := _said(chunk):
        answer.publish("delta", said)


def _said(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the first choice of a chunk adds to the answer."""
    choices = chunk.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    delta = first.get("delta") if isinstance(first, dict) else None
    if not isinstance(delta, dict):
        return {}
    reasoning = next((delta[name] for name in _REASONING if isinstance(delta.get(name), str)), "")
    content = delta.get("content")
    said = {"content": content if isinstance(content, str) else "", "reasoning": reasoning}
    told: dict[str, Any] = {name: text for name, text in said.items() if text}
    if delta.get("tool_calls"):
        told["tool_calls"] = delta["tool_calls"]
    return told


def rows_as_messages(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The conversation so far, for a backend: what was said by both sides, without answers that say nothing."""
    return [{"role": row["role"], "content": row["content"]} for row in rows if row["content"]]
