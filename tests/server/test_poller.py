"""Both pollers tell the same, whatever the system has."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from ai_router.server.poller import CLOSED, READ, WRITE, Poller
from tests.fakes.loops import POLLERS

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=POLLERS)
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made = POLLERS[request.param]()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    yield ours, theirs
    ours.close()
    theirs.close()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_bytes_are_readable_until_they_are_read(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.watch(ours, READ)
    assert poller.poll(0) == []
    theirs.send(b"x")
    for _ in range(2):
        assert [event[1] & READ for event in poller.poll(5)] == [READ]
    ours.recv(1)
    assert poller.poll(0) == []


def test_a_socket_that_takes_bytes_is_writable(poller: Poller, pair: Pair) -> None:
    poller.watch(pair[0], WRITE)
    assert list(poller.poll(5)) == [(pair[0].fileno(), WRITE)]


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["fin", "rst"])
def test_a_close_is_told_once(poller: Poller, pair: Pair, leave: object) -> None:
    ours, theirs = pair
    poller.watch(ours, CLOSED)
    assert poller.poll(0) == []
    leave(theirs)  # type: ignore[operator]
    assert [event[1] & CLOSED for event in poller.poll(5)] == [CLOSED]
    assert poller.poll(0) == []


def test_bytes_are_no_close_and_do_not_keep_the_poller_busy(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.watch(ours, CLOSED)
    theirs.send(b"x")
    assert [event for event in poller.poll(0.05) if event[1]] == []
    assert poller.poll(0) == []


def test_a_close_is_told_while_bytes_wait_to_be_sent(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.watch(ours, WRITE | CLOSED)
    theirs.close()
    seen = 0
    while not seen & CLOSED:
        seen |= next(iter(poller.poll(5)))[1]


def test_what_is_watched_can_be_changed_and_forgotten(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(b"x")
    poller.watch(ours, WRITE)
    poller.watch(ours, READ)
    assert [event[1] & (READ | WRITE) for event in poller.poll(5)] == [READ]
    poller.watch(ours, 0)
    assert poller.poll(0) == []
    poller.watch(ours, READ)
    assert len(poller.poll(5)) == 1
    poller.forget(ours)
    poller.forget(ours)
    assert poller.poll(0) == []


def test_another_thread_wakes_it(poller: Poller) -> None:
    threading.Timer(0.05, poller.wake).start()
    assert poller.poll(30) == []
    for _ in range(100_000):
        poller.wake()
    assert poller.poll(30) == []
    assert poller.poll(0) == []
