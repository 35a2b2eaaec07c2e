"""Request bodies that are compressed: what is taken, and how large they may become."""

from __future__ import annotations

import zlib

from ai_router.errors import BodyTooLarge, ClientError, InvalidRequest

_MOST_TIMES = 100
"""How much larger than its compressed form a body may be. JSON of people's words comes to 3 to 20."""
_ALLOWED_ANYWAY = 1 << 20
_GZIP_OR_ZLIB = 47
"""For zlib: both forms, whichever it is."""


class UnknownEncoding(ClientError):
    """415: the body is compressed in a way that is not known."""

    status = 415
    code = "unsupported_content_encoding"
    param = "body"

    def __init__(self, encoding: str) -> None:
        super().__init__(f"a request body may be gzip or deflate, not '{encoding[:32]}'")


def unpacked_limit(size: int, limit: int) -> int:
    """How many bytes a compressed body of ``size`` bytes may become, where ``limit`` is that of all bodies."""
    return min(limit, max(_ALLOWED_ANYWAY, size * _MOST_TIMES))


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """The body that was sent with this Content-Encoding. Raises UnknownEncoding, InvalidRequest and BodyTooLarge."""
    encoding = encoding.strip().lower()
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnknownEncoding(encoding)
    most = unpacked_limit(len(body), limit)
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        whole = unpacker.decompress(body, most)
    except zlib.error as problem:
        raise InvalidRequest(f"the request body is not valid {encoding}: {problem}", "body") from None
    if unpacker.unconsumed_tail:
        raise BodyTooLarge(f"the request body, unpacked, is larger than {most} bytes")
    if unpacker.unused_data:
        raise InvalidRequest(f"the request body has something behind its {encoding} data", "body")
    if not unpacker.eof:
        raise InvalidRequest(f"the request body, which is {encoding}, is not complete", "body")
    return whole
