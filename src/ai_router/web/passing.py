"""POST /v1/rerank, /v1/audio/... and /v1/images/...: passed on to the provider that the catalogue names, undecided.

[doors] of the catalogue says who gets them. Bodies of every kind (JSON, multipart) go out as they came, and so do the
answers. Such a request is logged, kept and counted like any other, without the words in it.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import orjson
from flask import Blueprint, Response, g, request

from ai_router.dispatch.in_flight import InFlight
from ai_router.dispatch.permission import check_route
from ai_router.dispatch.record import RequestRecord, Subscriber
from ai_router.errors import ClientError, ClientGone, InvalidRequest, NotFound, RouterError
from ai_router.http.calls import CancelScope, Timeouts, UpstreamRequest
from ai_router.http.client import UpstreamClient, UpstreamResponse
from ai_router.http.local_only import NotLocal
from ai_router.providers.catalogue import DOORS, PRIMARY
from ai_router.providers.errors import error_from_response
from ai_router.providers.registry import Backend, Registry
from ai_router.types import Attempt, ChatRequest, DecidedBy, Decision, Label
from ai_router.web.access import ON_DISCONNECT
from ai_router.web.chat import ChatSettings, arrival_of
from ai_router.web.policy import why_local_only
from ai_router.web.requests import organization_of, read_body
from ai_router.web.responses import contract_headers, on_response_closed

_MAX_ERROR_BYTES = 1 << 20
_PART = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LIKE_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*[{\[]")
_PASSED_HEADERS = ("content-type", "content-disposition")


class NotSetUp(ClientError):
    """501: nobody is named for requests of this kind."""

    status = 501
    code = "not_set_up"

    def __init__(self, kind: str) -> None:
        super().__init__(
            f'nobody is named for /v1/{kind} here: write {kind} = "<provider>" under [doors] in CATALOGUE_FILE'
        )


def blueprint(
    client: UpstreamClient,
    registry: Registry,
    in_flight: InFlight,
    subscribers: Sequence[Subscriber],
    settings: ChatSettings,
    timeouts: Timeouts,
) -> Blueprint:
    """The routes."""
    passing = Blueprint("passing", __name__)

    def pass_on(kind: str, rest: str) -> Response:
        check_route(kind, g.key, priced=False)
        backend = _backend(registry, kind)
        parts = _parts(rest)
        body = read_body(request.environ, settings.max_body)
        settings.admit(0)
        asked = _chat_request(settings, body)
        if asked.local_only and not backend.local:
            raise NotLocal(f"/v1/{kind} goes to {backend.name}, and this request is local-only: {asked.local_only}")
        scope = CancelScope(local_only=bool(asked.local_only))
        record = g.record = RequestRecord(asked, subscribers, scope, settings.scrub, settings.bodies)
        closing = on_response_closed()
        closing.callback(in_flight.add(record, scope))
        closing.callback(record.close)
        closing.callback(scope.close)
        if (on_disconnect := request.environ.get(ON_DISCONNECT)) is not None:
            closing.callback(on_disconnect(lambda: scope.abort(ClientGone())))
        reason = f"the catalogue's [doors] name {backend.name} for /v1/{kind}"
        decision = Decision(Label.EXPLICIT, backend.name, DecidedBy.EXPLICIT, reason, confidence=1.0)
        record.decided(decision, route=backend.name, model=kind, note=None)
        upstream_request = UpstreamRequest(
            declared_local=backend.declared_local,
            # Which model it is stands in the body, which nobody reads here.
            source=backend.source._replace(model=kind),
            method="POST",
            url=backend.url("/".join(("", kind, *parts))),
            timeouts=timeouts,
            secret=backend.key,
            headers={**backend.headers, **_content_type(), "X-Request-Id": asked.request_id},
            body=body,
        )
        return _answer(client, upstream_request, record, scope)

    for kind in DOORS:
        passing.add_url_rule(f"/v1/{kind}", kind, partial(pass_on, kind, ""), methods=["POST"])
        passing.add_url_rule(f"/v1/{kind}/<path:rest>", f"below_{kind}", partial(pass_on, kind), methods=["POST"])
    return passing


def _answer(
    client: UpstreamClient, upstream_request: UpstreamRequest, record: RequestRecord, scope: CancelScope
) -> Response:
    call, started = scope.new_call(), time.monotonic()
    record.phase = "asking"
    try:
        response = client.open(upstream_request, call)
        if response.status >= 400:
            body = response.read(_MAX_ERROR_BYTES)
            raise error_from_response(response.status, response.headers, body, upstream_request)
    except RouterError as problem:
        record.fail(problem)
        raise
    record.phase = "streaming"
    attempt = Attempt(
        backend=upstream_request.source.backend,
        model=upstream_request.source.model,
        started_ms=record.ms(started),
        duration_ms=record.ms() - record.ms(started),
        stream=False,
        status=response.status,
        connect_ms=response.connect_ms,
        call_number=call.number,
    )
    record.answered_by(attempt, speculative=False)
    on_response_closed().callback(response.close)
    headers = {name: response.headers[name] for name in _PASSED_HEADERS if name in response.headers}
    portions = _portions(response, record, attempt, started)
    return Response(portions, response.status, {**headers, **contract_headers(record)})


def _portions(response: UpstreamResponse, record: RequestRecord, attempt: Attempt, started: float) -> Iterator[bytes]:
    """The body of the answer. Where it breaks off, so does the client's."""
    try:
        yield from response.chunks()
    except RouterError as problem:
        record.add_attempt(attempt, problem)
        record.fail(problem)
        raise
    record.add_attempt(dataclasses.replace(attempt, duration_ms=record.ms() - record.ms(started)))
    record.complete()


def _backend(registry: Registry, kind: str) -> Backend:
    """Who gets requests of this kind. Raises NotSetUp."""
    name = registry.catalogue.doors.get(kind)
    if name == PRIMARY:
        return registry.primary
    backend = registry.clouds.get(name or "")
    if backend is None:
        raise NotSetUp(kind)
    return backend


def _parts(rest: str) -> list[str]:
    """The parts of the path behind the kind. Raises NotFound for anything that could lead elsewhere at the provider."""
    parts = rest.split("/") if rest else []
    if not all(_PART.fullmatch(part) and part.strip(".") for part in parts):
        raise NotFound("there is no such endpoint")
    return parts


def _content_type() -> dict[str, str]:
    """The client's own, which has the boundary of a multipart body in it."""
    given = request.headers.get("content-type", "")
    return {"Content-Type": given} if given.isascii() and given.isprintable() and given else {}


def _json_values(body: bytes) -> Any:
    """The body as JSON values; None: it is something else.

    Whether a request is local-only may stand in its ``metadata``. So raises InvalidRequest for a body that was meant to
    be JSON and cannot be read as such, while its provider might.
    """
    try:
        # Whatever its content type says: curl calls everything a form.
        return orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        if body and ("json" in request.headers.get("content-type", "").lower() or _LIKE_JSON.match(body)):
            why = f"the request body is not valid JSON: {problem}"
            raise InvalidRequest(why, "body", code="invalid_json") from None
        return None


def _chat_request(settings: ChatSettings, body: bytes) -> ChatRequest:
    """The request as what is logged, kept and counted, without words."""
    arrival, payload = arrival_of(settings), _json_values(body)
    return ChatRequest(
        request_id=arrival.request_id,
        session_id=arrival.session_id,
        timestamp=arrival.timestamp,
        arrived_at=arrival.arrived_at,
        model="",
        stream=False,
        messages=(),
        messages_json=b"[]",
        params={},
        date_context="",
        total_chars=0,
        client=arrival.client,
        organization=organization_of(arrival),
        key=arrival.key,
        trace=arrival.trace,
        local_only=why_local_only(arrival, payload, b"" if payload is not None else body),
    )
