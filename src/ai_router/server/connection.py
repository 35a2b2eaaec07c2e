"""A client's connection: what has come of its next request, and the threads that answer requests.

gunicorn's parser reads a request and judges it, and waits for bytes while it does so. Here the bytes are gathered until
the request is whole, so that no thread waits for a client. llhttp, by way of httptools, finds where a request ends.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from ai_router.errors import RouterError
from ai_router.web.paths import canonical_path
from ai_router.web.unpacking import unpacked_limit

log = logging.getLogger(__name__)


class Connection:
    """A client's connection. ``reader`` has what has come of its next request."""

    __slots__ = (
        *("address", "arrived_at", "body_held", "client", "counted", "deadline", "drained", "gone", "local_address"),
        *("on_disconnect", "reader", "refusal", "sock", "stage"),
    )

    def __init__(self, sock: socket.socket, address: Any, local_address: Any) -> None:
        self.sock = sock
        self.address = address
        self.local_address = local_address
        self.reader = RequestReader()
        self.stage: OrderedDict[Connection, None] | None = None
        """The connections that are at the same stage; None while a request thread or a stream has it."""
        self.deadline = 0.0
        """When that stage ends by itself, in monotonic seconds."""
        self.arrived_at = 0.0
        """When the headers of the request had come."""
        self.refusal: RouterError | None = None
        """Why the server wants the request refused."""
        self.body_held = 0
        """Bytes of its request's body that are counted (BodyBudget)."""
        self.client = ""
        """Whose key the request shows, where it asks a backend (Policy.client)."""
        self.counted = False
        """Whether it is counted among those that ask a backend, which may hold their threads for long."""
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

    def is_full(self) -> bool:
        """Whether as many requests for backends are under way as may be, streams included."""

    def admits(self, method: str, path: str, authorization: str, x_api_key: str) -> bool:
        """Whether somebody with these headers may ask for this path at all."""

    def client(self, authorization: str, x_api_key: str) -> str:
        """Whose key these headers show; "" without any. Threads are shared among clients."""


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
    max_bodies: int
    """Bytes of large bodies that may be under way at once."""
    headers_s: float
    body_s: float
    write_s: float
    """For one portion of an answer."""
    total_s: float
    """From a request's headers to the end of its answer."""
    idle_s: float


MAX_HEADER_BYTES = 64 << 10
"""More than gunicorn allows: what is longer is handed on, and refused there."""


class RequestReader:
    """One request. Feed it what the socket gives, until it is ``complete`` or ``broken``."""

    __slots__ = (
        *("_current", "_parser", "_portions", "_url"),
        *("authorization", "body_size", "broken", "complete", "content_length", "expects_continue", "headers_complete"),
        *("is_packed", "method", "path", "size", "x_api_key"),
    )

    def __init__(self) -> None:
        self._portions: list[bytes] = []
        self._url = b""
        self._current = True
        """Whether the parser is still in this request, and not in one behind it."""
        self.size = 0
        """Bytes that have come, headers included."""
        self.body_size = 0
        """Of them those of the body, without its framing."""
        self.headers_complete = False
        self.complete = False
        self.broken = False
        """Whether this is not HTTP/1.1 as llhttp knows it: no more needs to be read to refuse it."""
        self.method = ""
        self.path = ""
        self.content_length: int | None = None
        self.expects_continue = False
        self.authorization = ""
        self.x_api_key = ""
        self.is_packed = False
        """Whether its body is compressed."""
        self._parser: HttpRequestParser | None = HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._portions.append(data)
        self.size += len(data)
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            # No upgrade is offered: the answer to what has come will say so.
            self.complete = True
        except HttpParserError:
            self.broken = not self.complete
        if not self.headers_complete and self.size > MAX_HEADER_BYTES:
            self.broken = True
        if self.complete or self.broken:
            # The parser and this object know each other, which only the garbage collector would notice.
            self._parser = None

    def take(self) -> bytes:
        """Everything that has come."""
        portions = self._portions
        return portions[0] if len(portions) == 1 else b"".join(portions)

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self.complete:
            # The next request is behind this one already.
            self._current = False

    def on_url(self, url: bytes) -> None:
        if self._current:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._current:
            return
        name = name.lower()
        if name == b"content-length":
            self.content_length = int(value) if value.isdigit() else None
        elif name == b"expect":
            self.expects_continue = value.lower() == b"100-continue"
        elif name == b"authorization":
            self.authorization = value.decode("latin-1")
        elif name == b"x-api-key" or (name == b"api-key" and not self.x_api_key):
            self.x_api_key = value.decode("latin-1")
        elif name == b"content-encoding":
            self.is_packed = value.lower() not in (b"", b"identity")

    def on_headers_complete(self) -> None:
        if self._current and self._parser is not None:
            self.headers_complete = True
            self.method = self._parser.get_method().decode("ascii")
            self.path, _ = canonical_path(self._url.partition(b"?")[0].decode("latin-1"))

    def on_body(self, body: bytes) -> None:
        if self._current:
            self.body_size += len(body)

    def on_message_complete(self) -> None:
        if self._current:
            self.complete = True
            self._current = False


_SMALL_BODY = 65_536


class BodyBudget:
    """Counts the bytes of request bodies from their headers to the end of their answers: while a request is under way
    there are several copies of its body. Small ones are not counted; a compressed one counts with what it may become,
    ``max_body`` at most. For the loop's thread only."""

    def __init__(self, limit: int, max_body: int) -> None:
        self._left = limit
        self._max_body = max_body

    def holds(self, conn: Connection) -> bool:
        """Count what has come, or was announced, of the body; whether there is room for it."""
        size = max(conn.reader.content_length or 0, conn.reader.body_size)
        if conn.reader.is_packed:
            size = unpacked_limit(size, self._max_body)
        more = size - conn.body_held
        if size <= _SMALL_BODY or more <= 0:
            return True
        if more > self._left:
            return False
        self._left -= more
        conn.body_held = size
        return True

    def release(self, conn: Connection) -> None:
        """The request is answered. Idempotent."""
        self._left += conn.body_held
        conn.body_held = 0


STAYING_THREADS = 4
"""With more busy threads than these, each connection goes back to the loop after an answer. Threads that stay with
their connections take the interpreter's lock from the loop, and the clients that need the loop wait far longer than
the others: with 32 clients, p99 was six times p50 where half the threads might stay, and is twice p50 now."""


class RequestThreads:
    """The pool and its count. ``serve`` answers the requests of a connection; ``on_free`` is called, from any thread,
    when a request that waits may have its turn."""

    def __init__(
        self,
        limits: Limits,
        policy: Policy,
        serve: Callable[[Connection], None],
        on_free: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._policy = policy
        self._serve = serve
        self._on_free = on_free
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="request")
        self._lock = threading.Lock()
        self._holding: Counter[str] = Counter()
        """Requests for backends that hold a thread, by client."""
        self._busy = 0
        """Threads that serve a connection, whatever it asks for."""
        self.awaited = False
        """Whether requests wait for a thread: then no thread waits for the next request of its client."""

    @property
    def full(self) -> bool:
        """Whether one more request for a backend would have to wait."""
        return self._holding.total() >= self._limits.backend_threads

    def may_stay(self) -> bool:
        """Whether a thread may wait a moment for the next request of its connection."""
        return not self.awaited and self._busy <= STAYING_THREADS

    def acquire(self, conn: Connection) -> bool:
        """Count the request of ``conn`` if it is one for a backend; whether it may have a thread now."""
        if not self._policy.asks_backends(conn.reader.method, conn.reader.path):
            return True
        conn.client = self._policy.client(conn.reader.authorization, conn.reader.x_api_key)
        with self._lock:
            if self._holding.total() >= self._limits.backend_threads:
                return False
            self._holding[conn.client] += 1
        conn.counted = True
        return True

    def next_of(self, waiting: Iterable[Connection]) -> Connection:
        """Whose turn it is of those that wait, of whom there must be one: the client's that holds the fewest threads;
        of its requests the one that has waited longest."""
        return min(waiting, key=lambda conn: self._holding[conn.client])

    def has_no_place(self, conn: Connection, waiting: Collection[Connection]) -> bool:
        """Whether a request for a backend could now neither be served nor wait."""
        return self.full and len(waiting) >= self._limits.waiting and self.must_leave(conn, waiting) is None

    def must_leave(self, conn: Connection, waiting: Iterable[Connection]) -> Connection | None:
        """Which request has to leave where so many wait that ``conn`` may not: the last of the client with the most, if
        that has more of them than the client of ``conn`` would have; None: no other."""
        client = self._policy.client(conn.reader.authorization, conn.reader.x_api_key)
        counts = Counter(other.client for other in waiting)
        (most, count), *_ = counts.most_common(1) or [("", 0)]
        if count <= counts[client] + 1:
            return None
        return [other for other in waiting if other.client == most][-1]

    def release(self, conn: Connection) -> None:
        """The request holds its thread no longer: its answer is out, or its stream has begun. Idempotent."""
        if not conn.counted:
            return
        conn.counted = False
        with self._lock:
            self._holding[conn.client] -= 1
            if not self._holding[conn.client]:
                del self._holding[conn.client]
        if self.awaited:
            self._on_free()

    def submit(self, conn: Connection) -> bool:
        """Serve the connection on a thread; False once the threads were ended."""
        with self._lock:
            self._busy += 1
        try:
            self._pool.submit(self._run, conn)
        except RuntimeError:
            return False
        return True

    def shut_down(self) -> None:
        """End the threads; what they do is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, conn: Connection) -> None:
        try:
            self._serve(conn)
        except Exception:  # the border of a thread: one bad connection must not end it
            log.exception("a connection could not be served")
        finally:
            with self._lock:
                self._busy -= 1
