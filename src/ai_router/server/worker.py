"""gunicorn's worker process: its signals and its stop, and one request at a time on each request thread.

gunicorn forks it, restarts it when it dies, parses its requests and makes the headers of its answers. What waits for
clients is the event loop. gunicorn's own threaded worker is not used: a client that sends or closes slowly holds a
thread of it, or its main loop (docs/decisions/0008).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar

from flask import Flask
from gunicorn.http import get_parser, wsgi
from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.workers.base import Worker as BaseWorker

from ai_router.dispatch.reply import EventStream
from ai_router.envelope import envelope_json
from ai_router.errors import INTERNAL, InternalError, InvalidRequest, RouterError
from ai_router.runtime import close_app, drain_app, end_live_views, runtime_of, stop_app
from ai_router.server.connection import Connection, Limits
from ai_router.server.event_loop import READ_SIZE, EventLoop
from ai_router.server.garbage import settle
from ai_router.server.listeners import listeners_beside
from ai_router.server.poller import make_poller
from ai_router.server.response import RequestBody, TogetherResponse
from ai_router.server.stream_relay import StreamRelay
from ai_router.web.access import ARRIVED_AT, ON_DISCONNECT, REFUSAL
from ai_router.web.responses import STREAM

log = logging.getLogger(__name__)

_NEXT_REQUEST_S = 0.1
"""How long a thread waits for the next request of its client: by way of the loop it takes two threads to wake and half
a dozen system calls."""
_CLOSING_S = 1.0
"""How long answers close their connections before it stops to listen."""
_NOTIFY_S = 1.0
"""How often to notify the arbiter, which waits 30 s; each time is a system call."""
_ERROR_DELIVERY_S = 2.0
"""How long the clients of aborted requests have to take the error."""
_CLIENT_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)
_STATUSES = (
    (LimitRequestLine, 414),
    (LimitRequestHeaders, 431),
    (ExpectationFailed, 417),
    (UnsupportedTransferCoding, 501),
)


class Worker(BaseWorker):  # type: ignore[misc]
    """One process that serves. ``limits`` is set by the application's configuration, in a subclass."""

    limits: ClassVar[Limits]
    stream_keepalive_s: ClassVar[float]
    drain_s: ClassVar[float]
    _loop: Any = None
    _quitting = False
    _last_answers_at = math.inf
    """When answers begin to close their connections, in monotonic seconds."""
    _stops_at = math.inf
    """When it stops to listen."""
    _notified_at = 0.0
    _reload_wanted = False

    def init_process(self) -> None:
        """In the worker's process, where threads may be started; ends in ``run``."""
        _freeze_settings(self.cfg)
        super().init_process()

    def run(self) -> None:
        """Serve until told to stop, then let what is under way end, as long as the configuration allows."""
        runtime = runtime_of(self.wsgi)
        loop = self._loop = EventLoop(make_poller(), self.limits, runtime.policy, self._serve)
        self._relay = StreamRelay(
            loop, runtime.timers, write_timeout_s=self.limits.write_s, keepalive_s=self.stream_keepalive_s
        )
        settle(runtime.timers)
        loop.listen([*(listeners_beside(self.sockets) if self.cfg.workers > 1 else ()), *self.sockets])
        while self.alive:
            self._run_once()
        loop.stop_accepting()
        end_live_views(self.wsgi)
        self._run_until(lambda: not loop.open_connections or self._quitting, self.cfg.graceful_timeout)
        if loop.open_connections:
            stop_app(self.wsgi)
            self._run_until(lambda: runtime.in_flight.empty, _ERROR_DELIVERY_S)
        if self._quitting:
            close_app(self.wsgi)
            os._exit(0)
        loop.shut_down()

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002 - as signal handlers are called
        """SIGTERM: /health/ready says so, so that whoever distributes requests sends no more; then answers close their
        connections; then new connections are refused, and what is under way ends."""
        # Nothing else sets this flag, so that its lock is free, also in a signal handler.
        if isinstance(app := getattr(self, "wsgi", None), Flask):
            drain_app(app)
        if self._loop is None or not self.drain_s:
            self._stop()
        elif self._stops_at == math.inf:
            self._last_answers_at = time.monotonic() + self.drain_s
            self._stops_at = self._last_answers_at + _CLOSING_S
            self._loop.poller.wake()

    def init_signals(self) -> None:
        """gunicorn's, and SIGHUP: it would end this process."""
        super().init_signals()
        signal.signal(signal.SIGHUP, self._handle_hup)

    def _handle_hup(self, _sig: int, _frame: Any) -> None:
        """SIGHUP: take over changed settings. To be done on a thread, where locks may be waited for."""
        self._reload_wanted = True
        if self._loop is not None:
            self._loop.poller.wake()

    def handle_quit(self, _sig: int, _frame: Any) -> None:
        """SIGINT or SIGQUIT: streams are sent an error and end, what is queued is written, nothing else is awaited.

        To be done in the loop, where no lock is held.
        """
        self._quitting = True
        self._stop()

    def _stop(self) -> None:
        self.alive = False
        if self._loop is not None:
            self._loop.stopping = True
            self._loop.poller.wake()

    def _run_until(self, over: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not over() and time.monotonic() < end:
            self._run_once()

    def _run_once(self) -> None:
        """Run the loop once. Now and then notify the arbiter that this process lives, and see whether it does."""
        now = self._loop.run_once()
        if now >= self._stops_at and self.alive:
            self._stop()
        if self._reload_wanted:
            self._reload_wanted = False
            threading.Thread(target=runtime_of(self.wsgi).reload, name="reload", daemon=True).start()
        if now - self._notified_at > _NOTIFY_S:
            self._notified_at = now
            self.notify()
            if self.ppid != os.getppid():
                self.alive = False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002 - gunicorn's
        """Answer what is no request with the envelope that all errors wear, and close."""
        error: RouterError = InternalError(INTERNAL)
        if isinstance(exc, ParseException):
            error = InvalidRequest(f"this is no HTTP request that is served here: {exc}", code="invalid_http")
            error.status = next((status for kind, status in _STATUSES if isinstance(exc, kind)), 400)
        else:
            log.error("a request failed for a reason of our own", exc_info=exc)
        body = envelope_json(error)
        lines = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
            "Connection: close",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        with contextlib.suppress(OSError):
            client.sendall("\r\n".join((*lines, "", "")).encode() + body)

    # On request threads.

    def _serve(self, conn: Connection) -> None:
        """The requests of a connection, for as long as its client sends the next one soon."""
        while (keeps := self._answer(conn)) is not None:
            if not keeps:
                self._loop.close(conn)
                return
            if not self._next_is_here(conn):
                return

    def _next_is_here(self, conn: Connection) -> bool:
        """Whether this thread has the client's next request to answer; else the loop has the connection again."""
        loop, reader = self._loop, conn.reader
        if not reader.size and loop.threads.may_stay() and _readable(conn.sock, _NEXT_REQUEST_S):
            try:
                data = conn.sock.recv(READ_SIZE, socket.MSG_DONTWAIT)
            except OSError:
                data = b""
            if not data:
                loop.close(conn, at_once=True)
                return False
            reader.feed(data)
        if reader.complete and loop.threads.may_stay() and loop.threads.acquire(conn):
            conn.arrived_at = time.monotonic()
            return True
        loop.give_back(conn)
        return False

    def _answer(self, conn: Connection) -> bool | None:
        """Answer one request. Whether the connection can be used again; None: a stream has it."""
        parser = get_parser(self.cfg, iter((conn.reader.take(),)), conn.address)
        req = None
        try:
            req = next(parser)
            return self._respond(req, parser, conn)
        except (NoMoreData, StopIteration):
            return False
        except OSError as problem:
            if problem.errno not in _CLIENT_GONE:
                log.exception("a request could not be answered")
            return False
        except Exception as problem:  # noqa: BLE001 - the border of a request: whatever it was, the client is answered
            self.handle_error(req, conn.sock, conn.address, problem)
            return False

    def _respond(self, req: Any, parser: Any, conn: Connection) -> bool | None:
        # The loop has asked for the body already, where the client waited for that.
        req._expected_100_continue = False  # noqa: SLF001 - gunicorn's only way; tests/end_to_end/test_server.py
        response, environ = wsgi.create(req, conn.sock, conn.address, conn.local_address, self.cfg, TogetherResponse)
        environ["wsgi.multithread"] = True
        environ["wsgi.input"] = RequestBody(environ["wsgi.input"])
        environ[ARRIVED_AT] = conn.arrived_at
        environ[ON_DISCONNECT] = partial(_on_disconnect, conn)
        if conn.refusal is not None:
            environ[REFUSAL] = conn.refusal
        stays = self.alive and time.monotonic() < self._last_answers_at
        if not (conn.reader.complete and stays and self._loop.has_room()):
            response.force_close()
        portions = self.wsgi(environ, response.start_response)
        # An answer that came at the last moment has the time for one portion.
        response.ends_at = max(conn.arrived_at + self.limits.total_s, time.monotonic() + self.limits.write_s)
        stream: EventStream | None = environ.get(STREAM)
        try:
            if stream is not None:
                self._stream(stream, portions, response, parser, conn)
                return None
            self._send(portions, response)
        except (TimeoutError, BlockingIOError) as slow:
            # A client that does not read counts as one that has closed.
            raise BrokenPipeError(errno.EPIPE, "the client does not read") from slow
        return self._renew(conn, parser, response)

    def _send(self, portions: Any, response: TogetherResponse) -> None:
        try:
            for portion in portions:
                response.write(portion)
            response.close()
        except OSError:
            raise
        except Exception:  # whatever it was, half an answer is out: an error behind it would be read as more of it
            if not response.headers_sent:
                raise
            log.exception("a response broke off")
            response.force_close()
        finally:
            if hasattr(portions, "close"):
                portions.close()

    def _renew(self, conn: Connection, parser: Any, response: TogetherResponse) -> bool:
        """Make the connection ready for its next request; whether it can have one."""
        self._loop.threads.release(conn)
        if response.should_close() or not parser.finish_body():
            return False
        conn.renew(parser.unreader.take_buffered())
        return True

    def _stream(
        self, stream: EventStream, portions: Any, response: TogetherResponse, parser: Any, conn: Connection
    ) -> None:
        """Send the headers and what the stream opens with. All that follows is sent by the relay."""

        def end(whole: bool) -> None:
            try:
                portions.close()
            finally:
                if whole and self._renew(conn, parser, response):
                    self._loop.give_back(conn)
                else:
                    self._loop.close(conn)

        opening = stream.opening()
        try:
            if first := next(opening, b""):
                response.write(first)
            else:
                response.begin()
        except BaseException:  # whatever it is, it goes on; what the request holds is released
            portions.close()
            raise
        relayed = self._relay.begin(conn, stream, chunked=response.chunked, on_end=end)
        try:
            for events in opening:
                relayed.send(events)
        finally:
            self._loop.threads.release(conn)
            if stream.over:
                relayed.finish()
            else:
                relayed.follow()


def _on_disconnect(conn: Connection, callback: Callable[[], None]) -> Callable[[], None]:
    """Call ``callback`` when the client closes its connection; returns what ends that."""
    conn.on_disconnect = callback
    if conn.gone:
        callback()

    def stop() -> None:
        conn.on_disconnect = None

    return stop


def _readable(sock: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def close_worker(worker: Any) -> None:
    """The hook for a worker that ends."""
    if isinstance(app := getattr(worker, "wsgi", None), Flask):
        close_app(app)


def _freeze_settings(config: Any) -> None:
    """Make gunicorn's settings plain attributes: else each look goes through two functions, twenty times a request."""
    for name, setting in config.settings.items():
        if not hasattr(type(config), name):
            config.__dict__[name] = setting.get()
