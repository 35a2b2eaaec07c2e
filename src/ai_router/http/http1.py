"""HTTP/1.1 as bytes: the header block of a request, and a parser for its response. No I/O.

The parser is llhttp (by way of httptools). http.client took five times as long, and bytes that it had read ahead could
not be taken over by another reader (docs/decisions/0018).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_HEADER_BYTES = 256 << 10
_MAX_FIELDS = 1_000
"""Of one response, those behind its body included."""
MAX_INFLATED_BYTES = 16 << 20
"""The limit for one portion of a compressed body after decompression."""
_CONTROL = re.compile(r"[\r\n\x00]")
_COMPRESSED = ("gzip", "x-gzip", "deflate")


class NotHTTP(ValueError):
    """The bytes are no valid HTTP/1.1 response, or one that is refused here (too long, compressed wrongly)."""


def request_header_block(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Request line and headers, up to the blank line. Raises ValueError for a header with a line break in it."""
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers.items():
        if _CONTROL.search(value) or _CONTROL.search(name):
            raise ValueError(f"the header {name!r} has a line break in it")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class ResponseParser:
    """Parses one response. ``feed_headers`` until ``headers_complete``, then ``take_body`` once, then ``feed``.

    ``feed_eof`` when the connection has ended.
    """

    __slots__ = (
        *("_delimited", "_fields", "_header_bytes", "_inflate", "_interim", "_parser", "_pieces"),
        *("complete", "headers_complete", "headers", "reusable", "status"),
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """By names in lower case; repeated ones are joined with a comma."""
        self.headers_complete = False
        self.complete = False
        """Whether the whole body has come."""
        self.reusable = False
        """Whether the connection can carry another call after this answer."""
        self._interim = False
        self._delimited = False
        self._fields = 0
        self._header_bytes = 0
        self._pieces: list[bytes] = []
        self._inflate: zlib._Decompress | None = None
        self._parser = HttpResponseParser(self)
        # Some small servers end lines with \n alone, or write blanks behind the size of a chunk.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)

    def feed_headers(self, data: bytes) -> None:
        """Parse bytes that came before the headers were complete. Raises NotHTTP."""
        if self._header_bytes > MAX_HEADER_BYTES:
            raise NotHTTP(f"headers of more than {MAX_HEADER_BYTES} bytes")
        self._header_bytes += len(data)
        self._parse(data)

    def feed(self, data: bytes) -> bytes:
        """Parse bytes that came after the headers. Returns the bytes of the body in them. Raises NotHTTP."""
        self._parse(data)
        pieces = self._pieces
        # Nearly always one piece, which needs no copy.
        return pieces.pop() if len(pieces) == 1 and self._inflate is None else self.take_body()

    def take_body(self) -> bytes:
        """The bytes of the body that were parsed and not returned yet. Raises NotHTTP."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body if self._inflate is None else self._inflated(self._inflate, body)

    def feed_eof(self) -> bool:
        """The connection has ended. Returns whether the response is complete; without a length it ends like this."""
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
            # The parser refers to this object: without the cycle both are freed at once.
            del self._parser

    # Callbacks of httptools.

    def on_message_begin(self) -> None:
        if self.complete:
            # Bytes after the response that belong to no request: they are dropped with the connection.
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return
        self._fields += 1
        if self._fields > _MAX_FIELDS:
            raise NotHTTP(f"more than {_MAX_FIELDS} headers")
        if self.headers_complete:
            return  # behind a chunked body: nothing that is needed here
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
        # We never ask for compression. Some servers compress all the same.
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

    def _inflated(self, inflate: zlib._Decompress, body: bytes) -> bytes:
        """What the compressed bytes are. gzip allows several members in a row, and zeros behind the last."""
        plain = []
        left = MAX_INFLATED_BYTES
        while body:
            try:
                plain.append(inflate.decompress(body, left))
            except zlib.error as problem:
                raise NotHTTP("a body that is not compressed as it says") from problem
            left -= len(plain[-1])
            if inflate.unconsumed_tail or left <= 0:
                raise NotHTTP("a body that becomes too much")
            body = inflate.unused_data.lstrip(b"\0") if inflate.eof else b""
            if body:
                self._inflate = inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        return b"".join(plain)
