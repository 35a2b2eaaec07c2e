"""Connections are accepted for as long as there is room, and tried again where the system has none."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from ai_router.server.listeners import Listeners


class Loop:
    """Keeps what is watched."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[int], None]] = {}

    def watch(self, sock: socket.socket, interest: int, handler: Callable[[int], None]) -> None:
        self.handlers[sock.fileno()] = handler

    def forget(self, sock: socket.socket) -> None:
        self.handlers.pop(sock.fileno(), None)


class NoDescriptors(socket.socket):
    """A listener in a process that has no file descriptor left, until it has."""

    left = 0

    def accept(self) -> tuple[socket.socket, object]:
        if not self.left:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@pytest.fixture
def listener() -> Iterator[NoDescriptors]:
    with NoDescriptors() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield made


def test_where_nothing_can_be_accepted_it_pauses_and_tries_again(listener: NoDescriptors) -> None:
    loop, accepted = Loop(), list[socket.socket]()
    listeners = Listeners(loop, 30.0, lambda sock, *_: accepted.append(sock), lambda: False)
    listeners.add([listener])
    with socket.create_connection(listener.getsockname()):
        loop.handlers[listener.fileno()](1)
        assert not loop.handlers, "else the poller would say so again and again"
        listeners.resume(time.monotonic())
        assert not loop.handlers
        listener.left = 10
        listeners.resume(time.monotonic() + 1)
        loop.handlers[listener.fileno()](1)
        assert len(accepted) == 1
        accepted[0].close()


def test_where_a_connection_could_be_ended_instead_there_is_no_pause(listener: NoDescriptors) -> None:
    loop = Loop()
    Listeners(loop, 30.0, lambda *_: None, lambda: True).add([listener])
    with socket.create_connection(listener.getsockname()):
        loop.handlers[listener.fileno()](1)
        assert loop.handlers
