"""How many requests may be under way, and refusals that the server has decided on.

Two things are counted apart. Threads: a request holds one until its answer is out or its stream has begun; the server
counts those and lets requests wait (ai_router.server.event_loop). Requests under way, streams included: counted here,
for every server, so that memory and file descriptors last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from flask import Flask, request

from ai_router.errors import Overloaded, RouterError
from ai_router.web.responses import on_response_closed

REFUSAL = "ai_router.refusal"
"""Where the WSGI environment holds a RouterError with which the server wants a request refused: it has not read all of
its body."""
ARRIVED_AT = "ai_router.arrived_at"
"""Where it holds when the request's headers had arrived, in monotonic seconds."""
ON_DISCONNECT = "ai_router.on_disconnect"
"""Where it holds a function that takes a callback, for when the client closes its connection, and returns what ends
that. The callback runs on the server's thread."""
BACKEND_PATHS = frozenset({"/v1/chat/completions"})
"""Paths whose requests ask a backend: they take their time, and are counted."""


def asks_backends(method: str, path: str) -> bool:
    """Whether a request with this method and path may hold its thread for long."""
    return method == "POST" and path in BACKEND_PATHS


class RequestLimit:
    """A counter of requests under way, with a limit. Safe from any thread."""

    def __init__(self, limit: int, on_refusal: Callable[[], None] = lambda: None) -> None:
        self._limit = limit
        self._on_refusal = on_refusal
        self._lock = threading.Lock()
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """How many requests are under way now."""
        return self._in_flight

    def acquire(self) -> None:
        """Count a request in. Raises Overloaded at the limit."""
        with self._lock:
            if self._in_flight < self._limit:
                self._in_flight += 1
                return
        self._on_refusal()
        raise Overloaded(f"{self._limit} requests are under way, which is the limit; try again in a moment")

    def refused(self) -> None:
        """Count a request that the server refuses."""
        self._on_refusal()

    def release(self) -> None:
        """Count a request out."""
        with self._lock:
            self._in_flight -= 1


def init_app(app: Flask, limit: RequestLimit) -> None:
    """Refuse what the server wants refused, and count the requests that ask backends until their responses close.

    Raises RouterError from a ``before_request`` hook.
    """

    @app.before_request
    def count_in() -> None:
        refusal: RouterError | None = request.environ.get(REFUSAL)
        if refusal is not None:
            if isinstance(refusal, Overloaded):
                limit.refused()
            raise refusal
        if asks_backends(request.method, request.path):
            limit.acquire()
            on_response_closed().callback(limit.release)
