"""Reports of what was kept: GET /api/sessions, GET /api/sessions/{id}, GET /api/usage and GET /api/egress.

Here are the routes, how they read their query parameters, and the limit on how many look-ups run at a time.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Blueprint, Response, jsonify, request

from ai_router.errors import InvalidRequest, Overloaded, RouterError, SessionNotFound, StoreUnavailable
from ai_router.observability.log_lines import is_slow
from ai_router.providers.pricing import Baseline
from ai_router.storage.session_logger import SessionLogger
from ai_router.storage.session_reader import CURSOR, SESSION_ID, SessionFiles, SessionFilter
from ai_router.storage.usage_writer import UsageWriter
from ai_router.types import Status
from ai_router.web.access import whose
from ai_router.web.inputs import integer, page_size

if TYPE_CHECKING:
    from ai_router.storage.usage import UsageStore

T = TypeVar("T")

GROUPINGS = ("day", "route", "model", "organization", "client", "backend", "status")
"""The columns that ``by`` takes."""
_ALIASES = {"org": "organization", "key": "client"}
"""Other names that ``by`` takes for two of them."""
_EGRESS = (
    *("id", "at", "session_id", "route", "status", "backend", "model", "purpose", "bytes_sent", "bytes_received"),
    *("input_tokens", "output_tokens", "cost_usd"),
)
_EGRESS_ID = re.compile(r"[0-9a-f]{1,16}-[0-9a-f]{8,32}-(?:[0-9]{1,6}|j[0-9a-f]{9,10})")
_MAX_DAYS = 3_660
_FIRST_YEAR = 2000
_MAX_SEARCH_CHARS = 200
_MAX_LOOKUPS = 4
"""Few, since look-ups run on the request threads that chats need."""
_TIMEOUT_S = 10.0
"""How long a look-up in the database may take, with the wait until it is open."""


def sessions_blueprint(
    files: SessionFiles, writer: SessionLogger, flush: Callable[[], None], lookups: Lookups
) -> Blueprint:
    """GET /api/sessions and /api/sessions/{id}. A client sees its own sessions, the admin sees all.

    ``flush`` has all requests that have ended recorded; ``writer`` then writes their files.
    """
    sessions = Blueprint("sessions", __name__)

    def flush_all() -> None:
        """Have a file written for each request that has ended by now."""
        flush()
        writer.flush()

    @sessions.get("/api/sessions")
    def list_sessions() -> Response:
        session_filter, limit = _session_filter(), page_size()
        with lookups.slot():
            flush_all()
            page = files.page(session_filter, limit)
        return jsonify(object="list", data=page.sessions, next=page.next, complete=page.complete)

    @sessions.get("/api/sessions/<session_id>")
    def get_session(session_id: str) -> Response:
        client = whose()
        if not SESSION_ID.fullmatch(session_id):
            raise InvalidRequest("a session's id is 8 to 32 hexadecimal digits", "session_id")
        with lookups.slot():
            flush_all()
            document = files.get(session_id, client)
        if document is None:
            raise SessionNotFound(session_id)
        return Response(document, mimetype="application/json")

    return sessions


def _session_filter() -> SessionFilter:
    client = whose()
    refuse_others(("route", "status", "slow", "text", "before", "limit"))
    text = request.args.get("text") or None
    if text is not None and len(text) > _MAX_SEARCH_CHARS:
        raise InvalidRequest(f"'text' may have {_MAX_SEARCH_CHARS} characters", "text")
    return SessionFilter(
        client=client,
        route=request.args.get("route") or None,
        status=_one_of("status", tuple(Status)),
        slow=_slow_filter(),
        text=text,
        before=_matching("before", CURSOR, "the 'next' of a page"),
    )


def _slow_filter() -> Callable[[str, float], bool] | None:
    """The parameter ``slow``. ``true``: over the limit of the route, as for SLOW_REQUEST in the log; a number: that
    many milliseconds or more; ``false``, empty or absent: no filter."""
    value = request.args.get("slow")
    if value in (None, "", "false"):
        return None
    if value == "true":
        return is_slow
    min_ms = integer("slow", 0, 86_400_000, 0)
    return lambda _, total_ms: total_ms >= min_ms


def usage_blueprint(
    usage: UsageWriter[UsageStore] | None, baseline: Baseline | None, flush: Callable[[], None], lookups: Lookups
) -> Blueprint:
    """GET /api/usage: tokens, costs, what local answers saved, and what left the local network, between two days; and
    GET /api/egress: each call that left.

    A client sees its own usage, the admin sees all. ``usage``: None with TELEMETRY=off. ``baseline``: the model whose
    price local answers are compared with. ``flush`` has all requests that have ended recorded.
    """
    blueprint = Blueprint("usage", __name__)

    @blueprint.get("/api/usage")
    def usage_report() -> Response:
        client = whose()
        refuse_others(("from", "to", "by"))
        today = datetime.now(UTC).date()
        until = _day("to", today)
        since = _day("from", until - timedelta(days=29))
        if not 0 <= (until - since).days < _MAX_DAYS:
            raise InvalidRequest(f"'from' must be before 'to', by {_MAX_DAYS} days at most", "from")
        words = _several_of("by", (*GROUPINGS, *_ALIASES), "day")
        by = list(dict.fromkeys(_ALIASES.get(word, word) for word in words))
        if usage is None:
            raise StoreUnavailable("TELEMETRY=off", "TELEMETRY=off: no usage is kept")
        flush()
        period = (since.isoformat(), until.isoformat(), client)

        def read() -> Mapping[str, Any]:
            usage.flush()
            store = usage.wait_for_store(lookups.timeout_s)
            return {
                "total": store.totals(*period, by=())[0],
                "groups": store.totals(*period, by=by),
                "left_local_network": store.egress_totals(*period),
            }

        return jsonify(
            object="usage",
            **{"from": period[0], "to": period[1]},
            by=by,
            **lookups.query(read),
            baseline=_baseline_json(baseline),
            rows_waiting=usage.waiting,
        )

    @blueprint.get("/api/egress")
    def calls_that_left() -> Response:
        """The calls that left the local network, newest first, each with its session."""
        client, limit = whose(), page_size()
        refuse_others(("limit", "before"))
        before = _matching("before", _EGRESS_ID, "the 'next' of a page")
        if usage is None:
            raise StoreUnavailable("TELEMETRY=off", "TELEMETRY=off: no usage is kept")
        flush()

        def read() -> Sequence[Mapping[str, Any]]:
            usage.flush()
            return usage.wait_for_store(lookups.timeout_s).egress_calls(client, limit, before)

        rows = lookups.query(read)
        following = rows[-1]["id"] if len(rows) == limit else None
        return jsonify(object="list", data=[{name: row[name] for name in _EGRESS} for row in rows], next=following)

    return blueprint


def _baseline_json(baseline: Baseline | None) -> Mapping[str, Any] | None:
    """The model, and its price, by which ``saved_usd`` was computed; None without one."""
    if baseline is None:
        return None
    price = baseline.price
    per_million = None if price is None else {"input": price.input, "cached": price.cached, "output": price.output}
    return {"model": baseline.model, "usd_per_million_tokens": per_million}


def refuse_others(names: Collection[str]) -> None:
    """Refuse query parameters other than these: a misspelt filter must not look as if it matched everything."""
    for name in request.args:
        if name not in names:
            raise InvalidRequest(f"'{name[:50]}' is no parameter here; there are {', '.join(sorted(names))}", name[:50])


def _one_of(name: str, values: Collection[str]) -> str | None:
    """A query parameter that must be one of ``values``; None without it. Raises InvalidRequest, as all of these do."""
    value = request.args.get(name)
    if value is not None and value not in values:
        raise InvalidRequest(f"'{name}' must be one of {', '.join(values)}", name)
    return value


def _several_of(name: str, values: Collection[str], default: str) -> list[str]:
    """A query parameter of several of ``values``, separated by commas, without repetitions."""
    parts = [part.strip() for part in request.args.get(name, default).split(",") if part.strip()]
    for part in parts:
        if part not in values:
            raise InvalidRequest(f"'{name}' takes {', '.join(values)}, not '{part[:50]}'", name)
    return list(dict.fromkeys(parts))


def _matching(name: str, pattern: re.Pattern[str], what: str) -> str | None:
    """A query parameter that must match ``pattern``, which ``what`` describes; None without it."""
    value = request.args.get(name)
    if value is not None and not pattern.fullmatch(value):
        raise InvalidRequest(f"'{name}' must be {what}", name)
    return value


def _day(name: str, default: date) -> date:
    """A query parameter that must be a day, as in 2026-11-22."""
    value = request.args.get(name)
    if value is None:
        return default
    try:
        found = date.fromisoformat(value)
    except ValueError:
        found = date.min
    if found.year < _FIRST_YEAR:
        raise InvalidRequest(f"'{name}' must be a day like 2026-11-22", name)
    return found


class Lookups:
    """Limits how many look-ups of sessions and usage run at a time, and how long those in the database take."""

    def __init__(self, limit: int = _MAX_LOOKUPS, timeout_s: float = _TIMEOUT_S) -> None:
        self._slots = threading.Semaphore(limit)
        self.timeout_s = timeout_s

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the ``limit`` slots for the block. Raises Overloaded if none is free."""
        self._take_slot()
        try:
            yield
        finally:
            self._slots.release()

    def query(self, read: Callable[[], T]) -> T:
        """Call ``read`` in a slot, on a thread of its own, and return what it returns or raise the RouterError that it
        raises.

        Raises Overloaded if no slot is free, and StoreUnavailable after ``timeout_s`` seconds. ``read`` then goes on
        and keeps its slot until it ends: a database that hangs holds ``limit`` threads, and no request thread.
        """
        self._take_slot()
        ended = threading.Event()
        results: list[T] = []
        errors: list[RouterError] = []

        def run() -> None:
            try:
                results.append(read())
            except RouterError as error:
                errors.append(error)
            finally:
                self._slots.release()
                ended.set()

        threading.Thread(target=run, name="look-up", daemon=True).start()
        if not ended.wait(self.timeout_s):
            raise StoreUnavailable(f"no answer within {self.timeout_s:g} s")
        if not results:
            raise errors[0] if errors else StoreUnavailable("a look-up failed; see the log")
        return results[0]

    def _take_slot(self) -> None:
        if not self._slots.acquire(blocking=False):
            raise Overloaded("too many look-ups at once; try again in a moment")
