"""A response's head goes out with what follows it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

    def send(self, data: bytes) -> int:
        self.sent.append(data)
        return len(data)


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


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's and a client's end of a connection; the server's waits 0.2 s at most for room, as in production."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 200_000))
    with ours, theirs:
        yield ours, theirs


def over(ours: socket.socket, body: bytes) -> Any:
    plain = response(("content-length", str(len(body))))
    plain.sock = ours
    return plain


def test_a_client_that_reads_gets_all_of_a_large_answer(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    body = b"y" * 3_000_000

    def write() -> None:
        over(ours, body).write(body)
        ours.close()

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        got = b"".join(iter(lambda: theirs.recv(65_536), b""))
        written.result()
    assert got.endswith(b"\r\n\r\n" + body)


def test_a_client_that_takes_a_byte_now_and_then_is_given_up(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    body = b"y" * 3_000_000
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.02):
            theirs.recv(1)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(trickle)
        try:
            with pytest.raises((TimeoutError, BlockingIOError)):
                over(ours, body).write(body)
        finally:
            stop.set()


def test_who_takes_each_portion_in_time_but_not_all_of_it_is_given_up(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    body = b"y" * 3_000_000
    plain = over(ours, body)
    plain.ends_at = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(lambda: sum(map(len, iter(lambda: theirs.recv(65_536), b""))))
        with pytest.raises(TimeoutError, match="reads too slowly"):
            plain.write(body)
        ours.close()
        assert read.result() < len(body)
