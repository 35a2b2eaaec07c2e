"""An event loop on a thread of its own, with either poller, and a policy that a test writes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ai_router.server.connection import Connection, Limits
from ai_router.server.event_loop import EventLoop
from ai_router.server.poller import EpollPoller, Poller, SelectorPoller

POLLERS: dict[str, Callable[[], Poller]] = {"epoll": EpollPoller, "selectors": SelectorPoller}


class Policy:
    """POST asks backends; whoever shows the key ``wrong`` may not ask."""

    def asks_backends(self, method: str, path: str) -> bool:
        return method == "POST"

    def is_full(self) -> bool:
        return False

    def admits(self, method: str, path: str, authorization: str, x_api_key: str) -> bool:
        return x_api_key != "wrong"

    def client(self, authorization: str, x_api_key: str) -> str:
        return x_api_key


def limits(**changes: float) -> Limits:
    usual = {
        "threads": 4,
        "backend_threads": 2,
        "waiting": 2,
        "wait_s": 30.0,
        "connections": 100,
        "max_body": 1000,
        "max_bodies": 1_000_000,
        "headers_s": 30.0,
        "body_s": 30.0,
        "write_s": 30.0,
        "total_s": 600.0,
        "idle_s": 30.0,
    }
    return Limits(**(usual | changes))  # type: ignore[arg-type]


@contextmanager
def running_loop(
    poller: str, serve: Callable[[EventLoop, Connection], None] = lambda _loop, _conn: None, **changes: float
) -> Iterator[EventLoop]:
    """The loop, which runs until the block ends."""
    loop = EventLoop(POLLERS[poller](), limits(**changes), Policy(), lambda conn: serve(loop, conn))
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            loop.run_once()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield loop
    finally:
        over.set()
        loop.poller.wake()
        thread.join()
        loop.shut_down()


def until(loop: EventLoop, condition: Callable[[], bool]) -> None:
    """Wait until that is so, as the loop sees it between two rounds."""
    found = threading.Event()

    def look() -> None:
        if condition():
            found.set()
        else:
            loop.defer(look)

    loop.defer(look)
    assert found.wait(10)


def listening(loop: EventLoop) -> tuple[str, int]:
    """Where the loop accepts connections."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    address: tuple[str, int] = listener.getsockname()
    loop.defer(lambda: loop.listen([listener]))
    return address
