"""Finding where a client's request ends, without reading what it says. Sans I/O.

gunicorn's parser reads a request and judges it; it waits for bytes while it does so. Here the bytes are gathered until
the request is whole, so that no thread has to wait for a client. llhttp, by way of httptools, finds the frames.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

MAX_HEADER_BYTES = 64 << 10
"""More than gunicorn allows: what is longer is handed on, and refused there."""


class RequestReader:
    """One request. Feed it what the socket gives, until it is ``complete`` or ``broken``."""

    __slots__ = (
        *("_current", "_parser", "_portions", "_url"),
        *("authorization", "broken", "complete", "content_length", "expects_continue", "headers_complete"),
        *("method", "path", "size", "x_api_key"),
    )

    def __init__(self) -> None:
        self._portions: list[bytes] = []
        self._url = b""
        self._current = True
        """Whether the parser is still in this request, and not in one behind it."""
        self.size = 0
        """Bytes that have come, headers included."""
        self.headers_complete = False
        self.complete = False
        self.broken = False
        """Whether this is not HTTP/1.1 as llhttp knows it: no more needs to be read to refuse it."""
        self.method = ""
        self.path = ""
        self.content_length: int | None = None
        self.expects_continue = False
        self.authorization = ""
        self.x_api_key = ""
        self._parser: HttpRequestParser | None = HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._portions.append(data)
        self.size += len(data)
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            # No upgrade is offered: the answer to what has come will say so.
            self.complete = True
        except HttpParserError:
            self.broken = not self.complete
        if not self.headers_complete and self.size > MAX_HEADER_BYTES:
            self.broken = True
        if self.complete or self.broken:
            # The parser and this object know each other, which only the garbage collector would notice.
            self._parser = None

    def take(self) -> bytes:
        """Everything that has come."""
        portions = self._portions
        return portions[0] if len(portions) == 1 else b"".join(portions)

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self.complete:
            # The next request is behind this one already.
            self._current = False

    def on_url(self, url: bytes) -> None:
        if self._current:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._current:
            return
        name = name.lower()
        if name == b"content-length":
            self.content_length = int(value) if value.isdigit() else None
        elif name == b"expect":
            self.expects_continue = value.lower() == b"100-continue"
        elif name == b"authorization":
            self.authorization = value.decode("latin-1")
        elif name == b"x-api-key":
            self.x_api_key = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._current and self._parser is not None:
            self.headers_complete = True
            self.method = self._parser.get_method().decode("ascii")
            self.path = self._url.partition(b"?")[0].decode("latin-1")

    def on_message_complete(self) -> None:
        if self._current:
            self.complete = True
            self._current = False
