"""One thread that has all client connections in hand while no request thread needs them.

It accepts, gathers requests until they are whole, hands them to request threads, notices clients that close, sends
streams (``stream_relay``), keeps idle connections and ends those that say nothing. It never waits for a client.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from ai_router.errors import BodyTooLarge, InvalidRequest, Overloaded, SlowBody
from ai_router.server.connection import BodyBudget, Connection, Limits, Policy, RequestThreads
from ai_router.server.listeners import Listeners
from ai_router.server.poller import CLOSED, READ, Poller

log = logging.getLogger(__name__)

READ_SIZE = 65_536
_READS = 16
"""Of one connection, before it is the others' turn."""
_TICK_S = 1.0
_LINGER_S = 2.0
_LINGER_BYTES = 64 << 20
_STOP_LINGER_S = 2.0
"""How long a stopping server keeps idle connections: a client may be sending its next request already."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Stage = OrderedDict[Connection, None]
"""The connections that are at the same thing."""


class EventLoop:
    """The loop. ``serve`` answers a request on a request thread. Then it, or the end of the stream that it has begun,
    calls ``give_back`` or ``close``."""

    def __init__(self, poller: Poller, limits: Limits, policy: Policy, serve: Callable[[Connection], None]) -> None:
        self.poller = poller
        self.limits = limits
        self._policy = policy
        self.threads = RequestThreads(limits, policy, serve, lambda: self.defer(self._serve_waiting))
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._bodies = BodyBudget(limits.max_bodies, limits.max_body)
        self._deferred: deque[Callable[[], None]] = deque()
        self._connections: set[Connection] = set()
        self._listeners = Listeners(self, limits.write_s, self._on_accepted, self._make_room)
        # Those at one stage end in the order in which they came to it, since all at a stage have the same time.
        self._stages: tuple[Stage, ...] = tuple(OrderedDict() for _ in range(6))
        self._silent, self._reading_headers, self._reading_bodies, *others = self._stages
        self._waiting, self._idle, self._closing = others
        self._next_deadline = math.inf  # no stage ends before it
        self.stopping = False
        self._now = time.monotonic()  # when the last events had been dealt with

    # From any thread.

    def defer(self, action: Callable[[], None]) -> None:
        """Have it done on the loop's thread, to which everything here belongs."""
        self._deferred.append(action)
        self.poller.wake()

    def give_back(self, conn: Connection) -> None:
        """The request is answered and the connection renewed: wait for its next request."""
        self.defer(partial(self._await_next, conn))

    def close(self, conn: Connection, *, at_once: bool = False) -> None:
        """The request is answered, or cannot be: end the connection, and linger for what the client still sends."""
        self.defer(partial(self._discard if at_once else self._close_slowly, conn))

    def has_room(self) -> bool:
        """Whether connections may be kept for further requests."""
        return not self.stopping and len(self._connections) < self.limits.connections

    # On the loop's thread.

    def listen(self, listeners: Sequence[socket.socket]) -> None:
        """Accept connections from these."""
        self._listeners.add(listeners)

    def watch(self, sock: socket.socket, interest: int, handler: Callable[[int], None]) -> None:
        """Call ``handler`` with what is so of ``sock``; see the poller."""
        self.poller.watch(sock, interest)
        self._handlers[sock.fileno()] = handler

    def forget(self, sock: socket.socket) -> None:
        """Do not watch ``sock`` any more; before it is closed."""
        self._handlers.pop(sock.fileno(), None)
        with contextlib.suppress(OSError, ValueError):  # a descriptor that is gone is not watched either
            self.poller.forget(sock)

    def run_once(self) -> float:
        """Wait for events, at most a second, and deal with them. Returns the time after, in monotonic seconds."""
        timeout_s = 0.0 if self._deferred else max(0.0, min(_TICK_S, self._next_deadline - self._now))
        for descriptor, events in self.poller.poll(timeout_s):
            if (handler := self._handlers.get(descriptor)) is not None:
                try:
                    handler(events)
                except Exception:  # the border of a background thread: one bad connection must not end all others
                    log.exception("a connection could not be dealt with")
        for _ in range(len(self._deferred)):
            try:
                self._deferred.popleft()()
            except Exception:  # as above
                log.exception("a connection could not be dealt with")
        self._now = time.monotonic()
        if self._listeners.paused:
            self._listeners.resume(self._now)
        if self._now >= self._next_deadline:
            self._expire(self._now)
        return self._now

    def stop_accepting(self) -> None:
        """New connections are refused; idle ones are kept for a moment only."""
        self.stopping = True
        self._listeners.close()
        end = time.monotonic() + _STOP_LINGER_S
        for stage in (self._silent, self._idle):
            for conn in stage:
                conn.deadline = min(conn.deadline, end)
        self._next_deadline = min(self._next_deadline, end)

    @property
    def open_connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    @property
    def waiting(self) -> Collection[Connection]:
        """Those whose requests wait for a thread."""
        return self._waiting

    def shut_down(self) -> None:
        """Close everything; request threads are not waited for."""
        self.stop_accepting()
        for conn in tuple(self._connections):
            self._discard(conn)
        self.threads.shut_down()
        self.poller.close()

    def _enter(self, conn: Connection, stage: Stage, seconds: float) -> None:
        self._leave(conn)
        conn.stage, conn.deadline = stage, time.monotonic() + seconds
        stage[conn] = None
        self._next_deadline = min(self._next_deadline, conn.deadline)

    def _leave(self, conn: Connection) -> None:
        if conn.stage is not None:
            del conn.stage[conn]
            conn.stage = None

    def _on_accepted(self, sock: socket.socket, address: Any, local_address: Any) -> None:
        conn = Connection(sock, address, local_address)
        self._connections.add(conn)
        self._enter(conn, self._silent, self.limits.headers_s)
        self.watch(sock, READ, partial(self._on_event, conn))
        while len(self._connections) > self.limits.connections and self._make_room():
            pass
        self._read(conn)  # most clients have sent their request by now

    def _make_room(self) -> bool:
        """End the connection that has said nothing for the longest time; whether there was one."""
        for stage in (self._silent, self._idle, self._closing, self._reading_headers):
            if stage:
                self._discard(next(iter(stage)))
                return True
        return False

    def _on_event(self, conn: Connection, events: int) -> None:
        if events & READ and conn.stage is not None and conn.stage is not self._waiting:
            self._read(conn)
        elif events & CLOSED:
            self._on_closed(conn)

    def _on_closed(self, conn: Connection) -> None:
        """The client has closed its connection while its request waits or is under way."""
        conn.gone = True
        self.forget(conn.sock)
        if conn.stage is self._waiting:
            self._discard(conn)
        elif (callback := conn.on_disconnect) is not None:
            callback()

    def _read(self, conn: Connection) -> None:
        for _ in range(_READS):
            try:
                data = conn.sock.recv(READ_SIZE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                self._discard(conn)
                return
            if conn.stage is self._closing:
                if not self._drained(conn, data):
                    return
            elif not self._took(conn, data):
                return

    def _drained(self, conn: Connection, data: bytes) -> bool:
        """Throw away what comes behind the answer; whether to read on."""
        conn.drained += len(data)
        if data and conn.drained < _LINGER_BYTES:
            return True
        self._discard(conn)
        return False

    def _took(self, conn: Connection, data: bytes) -> bool:
        """What has come of a request; whether to read on."""
        if not data:
            self._ended_early(conn)
            return False
        conn.reader.feed(data)
        return self._waits_for_more(conn)

    def _waits_for_more(self, conn: Connection) -> bool:
        """Give the request to a thread if it is whole, or if it is to be refused; else True, and more has to come."""
        reader = conn.reader
        if reader.headers_complete and not conn.arrived_at:
            conn.arrived_at = time.monotonic()
        if reader.complete or reader.broken or (reader.headers_complete and self._refuses_unread(conn)):
            self._dispatch(conn)
            return False
        if not reader.headers_complete:
            if conn.stage is not self._reading_headers:
                self._enter(conn, self._reading_headers, self.limits.headers_s)
        elif conn.stage is not self._reading_bodies:
            self._enter(conn, self._reading_bodies, self.limits.body_s)
            if reader.expects_continue:
                with contextlib.suppress(OSError):
                    conn.sock.send(_CONTINUE, socket.MSG_DONTWAIT)
        return True

    def _refuses_unread(self, conn: Connection) -> bool:
        """Whether the request will be refused, whatever its body says."""
        reader, limits = conn.reader, self.limits
        if not self._policy.admits(reader.method, reader.path, reader.authorization, reader.x_api_key):
            return True
        if (reader.content_length or 0) > limits.max_body or reader.body_size > limits.max_body:
            conn.refusal = BodyTooLarge(f"the request body is larger than {limits.max_body} bytes (MAX_BODY_MB)")
        elif self._policy.asks_backends(reader.method, reader.path) and (
            self._policy.is_full() or self.threads.has_no_place(conn, self._waiting)
        ):
            conn.refusal = self._overloaded()
        elif not self._bodies.holds(conn):
            conn.refusal = _too_many_bodies()
        return conn.refusal is not None

    def _overloaded(self) -> Overloaded:
        return Overloaded("no thread is free and too many requests wait, or too many streams are under way; try again")

    def _ended_early(self, conn: Connection) -> None:
        """The client has closed its sending half."""
        if not conn.reader.headers_complete:
            self._discard(conn)
            return
        conn.refusal = InvalidRequest("the connection was closed before the request body was complete", "body")
        self._dispatch(conn)

    def _dispatch(self, conn: Connection) -> None:
        """Find a thread for a request, or let it wait for one."""
        if conn.refusal is None and not self._bodies.holds(conn):
            conn.refusal = _too_many_bodies()
        if conn.refusal is None and not conn.reader.broken and not self.threads.acquire(conn):
            crowded = len(self._waiting) >= self.limits.waiting
            if crowded and (other := self.threads.must_leave(conn, self._waiting)) is not None:
                other.refusal, crowded = self._overloaded(), False
                self._submit(other)
            if not crowded:
                self._enter(conn, self._waiting, self.limits.wait_s)
                self.watch(conn.sock, CLOSED, partial(self._on_event, conn))
                self.threads.awaited = True
                # A thread may have become free before it was known that one is waited for.
                self._serve_waiting()
                return
            conn.refusal = self._overloaded()
        self._submit(conn)

    def _submit(self, conn: Connection) -> None:
        self._leave(conn)
        if not conn.gone:
            self.watch(conn.sock, CLOSED, partial(self._on_event, conn))
        if not self.threads.submit(conn):
            self._discard(conn)

    def _serve_waiting(self) -> None:
        while self._waiting and self.threads.acquire(conn := self.threads.next_of(self._waiting)):
            self._submit(conn)
        self.threads.awaited = bool(self._waiting)

    def _await_next(self, conn: Connection) -> None:
        self._release(conn)
        if conn.gone:
            self._discard(conn)
            return
        seconds = min(self.limits.idle_s, _STOP_LINGER_S) if self.stopping else self.limits.idle_s
        self._enter(conn, self._idle, seconds)
        self.watch(conn.sock, READ, partial(self._on_event, conn))
        if conn.reader.size:
            self._waits_for_more(conn)

    def _close_slowly(self, conn: Connection) -> None:
        """Say that nothing more comes, and read what the client still sends: a close on top of unread bytes would take
        the answer from it."""
        self._release(conn)
        conn.on_disconnect = None
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._discard(conn)
            return
        self._enter(conn, self._closing, _LINGER_S)
        self.watch(conn.sock, READ, partial(self._on_event, conn))

    def _release(self, conn: Connection) -> None:
        """The request is over: what it held is free."""
        self.threads.release(conn)
        self._bodies.release(conn)

    def _discard(self, conn: Connection) -> None:
        """Close the connection, whatever it is at."""
        self._leave(conn)
        self._release(conn)
        if conn in self._connections:
            self._connections.discard(conn)
            self.forget(conn.sock)
            with contextlib.suppress(OSError):
                conn.sock.close()

    def _expire(self, now: float) -> None:
        """Deal with those whose time is up."""
        for stage in (self._silent, self._reading_headers, self._idle, self._closing):
            while stage and (conn := next(iter(stage))).deadline <= now:
                self._discard(conn)
        while self._reading_bodies and (conn := next(iter(self._reading_bodies))).deadline <= now:
            conn.refusal = SlowBody(f"the request body did not arrive within {self.limits.body_s:g} s")
            self._dispatch(conn)
        while self._waiting and (conn := next(iter(self._waiting))).deadline <= now:
            conn.refusal = self._overloaded()
            self._submit(conn)
        self._next_deadline = min((next(iter(stage)).deadline for stage in self._stages if stage), default=math.inf)


def _too_many_bodies() -> Overloaded:
    return Overloaded("too many large request bodies are under way (MAX_BODIES_MB); try again")
