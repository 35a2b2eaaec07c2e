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

from ai_router.config import SessionBodies
from ai_router.dispatch.in_flight import InFlight, RequestLimit
from ai_router.dispatch.record import RequestRecord, Subscriber
from ai_router.dispatch.reply import StreamReply
from ai_router.errors import INTERNAL, InternalError, RequestCancelled, RouterError, ShuttingDown, StoreUnavailable
from ai_router.http.calls import CancelScope
from ai_router.http.sse import SSEDecoder
from ai_router.http.timers import TimerThread
from ai_router.pipeline import Pipeline
from ai_router.shared.peers import Peers
from ai_router.shared.start import ALONE
from ai_router.storage.lazy_store import LazyStore
from ai_router.storage.thread_rows import LEASE_S, STREAMING
from ai_router.threads.answer import ThreadAnswer
from ai_router.threads.elsewhere import AnswersElsewhere
from ai_router.threads.events import decision_json, last_event, message_values, publish_event
from ai_router.types import ChatRequest, Cost, Outcome

if TYPE_CHECKING:
    from ai_router.storage.threads import ThreadStore

log = logging.getLogger(__name__)

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
        peers: Peers = ALONE.peers,
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
        self.elsewhere = AnswersElsewhere(peers, self.find, self._cancel_thread_here)
        """The answers that other processes give."""

    def start(
        self,
        request: ChatRequest,
        thread: str,
        user_message: Mapping[str, Any],
        *,
        replaces: int | None = None,
        counted: bool = False,
    ) -> ThreadAnswer:
        """Keep the user's message, and begin to answer it. ``replaces``: the position from which on earlier messages
        give way. ``counted``: the caller has counted the request as one that is under way, until its response closes.
        Raises Overloaded and StoreUnavailable."""
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
            rows = (user_message, {**answer_row, "lease_until": store.lease()})
            asked, begun = store.add(thread, *rows, replaces=replaces)
        except BaseException:  # raised again
            release()
            raise
        scope = CancelScope(request.trace, local_only=bool(request.local_only))
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
        """End an answer early; False if it is not under way. Raises SharedUnavailable if it is not under way here, and
        the other processes cannot be asked."""
        answer = self.find(message)
        if answer is None:
            return self.elsewhere.cancel(message)
        answer.cancel(RequestCancelled())
        return True

    def cancel_thread(self, thread: str) -> None:
        """End all answers of a thread early."""
        self._cancel_thread_here(thread)
        self.elsewhere.cancel_thread(thread)

    def _cancel_thread_here(self, thread: str) -> None:
        with self._lock:
            answers = [answer for answer in self._answers.values() if answer.thread == thread]
        for answer in answers:
            answer.cancel(RequestCancelled())

    def close(self) -> None:
        """End what is under way."""
        self._closing.set()
        self.elsewhere.close()
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
                    publish_event(answer, event, record, citations)
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
