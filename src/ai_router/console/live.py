"""What happens now, for pages that show it as it happens.

Each part (the requests under way, the backends, the sums of the day) is read by a thread of its own, so that a slow
database does not hold up the requests. The threads run only while somebody watches. A reader gets the last known parts
at once, and then each part when it has changed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from ai_router.errors import Overloaded, RouterError, ShuttingDown

log = logging.getLogger(__name__)

PING = b": \n\n"
_PING_S = 15.0
"""Proxies close connections on which nothing comes for a minute."""


MAX_READERS = 1000
MAX_READERS_OF_ONE = 250
"""Each holds a connection, of which a process has only so many."""


class Reader(Protocol):
    """Takes events, from any thread."""

    def send(self, event: bytes) -> object: ...
    def end(self) -> object: ...


@dataclass(frozen=True, slots=True)
class LivePart:
    """``read`` returns the part as JSON, for a client's name (None: for whoever may see everything). It is called
    every ``every_s`` seconds, and may raise RouterError: then the part is ``{"error": its words}``."""

    name: str
    every_s: float
    read: Callable[[str | None], Any]


class LiveView:
    """All parts, and who watches. Safe from any thread."""

    def __init__(self, parts: Sequence[LivePart]) -> None:
        self._lock = threading.Lock()
        self._readers: dict[Reader, str | None] = {}
        self._ended = False
        self._followers = [_Follower(part, self._audiences, self._send) for part in parts]

    def join(self, reader: Reader, sees: str | None) -> Callable[[], None]:
        """Send ``reader`` what a client that ``sees`` that may see. Returns the function by which it leaves.

        Raises Overloaded if there are too many, and ShuttingDown.
        """
        with self._lock:
            if self._ended:
                raise ShuttingDown("the router is being stopped")
            own = sum(other == sees for other in self._readers.values())
            if len(self._readers) >= MAX_READERS or own >= MAX_READERS_OF_ONE:
                raise Overloaded("too many consoles are open; close one")
            self._readers[reader] = sees
            for follower in self._followers:
                if (known := follower.known.get(sees)) is not None:
                    reader.send(known)
            for follower in self._followers:
                follower.look()
        return lambda: self._leave(reader)

    @property
    def readers(self) -> int:
        """How many watch."""
        return len(self._readers)

    def close(self) -> None:
        """End all readers, and the threads. Idempotent."""
        with self._lock:
            self._ended = True
            readers = list(self._readers)
            self._readers.clear()
            for follower in self._followers:
                follower.wake.set()
        for reader in readers:
            reader.end()

    def _leave(self, reader: Reader) -> None:
        with self._lock:
            self._readers.pop(reader, None)

    def _audiences(self) -> set[str | None]:
        with self._lock:
            return set(self._readers.values())

    def _send(self, audience: str | None, event: bytes) -> None:
        with self._lock:
            readers = [reader for reader, sees in self._readers.items() if sees == audience]
        for reader in readers:
            reader.send(event)


class _Follower:
    """Reads one part while anybody watches."""

    def __init__(
        self, part: LivePart, audiences: Callable[[], set[str | None]], send: Callable[[str | None, bytes], None]
    ) -> None:
        self._part = part
        self._audiences = audiences
        self._send = send
        self._lock = threading.Lock()
        self._running = False
        self._silent_s = 0.0
        self.wake = threading.Event()
        self.known: dict[str | None, bytes] = {}
        """The last event for each audience."""

    def look(self) -> None:
        """Somebody has come: read the part now."""
        with self._lock:
            self.wake.set()
            if not self._running:
                threading.Thread(target=self._run, name=f"live-{self._part.name}", daemon=True).start()
                self._running = True

    def _run(self) -> None:
        while True:
            self.wake.clear()
            audiences = self._audiences()
            with self._lock:
                if not audiences and not self.wake.is_set():
                    self._running = False
                    self.known.clear()
                    return
            for gone in self.known.keys() - audiences:
                del self.known[gone]
            for audience in audiences:
                self._look_for(audience)
            self.wake.wait(self._part.every_s)

    def _look_for(self, audience: str | None) -> None:
        try:
            value = self._part.read(audience)
        except RouterError as error:
            value = {"error": str(error)}
        except Exception:  # at the edge of a background thread: the other parts go on, and so does this one
            log.exception("the console's %s cannot be read", self._part.name)
            value = {"error": "see the log"}
        event = b"event: %s\ndata: %s\n\n" % (self._part.name.encode(), orjson.dumps(value))
        if self.known.get(audience) != event:
            self.known[audience] = event
            self._silent_s = 0.0
            self._send(audience, event)
            return
        self._silent_s += self._part.every_s
        if self._silent_s >= _PING_S:
            self._silent_s = 0.0
            self._send(audience, PING)
