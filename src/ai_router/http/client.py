"""Calls of backends that can be aborted: send a request, keep its deadlines, read the response.

``UpstreamClient.open`` returns as soon as the headers are here, ``fetch`` reads the whole response. Exceptions of the
network become errors of errors.py, or the reason for which the call was aborted.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import defaultdict

from ai_router.errors import (
    IdleConnectionSilent,
    RouterError,
    UpstreamTimeout,
)
from ai_router.http.calls import FetchedResponse, Occupancy, UpstreamCall, UpstreamRequest
from ai_router.http.connections import ConnectionPool, Lease
from ai_router.http.exceptions import STALE, TRANSPORT_ERRORS, map_exceptions
from ai_router.http.http1 import ResponseParser, request_header_block
from ai_router.http.response import READ_SIZE, CallDeadlines, UpstreamResponse
from ai_router.http.timers import Deadline, IdleWatch, NoWatch, TimerThread, Watch

log = logging.getLogger(__name__)

_SINGLE_SEND_MAX_BYTES = 65_536
"""A body up to this size is sent together with the headers, in one call of the kernel."""


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
