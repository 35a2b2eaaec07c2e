"""A client's connection, and what the server's parts agree on about it."""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ai_router.errors import RouterError
from ai_router.server.request_reader import RequestReader


class Connection:
    """A client's connection. ``reader`` has what has come of its next request."""

    __slots__ = (
        *("address", "arrived_at", "counted", "deadline", "drained", "gone", "local_address"),
        *("on_disconnect", "reader", "refusal", "sock", "state"),
    )

    def __init__(self, sock: socket.socket, address: Any, local_address: Any) -> None:
        self.sock = sock
        self.address = address
        self.local_address = local_address
        self.reader = RequestReader()
        self.state: OrderedDict[Connection, None] | None = None
        """The collection of those in the same state; None while a request thread or a stream has it."""
        self.deadline = 0.0
        """When that state ends by itself, in monotonic seconds."""
        self.arrived_at = 0.0
        """When the headers of the request had come."""
        self.refusal: RouterError | None = None
        """Why the server wants the request refused."""
        self.counted = False
        """Whether the request counts as one that may hold its thread for long."""
        self.gone = False
        """Whether the client has closed it."""
        self.on_disconnect: Callable[[], None] | None = None
        self.drained = 0
        """Bytes that came behind the last answer and were thrown away."""

    def renew(self, rest: bytes) -> None:
        """Make ready for the next request; ``rest`` of it has been read already."""
        self.reader, self.refusal, self.arrived_at, self.on_disconnect = RequestReader(), None, 0.0, None
        if rest:
            self.reader.feed(rest)


class Policy(Protocol):
    """What the application says of requests before they are read whole. Cheap: it runs in the loop."""

    def asks_backends(self, method: str, path: str) -> bool:
        """Whether such a request may hold its thread for long."""

    def admits(self, path: str, authorization: str, x_api_key: str) -> bool:
        """Whether somebody with these headers may ask for this path at all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    threads: int
    backend_threads: int
    """How many requests that ask backends may hold a thread at once; the other threads answer everything else."""
    waiting: int
    """How many requests may wait for a thread."""
    wait_s: float
    """How long they may."""
    connections: int
    max_body: int
    headers_s: float
    body_s: float
    write_s: float
    keepalive_s: float
