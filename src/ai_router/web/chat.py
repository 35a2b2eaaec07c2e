"""POST /v1/chat/completions, as a WSGI application in front of Flask's.

Flask's way from a request to its view and back is some three hundred calls of Python: a third of all that a plain
request took (docs/decisions/0020). Everything else that there is to ask goes that way.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from ai_router.dispatch.disconnects import ClientWatcher
from ai_router.dispatch.in_flight import InFlight
from ai_router.dispatch.record import RequestRecord, Subscriber
from ai_router.dispatch.reply import Reply
from ai_router.errors import INTERNAL, ClientGone, InternalError, RouterError
from ai_router.http.calls import CancelScope
from ai_router.http.timers import TimerThread
from ai_router.observability import log_lines
from ai_router.pipeline import Pipeline
from ai_router.routing.prompt import date_context
from ai_router.trace_context import Trace
from ai_router.types import ChatRequest
from ai_router.web.auth import Keys
from ai_router.web.body import read_body
from ai_router.web.heartbeat import Heartbeat
from ai_router.web.limits import Admission
from ai_router.web.requests import Arrival, Ids, parse_chat_request
from ai_router.web.responses import contract_headers, error_parts

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

PATH = "/v1/chat/completions"
FLOW = "ai_router.flow"
"""Where the WSGI environment holds the ``flow`` of a reply (execution.relay)."""
_STREAM = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    # nginx holds events back until its buffer is full unless told otherwise.
    "x-accel-buffering": "no",
}
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class _Answering:
    """The portions of a response, and what has to be given back when it has closed."""

    __slots__ = ("_portions", "_taken")

    def __init__(self, portions: Iterator[bytes], taken: ExitStack) -> None:
        self._portions = portions
        self._taken = taken

    def __iter__(self) -> Iterator[bytes]:
        return self._portions

    def close(self) -> None:
        """Whatever became of it."""
        try:
            if close := getattr(self._portions, "close", None):
                close()
        finally:
            self._taken.close()


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """What the endpoint needs; times in seconds, ``max_body`` in bytes."""

    pipeline: Pipeline
    keys: Keys
    admission: Admission
    watcher: ClientWatcher
    timers: TimerThread
    subscribers: Sequence[Subscriber]
    ids: Ids
    in_flight: InFlight
    max_body: int
    body_timeout_s: float
    keepalive_s: float
    tell_date: bool
    trace_of: Callable[[str | None], Trace | None]
    """The trace that a request belongs to, by its traceparent."""
    scrub: Callable[[bytes], bytes]
    """Takes known keys out of JSON."""
    refused: Callable[[RouterError], None]
    """Is told what ended before it was a request."""

    def before(self, others: WSGIApplication) -> WSGIApplication:
        """An application that answers chat requests, and leaves all else to ``others``."""

        def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            chat = environ["PATH_INFO"] == PATH and environ["REQUEST_METHOD"] == "POST"
            return self.answer(environ, start_response) if chat else others(environ, start_response)

        return application

    def blueprint(self) -> Blueprint:
        """The route on Flask's side: what it refuses or redirects there, and other spellings of the path."""
        blueprint = Blueprint("chat", __name__)
        blueprint.add_url_rule(
            PATH, view_func=lambda: Response.from_app(self.answer, request.environ), methods=["POST"]
        )
        return blueprint

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request for PATH. Whatever is taken for it is given back when the response has closed, or on an error."""
        request_id = self.ids.request_id(environ.get("HTTP_X_REQUEST_ID"))
        try:
            return self._admitted(environ, request_id, start_response)
        except RouterError as error:
            self.refused(error)
            return self._error(error, {"x-request-id": request_id}, start_response)
        except Exception:  # the border: what was not foreseen is an error of ours, and in the log
            log.exception("a request failed for a reason of our own")
            return self._error(InternalError(INTERNAL), {"x-request-id": request_id}, start_response)

    def _admitted(self, environ: WSGIEnvironment, request_id: str, start_response: StartResponse) -> Iterable[bytes]:
        client = self.keys.admit(environ.get("HTTP_AUTHORIZATION", ""), environ.get("HTTP_X_API_KEY", ""))
        arrived_at, now = time.monotonic(), datetime.now(UTC)
        self.admission.enter()
        with ExitStack() as taken:
            taken.callback(self.admission.leave)
            body = read_body(environ, limit=self.max_body, timeout_s=self.body_timeout_s, timers=self.timers)
            arrival = Arrival(
                arrived_at=arrived_at,
                timestamp=now,
                request_id=request_id,
                session_id=self.ids.session_id(),
                headers=_headers(environ),
                date_context=date_context(now.astimezone()) if self.tell_date else "",
                client=client,
                organization=environ.get("HTTP_OPENAI_ORGANIZATION", ""),
                trace=self.trace_of(environ.get("HTTP_TRACEPARENT")),
            )
            chat = parse_chat_request(body, arrival)
            log_lines.incoming(len(chat.messages), chat.total_chars, chat.stream)
            portions = self._answered(chat, environ, start_response, taken)
            return _Answering(iter(portions), taken.pop_all())

    def _answered(
        self, chat: ChatRequest, environ: WSGIEnvironment, start_response: StartResponse, taken: ExitStack
    ) -> Iterable[bytes]:
        sock: socket.socket | None = environ.get("gunicorn.socket")
        scope = CancelScope(chat.trace)
        record = RequestRecord(chat, self.subscribers, scope)
        replies: list[Reply] = []
        # In the order of closing, last first: stop watching, end what is still open, take the last notes, tell them.
        taken.callback(self.in_flight.add(record, scope))
        taken.callback(record.close)
        taken.callback(_close, replies)
        taken.callback(scope.abort, ClientGone())
        if sock is not None:
            taken.callback(self.watcher.watch(sock, lambda: scope.abort(ClientGone())))
        try:
            reply = self.pipeline.answer(record, scope)
        except RouterError as error:
            return self._error(error, contract_headers(record), start_response)
        replies.append(reply)
        body = reply.body()
        if isinstance(body, bytes):
            framing = {"content-type": "application/json", "content-length": str(len(body))}
            start_response("200 OK", [*framing.items(), *contract_headers(record).items()])
            return (body,)
        start_response("200 OK", [*_STREAM.items(), *contract_headers(record).items()])
        if sock is None:
            return body
        # For a server that carries streams without a thread for each (ai_router.server.worker).
        environ[FLOW] = reply.flow
        chunked = environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
        return Heartbeat(self.timers, sock, self.keepalive_s, chunked=chunked).through(body)

    def _error(self, error: RouterError, headers: Mapping[str, str], start_response: StartResponse) -> Iterable[bytes]:
        told, body = error_parts(error, self.scrub, headers)
        # 499 and its like have no name that everybody knows.
        line = _STATUS_LINES.get(error.status, f"{error.status} Unknown")
        start_response(line, [*told.items(), ("content-length", str(len(body)))])
        return (body,)


def _close(replies: Sequence[Reply]) -> None:
    for reply in replies:
        reply.close()


def _headers(environ: WSGIEnvironment) -> Iterator[tuple[str, str]]:
    return ((key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_"))
