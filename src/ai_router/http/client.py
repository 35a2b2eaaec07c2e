"""Calls of backends that can be aborted: send a request, keep its deadlines, read the response.

``UpstreamClient.open`` returns as soon as the headers are here, ``fetch`` reads the whole response. Exceptions of the
network become errors of errors.py, or the reason for which the call was aborted.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from ai_router.errors import (
    AnswerSufficient,
    IdleConnectionSilent,
    RouterError,
    UpstreamFailed,
    UpstreamTimeout,
)
from ai_router.http.calls import FetchedResponse, Occupancy, UpstreamCall, UpstreamRequest
from ai_router.http.connections import ConnectionPool, Lease
from ai_router.http.exceptions import STALE, TRANSPORT_ERRORS, map_exceptions
from ai_router.http.http1 import NotHTTP, ResponseParser, request_header_block
from ai_router.http.timers import CallDeadlines, Deadline, IdleWatch, NoWatch, TimerThread, Watch

log = logging.getLogger(__name__)

READ_SIZE = 65_536
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_SINGLE_SEND_MAX_BYTES = 65_536
"""A body up to this size is sent together with the headers, in one call of the kernel."""


class UpstreamResponse:
    """A response whose headers have been read. The body comes later.

    There are two ways to read the body. ``read``, ``read_portion`` and ``chunks`` block. After ``detach`` the caller
    reads the socket, without blocking, and passes the bytes to ``feed``. Close the response in any case; if the body is
    not complete, that closes the connection.
    """

    def __init__(
        self,
        lease: Lease,
        parser: ResponseParser,
        request: UpstreamRequest,
        call: UpstreamCall,
        *,
        deadlines: CallDeadlines,
        timers: TimerThread,
        connect_ms: float,
    ) -> None:
        self._lease = lease
        self._parser = parser
        self._request = request
        self._call = call
        self._timers = timers
        self._deadlines = deadlines
        self._idle = deadlines.idle
        self._on_release: Callable[[], object] | None = None
        self._started = False
        self.status = parser.status
        self.headers: Mapping[str, str] = parser.headers
        self.connect_ms = connect_ms
        self.complete = parser.complete
        """Whether the whole body has come."""

    def first_byte_seen(self) -> None:
        """Cancel the first-byte deadline. The caller decides what counts: a keep-alive comment does not."""
        self._deadlines.first_byte_seen()

    def expect_end(self, seconds: float) -> None:
        """The answer is complete, but not the body. The backend gets ``seconds`` to end it, so that the connection can
        be used again. After that the call is aborted, and a read raises AnswerSufficient."""
        if not self.complete:
            self._timers.after(seconds, lambda: self._call.abort(AnswerSufficient("the answer had ended")))

    def read(self, max_bytes: int) -> bytes:
        """The whole body. Raises UpstreamFailed if it is longer than ``max_bytes``, and as ``read_portion``."""
        portions, size = [], 0
        while portion := self.read_portion():
            size += len(portion)
            if size > max_bytes:
                self.close()
                raise UpstreamFailed(f"the answer is longer than {max_bytes} bytes", self._request.source)
            portions.append(portion)
        return portions[0] if len(portions) == 1 else b"".join(portions)

    def chunks(self) -> Iterator[bytes]:
        """The body in portions as they arrive. Closes after the last. Raises as ``read_portion``."""
        try:
            while portion := self.read_portion():
                yield portion
        finally:
            self.close()

    def read_portion(self) -> bytes:
        """Wait for the next bytes of the body. b"" after the last of them; then the response has been closed.

        Raises UpstreamError, or the reason for which the call was aborted, and closes the response.
        """
        recv = self._lease.sock.recv
        try:
            portion = self._body_after_headers()
            while not (portion or self.complete):
                self._idle.read_begins()
                portion = self._parse(recv(READ_SIZE))
        except (OSError, NotHTTP) as problem:
            self.close()
            raise map_exceptions(problem, self._request, self._call, answering=True) from problem
        self._idle.read_ends()
        if not portion:
            self.close()
            # Without a length the end of the connection ends the body. An abort looks the same.
            self._call.raise_if_aborted()
        return portion

    def read_arrived(self) -> bytes | None:
        """The bytes of the body that have come meanwhile, b"" if what has come is none of it; None: nothing has come.

        Does not wait. Raises as ``read_portion``.
        """
        if self.complete:
            return None
        sock = self._lease.sock
        try:
            # Not poll: of TLS there may be half a record, for the rest of which a read would wait.
            sock.setblocking(False)
            try:
                data = sock.recv(READ_SIZE)
            finally:
                sock.setblocking(True)
            return self._parse(data)
        except _NOT_YET:
            return None
        except (OSError, NotHTTP) as problem:
            self.close()
            raise map_exceptions(problem, self._request, self._call, answering=True) from problem

    def detach(self, on_release: Callable[[], object]) -> socket.socket:
        """The socket, made non-blocking. From now on the caller reads it and passes what it got to ``feed``.

        ``on_release`` is called before the socket is closed or used by another call: stop polling it there.
        """
        self._on_release = on_release
        self._lease.sock.setblocking(False)
        self._idle.read_begins()
        return self._lease.sock

    def feed(self, data: bytes | None) -> bytes:
        """Parse ``data`` from the socket (b"": it has ended, None: it failed). Returns the bytes of the body in it.

        Closes the response when the body is complete. Raises UpstreamError, or the reason for which the call was
        aborted; then the response is still open.
        """
        try:
            portion = self._parse(data)
        except (OSError, NotHTTP) as problem:
            raise map_exceptions(problem, self._request, self._call, answering=True) from problem
        if not self.complete:
            self._idle.read_begins()
            return portion
        self.close()
        if not portion:
            self._call.raise_if_aborted()
        return portion

    def pause(self) -> None:
        """The caller stops reading; the idle deadline stands still until ``resume`` or ``feed``."""
        self._idle.read_ends()

    def resume(self) -> None:
        """The caller reads again; the idle deadline starts anew."""
        self._idle.read_begins()

    def close(self) -> None:
        """Cancel the deadlines and release the connection, to the pool if the body is complete. Idempotent."""
        self._deadlines.close()
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            on_release()
            # OSError: the socket is closed already.
            with contextlib.suppress(OSError):
                self._lease.sock.setblocking(True)
        self._lease.release(usable=self._parser.reusable)
        self._call.end()

    def _body_after_headers(self) -> bytes:
        """Bytes of the body that came together with the headers; b"" from the second call on."""
        if self._started:
            return b""
        self._started = True
        portion = self._parser.take_body()
        self._call.received += len(portion)
        return portion

    def _parse(self, data: bytes | None) -> bytes:
        if data:
            portion = self._parser.feed(data)
        elif data is None or not self._parser.feed_eof():
            raise ConnectionResetError("the connection has ended")
        else:
            portion = self._parser.take_body()
        self.complete = self._parser.complete
        self._call.received += len(portion)
        return portion


class UpstreamClient:
    """Makes the calls of all backends, over one pool of idle connections. Safe from any thread.

    ``pool_size``: how many idle connections are kept for each backend.
    """

    def __init__(self, timers: TimerThread, pool_size: int) -> None:
        self._timers = timers
        self._connections = ConnectionPool(pool_size)
        self._occupancies: defaultdict[str, Occupancy] = defaultdict(Occupancy)

    def open(self, request: UpstreamRequest, call: UpstreamCall) -> UpstreamResponse:
        """Send the request and wait for the headers of the response, whatever its status.

        Raises UpstreamUnreachable, UpstreamTimeout (IdleConnectionSilent where that may be the connection's fault) or
        UpstreamBroken, or the reason for which ``call`` was aborted.
        """
        call.raise_if_aborted()
        started = time.monotonic()
        deadlines = self._set_deadlines(request, call)
        if call.purpose is not None:
            call.begin(request.source, self._occupancies[request.source.backend])
        try:
            lease, parser = self._send(request, call, deadlines.idle)
        except BaseException as problem:  # raised again; the deadlines must not stay set
            deadlines.close()
            call.end()
            if isinstance(problem, TRANSPORT_ERRORS):
                raise self._error(problem, request, call) from (None if call.reason else problem)
            raise
        connect_ms = (time.monotonic() - started) * 1000
        call.status = parser.status
        return UpstreamResponse(
            lease, parser, request, call, deadlines=deadlines, timers=self._timers, connect_ms=connect_ms
        )

    def fetch(self, request: UpstreamRequest, call: UpstreamCall, max_bytes: int) -> FetchedResponse:
        """Send the request and read the whole response, whatever its status. The body has at most ``max_bytes``.

        Raises as ``open`` and ``UpstreamResponse.read`` do.
        """
        response = self.open(request, call)
        try:
            return FetchedResponse(response.status, response.headers, response.read(max_bytes))
        finally:
            response.close()

    def close(self) -> None:
        """Close the idle connections."""
        self._connections.close()

    def _set_deadlines(self, request: UpstreamRequest, call: UpstreamCall) -> CallDeadlines:
        def deadline(seconds: float, what: str) -> Deadline:
            return self._timers.after(
                seconds, lambda: call.abort(UpstreamTimeout(f"{what} within {seconds:g} s", request.source))
            )

        timeouts = request.timeouts
        silent_s = timeouts.longest_read
        first_byte = None if timeouts.first_byte is None else deadline(timeouts.first_byte, "no first byte")
        idle: Watch = NoWatch()
        if silent_s < timeouts.total:
            idle = IdleWatch(
                self._timers,
                silent_s,
                lambda: call.abort(UpstreamTimeout(f"silent for {silent_s:g} s", request.source)),
            )
        return CallDeadlines(first_byte, deadline(timeouts.total, "no complete answer"), idle)

    def _error(self, problem: Exception, request: UpstreamRequest, call: UpstreamCall) -> RouterError:
        """What to raise for ``problem`` before any header of the response."""
        error = map_exceptions(problem, request, call, answering=False)
        if not (call.reused and isinstance(error, UpstreamTimeout)):
            return error
        self._connections.distrust_idle(request.url)
        return IdleConnectionSilent(error.detail, request.source)

    def _send(self, request: UpstreamRequest, call: UpstreamCall, idle: Watch) -> tuple[Lease, ResponseParser]:
        try:
            return self._send_once(request, call, idle)
        except STALE:
            # A backend may close an idle connection in the moment in which it is taken from the pool (uvicorn does
            # after 5 s), and a proxy or a long way tells it later. No byte of an answer has come.
            if call.reused and call.reason is None:
                log.debug("%s closed an idle connection, trying a new one", request.source.backend)
                return self._send_once(request, call, idle)
            raise

    def _send_once(self, request: UpstreamRequest, call: UpstreamCall, idle: Watch) -> tuple[Lease, ResponseParser]:
        local_backend = request.source.backend if call.local_only and not request.declared_local else ""
        lease = self._connections.acquire(request.url, call, request.timeouts.connect, local_backend)
        try:
            idle.read_begins()
            send_error = _write(lease, request, call)
            # The backend has the whole request now, whether or not it answers.
            call.sent = len(request.body or b"")
            parser = _receive_headers(lease.sock, send_error)
            idle.read_ends()
        except BaseException as problem:  # raised again
            lease.release(usable=False)
            # Reads and writes have no timeout of ours: the kernel has given the connection up.
            if isinstance(problem, TimeoutError):
                raise ConnectionAbortedError("the connection was lost") from problem
            raise
        return lease, parser


def _write(lease: Lease, request: UpstreamRequest, call: UpstreamCall) -> OSError | None:
    """Send the request. Returns the error if the backend has closed the connection: it may have answered before it had
    read everything. The error counts only if there is no answer."""
    headers = {**lease.headers, **request.headers}
    body = request.body or b""
    if request.body is not None:
        headers["Content-Length"] = str(len(body))
    if call.traceparent is not None:
        headers["traceparent"] = call.traceparent
    header_block = request_header_block(request.method, lease.target, headers)
    try:
        if len(body) <= _SINGLE_SEND_MAX_BYTES:
            lease.sock.sendall(header_block + body)
        else:
            lease.sock.sendall(header_block)
            lease.sock.sendall(body)
    except (BrokenPipeError, ConnectionResetError) as problem:
        return problem
    return None


def _receive_headers(sock: socket.socket, send_error: OSError | None) -> ResponseParser:
    """Wait for the headers of the response. ``send_error``: what to raise if the connection ends before."""
    parser = ResponseParser()
    while not parser.headers_complete:
        data = sock.recv(READ_SIZE)
        if not data:
            raise send_error or ConnectionResetError("the connection has ended")
        parser.feed_headers(data)
    return parser
