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
import logging
import os
import select
import selectors
import socket
import struct
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from flask import Flask
from gunicorn.http import wsgi
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import ThreadWorker

from ai_router.app import close_app, drain_app, stop_app
from ai_router.http.timers import TimerThread
from ai_router.server.response import TogetherResponse
from ai_router.server.stream_relay import Relay, Relays
from ai_router.web.chat import FLOW

log = logging.getLogger(__name__)

_CLOSERS = 4
_CLOSES_WAITING = 256
_RELAYED = object()
"""What a turn comes to whose response goes on without its thread."""


class Worker(ThreadWorker):  # type: ignore[misc]
    """gthread with deadlines for headers, closing off the main loop, and an orderly stop."""

    headers_timeout_s = 10.0
    write_timeout_s = 30.0
    keepalive_s = 15.0
    linger_s = 0.1

    def init_process(self) -> None:
        """In the worker's process, where threads may be started."""
        _settle(self.cfg)
        self._timers = TimerThread()
        self._relays = Relays(self._timers, write_timeout_s=self.write_timeout_s, keepalive_s=self.keepalive_s)
        self._relays.start()
        self._reading = threading.local()
        self._closers = ThreadPoolExecutor(_CLOSERS, thread_name_prefix="closer")
        self._closing = threading.Semaphore(_CLOSES_WAITING)
        self._at_work: set[object] = set()
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
        """The turns of a connection on a thread, for as long as its client asks again soon."""
        mine = object()
        self._at_work.add(mine)
        try:
            again = self._turn(conn)
            while again is True and self._asks_again(conn):
                again = self._turn(conn)
        finally:
            self._at_work.discard(mine)
        if not again:
            conn.close = partial(self._close_elsewhere, conn.close)
        return again

    def finish_request(self, conn: Any, fs: Any) -> None:
        """The turns are over; with a response that goes on, they will be when that is."""
        if fs.cancelled() or fs.exception() is not None or fs.result() is not _RELAYED:
            super().finish_request(conn, fs)

    def _asks_again(self, conn: Any) -> bool:
        """Wait for the next request where the last one was answered, while half of the threads are free: by way of the
        main loop it takes two threads to wake and half a dozen system calls."""
        if conn.parser.unreader.buf.getvalue():
            return True
        spare = self.alive and 2 * len(self._at_work) <= self.cfg.threads
        return spare and _readable(conn.sock, self.linger_s)

    def _turn(self, conn: Any) -> Any:
        """Read a request's headers, answer it."""
        sock = conn.sock
        if not conn.initialized:
            # The kernel's timeout, not Python's, which would ask the kernel twice for each write.
            seconds, rest = divmod(self.write_timeout_s, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(rest * 1e6)))
        self._reading.deadline = self._timers.after(self.headers_timeout_s, lambda: _shut(sock))
        try:
            return super().handle(conn)
        finally:
            self._reading.deadline.cancel()

    def handle_request(self, req: Any, conn: Any) -> Any:
        """The headers are here: answer. Whether the connection can be used again, or _RELAYED."""
        self._reading.deadline.cancel()
        response, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, TogetherResponse)
        environ["wsgi.multithread"] = True
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()
        try:
            portions = self.wsgi(environ, response.start_response)
            return self._send(portions, response, environ, conn)
        except (TimeoutError, BlockingIOError) as slow:  # of Python's timeout, or of the kernel's
            # A client that does not read: as gone as one that closed, which gunicorn passes over in silence.
            raise BrokenPipeError(errno.EPIPE, "the client does not read") from slow
        except OSError:
            raise
        except Exception:  # gunicorn renders its own page for what is raised here, but not behind a head that is out
            if not response.headers_sent:
                raise
            # Another answer on top of half of one would help nobody.
            log.exception("a response broke off")
            close_graceful(conn.sock)
            raise StopIteration from None

    def _send(self, portions: Any, response: Any, environ: Any, conn: Any) -> Any:
        """Portion by portion, until nothing but a backend's are to come: those go on without this thread."""
        flow = environ.get(FLOW, _no_flow)
        relayed = False
        try:
            for portion in portions:
                response.write(portion)
                if (stream := flow()) is not None:
                    relayed = True
                    self._relay(stream, portions, response, conn)
                    return _RELAYED
            response.close()
        finally:
            if not relayed and hasattr(portions, "close"):
                portions.close()
        return not response.should_close()

    def _relay(self, stream: Any, portions: Any, response: Any, conn: Any) -> None:
        def end(whole: bool) -> None:
            try:
                portions.close()
            finally:
                turns: Future[bool] = Future()
                turns.set_result(whole and not response.should_close())
                if not turns.result():
                    conn.close = partial(self._close_elsewhere, conn.close)
                self.method_queue.defer(self.finish_request, conn, turns)

        self._relays.add(Relay(stream, conn.sock, chunked=response.chunked, on_end=end))

    def _keepalive_after(self, conn: Any, keepalive: Any) -> Any:
        """What is left of the body is drained; as a rule there is nothing."""
        if keepalive is not True or getattr(conn.parser.mesg.body.reader, "length", None) == 0:
            return keepalive
        return super()._keepalive_after(conn, keepalive)

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


def _settle(config: Any) -> None:
    """What is set is set: found as attributes from now on, and not by way of two functions, twenty times a request."""
    for name, setting in config.settings.items():
        if not hasattr(type(config), name):
            config.__dict__[name] = setting.get()


def close_worker(worker: Any) -> None:
    """The hook for a worker that ends."""
    _with_app(worker, close_app)


def _with_app(worker: Any, act: Any) -> None:
    app = getattr(worker, "wsgi", None)
    if isinstance(app, Flask):
        act(app)


def _no_flow() -> None:
    """For the endpoints that ask no backend."""


def _readable(sock: socket.socket, within_s: float = 0.0) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
