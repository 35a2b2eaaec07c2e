"""Legs and scopes: how one thread stops what another thread is reading.

Closing a response from a second thread does not wake a blocked read; shutting its socket down does, TLS too.
So every upstream call is a Leg that knows its socket while, and only while, the socket is its own. A CancelScope
holds the legs of one request and aborts them together.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from ai_router.errors import RouterError


class Leg:
    """One upstream call. ``abort`` is safe from any thread, at any time, any number of times."""

    __slots__ = ("_lock", "_reason", "_socket", "_then", "number", "reused")

    def __init__(self, number: int = 1) -> None:
        self.number = number
        """Which of its request's legs this is, from 1."""
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._reason: RouterError | None = None
        self._then: Callable[[], object] | None = None
        self.reused = False
        """Whether the call went out on a kept-alive connection, which the backend may just have closed."""

    @property
    def reason(self) -> RouterError | None:
        """Why this leg was aborted; None while it was not."""
        return self._reason

    def attach(self, sock: socket.socket, *, reused: bool) -> None:
        """Take the socket that this leg's bytes will travel on. Raises the reason if the leg is aborted already."""
        with self._lock:
            self.reused = reused
            self._socket = sock
            if self._reason is None:
                return
            _shut(sock)
        raise self._reason

    def detach(self) -> bool:
        """Let the socket go, before the pool may lend it to somebody else. False if it was shut and is of no use."""
        with self._lock:
            self._socket = None
            return self._reason is None

    def abort(self, reason: RouterError) -> None:
        """Shut the socket down, so that whoever reads it fails with ``reason`` and the backend sees us leave."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            if self._socket is not None:
                _shut(self._socket)
            then = self._then
        if then is not None:
            then()

    def when_aborted(self, then: Callable[[], object]) -> None:
        """Call ``then`` if this leg is aborted, at once if it is: for a call that has no socket yet."""
        with self._lock:
            self._then = then
            if self._reason is None:
                return
        then()

    def raise_if_aborted(self) -> None:
        """Raise the reason of the abort, if there was one."""
        if self._reason is not None:
            raise self._reason


class CancelScope:
    """All legs of one request. Once aborted, every leg it had and every leg it is asked for is aborted."""

    __slots__ = ("_callbacks", "_legs", "_lock", "_reason")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._legs: list[Leg] = []
        self._callbacks: list[Callable[[], object]] = []
        self._reason: RouterError | None = None

    @property
    def reason(self) -> RouterError | None:
        """Why the scope was aborted; None while it was not."""
        return self._reason

    def leg(self) -> Leg:
        """A new leg of this request."""
        with self._lock:
            leg = Leg(len(self._legs) + 1)
            self._legs.append(leg)
            reason = self._reason
        if reason is not None:
            leg.abort(reason)
        return leg

    def abort(self, reason: RouterError) -> None:
        """Abort every leg, present and future. The first reason stays."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
            legs, callbacks = tuple(self._legs), tuple(self._callbacks)
        for leg in legs:
            leg.abort(reason)
        for callback in callbacks:
            callback()

    @contextlib.contextmanager
    def waking(self, callback: Callable[[], object]) -> Iterator[None]:
        """Inside the block, an abort calls back, so that whoever waits for something else than a socket wakes up."""
        with self._lock:
            self._callbacks.append(callback)
            aborted = self._reason is not None
        try:
            if aborted:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)

    @property
    def legs(self) -> int:
        """How many calls were begun."""
        return len(self._legs)

    def raise_if_aborted(self) -> None:
        """Raise the reason of the abort, if there was one."""
        if self._reason is not None:
            raise self._reason


def _shut(sock: socket.socket) -> None:
    # The C-level shutdown, past SSLSocket.shutdown, which would pull the TLS state from under the reading thread.
    # OSError: the peer was faster, which is as good.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
