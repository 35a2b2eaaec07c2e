"""What gunicorn makes of a request and its response, mended: a body whose errors are OSError, and headers that go out
together with what follows them (one system call and one packet less)."""

from __future__ import annotations

import math
import time
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.http.wsgi import Response

_TOGETHER = 65_536
"""Bytes of a body that are worth copying behind the headers."""
_PORTION = 262_144
"""Bytes that a client must take in the time for one portion."""


class TogetherResponse(Response):  # type: ignore[misc]
    """Holds the headers back until there is something to send along, or nothing more."""

    headers_sent: bool
    ends_at = math.inf
    """When the client must have taken all of it, in monotonic seconds."""
    _header_block = b""

    def send_headers(self) -> None:
        """Make the header block; from now on it stands."""
        if self.headers_sent:
            return
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        self._header_block = "".join(lines).encode("latin-1")
        self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        block, self._header_block = self._header_block, b""
        if block and len(data) > _TOGETHER:
            self._send(block)
            block = b""
        self._send(block + data if block else data)

    def begin(self) -> None:
        """Send the headers without waiting for a body."""
        self.send_headers()
        block, self._header_block = self._header_block, b""
        if block:
            self._send(block)

    def close(self) -> None:
        """The end: what is held back, and the last chunk."""
        self.send_headers()
        rest = self._header_block + (b"0\r\n\r\n" if self.chunked else b"")
        self._header_block = b""
        if rest:
            self._send(rest)

    def _send(self, data: bytes) -> None:
        """Send all of it. Raises OSError, TimeoutError among it.

        The socket waits so long for the client to take a portion as WRITE_TIMEOUT_S says, and sends what it has taken
        by then. (``sendall`` would begin that time anew with each byte.)
        """
        sent = self.sock.send(data if len(data) <= _PORTION else memoryview(data)[:_PORTION])
        while sent < len(data):
            if sent % _PORTION or time.monotonic() > self.ends_at:
                raise TimeoutError("the client reads too slowly")
            portion = memoryview(data)[sent : sent + _PORTION]
            sent += self.sock.send(portion)


class RequestBody:
    """gunicorn's body of a request, whose errors are OSError: the application does not know gunicorn's."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def read(self, size: int | None = None) -> bytes:
        """As of a file. Raises OSError for a body that is not framed as it says."""
        try:
            data: bytes = self._body.read(size)
        except ParseException as problem:
            raise OSError(str(problem)) from problem
        return data
