"""The listening sockets of an event loop: new connections, for as long as there is room for them."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ai_router.server.poller import READ

log = logging.getLogger(__name__)

_ACCEPTS = 64
"""In a row, before it is the turn of the connections that there are."""
_ACCEPTS_AT_STOP = 1024
_BACKLOG = 2048
_PAUSE_S = 0.5


def listeners_beside(shared: Sequence[socket.socket]) -> Sequence[socket.socket]:
    """Listening sockets of this process alone, at the same addresses as those that it shares with others, all of which
    must allow that (SO_REUSEPORT): the kernel spreads connections evenly over them. Of a shared one alone whoever is
    awake takes them all."""
    made = []
    for other in shared:
        listener = socket.socket(other.family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(other.getsockname())
        listener.listen(_BACKLOG)
        made.append(listener)
    return made


class Loop(Protocol):
    """What is needed of the event loop."""

    def watch(self, sock: socket.socket, interest: int, handler: Callable[[int], None]) -> None:
        """Call ``handler`` when something is so of ``sock``."""

    def forget(self, sock: socket.socket) -> None:
        """Do not watch ``sock`` any more."""


class Listeners:
    """``on_accepted`` gets each new socket, its client's address and its own. ``make_room`` ends a connection that does
    nothing, and says whether there was one. For the loop's thread only."""

    def __init__(
        self,
        loop: Loop,
        write_s: float,
        on_accepted: Callable[[socket.socket, Any, Any], None],
        make_room: Callable[[], bool],
    ) -> None:
        self._loop = loop
        seconds, rest = divmod(write_s, 1)
        self._send_timeout = struct.pack("ll", int(seconds), int(rest * 1e6))
        self._on_accepted = on_accepted
        self._make_room = make_room
        self._listeners: list[socket.socket] = []
        self.paused = False
        """Whether no connection is accepted for a moment."""
        self._resume_at = 0.0

    def add(self, listeners: Sequence[socket.socket]) -> None:
        """Accept connections from these."""
        for listener in listeners:
            listener.setblocking(False)
            self._listeners.append(listener)
            self._watch(listener)

    def close(self) -> None:
        """New connections are refused. Those that the kernel has made already are accepted: it would reset them, and
        with them requests that have been sent."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            self._loop.forget(listener)
            self._accept(listener, _ACCEPTS_AT_STOP)
            listener.close()

    def resume(self, now: float) -> None:
        """Accept again, if the time for a pause is over. To be called about once a second."""
        if self.paused and now >= self._resume_at:
            self.paused = False
            for listener in self._listeners:
                self._watch(listener)

    def _watch(self, listener: socket.socket) -> None:
        self._loop.watch(listener, READ, lambda _events: self._accept(listener, _ACCEPTS))

    def _accept(self, listener: socket.socket, most: int) -> None:
        for _ in range(most):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as problem:
                self._on_failure(problem)
                return
            sock.setblocking(True)
            # The kernel's timeout, not Python's, which would ask the kernel twice for each write.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, self._send_timeout)
            self._on_accepted(sock, address, listener.getsockname())

    def _on_failure(self, problem: OSError) -> None:
        """Out of descriptors or memory: the connection waits in the kernel's queue while others end."""
        if self._make_room():
            return
        # It waits there as long as nothing ends, and would be told of again and again.
        log.warning("Connections cannot be accepted: %s; trying again in %g s", problem.strerror, _PAUSE_S)
        self.paused, self._resume_at = True, time.monotonic() + _PAUSE_S
        for listener in self._listeners:
            self._loop.forget(listener)
