"""One answer of a thread under way: its events, numbered, and who reads them.

A reader that comes back names the last event that it has seen, and gets those after it. Events are kept in memory, at
most MAX_KEPT_BYTES of them; a reader that has missed more gets a ``snapshot``: the text until now.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from ai_router.errors import Aborted, RouterError
from ai_router.http.calls import CancelScope
from ai_router.http.timers import Deadline, TimerThread

MAX_KEPT_BYTES = 4 << 20
_MAX_SNAPSHOT_CHARS = 16 << 20
TEXTS = ("content", "reasoning")
"""What an answer says, in its ``delta`` events and in its snapshot."""


class NobodyReads(Aborted):
    """The last reader of a thread's answer has left, and none has come back in time."""

    code = "nobody_reads"

    def __init__(self) -> None:
        super().__init__("nobody was reading the answer any more")


class Reader(Protocol):
    """Takes events, from any thread."""

    def send(self, event: bytes) -> None: ...
    def end(self) -> None: ...


class ThreadAnswer:
    """Safe from any thread. ``resume_s``: how long it goes on without a reader; from its start it has one."""

    def __init__(self, thread: str, message: str, scope: CancelScope, timers: TimerThread, resume_s: float) -> None:
        self.thread = thread
        self.message = message
        self.finished = threading.Event()
        """Set once its last event has been published."""
        self._scope = scope
        self._timers = timers
        self._resume_s = resume_s
        self._lock = threading.Lock()
        self._number = 0
        self._events: deque[tuple[int, bytes]] = deque()
        self._kept_bytes = 0
        self._texts: dict[str, list[str]] = {name: [] for name in TEXTS}
        self._room = _MAX_SNAPSHOT_CHARS
        self._readers: set[Reader] = set()
        self._abandoned: Deadline | None = None

    def publish(self, name: str, payload: Mapping[str, Any]) -> None:
        """Number an event, keep it, and send it to all readers."""
        with self._lock:
            self._number += 1
            event = _event(self._number, name, payload)
            self._events.append((self._number, event))
            self._kept_bytes += len(event)
            while self._kept_bytes > MAX_KEPT_BYTES and len(self._events) > 1:
                self._kept_bytes -= len(self._events.popleft()[1])
            if name == "delta":
                for text in TEXTS:
                    if (said := payload.get(text)) and self._room > 0:
                        self._room -= len(said)
                        self._texts[text].append(said)
            for reader in self._readers:
                reader.send(event)

    def end(self) -> None:
        """There are no more events. Idempotent."""
        with self._lock:
            self.finished.set()
            readers, self._readers = self._readers, set()
            self._cancel_timer()
        for reader in readers:
            reader.end()

    def join(self, reader: Reader, after: int = 0) -> Callable[[], None]:
        """Send ``reader`` the events after number ``after``, and all that follow. Returns the function by which it
        leaves."""
        with self._lock:
            if self._events and after < self._events[0][0] - 1:
                texts = {name: "".join(parts) for name, parts in self._texts.items()}
                reader.send(_event(self._number, "snapshot", {"message_id": self.message, **texts}))
            else:
                for number, event in self._events:
                    if number > after:
                        reader.send(event)
            over = self.finished.is_set()
            if not over:
                self._readers.add(reader)
                self._cancel_timer()
        if over:
            reader.end()
        return lambda: self._leave(reader)

    def cancel(self, reason: RouterError) -> None:
        """End it early: all of its calls are aborted at once."""
        self._scope.abort(reason)

    def _leave(self, reader: Reader) -> None:
        with self._lock:
            self._readers.discard(reader)
            if not self._readers and not self.finished.is_set() and self._abandoned is None:
                self._abandoned = self._timers.after(self._resume_s, lambda: self.cancel(NobodyReads()))

    def _cancel_timer(self) -> None:
        timer, self._abandoned = self._abandoned, None
        if timer is not None:
            timer.cancel()


def _event(number: int, name: str, payload: Mapping[str, Any]) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), orjson.dumps(payload))
