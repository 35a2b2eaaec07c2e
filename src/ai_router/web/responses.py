"""The headers of the contract, and errors as responses."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from math import ceil

from flask import Flask, Response, current_app, g
from werkzeug.exceptions import HTTPException

from ai_router.dispatch.record import RequestRecord
from ai_router.errors import (
    INTERNAL,
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RouterError,
    StoreUnavailable,
    envelope_json,
)

log = logging.getLogger(__name__)

_SCRUBBING = "ai_router.scrubbing"
_MAX_HEADER = 500
_UNPRINTABLE = re.compile(r"[^ -~]")
_TIMINGS = {"classification_ms": "classify", "speculate_ms": "speculate", "upstream_ms": "upstream"}
"""What is told beside the parts: these overlap with them."""
_PARTS = ("receive", "decide", "enrichment", "queue", "backoff", "failed", "connect", "ttft")


def contract_headers(record: RequestRecord) -> dict[str, str]:
    """What every completion carries, as far as it is known when the headers go out; without a decision, the ids."""
    headers = {"x-request-id": record.request.request_id, "x-session-id": record.request.session_id}
    decision = record.decision
    if decision is None:
        return headers
    if decision.warning is not None:
        headers["x-router-warning"] = _header_safe(decision.warning)
    return headers | {
        "x-router-route": record.route,
        "x-router-model": _header_safe(record.model or ""),
        "x-router-decided-by": decision.decided_by,
        "x-router-reason": _header_safe(record.reason),
        "x-router-confidence": "unknown" if decision.confidence is None else f"{decision.confidence:.3f}",
        "x-router-speculation": record.speculation,
        "server-timing": _server_timing(record),
    }


def error_parts(
    error: RouterError, scrub: Callable[[bytes], bytes], headers: Mapping[str, str]
) -> tuple[dict[str, str], bytes]:
    """The headers and the envelope of an error. ``scrub`` takes known keys out of JSON: an error may repeat what a
    client or a backend said, and they may have said a key."""
    told = {"content-type": "application/json", **headers}
    if error.retry_after_s is not None:
        told["retry-after"] = str(ceil(error.retry_after_s))
    return told, scrub(envelope_json(error))


def error_response(error: RouterError) -> Response:
    """The envelope with the error's status, from Flask's side."""
    known = {"x-request-id": g.request_id} if "request_id" in g else {}
    headers, body = error_parts(error, current_app.extensions[_SCRUBBING], known)
    return Response(body, status=error.status, headers=headers)


def init_app(app: Flask, scrub: Callable[[bytes], bytes], told: Callable[[RouterError], None]) -> None:
    """Render every error as the envelope: ours as they are, Flask's and unforeseen ones as ours.

    ``scrub`` takes known keys out of JSON; ``told`` is told what ended before it was a request.
    """
    app.extensions[_SCRUBBING] = scrub

    @app.errorhandler(RouterError)
    def ours(error: RouterError) -> Response:
        if isinstance(error, StoreUnavailable):
            log.warning("Usage cannot be read: %s", error.detail)
        told(error)
        return error_response(error)

    @app.errorhandler(HTTPException)
    def flasks(error: HTTPException) -> Response:
        return error_response(_translated(error))

    @app.errorhandler(Exception)
    def unforeseen(error: Exception) -> Response:
        log.error("a request failed for a reason of our own", exc_info=error)
        return error_response(InternalError(INTERNAL))


def _translated(error: HTTPException) -> RouterError:
    """Flask's own refusals (no such path, wrong method) in our tree."""
    kinds: dict[int | None, RouterError] = {
        404: NotFound("no such path; see GET /v1/models and the documentation"),
        405: MethodNotAllowed("this path does not take that method"),
        413: BodyTooLarge("the request is too large"),
    }
    return kinds.get(error.code) or InvalidRequest(error.description or error.name)


def _server_timing(record: RequestRecord) -> str:
    """The waterfall until now. ``decide`` has ``classify`` in it; ``speculate`` and ``upstream`` run beside others."""
    timings, parts = record.timings, dict(record.parts)
    parts["decide"] = parts.get("decide", 0.0) + parts.get("classify", 0.0)
    told = {name: parts[name] for name in _PARTS if name in parts}
    told |= {label: timings[name] for name, label in _TIMINGS.items() if name in timings}
    return ", ".join(f"{name};dur={ms:.1f}" for name, ms in told.items())


def _header_safe(value: str) -> str:
    """One line of printable ASCII: reasons may quote a backend's words."""
    return _UNPRINTABLE.sub("?", " ".join(value.split()))[:_MAX_HEADER]
