"""POST /v1/chat/completions, and POST /v1/requests/{request_id}/cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from flask import Blueprint, Response, g, jsonify, request

from ai_router.config import SessionBodies
from ai_router.dispatch.in_flight import InFlight
from ai_router.dispatch.record import RequestRecord, Subscriber
from ai_router.dispatch.reply import PlainReply, StreamReply
from ai_router.errors import ClientGone, NotFound
from ai_router.http.calls import CancelScope
from ai_router.observability import log_lines
from ai_router.observability.metrics import ResilienceMetrics
from ai_router.pipeline import Pipeline
from ai_router.routing.prompt import date_context
from ai_router.trace_context import Trace
from ai_router.types import ChatRequest
from ai_router.web.access import ADMIN, ARRIVED_AT, ON_DISCONNECT
from ai_router.web.paths import DEPLOYMENT
from ai_router.web.requests import Arrival, Ids, check_values, parse_chat_request, read_body
from ai_router.web.responses import contract_headers, on_response_closed, stream_response

PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What the endpoint needs besides the pipeline: ``max_body`` in bytes, ``max_values`` in JSON values; ``trace_of``
    takes a traceparent header; ``scrub`` takes known keys out of a text; ``bodies``: what is kept of what was said.

    ``traces_all``: a request without that header belongs to a trace, too.
    """

    ids: Ids
    max_body: int
    max_values: int
    tell_date: bool
    trace_of: Callable[[str | None], Trace | None]
    scrub: Callable[[str], str] = str
    bodies: SessionBodies = SessionBodies.FULL
    traces_all: bool = False


def blueprint(
    pipeline: Pipeline,
    in_flight: InFlight,
    subscribers: Sequence[Subscriber],
    metrics: ResilienceMetrics,
    settings: ChatSettings,
) -> Blueprint:
    """The routes. Authentication, ids, limits and errors are the application's hooks."""
    chat = Blueprint("chat", __name__)

    @chat.post(PATH)
    def chat_completions() -> Response:
        """Answer a chat request, in one piece or as a stream. Raises RouterError."""
        chat_request = read_chat_request(settings)
        log_lines.incoming(len(chat_request.messages), chat_request.total_chars, chat_request.stream)
        scope = CancelScope(chat_request.trace)
        record = g.record = RequestRecord(chat_request, subscribers, scope, settings.scrub, settings.bodies)
        streams: list[StreamReply] = []
        # Closed last first: stop watching, abort calls that are still open, close the stream, close the record.
        closing = on_response_closed()
        closing.callback(in_flight.add(record, scope))
        closing.callback(record.close)
        closing.callback(_close_all, streams)
        closing.callback(scope.close)
        if (on_disconnect := request.environ.get(ON_DISCONNECT)) is not None:
            closing.callback(on_disconnect(lambda: scope.abort(ClientGone())))
        reply = pipeline.answer(record, scope)
        headers = contract_headers(record)
        if isinstance(reply, PlainReply):
            return Response(reply.body, 200, headers, content_type="application/json")
        streams.append(reply)
        return stream_response(reply, reply.body(), headers)

    @chat.post("/v1/requests/<request_id>/cancel")
    def cancel(request_id: str) -> Response:
        """Cancel the requests of that id. A client reaches its own only: those made with the same key; the admin key
        reaches all."""
        found = in_flight.cancel(request_id, None if g.client == ADMIN else g.client)
        if found is None:
            raise NotFound(f"no request '{request_id[:128]}' is under way; it may have ended")
        cancelled, fresh = found
        for entry in cancelled if fresh else ():
            metrics.cancelled(entry.phase)
        return jsonify(id=request_id, object="request.cancelled", cancelled=[asdict(entry) for entry in cancelled])

    return chat


def _close_all(streams: Sequence[StreamReply]) -> None:
    for stream in streams:
        stream.close()


def read_chat_request(settings: ChatSettings) -> ChatRequest:
    """The chat request that is being made. Raises RouterError."""
    environ = request.environ
    arrived_at, now = environ.get(ARRIVED_AT) or time.monotonic(), datetime.now(UTC)
    body = read_body(environ, settings.max_body)
    check_values(body, settings.max_values)
    traceparent = environ.get("HTTP_TRACEPARENT")
    arrival = Arrival(
        arrived_at=arrived_at,
        timestamp=now,
        request_id=g.request_id,
        session_id=settings.ids.session_id(),
        headers=_headers(environ),
        date_context=date_context(now.astimezone()) if settings.tell_date else "",
        client=g.client,
        organization=environ.get("HTTP_OPENAI_ORGANIZATION", ""),
        trace=settings.trace_of(traceparent) if traceparent or settings.traces_all else None,
        deployment=environ.get(DEPLOYMENT, ""),
    )
    return parse_chat_request(body, arrival)


def _headers(environ: dict[str, str]) -> Iterator[tuple[str, str]]:
    return ((key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_"))
