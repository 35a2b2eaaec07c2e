"""A response of a backend: its body as it comes, blocking or not, within the call's deadlines."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ai_router.errors import AnswerSufficient, UpstreamFailed
from ai_router.http.calls import UpstreamCall, UpstreamRequest
from ai_router.http.connections import Lease
from ai_router.http.exceptions import map_exceptions
from ai_router.http.http1 import NotHTTP, ResponseParser
from ai_router.http.timers import Deadline, TimerThread, Watch

READ_SIZE = 65_536
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True, slots=True)
class CallDeadlines:
    """The deadlines of one call: for the first byte (None: no such), for all of it, and for each read."""

    first_byte: Deadline | None
    total: Deadline
    idle: Watch

    def first_byte_seen(self) -> None:
        """Cancel the first-byte deadline."""
        if self.first_byte is not None:
            self.first_byte.cancel()

    def close(self) -> None:
        """Cancel all deadlines. Idempotent."""
        self.first_byte_seen()
        self.total.cancel()
        self.idle.close()


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
