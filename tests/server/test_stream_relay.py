"""Streams on one thread, on real sockets: what a backend sends, what a client takes, and what is said in between."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ai_router.http.timers import TimerThread
from ai_router.server.connection import Connection
from ai_router.server.stream_relay import StreamRelay
from tests.fakes.loops import POLLERS, running_loop

BEAT = b"E\r\n: keep-alive\n\n\r\n"
END = b"0\r\n\r\n"


class Events:
    """Passes on what comes, until the word END or the connection's; ``feed`` of BAD fails."""

    keepalive = b": keep-alive\n\n"

    def __init__(self, source: socket.socket | None) -> None:
        self.source = source
        self.over = False
        self.done = False
        self.pauses = 0
        self.fed: list[bytes | None] = []
        self.send: Callable[[bytes], object] = lambda _: None
        self.finish: Callable[[], object] = lambda: None
        self.attached = threading.Event()
        self._on_release: Callable[[], object] = lambda: None

    def opening(self) -> Iterator[bytes]:
        yield from ()

    def detach(self, on_release: Callable[[], object]) -> socket.socket | None:
        self._on_release = on_release
        if self.source is not None:
            self.source.setblocking(False)
        return self.source

    def attach(self, send: Callable[[bytes], object], finish: Callable[[], object]) -> None:
        self.send, self.finish = send, finish
        self.attached.set()

    def feed(self, data: bytes | None) -> bytes:
        self.fed.append(data)
        if data == b"BAD":
            raise ZeroDivisionError
        if not data or data.endswith(b"END"):
            self.over = True
            self._on_release()
        self.done = self.done or (data or b"").endswith(b"DONE")
        return data or b""

    def pause(self) -> None:
        self.pauses += 1

    def resume(self) -> None:
        pass

    def close(self) -> None:
        pass


class Stream:
    """A relayed stream with a test at both of its ends."""

    def __init__(self, relay: StreamRelay, *, chunked: bool, reused: Stream | None, opens: bool, own: bool) -> None:
        pair = socket.socketpair() if reused is None else (reused.events.source, reused.backend)
        source, self.backend = pair
        self.server, self.client = socket.socketpair()
        self.client.settimeout(10)
        self.events = Events(None if own else source)
        self.source = source
        self.ended = threading.Event()
        self.whole: list[bool] = []
        self.gone = threading.Event()
        conn = Connection(self.server, None, None)
        conn.on_disconnect = self.gone.set
        self.relayed = relay.begin(conn, self.events, chunked=chunked, on_end=self._end)
        if not opens:
            self.relayed.follow()

    def _end(self, whole: bool) -> None:
        self.whole.append(whole)
        self.ended.set()

    def received(self, size: int) -> bytes:
        got = b""
        while len(got) < size and (data := self.client.recv(size - len(got))):
            got += data
        return got

    def close(self) -> None:
        for sock in (self.source, self.backend, self.server, self.client):
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


@pytest.fixture(params=POLLERS)
def begin(timers: TimerThread, request: pytest.FixtureRequest) -> Iterator[Begin]:
    made: list[Stream] = []
    relays: list[StreamRelay] = []
    with running_loop(request.param) as loop:

        def start(
            write_timeout_s: float = 30.0,
            keepalive_s: float = 30.0,
            chunked: bool = True,
            reused: Stream | None = None,
            opens: bool = False,
            own: bool = False,
        ) -> Stream:
            if not relays:
                relays.append(StreamRelay(loop, timers, write_timeout_s=write_timeout_s, keepalive_s=keepalive_s))
            made.append(Stream(relays[0], chunked=chunked, reused=reused, opens=opens, own=own))
            return made[-1]

        yield start
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
    assert slow.events.pauses
    other.backend.send(b"one")
    assert other.received(8) == b"3\r\none\r\n"
    assert drain(slow.client).count(b"x") == sent, "nothing is lost, once it reads"


def test_a_client_that_takes_nothing_for_too_long_is_let_go(begin: Begin) -> None:
    stream = begin(write_timeout_s=0.1)
    fill(stream.backend)
    assert stream.ended.wait(10)
    assert stream.whole == [False]


def test_a_client_that_takes_a_little_now_and_then_is_let_go_too(begin: Begin) -> None:
    stream = begin(own=True, opens=True, write_timeout_s=0.4)
    stream.relayed.send(b"x" * 1_000_000)
    stream.relayed.follow()
    got = 0
    while got < 900_000 and not stream.ended.wait(0.02):
        got += len(stream.client.recv(10_000))
    assert stream.whole == [False]


def test_a_client_that_has_left_ends_its_stream_at_the_next_portion(begin: Begin) -> None:
    stream = begin()
    stream.client.close()
    stream.backend.send(b"one")
    assert stream.ended.wait(10)
    assert stream.whole == [False]


@pytest.mark.parametrize("reset", [False, True])
def test_the_stream_learns_how_its_backend_left(begin: Begin, reset: bool) -> None:
    stream = begin()
    if reset:
        # Unread bytes make a close a reset.
        stream.source.send(b"unread")
    stream.backend.close()
    assert stream.ended.wait(10)
    assert stream.events.fed == [None if reset else b""]


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


def test_a_connection_that_is_used_again_at_once_is_the_next_stream_s(begin: Begin) -> None:
    first = begin()
    for _ in range(20):
        first.backend.send(b"END")
        assert first.ended.wait(10)
        first.backend.send(b"one")
        first = begin(reused=first)
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


def test_what_is_opened_with_goes_out_before_what_the_backend_sends(begin: Begin) -> None:
    stream = begin(opens=True)
    stream.backend.send(b"END")
    stream.relayed.send(b": one\n\n")
    stream.relayed.send(b": two\n\n")
    stream.relayed.follow()
    assert stream.received(37) == b"7\r\n: one\n\n\r\n" + b"7\r\n: two\n\n\r\n" + b"3\r\nEND\r\n" + END
    assert stream.ended.wait(10)


def test_silence_is_broken_while_the_opening_is_waited_for(begin: Begin) -> None:
    stream = begin(opens=True, keepalive_s=0.05)
    assert stream.received(2 * len(BEAT)) == BEAT + BEAT
    stream.relayed.finish()
    assert drain(stream.client).endswith(END)
    assert stream.whole == [True]


def test_a_client_that_leaves_during_the_opening_is_told_of_and_the_end_waits_for_the_opening(begin: Begin) -> None:
    stream = begin(opens=True)
    stream.client.close()
    stream.relayed.send(b"into the void")
    assert stream.gone.wait(10)
    assert not stream.ended.is_set()
    stream.relayed.finish()
    assert stream.ended.wait(10)
    assert stream.whole == [False]


def test_events_of_our_own_are_sent_from_any_thread_and_hold_none(begin: Begin) -> None:
    streams = [begin(own=True) for _ in range(20)]
    for stream in streams:
        assert stream.events.attached.wait(10)
    threads = [threading.Thread(target=stream.events.send, args=(b"data: 1\n\n",)) for stream in streams]
    for thread in threads:
        thread.start()
    for stream, thread in zip(streams, threads, strict=True):
        thread.join()
        assert stream.received(14) == b"9\r\ndata: 1\n\n\r\n"
        stream.events.finish()
        assert stream.received(5) == END
        assert stream.ended.wait(10)


def test_a_client_that_takes_our_own_events_too_slowly_is_given_up(begin: Begin) -> None:
    stream = begin(own=True)
    assert stream.events.attached.wait(10)
    for _ in range(100):
        stream.events.send(b"x" * 65_536)
    assert stream.ended.wait(10)
    assert stream.whole == [False]
