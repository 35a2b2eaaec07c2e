"""Comments into a stream that has nothing to say, so that nobody between here and the client takes it for dead.

The thread that serves the stream is blocked in a read of the backend then, so a timer writes, past the server and onto
its socket: only between two portions, never inside one, and never so that it would have to wait.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from ai_router.http.timers import Deadline, TimerThread

_LAST = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"


class Heartbeat:
    """For one response. ``chunked``: the server frames what it sends (HTTP/1.1), so this does, too."""

    def __init__(
        self,
        timers: TimerThread,
        sock: socket.socket,
        every_s: float,
        *,
        chunked: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timers = timers
        self._sock = sock
        self._every_s = every_s
        self._clock = clock
        self._frame = b"%X\r\n%s\r\n" % (len(COMMENT), COMMENT) if chunked else COMMENT
        self._lock = threading.Lock()
        self._silent = False
        """Whether the last portion is on its way and the next is not here."""
        self._since = 0.0
        self._deadline: Deadline | None = None

    def through(self, portions: Iterator[bytes]) -> Iterator[bytes]:
        """The portions. The first of them takes the headers along; before it there is no silence to break."""
        try:
            for portion in portions:
                with self._lock:
                    self._silent = False
                yield portion
                with self._lock:
                    # After [DONE] nothing is expected, comments least of all.
                    self._silent = not portion.endswith(_LAST)
                    self._since = self._clock()
                if self._deadline is None:
                    self._deadline = self._timers.after(self._every_s, self._beat)
        finally:
            with self._lock:
                self._silent = False
                if self._deadline is not None:
                    self._deadline.cancel()
                self._every_s = 0.0
            if close := getattr(portions, "close", None):
                close()

    def _beat(self) -> None:
        with self._lock:
            if not self._every_s:
                return
            quiet_s = self._clock() - self._since if self._silent else 0.0
            if quiet_s >= self._every_s:
                self._write()
                self._since, quiet_s = self._clock(), 0.0
            self._deadline = self._timers.after(self._every_s - quiet_s, self._beat)

    def _write(self) -> None:
        # Waiting for a slow client would hold up the thread of all timers. A full buffer: it is not idle.
        with contextlib.suppress(OSError):
            if self._sock.send(self._frame, socket.MSG_DONTWAIT) < len(self._frame):
                # Half a comment would corrupt what follows: whatever this client is, it takes nothing any more.
                self._sock.shutdown(socket.SHUT_RDWR)
