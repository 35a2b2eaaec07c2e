"""GET /api/sessions and GET /api/sessions/{id}."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, jsonify, request

from ai_router.errors import InvalidRequest, SessionNotFound
from ai_router.observability.log_lines import is_slow
from ai_router.storage.session_logger import SessionLogger
from ai_router.storage.session_reader import CURSOR, SESSION_ID, SessionFiles, SessionFilter
from ai_router.types import Status
from ai_router.web import query
from ai_router.web.access import whose
from ai_router.web.lookups import Lookups

_MOST, _USUAL = 200, 50
_LONGEST_TEXT = 200


def blueprint(files: SessionFiles, writer: SessionLogger, flush: Callable[[], None], lookups: Lookups) -> Blueprint:
    """The routes. A client sees its own sessions, the admin all."""
    sessions = Blueprint("sessions", __name__)

    def saved() -> None:
        """Have what has ended by now saved before it is looked for."""
        flush()
        writer.flush()

    @sessions.get("/api/sessions")
    def listing() -> Response:
        session_filter, limit = _session_filter(), query.integer("limit", 1, _MOST, _USUAL)
        with lookups.place():
            saved()
            page = files.page(session_filter, limit)
        return jsonify(object="list", data=page.sessions, next=page.next, complete=page.complete)

    @sessions.get("/api/sessions/<session_id>")
    def one(session_id: str) -> Response:
        client = whose()
        if not SESSION_ID.fullmatch(session_id):
            raise InvalidRequest("a session's id is 8 to 32 hexadecimal digits", "session_id")
        with lookups.place():
            saved()
            document = files.get(session_id, client)
        if document is None:
            raise SessionNotFound(session_id)
        return Response(document, mimetype="application/json")

    return sessions


def _session_filter() -> SessionFilter:
    client = whose()
    query.known(("route", "status", "slow", "text", "before", "limit"))
    text = request.args.get("text") or None
    if text is not None and len(text) > _LONGEST_TEXT:
        raise InvalidRequest(f"'text' may have {_LONGEST_TEXT} characters", "text")
    return SessionFilter(
        client=client,
        route=request.args.get("route") or None,
        status=query.one_of("status", tuple(Status)),
        slow=_slow(),
        text=text,
        before=query.matching("before", CURSOR, "the 'next' of a page"),
    )


def _slow() -> Callable[[str, float], bool] | None:
    """``true``: over its route's limit, as SLOW_REQUEST in the log; a number: that many milliseconds or more."""
    value = request.args.get("slow")
    if value in (None, "", "false"):
        return None
    if value == "true":
        return is_slow
    least = query.integer("slow", 0, 86_400_000, 0)
    return lambda _, total_ms: total_ms >= least
