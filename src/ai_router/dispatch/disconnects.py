"""Noticing that a client has left, at the moment it does.

A WSGI application learns of it only when it next writes, which for a plain answer is never in time. One thread waits
in epoll for all client sockets; EPOLLRDHUP is the peer's FIN, EPOLLHUP and EPOLLERR its reset. A client that shuts
down only its sending half counts as gone: no HTTP client we know does so and still reads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

_EVENTS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLONESHOT


class ClientWatcher:
    """Calls back, once, when a watched client socket is closed by its peer."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="client-watcher", daemon=True)
        self._thread.start()

    def watch(self, sock: socket.socket, on_gone: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_gone`` from the watcher's thread if the peer leaves; returns what ends the watching.

        End it before the socket is closed: the descriptor's number may be somebody else's right after.
        """
        descriptor = sock.fileno()
        with self._lock:
            self._callbacks[descriptor] = on_gone
            self._epoll.register(descriptor, _EVENTS)

        def unwatch() -> None:
            with self._lock:
                if self._callbacks.get(descriptor) is on_gone:
                    del self._callbacks[descriptor]
                    with contextlib.suppress(OSError):
                        self._epoll.unregister(descriptor)

        return unwatch

    def close(self) -> None:
        """Stop the thread."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def _take(self, descriptor: int) -> Callable[[], None] | None:
        """The callback of a departure, unless it is old news.

        Between epoll's word and this lock, the request may have ended and the descriptor's number may have gone to a
        new connection. Under the lock the number belongs to whoever is registered, and the socket itself tells.
        """
        with self._lock:
            on_gone = self._callbacks.get(descriptor)
            if on_gone is None:
                return None
            now = select.poll()
            now.register(descriptor, select.POLLRDHUP)
            return on_gone if now.poll(0) else None

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._wake:
                    return
                on_gone = self._take(descriptor)
                if on_gone is not None:
                    try:
                        on_gone()
                    except Exception:  # the border of a background thread: one bad callback must not blind it
                        log.exception("a client's departure could not be handled")
