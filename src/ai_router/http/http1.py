"""HTTP/1.1 as bytes: the head of a request, and the answer to it as it comes in. Sans I/O.

llhttp, by way of httptools, finds the frames: reading them with http.client took five times as long, and left what it
had read ahead where nobody else could get at it (docs/decisions/0018).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_HEADER_BYTES = 256 << 10
MAX_INFLATED_BYTES = 16 << 20
"""What one portion of a compressed answer may become."""
_CONTROL = re.compile(r"[\r\n\x00]")
_COMPRESSED = ("gzip", "x-gzip", "deflate")


class NotHTTP(ValueError):
    """What came is no answer of HTTP/1.1, or none that is taken here."""


def request_header_block(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request, to its blank line. Raises ValueError for a header that would be more than one."""
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers.items():
        if _CONTROL.search(value) or _CONTROL.search(name):
            raise ValueError(f"the header {name!r} has a line break in it")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class ResponseParser:
    """One answer. Feed it what the socket gives, and get what has come of the body."""

    __slots__ = (
        *("_delimited", "_header_bytes", "_inflate", "_interim", "_parser", "_pieces"),
        *("complete", "headers_complete", "headers", "reusable", "status"),
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """By their names in lower case."""
        self.headers_complete = False
        self.complete = False
        self.reusable = False
        """Whether the connection can carry another call after this answer."""
        self._interim = False
        self._delimited = False
        self._header_bytes = 0
        self._pieces: list[bytes] = []
        self._inflate: zlib._Decompress | None = None
        self._parser = HttpResponseParser(self)
        # Some servers of a home's own making end lines as Unix does.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)

    def feed_headers(self, data: bytes) -> None:
        """Take what has come while the head is not complete. Raises NotHTTP."""
        if self._header_bytes > MAX_HEADER_BYTES:
            raise NotHTTP(f"headers of more than {MAX_HEADER_BYTES} bytes")
        self._header_bytes += len(data)
        self._parse(data)

    def feed(self, data: bytes) -> bytes:
        """Take what has come then; what there is of the body. Raises NotHTTP."""
        self._parse(data)
        pieces = self._pieces
        # One piece a portion is the rule.
        return pieces.pop() if len(pieces) == 1 and self._inflate is None else self.take_body()

    def take_body(self) -> bytes:
        """What there is of the body. Raises NotHTTP."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body if self._inflate is None else _inflated(self._inflate, body)

    def feed_eof(self) -> bool:
        """The connection has ended; whether that was the end of the answer, as where it has no length."""
        self.reusable = False
        self.complete = self.complete or (self.headers_complete and not self._delimited)
        return self.complete

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as problem:
            if not self.complete:
                switches = isinstance(problem, HttpParserUpgrade)
                raise NotHTTP("it switches protocols" if switches else str(problem)) from problem
            self.reusable = False
        if self.complete:
            # The parser and this object know each other, which only the garbage collector would notice.
            del self._parser

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self.complete:
            # Something behind the answer that nobody asked for, and nobody gets.
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interim = True
            return
        self.status, self.headers_complete = status, True
        headers = self.headers
        self._delimited = "content-length" in headers or "transfer-encoding" in headers or status in (204, 304)
        # We ask for no compression; who compresses all the same is understood.
        if headers.get("content-encoding", "").lower() in _COMPRESSED:
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            self.headers.clear()
            return
        if not self.complete:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()


def _inflated(inflate: zlib._Decompress, body: bytes) -> bytes:
    try:
        plain = inflate.decompress(body, MAX_INFLATED_BYTES)
    except zlib.error as problem:
        raise NotHTTP("a body that is not compressed as it says") from problem
    if inflate.unconsumed_tail:
        raise NotHTTP("a body that becomes too much")
    return plain
