"""POST /v1/chat/completions."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Blueprint, Response, g, request

from ai_router.api.admission import Admission
from ai_router.api.body import read_body
from ai_router.api.heartbeat import Heartbeat
from ai_router.api.parsing import Arrival, Ids, parse_chat_request
from ai_router.api.replies import contract_headers, error_response
from ai_router.errors import ClientGone, RouterError
from ai_router.exchange import ChatRequest
from ai_router.execution.cancellation import ClientWatcher
from ai_router.execution.inflight import InFlight
from ai_router.execution.pipeline import Pipeline
from ai_router.execution.trail import Subscriber, Trail
from ai_router.routing.date_context import date_context
from ai_router.telemetry import timing_log
from ai_router.trace_context import Trace
from ai_router.upstream.alarms import Alarms
from ai_router.upstream.leg import CancelScope


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """What the endpoint needs; times in seconds, ``max_body`` in bytes."""

    pipeline: Pipeline
    admission: Admission
    watcher: ClientWatcher
    alarms: Alarms
    subscribers: Sequence[Subscriber]
    ids: Ids
    in_flight: InFlight
    max_body: int
    body_timeout_s: float
    write_timeout_s: float
    keepalive_s: float
    tell_date: bool
    trace_of: Callable[[str | None], Trace | None]
    """The trace that a request belongs to, by its traceparent."""

    def blueprint(self) -> Blueprint:
        """The route."""
        blueprint = Blueprint("chat", __name__)
        blueprint.add_url_rule("/v1/chat/completions", view_func=self.chat_completions, methods=["POST"])
        return blueprint

    def chat_completions(self) -> Response:
        """Admit, read, answer. Whatever is taken here is given back when the response has closed, or on an error."""
        arrived_at, now = time.monotonic(), datetime.now(UTC)
        self.admission.enter()
        with ExitStack() as taken:
            taken.callback(self.admission.leave)
            response = self._answered(self._request(arrived_at, now), taken)
            response.call_on_close(taken.pop_all().close)
            return response

    def _request(self, arrived_at: float, now: datetime) -> ChatRequest:
        body = read_body(request.environ, limit=self.max_body, timeout_s=self.body_timeout_s, alarms=self.alarms)
        arrival = Arrival(
            arrived_at=arrived_at,
            timestamp=now,
            request_id=g.request_id,
            session_id=self.ids.session_id(),
            headers=request.headers.items(),
            date_context=date_context(now.astimezone()) if self.tell_date else "",
            client=g.client,
            organization=request.headers.get("openai-organization", ""),
            trace=self.trace_of(request.headers.get("traceparent")),
        )
        chat = parse_chat_request(body, arrival)
        timing_log.incoming(len(chat.messages), chat.total_chars, chat.stream)
        return chat

    def _answered(self, chat: ChatRequest, taken: ExitStack) -> Response:
        scope = CancelScope(chat.trace)
        trail = Trail(chat, self.subscribers, scope)
        # In the order of closing, last first: stop watching, end what is still open, take the last notes, tell them.
        taken.callback(self.in_flight.add(trail, scope))
        taken.callback(trail.close)
        closing = taken.enter_context(ExitStack())
        taken.callback(scope.abort, ClientGone())
        taken.callback(self._watch_client(scope))
        try:
            reply = self.pipeline.answer(trail, scope)
        except RouterError as error:
            return error_response(error, contract_headers(trail))
        closing.callback(reply.close)
        body = reply.body()
        return _rendered(
            body if isinstance(body, bytes) else self._kept_alive(body), contract_headers(trail), stream=chat.stream
        )

    def _kept_alive(self, portions: Iterator[bytes]) -> Iterator[bytes]:
        sock: socket.socket | None = request.environ.get("gunicorn.socket")
        if sock is None:
            return portions
        chunked = request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
        return Heartbeat(self.alarms, sock, self.keepalive_s, chunked=chunked).through(portions)

    def _watch_client(self, scope: CancelScope) -> Callable[[], None]:
        """Abort everything when the client leaves; a client that takes too long to read counts as one, too."""
        sock: socket.socket | None = request.environ.get("gunicorn.socket")
        if sock is None:
            return lambda: None
        # The kernel's timeout, not Python's, which would ask the kernel twice for each chunk.
        sock.settimeout(None)
        seconds, rest = divmod(self.write_timeout_s, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(rest * 1e6)))
        return self.watcher.watch(sock, lambda: scope.abort(ClientGone()))


def _rendered(body: bytes | Iterator[bytes], headers: dict[str, str], *, stream: bool) -> Response:
    if not stream:
        return Response(body, headers=headers, mimetype="application/json")
    # nginx holds events back until its buffer is full unless told otherwise.
    unbuffered = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return Response(body, headers=headers | unbuffered, content_type="text/event-stream; charset=utf-8")
