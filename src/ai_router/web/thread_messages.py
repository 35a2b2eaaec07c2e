"""/api/threads/{id}/messages and below: what is said in a thread, and answers that survive a reload of the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from flask import Blueprint, Response, g, jsonify, request

from ai_router.errors import BodyTooLarge, InvalidRequest, Overloaded, RouterError, StoreUnavailable
from ai_router.local_policy import marked_local_only, says_local_only
from ai_router.routing.prompt import local_date_context
from ai_router.storage.lazy_store import LazyStore
from ai_router.storage.thread_rows import COMPLETE, STREAMING, Row, ThreadNotFound
from ai_router.threads.answer import ThreadAnswer
from ai_router.threads.events import last_event, rows_as_messages
from ai_router.threads.runner import ThreadRunner
from ai_router.types import ChatRequest
from ai_router.web.access import ARRIVED_AT, ON_DISCONNECT
from ai_router.web.chat import ChatSettings, arrival_of
from ai_router.web.inputs import created, cursor, is_number, json_fields, page_size, text
from ai_router.web.live_events import LiveEvents, live_response
from ai_router.web.policy import VARIABLE as POLICY
from ai_router.web.policy import why_local_only
from ai_router.web.quality import VARIABLE as QUALITY
from ai_router.web.requests import Arrival, check_values, parse_chat_request
from ai_router.web.responses import on_response_closed
from ai_router.web.thread_owner import organization_of_request, store_with

if TYPE_CHECKING:
    from ai_router.storage.threads import ThreadStore

_ROLES = ("user", "assistant", "system")
_OWN_FIELDS = ("content", "role", "provider", "model", "replaces", "messages", "stream")
_TITLE_CHARS = 60
_HISTORY = 1_000
"""How many messages of a thread a backend is sent at most."""


def add_message_routes(
    threads: Blueprint, open_threads: LazyStore[ThreadStore], runner: ThreadRunner, settings: ChatSettings
) -> None:
    """The routes that answer with JSON."""

    @threads.get("/api/threads/<thread>/messages")
    def list_messages(thread: str) -> Response:
        store, limit = store_with(open_threads, thread), page_size()
        before = cursor("before")
        rows = store.messages(thread, limit, None if before is None else int(before))
        following = str(rows[0]["position"]) if len(rows) == limit else None
        return jsonify(object="list", data=[_message_json(row) for row in rows], next=following)

    @threads.post("/api/threads/<thread>/messages")
    def add_message(thread: str) -> Response:
        """Add a message. One of the user is answered, in one piece, and the answer is returned."""
        store, fields = store_with(open_threads, thread), json_fields(settings.max_body, settings.max_values)
        content, role = text(fields, "content"), _role(fields)
        if role != "user":
            details = marked_local_only({}) if why_local_only(arrival_of(settings), fields) else {}
            (row,) = store.add(thread, {"role": role, "content": content, "status": COMPLETE, "details": details})
            return created(_message_json(row))
        answer = _begin(store, runner, settings, thread, fields, counted=True)
        leave, closing = answer.join(LiveEvents()), on_response_closed()
        closing.callback(leave)
        if (on_disconnect := request.environ.get(ON_DISCONNECT)) is not None:
            closing.callback(on_disconnect(leave))
        answer.finished.wait()
        return created(_message_json(store.message(thread, answer.message)))


def add_stream_routes(
    threads: Blueprint, open_threads: LazyStore[ThreadStore], runner: ThreadRunner, settings: ChatSettings
) -> None:
    """The routes of answers under way."""

    @threads.post("/api/threads/<thread>/messages/stream")
    def stream_message(thread: str) -> Response:
        """Add a message of the user, and stream its answer as events."""
        store, fields = store_with(open_threads, thread), json_fields(settings.max_body, settings.max_values)
        if _role(fields) != "user":
            raise InvalidRequest("only a message of the user is answered: 'role' must be 'user'", "role")
        return _streamed(_begin(store, runner, settings, thread, fields))

    @threads.get("/api/threads/<thread>/messages/<message>/stream")
    def resume(thread: str, message: str) -> Response:
        """Go on with a stream, after the event that Last-Event-ID names."""
        store, after = store_with(open_threads, thread), _event_id()
        if (answer := runner.find(message)) is not None and answer.thread == thread:
            return _streamed(answer, after)
        if store.message(thread, message)["status"] == STREAMING:
            return _streamed_elsewhere(store, runner, thread, message, after)
        events = LiveEvents()
        _send_last(events, store.message(thread, message), after)
        return live_response(events)

    @threads.get("/api/threads/<thread>/messages/<message>")
    def get_message(thread: str, message: str) -> Response:
        return jsonify(_message_json(store_with(open_threads, thread).message(thread, message)))

    @threads.post("/api/threads/<thread>/messages/<message>/cancel")
    def cancel(thread: str, message: str) -> Response:
        """Stop an answer. Asked twice, or too late, it says so."""
        started = time.monotonic()
        row = store_with(open_threads, thread).message(thread, message)
        cancelled = runner.cancel(message)
        took_ms = round((time.monotonic() - started) * 1000, 1)
        return jsonify(id=message, object="message.cancel", cancelled=cancelled, was=row["status"], took_ms=took_ms)


def _streamed(answer: ThreadAnswer, after: int = 0) -> Response:
    leave: list[Callable[[], None]] = []
    events = LiveEvents(on_close=lambda: [function() for function in leave])
    leave.append(answer.join(events, after))
    return live_response(events)


def _streamed_elsewhere(store: ThreadStore, runner: ThreadRunner, thread: str, message: str, after: int) -> Response:
    """The events of an answer that another process gives. Raises Overloaded if none says that it does."""
    leave: list[Callable[[], None]] = []
    events = LiveEvents(on_close=lambda: [function() for function in leave])

    def is_over() -> bool:
        try:
            return bool(store.message(thread, message)["status"] != STREAMING)
        except StoreUnavailable:
            return False
        except ThreadNotFound:
            return True

    def on_lost() -> None:
        try:
            _send_last(events, store.message(thread, message), after)
        except RouterError:  # deleted meanwhile, or the database is gone: there is nothing to say any more
            events.end()

    left = runner.elsewhere.follow(message, thread, after, events, is_over, on_lost)
    if left is not None:
        leave.append(left)
    elif is_over():
        on_lost()
    else:
        raise Overloaded("another process answers this message; try again in a few seconds")
    return live_response(events)


def _send_last(events: LiveEvents, row: Row, after: int) -> None:
    """The last event of an answer that has ended."""
    shown = orjson.dumps({"message_id": row["id"], "saved": True, **_message_json(row)})
    name = last_event(row["status"]).encode()
    events.send(b"id: %d\nevent: %s\ndata: %s\n\n" % (after + 1, name, shown))
    events.end()


def _begin(
    store: ThreadStore,
    runner: ThreadRunner,
    settings: ChatSettings,
    thread: str,
    fields: Mapping[str, Any],
    *,
    counted: bool = False,
) -> ThreadAnswer:
    """Keep the user's message and begin the answer. ``counted``: the request is one of those under way already."""
    content, replaced = text(fields, "content"), _replaced(store, thread, fields)
    rows = store.messages(thread, _HISTORY, replaced)
    if any(says_local_only(row["details"]) for row in rows):
        fields = marked_local_only(fields)
    history = rows_as_messages(rows)
    chat_request = _chat_request(settings, fields, [*history, {"role": "user", "content": content}])
    if not history:
        store.name_if_nameless(thread, _title_of(content))
    # What was said under that policy is sent along with each message that follows.
    details = marked_local_only({}) if chat_request.local_only else {}
    message = {"role": "user", "content": content, "status": COMPLETE, "details": details}
    if replaced is not None:
        # Their answers are about to be deleted.
        runner.cancel_thread(thread)
    return runner.start(chat_request, thread, message, replaces=replaced, counted=counted)


def _replaced(store: ThreadStore, thread: str, fields: Mapping[str, Any]) -> int | None:
    """The position of the message that the new one replaces, with all behind it. Raises InvalidRequest."""
    replaces = text(fields, "replaces", required=False)
    if not replaces:
        return None
    row = store.message(thread, replaces)
    if row["role"] != "user":
        raise InvalidRequest("only a message of the user can be replaced, with all that follows it", "replaces")
    return int(row["position"])


def _chat_request(
    settings: ChatSettings, fields: Mapping[str, Any], messages: Sequence[Mapping[str, str]]
) -> ChatRequest:
    """The request to a backend: the conversation, and the client's other fields as they came."""
    others = {name: value for name, value in fields.items() if name not in _OWN_FIELDS}
    body = orjson.dumps({**others, "model": _model(fields), "messages": messages, "stream": True})
    if len(body) > settings.max_body:
        raise BodyTooLarge("the thread has become longer than a request may be (MAX_BODY_MB): begin another")
    check_values(body, settings.max_values)
    environ, now = request.environ, datetime.now(UTC)
    traceparent = environ.get("HTTP_TRACEPARENT")
    arrival = Arrival(
        arrived_at=environ.get(ARRIVED_AT) or time.monotonic(),
        timestamp=now,
        request_id=g.request_id,
        session_id=settings.ids.session_id(),
        headers=(),
        date_context=local_date_context(now) if settings.tell_date else "",
        client=g.client,
        organization=organization_of_request(),
        key=g.key,
        trace=settings.trace_of(traceparent) if traceparent or settings.traces_all else None,
        policy=environ.get(POLICY),
        quality=environ.get(QUALITY),
        finder=settings.privacy.finder,
    )
    return parse_chat_request(body, arrival)


def _model(fields: Mapping[str, Any]) -> str:
    """``provider`` and ``model`` as one name; ``auto`` without either."""
    provider, model = (text(fields, name, required=False) for name in ("provider", "model"))
    if provider in ("", "auto") or (provider and model.startswith(f"{provider}/")):
        return model or "auto"
    return f"{provider}/{model}" if model else provider


def _title_of(content: str) -> str:
    """The first words of the first message."""
    line = " ".join(content.split())
    return line if len(line) <= _TITLE_CHARS else line[: _TITLE_CHARS - 3].rsplit(" ", 1)[0] + "..."


def _role(fields: Mapping[str, Any]) -> str:
    role = fields.get("role", "user")
    if role not in _ROLES:
        raise InvalidRequest(f"'role' must be one of {', '.join(_ROLES)}", "role")
    return str(role)


def _event_id() -> int:
    text = request.headers.get("last-event-id") or request.args.get("after") or "0"
    if not is_number(text):
        raise InvalidRequest("Last-Event-ID must be the number of an event", "last-event-id")
    return int(text)


def _message_json(row: Row) -> dict[str, Any]:
    names = ("id", "role", "content", "reasoning", "status", "created_at", "finished_at", "request_id", "session_id")
    shown = {name: row[name] for name in names}
    return {
        "object": "thread.message",
        "thread_id": row["thread"],
        **shown,
        "model": row["asked_for"],
        "details": row["details"],
        "error": row["error"],
    }
