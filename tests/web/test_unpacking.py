"""Request bodies that are compressed."""

from __future__ import annotations

import gzip
import zlib
from io import BytesIO

import pytest

from ai_router.errors import BodyTooLarge, InvalidRequest
from ai_router.web.requests import read_body
from ai_router.web.unpacking import UnknownEncoding, unpacked_limit

MIB = 1 << 20


def read(body: bytes, encoding: str, limit: int = 32 * MIB) -> bytes:
    return read_body({"wsgi.input": BytesIO(body), "HTTP_CONTENT_ENCODING": encoding}, limit)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b'{"a": 1}')),
        ("GZIP", gzip.compress(b'{"a": 1}')),
        ("deflate", zlib.compress(b'{"a": 1}')),
        ("identity", b'{"a": 1}'),
    ],
)
def test_it_is_unpacked(encoding: str, packed: bytes) -> None:
    assert read(packed, encoding) == b'{"a": 1}'


def test_what_it_becomes_is_bounded() -> None:
    bomb = gzip.compress(b" " * (64 * MIB))
    assert len(bomb) < MIB / 10
    with pytest.raises(BodyTooLarge, match="unpacked"):
        read(bomb, "gzip")
    assert unpacked_limit(1000, 32 * MIB) == MIB
    assert unpacked_limit(MIB, 32 * MIB) == 32 * MIB


@pytest.mark.parametrize("broken", [b"no gzip", gzip.compress(b'{"a": 1}')[:-9], b"", gzip.compress(b"{}") + b"more"])
def test_a_broken_one_is_the_clients_mistake(broken: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(broken, "gzip")
    assert caught.value.param == "body"


def test_another_compression_is_415() -> None:
    with pytest.raises(UnknownEncoding, match="zstd") as caught:
        read(b"x", "zstd")
    assert caught.value.status == 415
