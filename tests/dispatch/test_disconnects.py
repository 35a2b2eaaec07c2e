"""Noticing that a client has left."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from ai_router.dispatch.disconnects import ClientWatcher
from tests.fakes.clients import RawClient


@pytest.fixture
def watcher() -> Iterator[ClientWatcher]:
    watcher = ClientWatcher()
    yield watcher
    watcher.close()


@pytest.fixture
def connection() -> Iterator[tuple[RawClient, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = RawClient(listener.getsockname()[1])
        served, _ = listener.accept()
        with served:
            yield client, served
        client.leave()


@pytest.mark.parametrize("leave", [RawClient.leave, RawClient.reset], ids=["fin", "rst"])
def test_a_client_that_leaves_is_noticed_once(
    watcher: ClientWatcher, connection: tuple[RawClient, socket.socket], leave: object
) -> None:
    client, served = connection
    gone, times = threading.Event(), []
    watcher.watch(served, lambda: (times.append(1), gone.set()))
    leave(client)
    assert gone.wait(5)
    assert len(times) == 1


def test_bytes_from_the_client_are_no_departure(
    watcher: ClientWatcher, connection: tuple[RawClient, socket.socket]
) -> None:
    client, served = connection
    gone = threading.Event()
    watcher.watch(served, gone.set)
    client.send(b"pipelined")
    assert not gone.wait(0.05)
    client.leave()
    assert gone.wait(5)


def test_after_unwatching_nobody_is_called(watcher: ClientWatcher, connection: tuple[RawClient, socket.socket]) -> None:
    client, served = connection
    gone, other = threading.Event(), threading.Event()
    watcher.watch(served, gone.set)()
    ours, theirs = socket.socketpair()
    watcher.watch(ours, other.set)
    client.leave()
    theirs.close()
    # The watcher is one thread: once it has told the later departure, it would have told the earlier one.
    assert other.wait(5)
    assert not gone.is_set()
    ours.close()


def test_a_callback_that_fails_does_not_blind_it(
    watcher: ClientWatcher, connection: tuple[RawClient, socket.socket]
) -> None:
    def fail() -> None:
        raise RuntimeError("on purpose")

    client, served = connection
    watcher.watch(served, fail)
    client.leave()
    ours, theirs = socket.socketpair()
    gone = threading.Event()
    watcher.watch(ours, gone.set)
    theirs.close()
    assert gone.wait(5)
    ours.close()


def test_a_client_that_left_before_is_noticed_at_once(
    watcher: ClientWatcher, connection: tuple[RawClient, socket.socket]
) -> None:
    client, served = connection
    client.leave()
    gone = threading.Event()
    watcher.watch(served, gone.set)
    assert gone.wait(5)
