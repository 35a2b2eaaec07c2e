"""gunicorn's response, whose head goes out together with what follows it: one system call and one packet less."""

from __future__ import annotations

from gunicorn.http.wsgi import Response

_TOGETHER = 65_536
"""Bytes of a body that are worth copying behind a head."""


class TogetherResponse(Response):  # type: ignore[misc]
    """Holds the head back until there is something to send along, or nothing more."""

    headers_sent: bool
    _head = b""

    def send_headers(self) -> None:
        """Make the head; from now on it stands."""
        if self.headers_sent:
            return
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        self._head = "".join(lines).encode("latin-1")
        self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        head, self._head = self._head, b""
        if head and len(data) > _TOGETHER:
            self.sock.sendall(head)
            head = b""
        self.sock.sendall(head + data if head else data)

    def close(self) -> None:
        """The end: what is held back, and the last chunk."""
        self.send_headers()
        rest = self._head + (b"0\r\n\r\n" if self.chunked else b"")
        self._head = b""
        if rest:
            self.sock.sendall(rest)
