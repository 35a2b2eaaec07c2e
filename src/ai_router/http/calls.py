"""Calls and scopes: how one thread stops what another thread is reading.

Closing a response from a second thread does not wake a blocked read; shutting its socket down does, TLS too.
So every upstream call is a Leg that knows its socket while, and only while, the socket is its own. A CancelScope
holds the calls of one request and aborts them together.
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
    """One upstream call. ``abort`` is safe from any thread, at any time, any number of times."""

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
        "number",
        "purpose",
        "received",
        "reused",
        "sent",
        "status",
        "traceparent",
    )

    def __init__(self, number: int = 1, purpose: Purpose | None = None, traceparent: str | None = None) -> None:
        self.number = number
        """Which of its request's calls this is, from 1."""
        self.purpose = purpose
        """What the call is made for; None for one that no client asked for."""
        self.traceparent = traceparent
        self.sent = 0
        """Bytes of the body that went out."""
        self.received = 0
        """Bytes of the answer that were read."""
        self.status: int | None = None
        """Of the answer, as soon as it has one."""
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
        """Whether the call went out on a kept-alive connection, which the backend may just have closed."""

    @property
    def reason(self) -> RouterError | None:
        """Why this call was aborted; None while it was not."""
        return self._reason

    def attach(self, sock: socket.socket, *, reused: bool) -> None:
        """Take the socket that this call's bytes will travel on. Raises the reason if the call is aborted already."""
        with self._lock:
            self.reused = reused
            self._socket = sock
            if self._reason is None:
                return
            _shut(sock)
        raise self._reason

    def detach(self) -> bool:
        """Let the socket go, before the pool may lend it to somebody else. False if it was shut and is of no use."""
        with self._lock:
            self._socket = None
            return self._reason is None

    def begin(self, source: Source, occupancy: Occupancy) -> None:
        """The call goes out to ``source``, and takes its share of that backend's time from now on."""
        self._source = source
        self._occupancy, self._share_at_start = occupancy, occupancy.call_started()

    @property
    def is_open(self) -> bool:
        """Whether the call is under way, or may still begin."""
        return not self._ended

    def end(self) -> None:
        """The call is over. Idempotent."""
        with self._lock:
            self._ended = True
            occupancy, self._occupancy = self._occupancy, None
            if occupancy is not None:
                self._used_s = occupancy.call_ended(self._share_at_start)
                self._abandoned = self._reason is not None and not isinstance(self._reason, AnswerSufficient)

    def traffic(self) -> Traffic | None:
        """What the call has come to by now; None if it never began, or no client asked for it."""
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
        """Shut the socket down, so that whoever reads it fails with ``reason`` and the backend sees us leave."""
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
        """Call ``callback`` if this call is aborted, at once if it is: for a call that has no socket yet."""
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
    """All calls of one request. Once aborted, every call it had and every call it is asked for is aborted."""

    __slots__ = ("_callbacks", "_calls", "_lock", "_reason", "_trace", "aborted_at")

    def __init__(self, trace: Trace | None = None) -> None:
        self._trace = trace
        self.aborted_at: float | None = None
        """When it was aborted, in monotonic seconds."""
        self._lock = threading.Lock()
        self._calls: list[UpstreamCall] = []
        self._callbacks: list[Callable[[], object]] = []
        self._reason: RouterError | None = None

    @property
    def reason(self) -> RouterError | None:
        """Why the scope was aborted; None while it was not."""
        return self._reason

    def new_call(self, purpose: Purpose = Purpose.ANSWER) -> UpstreamCall:
        """A new call of this request."""
        with self._lock:
            number = len(self._calls) + 1
            call = UpstreamCall(number, purpose, None if self._trace is None else self._trace.header(number))
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
        """The request is over: abort what is still open, since its client is gone."""
        with self._lock:
            is_open = self._reason is None and any(call.is_open for call in self._calls)
        if is_open:
            self.abort(ClientGone())

    @contextlib.contextmanager
    def on_abort(self, callback: Callable[[], object]) -> Iterator[None]:
        """Inside the block, an abort calls back, so that whoever waits for something else than a socket wakes up."""
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
        """How many calls were begun."""
        return len(self._calls)

    def traffic(self) -> tuple[Traffic, ...]:
        """What the calls have come to by now, those that were made."""
        with self._lock:
            calls = tuple(self._calls)
        return tuple(traffic for call in calls if (traffic := call.traffic()) is not None)

    def raise_if_aborted(self) -> None:
        """Raise the reason of the abort, if there was one."""
        if self._reason is not None:
            raise self._reason


def _shut(sock: socket.socket) -> None:
    # The C-level shutdown, past SSLSocket.shutdown, which would pull the TLS state from under the reading thread.
    # OSError: the peer was faster, which is as good.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. ``first_byte`` runs until the caller says that it saw one, ``total`` until the answer is closed.

    ``idle`` is the longest wait of a single read. ``first_byte`` None: ``total`` is the only deadline, as for a plain
    answer, whose first byte comes when the last token is known.
    """

    connect: float
    total: float
    idle: float
    first_byte: float | None = None

    @property
    def longest_read(self) -> float:
        """What a single read may take: before the first byte, as long as that may."""
        return self.idle if self.first_byte is None else max(self.idle, self.first_byte)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One HTTP call of a backend. ``source`` names it in errors; the headers hold keys and are not shown."""

    source: Source
    method: str
    url: str
    timeouts: Timeouts
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    """The backend's key, to be kept out of what the backend says."""


@dataclass(frozen=True, slots=True)
class FetchedResponse:
    """A whole HTTP response, whatever its status. Look headers up by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Occupancy:
    """One backend's time. ``enter`` and ``leave`` from any thread; the clock in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open = 0
        self._share = 0.0
        """Seconds that a call which had been open all along would have been given."""
        self._at = clock()

    def call_started(self) -> float:
        """A call begins; returns what to hand to ``since`` and ``leave``."""
        with self._lock:
            self._advance()
            self._open += 1
            return self._share

    def used_s(self, share_at_start: float) -> float:
        """Seconds that a call which is still open has been given."""
        with self._lock:
            self._advance()
            return self._share - share_at_start

    def call_ended(self, share_at_start: float) -> float:
        """The call ends; returns the seconds that it was given."""
        with self._lock:
            self._advance()
            self._open -= 1
            return self._share - share_at_start

    def _advance(self) -> None:
        now = self._clock()
        if self._open:
            self._share += (now - self._at) / self._open
        self._at = now
