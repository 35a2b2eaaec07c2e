"""Upstream calls, and how one thread aborts a call that another thread is reading.

Closing a response from a second thread does not wake a blocked read; shutting its socket down does, with TLS, too
(measured: docs/decisions/0001). So an UpstreamCall knows its socket, from the connect until the connection goes back to
the pool. A CancelScope holds the calls of one client request and aborts them together.

Also here: what is sent (UpstreamRequest, Timeouts), a whole response (FetchedResponse), and how much of a backend's
time each call used (Occupancy).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ai_router.errors import AnswerSufficient, ClientGone, RouterError, Source
from ai_router.trace_context import Trace
from ai_router.types import Purpose, Traffic


class UpstreamCall:
    """One call of a backend: its socket while it has one, why it was aborted, and its traffic.

    ``abort`` is safe from any thread, at any time, any number of times.
    """

    __slots__ = (
        "_abandoned",
        "_ended",
        "_lock",
        "_occupancy",
        "_on_abort",
        "_reason",
        "_share_at_start",
        "_socket",
        "_source",
        "_used_s",
        "local_only",
        "number",
        "purpose",
        "received",
        "reused",
        "sent",
        "status",
        "traceparent",
    )

    def __init__(
        self,
        number: int = 1,
        purpose: Purpose | None = None,
        traceparent: str | None = None,
        *,
        local_only: bool = False,
    ) -> None:
        self.local_only = local_only
        """Whether it may go to addresses of the local network alone (http/local_only.py)."""
        self.number = number
        """The number of this call among those of its client request, from 1."""
        self.purpose = purpose
        """What the call is for; None for a call outside of any client request, which has no traffic."""
        self.traceparent = traceparent
        """The header ``traceparent`` to send; None: no tracing."""
        self.sent = 0
        """Bytes of the request's body that were sent."""
        self.received = 0
        """Bytes of the response's body that were read, decompressed."""
        self.status: int | None = None
        """The HTTP status of the response; None before its headers."""
        self._source: Source | None = None
        self._occupancy: Occupancy | None = None
        self._share_at_start = 0.0
        self._used_s = 0.0
        self._abandoned = False
        self._ended = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._reason: RouterError | None = None
        self._on_abort: Callable[[], object] | None = None
        self.reused = False
        """Whether it was sent on an idle connection of the pool, which the backend may have closed a moment ago."""

    @property
    def reason(self) -> RouterError | None:
        """Why this call was aborted; None while it was not."""
        return self._reason

    def hold_socket(self, sock: socket.socket, *, reused: bool) -> None:
        """``sock`` is this call's from now on. If the call was aborted before, shut it and raise the reason."""
        with self._lock:
            self.reused = reused
            self._socket = sock
            if self._reason is None:
                return
            _shut(sock)
        raise self._reason

    def release_socket(self) -> bool:
        """The socket is no longer this call's. False if it was shut: its connection cannot be used again."""
        with self._lock:
            self._socket = None
            return self._reason is None

    def begin(self, source: Source, occupancy: Occupancy) -> None:
        """The call to ``source`` begins, and counts as one that uses the backend's time."""
        self._source = source
        self._occupancy, self._share_at_start = occupancy, occupancy.call_started()

    @property
    def is_open(self) -> bool:
        """Whether ``end`` has not been called: the call is under way, or has not begun."""
        return not self._ended

    def end(self) -> None:
        """The call has ended, whatever its result. Idempotent."""
        with self._lock:
            self._ended = True
            occupancy, self._occupancy = self._occupancy, None
            if occupancy is not None:
                self._used_s = occupancy.call_ended(self._share_at_start)
                self._abandoned = self._reason is not None and not isinstance(self._reason, AnswerSufficient)

    def traffic(self) -> Traffic | None:
        """Its bytes and its use of the backend's time until now. None if it never began, or has no purpose."""
        if self._source is None or self.purpose is None:
            return None
        with self._lock:
            ended = self._occupancy is None
            used_s = self._used_s if self._occupancy is None else self._occupancy.used_s(self._share_at_start)
            abandoned = self._abandoned or not ended
        return Traffic(
            self.number, self.purpose, *self._source, self.sent, self.received, used_s, abandoned, self.status
        )

    def abort(self, reason: RouterError) -> None:
        """Shut the socket: a read of it raises ``reason``, and the backend sees the connection end. The first reason
        stays."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            if self._socket is not None:
                _shut(self._socket)
            callback = self._on_abort
        if callback is not None:
            callback()

    def on_abort(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when this call is aborted; now, if it was. For work that has no socket yet."""
        with self._lock:
            self._on_abort = callback
            if self._reason is None:
                return
        callback()

    def raise_if_aborted(self) -> None:
        """Raise the reason of the abort, if there was one."""
        if self._reason is not None:
            raise self._reason


class CancelScope:
    """The calls of one client request. Aborting it aborts all of them, and every call that is made later.

    Safe from any thread. ``trace``: where each call's ``traceparent`` comes from. ``local_only``: as of each call.
    """

    __slots__ = ("_callbacks", "_calls", "_local_only", "_lock", "_reason", "_trace", "aborted_at")

    def __init__(self, trace: Trace | None = None, *, local_only: bool = False) -> None:
        self._trace = trace
        self._local_only = local_only
        self.aborted_at: float | None = None
        """When it was aborted first, in monotonic seconds; None: it was not."""
        self._lock = threading.Lock()
        self._calls: list[UpstreamCall] = []
        self._callbacks: list[Callable[[], object]] = []
        self._reason: RouterError | None = None

    @property
    def reason(self) -> RouterError | None:
        """Why the scope was aborted; None while it was not."""
        return self._reason

    def new_call(self, purpose: Purpose = Purpose.ANSWER) -> UpstreamCall:
        """A new call of this request, numbered from 1; aborted already if the scope is."""
        with self._lock:
            number = len(self._calls) + 1
            header = None if self._trace is None else self._trace.header(number)
            call = UpstreamCall(number, purpose, header, local_only=self._local_only)
            self._calls.append(call)
            reason = self._reason
        if reason is not None:
            call.abort(reason)
        return call

    def abort(self, reason: RouterError) -> None:
        """Abort every call, present and future. The first reason stays."""
        with self._lock:
            if self._reason is None:
                self._reason, self.aborted_at = reason, time.monotonic()
            calls, callbacks = tuple(self._calls), tuple(self._callbacks)
        for call in calls:
            call.abort(reason)
        for callback in callbacks:
            callback()

    def close(self) -> None:
        """The client's response has closed. Calls that are still open are aborted with ClientGone."""
        with self._lock:
            is_open = self._reason is None and any(call.is_open for call in self._calls)
        if is_open:
            self.abort(ClientGone())

    @contextlib.contextmanager
    def on_abort(self, callback: Callable[[], object]) -> Iterator[None]:
        """A context manager: inside it an abort calls ``callback`` (at once, if there was one), to end other waits."""
        with self._lock:
            self._callbacks.append(callback)
            aborted = self._reason is not None
        try:
            if aborted:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)

    @property
    def calls_made(self) -> int:
        """How many calls ``new_call`` has made."""
        return len(self._calls)

    def traffic(self) -> tuple[Traffic, ...]:
        """The traffic of each call that began, until now."""
        with self._lock:
            calls = tuple(self._calls)
        return tuple(traffic for call in calls if (traffic := call.traffic()) is not None)

    def raise_if_aborted(self) -> None:
        """Raise the reason of the abort, if there was one."""
        if self._reason is not None:
            raise self._reason


def _shut(sock: socket.socket) -> None:
    # Not SSLSocket.shutdown: it would drop the TLS state that another thread is reading with.
    # OSError: the peer has closed the connection already.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The time limits of one call, in seconds.

    ``connect``: for each connect. ``first_byte``: until ``UpstreamResponse.first_byte_seen``; None: no such limit, as
    for a plain answer, whose first byte comes when the last token is known. ``idle``: for a single read. ``total``:
    until the response is closed.
    """

    connect: float
    total: float
    idle: float
    first_byte: float | None = None

    @property
    def longest_read(self) -> float:
        """The limit for any single read, in seconds; the one before the first byte may take as long as that."""
        return self.idle if self.first_byte is None else max(self.idle, self.first_byte)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One HTTP request for a backend. ``source`` names it in errors.

    Headers, body and secret are left out of its repr, which may get into a log.
    """

    source: Source
    method: str
    url: str
    timeouts: Timeouts
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    """The backend's key; it is removed from error texts of the backend."""
    declared_local: bool = False
    """Whether its owner says that it is local, whatever its address."""


@dataclass(frozen=True, slots=True)
class FetchedResponse:
    """A whole HTTP response, whatever its status. Look headers up by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Occupancy:
    """How one backend's time is divided among its calls: each moment in equal parts among those that are open.

    So the calls' seconds add up to the time in which the backend was busy. Safe from any thread; ``clock`` in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open = 0
        self._share = 0.0
        """The seconds of a call that had been open from the start. A call's own are a difference of two values."""
        self._at = clock()

    def call_started(self) -> float:
        """A call begins. Returns the argument for ``used_s`` and ``call_ended``."""
        with self._lock:
            self._advance()
            self._open += 1
            return self._share

    def used_s(self, share_at_start: float) -> float:
        """The seconds of a call that is still open."""
        with self._lock:
            self._advance()
            return self._share - share_at_start

    def call_ended(self, share_at_start: float) -> float:
        """The call ends. Returns its seconds."""
        with self._lock:
            self._advance()
            self._open -= 1
            return self._share - share_at_start

    def _advance(self) -> None:
        now = self._clock()
        if self._open:
            self._share += (now - self._at) / self._open
        self._at = now
