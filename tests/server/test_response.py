"""A response's head goes out with what follows it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from ai_router.server.response import TogetherResponse

END = b"0\r\n\r\n"


class Socket:
    """Remembers what was sent at once."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)


def response(*headers: tuple[str, str], version: tuple[int, int] = (1, 1), method: str = "POST") -> Any:
    request = SimpleNamespace(version=version, method=method, should_close=lambda: False)
    made = TogetherResponse(request, Socket(), Config())
    made.start_response("200 OK", list(headers))
    return made


def test_a_plain_answer_is_one_piece() -> None:
    plain = response(("content-length", "2"))
    plain.write(b"{}")
    plain.close()
    (sent,) = plain.sock.sent
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"content-length: 2\r\n\r\n{}")


def test_a_stream_s_head_goes_with_its_first_chunk() -> None:
    stream = response(("content-type", "text/event-stream"))
    stream.write(b"one")
    stream.write(b"two")
    stream.close()
    first, *others = stream.sock.sent
    assert first.endswith(b"\r\n\r\n3\r\none\r\n")
    assert others == [b"3\r\ntwo\r\n", END]


def test_a_large_body_is_not_copied_behind_its_head() -> None:
    body = b"x" * 100_000
    large = response(("content-length", "100000"))
    large.write(body)
    large.close()
    head, sent = large.sock.sent
    assert head.endswith(b"\r\n\r\n")
    assert sent is body


@pytest.mark.parametrize(("version", "end"), [((1, 1), END), ((1, 0), b"")])
def test_without_a_body_the_head_is_all(version: tuple[int, int], end: bytes) -> None:
    empty = response(version=version)
    empty.close()
    (sent,) = empty.sock.sent
    assert sent.endswith(b"\r\n\r\n" + end)
