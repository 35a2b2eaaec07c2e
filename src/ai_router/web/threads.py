"""/api/threads: conversations that are kept. Their messages are in thread_messages.py.

Whose a thread is: an organization's (``x-org-id``, else ``OpenAI-Organization``, else ``default``), and in it that of
the key that made it. For everybody else it does not exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, g, jsonify

from ai_router.storage.lazy_store import LazyStore
from ai_router.storage.thread_rows import Row
from ai_router.threads.runner import ThreadRunner
from ai_router.web.chat import ChatSettings
from ai_router.web.inputs import created, cursor, json_fields, page_size, text
from ai_router.web.thread_messages import add_message_routes, add_stream_routes
from ai_router.web.thread_owner import owner_of_request

if TYPE_CHECKING:
    from ai_router.storage.threads import ThreadStore


def blueprint(open_threads: LazyStore[ThreadStore], runner: ThreadRunner, settings: ChatSettings) -> Blueprint:
    """The routes. Authentication, ids and errors are the application's hooks."""
    threads = Blueprint("threads", __name__)
    add_message_routes(threads, open_threads, runner, settings)
    add_stream_routes(threads, open_threads, runner, settings)

    @threads.post("/api/threads")
    def create() -> Response:
        owner, fields = owner_of_request(), json_fields(settings.max_body, settings.max_values)
        title = text(fields, "title", required=False)
        return created(_thread_json(open_threads.store().create(owner.organization, g.client, title)))

    @threads.get("/api/threads")
    def list_threads() -> Response:
        owner, limit = owner_of_request(), page_size()
        rows = open_threads.store().page(owner, limit, cursor("before"))
        following = rows[-1]["updated_at"] if len(rows) == limit else None
        return jsonify(object="list", data=[_thread_json(row) for row in rows], next=following)

    @threads.get("/api/threads/<thread>")
    def get(thread: str) -> Response:
        return jsonify(_thread_json(open_threads.store().get(owner_of_request(), thread)))

    @threads.patch("/api/threads/<thread>")
    def change(thread: str) -> Response:
        title = text(json_fields(settings.max_body, settings.max_values), "title")
        return jsonify(_thread_json(open_threads.store().rename(owner_of_request(), thread, title)))

    @threads.delete("/api/threads/<thread>")
    def delete(thread: str) -> Response:
        owner = owner_of_request()
        store = open_threads.store()
        store.get(owner, thread)
        runner.cancel_thread(thread)
        store.delete(owner, thread)
        return jsonify(id=thread, object="thread.deleted", deleted=True)

    return threads


def _thread_json(row: Row) -> dict[str, Any]:
    names = ("id", "title", "organization", "created_at", "updated_at")
    return {"object": "thread", **{name: row[name] for name in names}}
