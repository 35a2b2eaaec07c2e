"""Comments into a silent stream: between portions, framed as the server frames, and never at the cost of a wait."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from ai_router.web.heartbeat import Heartbeat

FRAMED = b"E\r\n: keep-alive\n\n\r\n"


class TimerThread:
    """Rings when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.set: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, callback: Callable[[], None]) -> TimerThread:
        self.set.append((self.now + seconds, callback))
        return self

    def cancel(self) -> None:
        self.set.clear()

    def go_to(self, moment: float) -> None:
        self.now = moment
        due = [callback for at, callback in self.set if at <= moment]
        self.set = [entry for entry in self.set if entry[0] > moment]
        for callback in due:
            callback()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, clients = socket.socketpair()
    ours.setblocking(False)
    clients.settimeout(0.2)
    yield ours, clients
    ours.close()
    clients.close()


Pair = tuple[socket.socket, socket.socket]


def beating(
    timers: TimerThread, sock: socket.socket, portions: Iterator[bytes], *, chunked: bool = True
) -> Iterator[bytes]:
    heart = Heartbeat(timers, sock, 5.0, chunked=chunked, clock=lambda: timers.now)  # type: ignore[arg-type]
    return heart.through(portions)


def received(clients: socket.socket) -> bytes:
    try:
        return clients.recv(65536)
    except TimeoutError:
        return b""


def test_a_silence_is_broken_every_so_often(pair: Pair) -> None:
    timers, heard = TimerThread(), []

    def portions() -> Iterator[bytes]:
        yield b"first"
        for moment in (4.0, 5.0, 9.0, 10.0):
            timers.go_to(moment)
            heard.append(received(pair[1]))
        yield b"second"

    assert list(beating(timers, pair[0], portions())) == [b"first", b"second"]
    assert heard == [b"", FRAMED, b"", FRAMED]


def test_before_the_first_portion_there_are_no_headers_and_no_comments(pair: Pair) -> None:
    timers = TimerThread()

    def portions() -> Iterator[bytes]:
        timers.go_to(60)
        yield b"first"

    assert list(beating(timers, pair[0], portions())) == [b"first"]
    assert received(pair[1]) == b""


def test_while_a_portion_is_being_sent_nothing_is_put_into_it(pair: Pair) -> None:
    timers = TimerThread()
    stream = beating(timers, pair[0], iter([b"first", b"second"]))
    next(stream)
    next(stream)
    # The second is with the server now, who may be in the middle of sending it.
    timers.go_to(60)
    assert received(pair[1]) == b""


def test_after_the_end_and_after_done_there_are_none(pair: Pair) -> None:
    timers, heard = TimerThread(), []

    def portions() -> Iterator[bytes]:
        yield b"data: [DONE]\n\n"
        timers.go_to(60)
        heard.append(received(pair[1]))

    assert list(beating(timers, pair[0], portions())) == [b"data: [DONE]\n\n"]
    timers.go_to(120)
    assert heard == [b""]
    assert received(pair[1]) == b""


def test_an_old_client_gets_no_chunks(pair: Pair) -> None:
    timers, heard = TimerThread(), []

    def portions() -> Iterator[bytes]:
        yield b"first"
        timers.go_to(5)
        heard.append(received(pair[1]))

    list(beating(timers, pair[0], portions(), chunked=False))
    assert heard == [b": keep-alive\n\n"]


def test_a_client_that_does_not_read_is_not_waited_for(pair: Pair) -> None:
    timers = TimerThread()

    def portions() -> Iterator[bytes]:
        yield b"first"
        while True:
            try:
                pair[0].send(b"x" * 65536)
            except BlockingIOError:
                break
        timers.go_to(5)

    assert list(beating(timers, pair[0], portions())) == [b"first"]


def test_a_stream_that_is_closed_closes_what_it_reads(pair: Pair) -> None:
    closed = []

    def portions() -> Iterator[bytes]:
        try:
            yield b"first"
        finally:
            closed.append(True)

    stream = beating(TimerThread(), pair[0], portions())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert closed == [True]
