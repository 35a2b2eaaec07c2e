"""gunicorn's threaded worker, mended where one client could make all others wait.

Facts about gunicorn 27.0.1 (workers/gthread.py, util.py), each with a test in tests/end_to_end/test_server.py: a new
connection that says nothing holds a thread for 5 s; dripped headers hold one for ever; closing lingers for up to 2 s on
the main loop, which then serves nobody; a listener that a stop has closed may still be accepted from, in the same turn
of the loop; and the SIGQUIT handler takes a lock of the thread pool that the interrupted
main thread may hold, which hung about one stop in a hundred.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from flask import Flask
from gunicorn.workers.gthread import ThreadWorker

from ai_router.app import close_app, drain_app, stop_app
from ai_router.upstream.alarms import Alarms

_CLOSERS = 4
_CLOSES_WAITING = 256


class Worker(ThreadWorker):  # type: ignore[misc]
    """gthread with deadlines for headers, closing off the main loop, and an orderly stop."""

    headers_timeout_s = 10.0

    def init_process(self) -> None:
        """In the worker's process, where threads may be started."""
        self._alarms = Alarms()
        self._reading = threading.local()
        self._closers = ThreadPoolExecutor(_CLOSERS, thread_name_prefix="closer")
        self._closing = threading.Semaphore(_CLOSES_WAITING)
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: streams finish; new connections are refused, not left unanswered in the listener's queue."""
        # Before gunicorn's part: from then on it closes each connection behind its answer, which must say so already.
        # Nothing else sets this flag, so that its lock is free, also in a signal handler.
        _with_app(self, drain_app)
        super().handle_exit(sig, frame)
        self.method_queue.defer(self._refuse)

    def _refuse(self) -> None:
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()

    def handle_quit(self, _sig: int, _frame: Any) -> None:
        """SIGINT or SIGQUIT: to be done on the next turn of the main loop, where no lock is held."""
        self.method_queue.defer(self._quit_at_once)

    def _quit_at_once(self) -> None:
        """Streams are told and cut, what is queued is written, nothing else is waited for."""
        _with_app(self, stop_app)
        _with_app(self, close_app)
        os._exit(0)

    def accept(self, listener: Any) -> None:
        """A connection has arrived; after SIGTERM it is too late, and the listener may be closed already."""
        if self.alive:
            super().accept(listener)

    def _cap_keepalive(self, deadline: float) -> None:
        """A stop waits no longer for those that have never said a word than for those that have."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def enqueue_req(self, conn: Any) -> None:
        """A connection has something to say, or is new; a silent new one waits in the poller, not on a thread."""
        if conn.initialized or conn.data_ready or _readable(conn.sock):
            conn.data_ready = True
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + min(self.headers_timeout_s, self.cfg.keepalive)
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def handle(self, conn: Any) -> Any:
        """One turn of a connection on a thread: read a request's headers, answer it."""
        sock = conn.sock
        self._reading.alarm = self._alarms.after(self.headers_timeout_s, lambda: _shut(sock))
        try:
            again = super().handle(conn)
        finally:
            self._reading.alarm.cancel()
        if not again:
            conn.close = partial(self._close_elsewhere, conn.close)
        return again

    def handle_request(self, req: Any, conn: Any) -> Any:
        """The headers are here."""
        self._reading.alarm.cancel()
        try:
            return super().handle_request(req, conn)
        except (TimeoutError, BlockingIOError) as slow:  # of Python's timeout, or of the kernel's
            # A client that does not read: as gone as one that closed, which gunicorn passes over in silence.
            raise BrokenPipeError(errno.EPIPE, "the client does not read") from slow

    def _close_elsewhere(self, close: Any, graceful: bool = False) -> None:
        """Linger on a thread made for it; with too many lingering already, close at once."""
        if not graceful or not self._closing.acquire(blocking=False):
            close()
            return

        def linger() -> None:
            try:
                close(graceful=True)
            finally:
                self._closing.release()

        self._closers.submit(linger)


def close_worker(worker: Any) -> None:
    """The hook for a worker that ends."""
    _with_app(worker, close_app)


def _with_app(worker: Any, act: Any) -> None:
    app = getattr(worker, "wsgi", None)
    if isinstance(app, Flask):
        act(app)


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
