"""Calling a backend: send, watch the deadlines, read, and turn every foreign exception into one of ours."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ai_router.errors import (
    AnswerSufficient,
    UpstreamFailed,
    UpstreamTimeout,
)
from ai_router.http.calls import UpstreamCall
from ai_router.http.connections import ConnectionPool, Lease
from ai_router.http.exceptions import STALE, map_exceptions, mapped
from ai_router.http.http1 import Incoming, NotHTTP, request_head
from ai_router.http.idle import IdleWatch, NoWatch, Watch
from ai_router.http.request import UpstreamRequest
from ai_router.http.timers import Deadline, TimerThread
from ai_router.http.traffic import Occupancy

log = logging.getLogger(__name__)

READ_SIZE = 65_536
_SENT_AT_ONCE = 65_536
_STALE_SHOWS_WITHIN_S = 0.1


@dataclass(frozen=True, slots=True)
class CallDeadlines:
    """The timers of one call, and its longest silence."""

    first_byte: Deadline | None
    total: Deadline
    idle: Watch

    def first_byte_seen(self) -> None:
        """The first byte came in time."""
        if self.first_byte is not None:
            self.first_byte.cancel()

    def close(self) -> None:
        """The call is over."""
        self.first_byte_seen()
        self.total.cancel()
        self.idle.close()


class UpstreamResponse:
    """An answer whose headers are here and whose body is still coming. Close it; closing early shuts the socket."""

    def __init__(
        self,
        lease: Lease,
        incoming: Incoming,
        request: UpstreamRequest,
        call: UpstreamCall,
        *,
        deadlines: CallDeadlines,
        timers: TimerThread,
        connect_ms: float,
    ) -> None:
        self._lease = lease
        self._incoming = incoming
        self._request = request
        self._call = call
        self._timers = timers
        self._deadlines = deadlines
        self._idle = deadlines.idle
        self._let_go: Callable[[], object] | None = None
        self.status = incoming.status
        self.headers: Mapping[str, str] = incoming.headers
        self.connect_ms = connect_ms
        self.complete = incoming.complete
        """Whether all of the body has come."""

    def first_byte_seen(self) -> None:
        """Stop the first-byte deadline. The caller decides what counts: a keep-alive comment is no answer."""
        self._deadlines.first_byte_seen()

    def expect_end(self, seconds: float) -> None:
        """All that matters has been read: give the backend ``seconds`` to end the answer, so that the connection
        can be used again, and else leave. A read after that raises AnswerSufficient."""
        if not self.complete:
            self._timers.after(seconds, lambda: self._call.abort(AnswerSufficient("the answer had ended")))

    def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamFailed if it is longer than ``limit`` bytes."""
        portions, size = [], 0
        for portion in self.chunks():
            size += len(portion)
            if size > limit:
                self.close()
                raise UpstreamFailed(f"the answer is longer than {limit} bytes", self._request.source)
            portions.append(portion)
        return portions[0] if len(portions) == 1 else b"".join(portions)

    def chunks(self) -> Iterator[bytes]:
        """The body in the portions in which it arrives; closes when there are no more."""
        recv, incoming, idle = self._lease.sock.recv, self._incoming, self._idle
        try:
            # The border is set up once, not for each chunk; at the yield nothing but GeneratorExit can come in.
            with map_exceptions(self._request, self._call, answering=True):
                portion = incoming.take()
                self._call.received += len(portion)
                while True:
                    if portion:
                        idle.read_ends()
                        yield portion
                    if self.complete:
                        break
                    idle.read_begins()
                    portion = self._taken(recv(READ_SIZE))
        finally:
            self.close()
        # A body without length or chunks ends just like a socket that we shut.
        self._call.raise_if_aborted()

    def wait_elsewhere(self, let_go: Callable[[], object]) -> socket.socket:
        """From here on nothing is read here: ``received`` is told what came. Returns the socket to read, which does not
        block; ``let_go`` is called before it is closed, or somebody else's."""
        self._let_go = let_go
        self._lease.sock.setblocking(False)
        self._idle.read_begins()
        return self._lease.sock

    def received(self, data: bytes | None) -> bytes:
        """What there is of the body in ``data``, as the socket gave it: b"" is its end, None a break. Closes when that
        is all. Raises UpstreamError, or the reason for which the call was aborted."""
        try:
            portion = self._taken(data)
        except (OSError, NotHTTP) as problem:
            raise mapped(problem, self._request, self._call, answering=True) from problem
        if not self.complete:
            self._idle.read_begins()
            return portion
        self.close()
        if not portion:
            self._call.raise_if_aborted()
        return portion

    def pause(self) -> None:
        """Nothing is read for a while, and that is not the backend's silence; until ``received`` or ``go_on``."""
        self._idle.read_ends()

    def go_on(self) -> None:
        """Reading goes on."""
        self._idle.read_begins()

    def _taken(self, data: bytes | None) -> bytes:
        if data:
            portion = self._incoming.feed(data)
        elif data is None or not self._incoming.end():
            raise ConnectionResetError("the connection has ended")
        else:
            portion = self._incoming.take()
        self.complete = self._incoming.complete
        self._call.received += len(portion)
        return portion

    def close(self) -> None:
        """Stop the deadlines and give the connection up, or back if the body was read to its end. Idempotent."""
        self._deadlines.close()
        usable = self._incoming.reusable
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()
            # Whatever goes wrong, the answer has been had already.
            with contextlib.suppress(OSError):
                self._lease.sock.setblocking(True)
        self._lease.release(usable=usable)
        self._call.end()


class UpstreamClient:
    """One pool of kept-alive connections for all backends."""

    def __init__(self, timers: TimerThread, pool_size: int) -> None:
        self._timers = timers
        self._connections = ConnectionPool(pool_size)
        self._occupancies: defaultdict[str, Occupancy] = defaultdict(Occupancy)

    def open(self, request: UpstreamRequest, call: UpstreamCall) -> UpstreamResponse:
        """Send the call and wait for the headers of the answer, whatever its status.

        Raises UpstreamUnreachable, UpstreamTimeout or UpstreamBroken, or the reason for which ``call`` was aborted.
        """
        call.raise_if_aborted()
        started = time.monotonic()
        deadlines = self._set_deadlines(request, call)
        if call.purpose is not None:
            call.begin(request.source, self._occupancies[request.source.backend])
        try:
            with map_exceptions(request, call, answering=False):
                lease, incoming = self._send(request, call, deadlines.idle)
        except BaseException:  # whatever it is, it goes on; its deadlines are void
            deadlines.close()
            call.end()
            raise
        connect_ms = (time.monotonic() - started) * 1000
        call.status = incoming.status
        return UpstreamResponse(
            lease, incoming, request, call, deadlines=deadlines, timers=self._timers, connect_ms=connect_ms
        )

    def close(self) -> None:
        """Close the idle connections."""
        self._connections.close()

    def _set_deadlines(self, request: UpstreamRequest, call: UpstreamCall) -> CallDeadlines:
        def deadline(seconds: float, what: str) -> Deadline:
            late = UpstreamTimeout(f"{what} within {seconds:g} s", request.source)
            return self._timers.after(seconds, lambda: call.abort(late))

        timeouts = request.timeouts
        silent_s = timeouts.longest_read
        first_byte = None if timeouts.first_byte is None else deadline(timeouts.first_byte, "no first byte")
        idle: Watch = NoWatch()
        if silent_s < timeouts.total:
            silent = UpstreamTimeout(f"silent for {silent_s:g} s", request.source)
            idle = IdleWatch(self._timers, silent_s, lambda: call.abort(silent))
        return CallDeadlines(first_byte, deadline(timeouts.total, "no complete answer"), idle)

    def _send(self, request: UpstreamRequest, call: UpstreamCall, idle: Watch) -> tuple[Lease, Incoming]:
        started = time.monotonic()
        try:
            return self._send_once(request, call, idle)
        except STALE:
            # A backend may close an idle connection in the very moment in which we pick it from the pool (uvicorn
            # does after 5 s). That shows at once; what fails later may have been read, and worked on, and billed.
            at_once = time.monotonic() - started < _STALE_SHOWS_WITHIN_S
            if at_once and call.reused and call.reason is None:
                log.debug("%s closed an idle connection, trying a new one", request.source.backend)
                return self._send_once(request, call, idle)
            raise

    def _send_once(self, request: UpstreamRequest, call: UpstreamCall, idle: Watch) -> tuple[Lease, Incoming]:
        lease = self._connections.acquire(request.url, call, request.timeouts.connect)
        try:
            idle.read_begins()
            unread = _write(lease, request, call)
            # From here on the backend has it all, whatever becomes of its answer.
            call.sent = len(request.body or b"")
            incoming = _head(lease.sock, unread)
            idle.read_ends()
        except BaseException:  # whatever it is, it goes on
            lease.release(usable=False)
            raise
        return lease, incoming


def _write(lease: Lease, request: UpstreamRequest, call: UpstreamCall) -> OSError | None:
    """Send the request. A backend may answer before it has read it all, and close: what sending failed with is returned
    then, in case that there is no answer."""
    headers = {**lease.headers, **request.headers}
    body = request.body or b""
    if request.body is not None:
        headers["Content-Length"] = str(len(body))
    if call.traceparent is not None:
        headers["traceparent"] = call.traceparent
    head = request_head(request.method, lease.target, headers)
    try:
        if len(body) <= _SENT_AT_ONCE:
            lease.sock.sendall(head + body)
        else:
            lease.sock.sendall(head)
            lease.sock.sendall(body)
    except (BrokenPipeError, ConnectionResetError) as problem:
        return problem
    return None


def _head(sock: socket.socket, unread: OSError | None) -> Incoming:
    """Wait for the headers of the answer."""
    incoming = Incoming()
    while not incoming.head_complete:
        data = sock.recv(READ_SIZE)
        if not data:
            raise unread or ConnectionResetError("the connection has ended")
        incoming.begin(data)
    return incoming
