"""Responses: the headers of the contract, streams, errors, and what is called when a response has closed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from math import ceil
from urllib.parse import quote

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as HTTPMethodNotAllowed

from ai_router.client_apis import ERROR_FORMS
from ai_router.dispatch.record import RequestRecord
from ai_router.dispatch.reply import EventStream
from ai_router.envelope import envelope_json
from ai_router.errors import (
    INTERNAL,
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    RouterError,
    StoreUnavailable,
)
from ai_router.routing.shown_ask import shown_ask
from ai_router.web.paths import ASKED_PATH, no_such_path

log = logging.getLogger(__name__)

STREAM = "ai_router.stream"
"""Where the WSGI environment holds the EventStream of a response, for a server that sends it without a thread."""
EVENTS = "text/event-stream"
_STREAM_HEADERS = {
    "cache-control": "no-cache",
    # nginx holds events back until its buffer is full unless told otherwise.
    "x-accel-buffering": "no",
}
_MAX_HEADER = 500
_UNPRINTABLE = re.compile(r"[^ -~]")
_NOT_ENCODED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_TIMINGS = {"classification_ms": "classify", "speculate_ms": "speculate", "upstream_ms": "upstream"}
"""What is told beside the parts: these overlap with them."""
_PARTS = ("receive", "decide", "enrichment", "queue", "backoff", "failed", "connect", "ttft")


class StreamBody:
    """The body of a streamed response: for a server that knows EventStream its events, for any other an iterator."""

    def __init__(self, events: EventStream, portions: Iterator[bytes]) -> None:
        self.events = events
        self._portions = portions

    def __iter__(self) -> Iterator[bytes]:
        return self._portions

    def close(self) -> None:
        """Go no further. The events are closed by the response's callbacks, in their order."""
        if close := getattr(self._portions, "close", None):
            close()


def stream_response(
    events: EventStream, portions: Iterator[bytes], headers: Mapping[str, str], media_type: str = EVENTS
) -> Response:
    """A response that streams events; ``portions`` are the same events for a server that pulls them."""
    body = StreamBody(events, portions)
    g.stream = body
    return Response(body, 200, {"content-type": f"{media_type}; charset=utf-8", **_STREAM_HEADERS, **headers})


def contract_headers(record: RequestRecord) -> dict[str, str]:
    """What every completion carries, as far as it is known when the headers go out; without a decision, the ids."""
    headers = {"x-request-id": record.request.request_id, "x-session-id": record.request.session_id}
    decision = record.decision
    if decision is None:
        return headers
    if warning := record.warning:
        headers["x-router-warning"] = _header_safe(warning)
    return headers | {
        "x-router-route": record.route,
        "x-router-model": _header_safe(record.model or ""),
        "x-router-decided-by": decision.decided_by,
        "x-router-reason": _reason(record.reason, shown_ask(decision, record.scrub) if decision.ask else ""),
        "x-router-confidence": "unknown" if decision.confidence is None else f"{decision.confidence:.3f}",
        "x-router-speculation": record.speculation,
        "server-timing": _server_timing(record),
    }


def on_response_closed() -> ExitStack:
    """Callbacks for when the response of the present request has closed, however it did; last registered, first called.

    They are called by whatever thread closes the response. Without a response they are called at the request's end.
    """
    if "closing" not in g:
        g.closing = ExitStack()
    closing: ExitStack = g.closing
    return closing


def error_response(error: RouterError, scrub: Callable[[bytes], bytes]) -> Response:
    """The envelope, as the client's API has it, with the error's status, and the headers that are known by then.

    ``scrub`` takes known keys out of JSON: an error may repeat what a client or a backend said, and they may have said
    a key.
    """
    headers = {"x-request-id": g.request_id} if "request_id" in g else {}
    if "record" in g:
        headers = contract_headers(g.record)
    if error.retry_after_s is not None:
        headers["retry-after"] = str(ceil(error.retry_after_s))
    api = ERROR_FORMS.get(request.path)
    body = envelope_json(error) if api is None else api.error_body(error, headers.get("x-request-id", ""))
    return Response(scrub(body), error.status, headers, content_type="application/json")


def init_app(app: Flask, scrub: Callable[[bytes], bytes], on_refused: Callable[[RouterError], None]) -> None:
    """Render every error as the envelope: ours as they are, Flask's and unforeseen ones as ours.

    ``scrub`` takes known keys out of JSON; ``on_refused`` is called with what ended before it was a chat request. To be
    called before anything else registers an ``after_request`` hook: those run in reverse order, and the one of here has
    to be the last.
    """
    _close_with_responses(app)
    _render_errors(app, scrub, on_refused)


def _close_with_responses(app: Flask) -> None:
    @app.after_request
    def close_with_response(response: Response) -> Response:
        if (closing := g.pop("closing", None)) is not None:
            response.call_on_close(closing.close)
        stream: StreamBody | None = g.pop("stream", None)
        if stream is not None and response.response is stream:
            # Nobody has wrapped the body: the server may send the stream without a thread for it.
            request.environ[STREAM] = stream.events
        return response

    @app.teardown_request
    def close_without_response(_error: BaseException | None) -> None:
        if (closing := g.pop("closing", None)) is not None:
            closing.close()


def _render_errors(app: Flask, scrub: Callable[[bytes], bytes], on_refused: Callable[[RouterError], None]) -> None:
    @app.errorhandler(RouterError)
    def of_ours(error: RouterError) -> Response:
        if isinstance(error, StoreUnavailable):
            log.warning("Usage cannot be read: %s", error.detail)
        if "record" not in g:
            on_refused(error)
        return error_response(error, scrub)

    @app.errorhandler(HTTPException)
    def of_flask(error: HTTPException) -> Response:
        if (error.code or 500) >= 500:
            return unforeseen(getattr(error, "original_exception", None) or error)
        translated = _translated(error, app)
        on_refused(translated)
        if isinstance(translated, NotFound):
            log.info("No such path: %s", scrub(str(translated).encode()).decode())
        response = error_response(translated, scrub)
        if isinstance(error, HTTPMethodNotAllowed):
            response.allow.update(error.valid_methods or ())
        return response

    @app.errorhandler(MemoryError)
    def out_of_memory(_error: MemoryError) -> Response:
        log.error("A request was refused: there is no memory for it")
        return error_response(Overloaded("there is no memory for this request just now; try again"), scrub)

    @app.errorhandler(Exception)
    def unforeseen(error: BaseException) -> Response:
        log.error("a request failed for a reason of our own", exc_info=error)
        return error_response(InternalError(INTERNAL), scrub)


def _translated(error: HTTPException, app: Flask) -> RouterError:
    """Flask's own refusals (no such path, wrong method) in our tree."""
    if error.code == 404:
        known = (f"{method} {rule.rule}" for rule in app.url_map.iter_rules() for method in rule.methods or ())
        return no_such_path(request.method, request.environ.get(ASKED_PATH) or request.path, known)
    if isinstance(error, HTTPMethodNotAllowed):
        takes = ", ".join(sorted(error.valid_methods or ()))
        return MethodNotAllowed(f"{request.path} does not take {request.method}; it takes {takes}")
    if error.code == 413:
        return BodyTooLarge("the request is too large")
    return InvalidRequest(error.description or error.name)


def _server_timing(record: RequestRecord) -> str:
    """The waterfall until now. ``decide`` has ``classify`` in it; ``speculate`` and ``upstream`` run beside others."""
    timings, parts = record.timings, dict(record.parts)
    parts["decide"] = parts.get("decide", 0.0) + parts.get("classify", 0.0)
    told = {name: parts[name] for name in _PARTS if name in parts}
    told |= {label: timings[name] for name, label in _TIMINGS.items() if name in timings}
    return ", ".join(f"{name};dur={ms:.1f}" for name, ms in told.items())


def _reason(reason: str, ask: str) -> str:
    """The reason, and the ask that was judged, percent-encoded as far as it is not printable ASCII."""
    safe = _header_safe(reason)
    return f"{safe}; {quote(ask, safe=_NOT_ENCODED)}" if ask else safe


def _header_safe(value: str) -> str:
    """One line of printable ASCII: reasons may quote a backend's words."""
    return _UNPRINTABLE.sub("?", " ".join(value.split()))[:_MAX_HEADER]
