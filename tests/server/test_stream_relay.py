"""Streams on one thread, on real sockets: what a backend sends, what a client takes, and what is said in between."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ai_router.http.timers import TimerThread
from ai_router.server.stream_relay import Relay, Relays

BEAT = b"E\r\n: keep-alive\n\n\r\n"
END = b"0\r\n\r\n"


class Flow:
    """Passes on what comes, until the word END or the connection's; ``push`` of BAD fails."""

    def __init__(self, source: socket.socket) -> None:
        self.source = source
        self.over = False
        self.done = False
        self.pauses = 0
        self.pushed: list[bytes | None] = []
        self._let_go: Callable[[], object] = lambda: None

    def wait_elsewhere(self, let_go: Callable[[], object]) -> socket.socket:
        self.source.setblocking(False)
        self._let_go = let_go
        return self.source

    def push(self, data: bytes | None) -> bytes:
        self.pushed.append(data)
        if data == b"BAD":
            raise ZeroDivisionError
        if not data or data.endswith(b"END"):
            self.over = True
            self._let_go()
        self.done = self.done or (data or b"").endswith(b"DONE")
        return data or b""

    def pause(self) -> None:
        self.pauses += 1

    def go_on(self) -> None:
        pass


class Stream:
    """A relayed stream with a test at both of its ends."""

    def __init__(self, relays: Relays, *, chunked: bool, lent_by: Stream | None) -> None:
        pair = socket.socketpair() if lent_by is None else (lent_by.flow.source, lent_by.backend)
        source, self.backend = pair
        self.server, self.client = socket.socketpair()
        self.client.settimeout(10)
        self.flow = Flow(source)
        self.ended = threading.Event()
        self.whole: list[bool] = []
        relays.add(Relay(self.flow, self.server, chunked=chunked, on_end=self._end))

    def _end(self, whole: bool) -> None:
        self.whole.append(whole)
        self.ended.set()

    def received(self, size: int) -> bytes:
        got = b""
        while len(got) < size and (data := self.client.recv(size - len(got))):
            got += data
        return got

    def close(self) -> None:
        for sock in (self.flow.source, self.backend, self.server, self.client):
            sock.close()


Begin = Callable[..., Stream]


def fill(sock: socket.socket) -> int:
    """Send until nobody takes any more; how much that was."""
    sent = 0
    sock.settimeout(0.3)
    with contextlib.suppress(OSError):
        while True:
            sent += sock.send(b"x" * 65_536)
    return sent


def drain(sock: socket.socket, most: float = float("inf")) -> bytes:
    """Receive until there is no more for a while, or there were ``most`` times an x."""
    got, seen = [], 0
    sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while seen < most and (data := sock.recv(1 << 20)):
            got.append(data)
            seen += data.count(b"x")
    return b"".join(got)


@pytest.fixture
def begin(timers: TimerThread) -> Iterator[Begin]:
    made: list[Stream] = []
    carriers: list[Relays] = []

    def start(
        write_timeout_s: float = 30.0,
        keepalive_s: float = 30.0,
        chunked: bool = True,
        lent_by: Stream | None = None,
    ) -> Stream:
        if not carriers:
            carriers.append(Relays(timers, write_timeout_s=write_timeout_s, keepalive_s=keepalive_s))
            carriers[0].start()
        made.append(Stream(carriers[0], chunked=chunked, lent_by=lent_by))
        return made[-1]

    yield start
    for carrier in carriers:
        carrier.close()
    for stream in made:
        stream.close()


def test_what_comes_goes_out_in_chunks_and_the_end_is_the_last_of_them(begin: Begin) -> None:
    stream = begin()
    stream.backend.send(b"one")
    assert stream.received(8) == b"3\r\none\r\n"
    stream.backend.send(b"twoEND")
    assert stream.received(16) == b"6\r\ntwoEND\r\n" + END
    assert stream.ended.wait(10)
    assert stream.whole == [True]


def test_an_old_client_gets_it_without_frames(begin: Begin) -> None:
    stream = begin(chunked=False)
    stream.backend.send(b"twoEND")
    assert stream.ended.wait(10)
    assert stream.received(6) == b"twoEND"


def test_many_streams_do_not_mix(begin: Begin) -> None:
    streams = [begin() for _ in range(50)]
    for number, stream in enumerate(streams):
        stream.backend.send(b"%03d" % number)
    for number, stream in enumerate(streams):
        assert stream.received(8) == b"3\r\n%03d\r\n" % number


def test_a_client_that_does_not_read_holds_its_backend_up_and_nobody_else(begin: Begin) -> None:
    slow, other = begin(), begin()
    sent = fill(slow.backend)
    assert slow.flow.pauses
    other.backend.send(b"one")
    assert other.received(8) == b"3\r\none\r\n"
    assert drain(slow.client).count(b"x") == sent, "nothing is lost, once it reads"


def test_a_client_that_takes_nothing_for_too_long_is_let_go(begin: Begin) -> None:
    stream = begin(write_timeout_s=0.1)
    fill(stream.backend)
    assert stream.ended.wait(10)
    assert stream.whole == [False]


def test_a_client_that_has_left_ends_its_stream_at_the_next_portion(begin: Begin) -> None:
    stream = begin()
    stream.client.close()
    stream.backend.send(b"one")
    assert stream.ended.wait(10)
    assert stream.whole == [False]


@pytest.mark.parametrize("reset", [False, True])
def test_the_flow_learns_how_its_backend_left(begin: Begin, reset: bool) -> None:
    stream = begin()
    if reset:
        # Unread bytes make a close a reset.
        stream.flow.source.send(b"unread")
    stream.backend.close()
    assert stream.ended.wait(10)
    assert stream.flow.pushed == [None if reset else b""]


def test_a_stream_that_fails_for_a_reason_of_our_own_ends_alone(begin: Begin) -> None:
    bad, good = begin(), begin()
    bad.backend.send(b"BAD")
    assert bad.ended.wait(10)
    assert bad.whole == [False]
    good.backend.send(b"END")
    assert good.ended.wait(10)
    assert good.whole == [True]


def test_silence_is_broken_by_comments_until_the_answer_is_over(begin: Begin) -> None:
    stream = begin(keepalive_s=0.05)
    assert stream.received(2 * len(BEAT)) == BEAT + BEAT
    stream.backend.send(b"DONE")
    assert drain(stream.client).removeprefix(BEAT) == b"4\r\nDONE\r\n"


def test_no_comment_gets_into_the_middle_of_a_portion(begin: Begin) -> None:
    stream = begin(keepalive_s=0.02)
    sent = fill(stream.backend)
    rest, whole = drain(stream.client, sent), 0
    while rest:
        size, rest = rest.split(b"\r\n", 1)
        portion, rest = rest[: int(size, 16)], rest[int(size, 16) :]
        assert portion in (BEAT[3:-2], b"x" * len(portion))
        assert rest[:2] in (b"\r\n", b"\r", b""), "the last may still be coming"
        whole += len(portion) if portion.startswith(b"x") else 0
        rest = rest[2:]
    assert whole == sent


def test_a_connection_that_is_lent_again_at_once_is_the_next_stream_s(begin: Begin) -> None:
    first = begin()
    for _ in range(20):
        first.backend.send(b"END")
        assert first.ended.wait(10)
        first.backend.send(b"one")
        first = begin(lent_by=first)
        assert first.received(8) == b"3\r\none\r\n"


def test_a_backend_that_never_stops_sending_leaves_the_others_their_turn(begin: Begin) -> None:
    torrent, other = begin(), begin()
    over = threading.Event()

    def pour() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                torrent.backend.send(b"x" * 65_536)

    def drink() -> None:
        with contextlib.suppress(OSError):
            while torrent.client.recv(1 << 20):
                pass

    threads = [threading.Thread(target=what) for what in (pour, drink)]
    for thread in threads:
        thread.start()
    for number in range(20):
        other.backend.send(b"%03d" % number)
        assert other.received(8) == b"3\r\n%03d\r\n" % number
    over.set()
    torrent.client.shutdown(socket.SHUT_RDWR)
    torrent.backend.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
