"""Server-sent events that are made in this process, for a page that shows what happens as it happens.

    events = LiveEvents()
    ... events.send(sse_event), from any thread, as often as there is something to say ...
    return live_response(events)

A server that knows EventStream sends them without a thread; any other gives the response one.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator

from flask import Response, request

from ai_router.dispatch.reply import KEEPALIVE
from ai_router.web.access import ON_DISCONNECT
from ai_router.web.responses import on_response_closed, stream_response


class LiveEvents:
    """An EventStream without a backend. ``on_close`` is called once the response has closed: send nothing then."""

    def __init__(self, on_close: Callable[[], object] = lambda: None) -> None:
        self._on_close = on_close
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        """Events that came before it was known where they go."""
        self._ended = False
        self._closed = False
        self._send: Callable[[bytes], object] | None = None
        self._finish: Callable[[], object] | None = None
        self.over = False
        self.keepalive = KEEPALIVE
        self.done = False

    def send(self, event: bytes) -> None:
        """Send a whole event, its blank line included. From any thread; after ``end`` nothing happens."""
        with self._lock:
            if self._ended or self._closed:
                return
            if self._send is not None:
                self._send(event)
            else:
                self._waiting.append(event)

    def end(self) -> None:
        """There are no more. From any thread."""
        with self._lock:
            self._ended = True
            if self._finish is not None:
                self._finish()

    def opening(self) -> Iterator[bytes]:
        """What has come by now."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        yield from waiting

    def detach(self, on_release: Callable[[], object]) -> socket.socket | None:  # noqa: ARG002 - there is no socket
        return None

    def attach(self, send: Callable[[bytes], object], finish: Callable[[], object]) -> None:
        with self._lock:
            self._send, self._finish = send, finish
            waiting, self._waiting = self._waiting, []
            for event in waiting:
                send(event)
            if self._ended:
                finish()

    def feed(self, data: bytes | None) -> bytes:  # noqa: ARG002 - there is no socket
        return b""

    def pause(self) -> None: ...
    def resume(self) -> None: ...

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._on_close()

    def body(self) -> Iterator[bytes]:
        """All of them, for a server that gives each stream a thread."""
        events: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        yield from self.opening()
        self.attach(events.put, lambda: events.put(None))
        while (event := events.get()) is not None:
            yield event


def live_response(events: LiveEvents) -> Response:
    """The response that streams ``events``. It closes when they end, and as soon as the client has left."""
    closing = on_response_closed()
    closing.callback(events.close)
    if request.method == "HEAD":
        return Response(content_type="text/event-stream")
    if (on_disconnect := request.environ.get(ON_DISCONNECT)) is not None:
        # Otherwise that would show with the next event only, and there may be none for long.
        closing.callback(on_disconnect(events.end))
    return stream_response(events, events.body(), {})
