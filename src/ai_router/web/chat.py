"""POST /v1/chat/completions, the same for the other APIs of clients, and POST /v1/requests/{request_id}/cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import Blueprint, Response, g, jsonify, request

from ai_router.apis import ClientApi
from ai_router.client_apis import APIS, api_of
from ai_router.client_apis.messages import API as MESSAGES
from ai_router.config import SessionBodies
from ai_router.dispatch.everywhere import InFlightEverywhere
from ai_router.dispatch.in_flight import InFlight
from ai_router.dispatch.record import RequestRecord, Subscriber
from ai_router.dispatch.reply import PlainReply, StreamReply
from ai_router.errors import ClientGone, NotFound
from ai_router.http.calls import CancelScope
from ai_router.observability import log_lines
from ai_router.observability.metrics import ResilienceMetrics
from ai_router.pipeline import Pipeline
from ai_router.privacy import Privacy
from ai_router.routing.prompt import local_date_context
from ai_router.trace_context import Trace
from ai_router.types import ChatRequest
from ai_router.web.access import ADMIN, ARRIVED_AT, ON_DISCONNECT
from ai_router.web.other_api_requests import parse_other_api_request
from ai_router.web.paths import DEPLOYMENT
from ai_router.web.policy import VARIABLE as POLICY
from ai_router.web.quality import VARIABLE as QUALITY
from ai_router.web.requests import Arrival, Ids, check_values, model_of, object_in, parse_chat_request, read_body
from ai_router.web.responses import EVENTS, contract_headers, on_response_closed, stream_response

PATH = "/v1/chat/completions"
Prepare = Callable[[ClientApi, dict[str, Any], str], tuple[dict[str, Any], Mapping[str, Any]]]
"""Takes an API, the body of a request, and whose it is. Returns the completed body, and what is to be kept of it."""


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What the endpoint needs besides the pipeline: ``max_body`` in bytes, ``max_values`` in JSON values; ``trace_of``
    takes a traceparent header; ``scrub`` takes known keys out of a text; ``bodies``: what is kept of what was said.

    ``traces_all``: a request without that header belongs to a trace, too. ``admit`` keeps those to the limits of their
    keys that do not go through the pipeline: it takes about how many tokens they have.
    """

    ids: Ids
    max_body: int
    max_values: int
    tell_date: bool
    trace_of: Callable[[str | None], Trace | None]
    scrub: Callable[[str], str] = str
    bodies: SessionBodies = SessionBodies.FULL
    traces_all: bool = False
    admit: Callable[[int], None] = lambda _tokens: None
    privacy: Privacy = field(default_factory=Privacy)
    """What is looked for that may not leave the local network."""


def blueprint(
    pipeline: Pipeline,
    in_flight: InFlight,
    subscribers: Sequence[Subscriber],
    metrics: ResilienceMetrics,
    settings: ChatSettings,
    prepare: Prepare,
    everywhere: InFlightEverywhere,
    other_api_subscribers: Sequence[Subscriber] = (),
) -> Blueprint:
    """The routes. Requests are registered ``in_flight`` and cancelled ``everywhere``. ``prepare`` completes the body of
    a request of another API, and ``other_api_subscribers`` are told of those requests, too. Authentication, ids, limits
    and errors are the application's hooks."""
    chat = Blueprint("chat", __name__)

    def answer(chat_request: ChatRequest) -> Response:
        log_lines.incoming(len(chat_request.messages), chat_request.total_chars, chat_request.stream)
        scope = CancelScope(chat_request.trace, local_only=bool(chat_request.local_only))
        told = subscribers if chat_request.client_form is None else (*subscribers, *other_api_subscribers)
        record = g.record = RequestRecord(chat_request, told, scope, settings.scrub, settings.bodies)
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
        return stream_response(reply, reply.body(), headers, media_type(chat_request))

    @chat.post(PATH)
    def chat_completions() -> Response:
        """Answer a chat request, in one piece or as a stream. Raises RouterError."""
        return answer(read_chat_request(settings))

    def answer_in(api: ClientApi) -> Response:
        """The same for a request of another API."""
        return answer(read_other_api_request(settings, api, prepare))

    for path, api in APIS.items():
        chat.add_url_rule(path, f"answer_{api.name}", partial(answer_in, api), methods=["POST"])

    @chat.post("/v1/requests/<request_id>/cancel")
    def cancel(request_id: str) -> Response:
        """Cancel the requests of that id. A client reaches its own only: those made with the same key; the admin key
        reaches all."""
        found = everywhere.cancel(request_id, None if g.client == ADMIN else g.client)
        if found is None:
            raise NotFound(f"no request '{request_id[:128]}' is under way; it may have ended")
        for entry in found.requests if found.fresh else ():
            metrics.cancelled(entry.phase)
        return jsonify(id=request_id, object="request.cancelled", cancelled=[asdict(entry) for entry in found.requests])

    return chat


def _close_all(streams: Sequence[StreamReply]) -> None:
    for stream in streams:
        stream.close()


def read_chat_request(settings: ChatSettings) -> ChatRequest:
    """The chat request that is being made. Raises RouterError."""
    body = _body(settings)
    return parse_chat_request(body, arrival_of(settings))


def read_other_api_request(settings: ChatSettings, api: ClientApi, prepare: Prepare) -> ChatRequest:
    """The request of another API that is being made. Raises RouterError."""
    body = _body(settings)
    arrival = arrival_of(settings)
    payload, kept = prepare(api, object_in(body), arrival.client)
    return parse_other_api_request(payload, arrival, api, kept)


def read_any_request(settings: ChatSettings, prepare: Prepare) -> ChatRequest:
    """The request that a body of whatever API is. Raises RouterError."""
    body, arrival = _body(settings), arrival_of(settings)
    payload = object_in(body)
    api = api_of(payload, says_anthropic="HTTP_ANTHROPIC_VERSION" in request.environ)
    if api is None:
        return parse_chat_request(body, arrival)
    if api is MESSAGES:
        # It has to have a limit there, which decides nothing.
        payload.setdefault("max_tokens", 1)
    payload, kept = prepare(api, payload, arrival.client)
    return parse_other_api_request(payload, arrival, api, kept)


def _body(settings: ChatSettings) -> bytes:
    body = read_body(request.environ, settings.max_body)
    check_values(body, settings.max_values)
    return body


def arrival_of(settings: ChatSettings) -> Arrival:
    """What is known of the present request besides its body."""
    environ, now = request.environ, datetime.now(UTC)
    traceparent = environ.get("HTTP_TRACEPARENT")
    return Arrival(
        arrived_at=environ.get(ARRIVED_AT) or time.monotonic(),
        timestamp=now,
        request_id=g.request_id,
        session_id=settings.ids.session_id(),
        headers=_headers(environ),
        date_context=local_date_context(now) if settings.tell_date else "",
        client=g.client,
        organization=environ.get("HTTP_X_ORG_ID") or environ.get("HTTP_OPENAI_ORGANIZATION", ""),
        key=g.key,
        trace=settings.trace_of(traceparent) if traceparent or settings.traces_all else None,
        deployment=model_of({"model": environ[DEPLOYMENT]}) if DEPLOYMENT in environ else "",
        policy=environ.get(POLICY),
        quality=environ.get(QUALITY),
        explain=environ.get("HTTP_X_ROUTER_EXPLAIN"),
        finder=settings.privacy.finder,
    )


def media_type(chat_request: ChatRequest) -> str:
    """The media type of the request's stream."""
    return EVENTS if chat_request.client_form is None else chat_request.client_form.api.media_type


def _headers(environ: dict[str, str]) -> Iterator[tuple[str, str]]:
    return ((key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_"))
