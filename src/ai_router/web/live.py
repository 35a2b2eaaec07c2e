"""GET /api/live: what happens now, as events; GET /api/doubt and /api/replay: how sure the decisions were."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, jsonify, request

from ai_router.console.doubt import MAX_SESSIONS, Doubts
from ai_router.console.live import LiveView
from ai_router.errors import InvalidRequest
from ai_router.storage.session_logger import SessionLogger
from ai_router.web.access import whose
from ai_router.web.inputs import integer
from ai_router.web.live_events import LiveEvents, live_response
from ai_router.web.reports import Lookups, refuse_others

_DEFAULT_SESSIONS = 300


def blueprint(
    view: LiveView, doubts: Doubts, writer: SessionLogger, flush: Callable[[], None], lookups: Lookups
) -> Blueprint:
    """The routes. A client sees what is its own, the admin sees everything. ``flush`` has all requests that have ended
    recorded, and ``writer`` writes their files."""
    live = Blueprint("live", __name__)

    @live.get("/api/live")
    def events() -> Response:
        """Requests under way, backends, and the day's sums, each when it changes. Takes no thread of the server's."""
        sees, leave = whose(), list[Callable[[], None]]()
        reader = LiveEvents(on_close=lambda: [function() for function in leave])
        leave.append(view.join(reader, sees))
        return live_response(reader)

    @live.get("/api/doubt")
    def doubt() -> Response:
        """The latest decisions, and how sure they were."""
        sees = whose()
        refuse_others(("limit",))
        limit = integer("limit", 1, MAX_SESSIONS, _DEFAULT_SESSIONS)
        with lookups.slot():
            flush()
            writer.flush()
            return jsonify(object="doubt", **doubts.report(sees, limit))

    @live.get("/api/replay")
    def replay() -> Response:
        """What another threshold would have changed."""
        sees = whose()
        refuse_others(("limit", "threshold"))
        limit, threshold = integer("limit", 1, MAX_SESSIONS, _DEFAULT_SESSIONS), _threshold()
        with lookups.slot():
            flush()
            writer.flush()
            return jsonify(object="replay", **doubts.replayed(sees, limit, threshold))

    return live


def _threshold() -> float:
    """The parameter ``threshold``, a confidence. Raises InvalidRequest."""
    try:
        threshold = float(request.args.get("threshold", ""))
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise InvalidRequest("'threshold' must be a number from 0 to 1", "threshold")
    return threshold
