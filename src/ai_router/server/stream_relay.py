"""One thread that carries all streams: bytes are read, looked at and written where they arrive, in one go.

A thread for each stream was woken for each portion, found its code out of the processor's caches and fought the others
for the interpreter's lock, which cost several times what is done with the portion (docs/decisions/0019).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from ai_router.http.timers import Deadline, TimerThread
from ai_router.web.heartbeat import COMMENT

log = logging.getLogger(__name__)

_READ_SIZE = 65_536
_READS = 8
"""Of one stream behind TLS, before it is the others' turn."""
_END = b"0\r\n\r\n"
_READABLE = select.EPOLLIN | select.EPOLLRDHUP
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError)


class Flow(Protocol):
    """What turns a backend's bytes into those for the client: execution.relay.StreamReply."""

    over: bool

    @property
    def done(self) -> bool: ...
    def wait_elsewhere(self, let_go: Callable[[], object]) -> socket.socket: ...
    def push(self, data: bytes | None) -> bytes: ...
    def pause(self) -> None: ...
    def go_on(self) -> None: ...


class Relay:
    """One stream. ``on_end`` is told, once and on the thread of all relays, whether the client was given all of it."""

    __slots__ = (
        *("deadline", "at", "beat", "chunked", "client", "ended"),
        *("flow", "on_end", "secure", "source", "unsent", "watched"),
    )

    def __init__(self, flow: Flow, client: socket.socket, *, chunked: bool, on_end: Callable[[bool], object]) -> None:
        self.flow = flow
        self.client = client
        self.chunked = chunked
        self.on_end = on_end
        self.source = client
        """The backend's socket, once it is watched."""
        self.secure = False
        self.unsent = b""
        """What the client does not take just now; until it does, nothing is read."""
        self.watched: int | None = None
        """The descriptor that is waited for."""
        self.at = 0.0
        """When something was sent last, in monotonic seconds."""
        self.ended = False
        self.beat: Deadline | None = None
        self.deadline: Deadline | None = None
        """Rings when the client has taken nothing for too long."""


class Relays:
    """The streams under way. ``write_timeout_s``: how long a client may take nothing. ``keepalive_s``: after so much
    silence a comment is sent."""

    def __init__(self, timers: TimerThread, *, write_timeout_s: float, keepalive_s: float) -> None:
        self._timers = timers
        self._write_timeout_s = write_timeout_s
        self._keepalive_s = keepalive_s
        self._epoll = select.epoll()
        self._watched: dict[int, Relay] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._closing = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="relays", daemon=True)

    def start(self) -> None:
        """Begin to relay."""
        self._thread.start()

    def add(self, relay: Relay) -> None:
        """Take a stream over, from the portion on that has not been sent. From any thread."""
        self._call(partial(self._guarded, self._begin, relay))

    def close(self) -> None:
        """Stop the thread, whatever is under way."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def _call(self, what: Callable[[], None]) -> None:
        """Have it done on the thread of all relays, to which everything in them belongs."""
        self._calls.append(what)
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        watched, wait, go_on = self._watched, self._epoll.poll, self._go_on
        while not self._closing:
            for descriptor, _ in wait():
                # One that has ended in this very turn may still be in epoll's list.
                if (relay := watched.get(descriptor)) is not None:
                    go_on(relay)
                elif descriptor == self._wake:
                    os.eventfd_read(self._wake)
                    while self._calls:
                        self._calls.popleft()()

    def _guarded(self, what: Callable[[Relay], None], relay: Relay) -> None:
        try:
            what(relay)
        except OSError:
            # The client has left, or takes nothing any more. What happens to the backend's side is no exception here.
            self._end(relay, whole=False)
        except Exception:  # the border of a background thread: one bad stream must not end all others
            log.exception("a stream could not be relayed")
            self._end(relay, whole=False)

    def _begin(self, relay: Relay) -> None:
        relay.client.setblocking(False)
        # A descriptor that is closed, or lent to another call, must not be watched any more: its number is theirs.
        relay.source = relay.flow.wait_elsewhere(partial(self._watch, relay, None))
        relay.secure = isinstance(relay.source, ssl.SSLSocket)
        relay.at = time.monotonic()
        self._beat_in(relay, self._keepalive_s)
        self._watch(relay, relay.source)
        self._read(relay)

    def _go_on(self, relay: Relay) -> None:
        """What was waited for is there."""
        self._guarded(self._flush if relay.unsent else self._read, relay)

    def _read(self, relay: Relay) -> None:
        """Read and send what there is. Raises OSError for the client's socket."""
        flow = relay.flow
        for _ in range(_READS):
            data: bytes | None
            try:
                data = relay.source.recv(_READ_SIZE)
            except _NOT_YET:
                return
            except OSError:
                data = None
            if portion := flow.push(data):
                self._send(relay, portion)
            if flow.over or relay.unsent:
                self._after_write(relay)
                return
            if not relay.secure:
                # Epoll says so again, if there is more; the others come first.
                return
        # TLS may keep to itself what has come, and epoll does not know of that.
        self._call(partial(self._guarded, self._read_more, relay))

    def _read_more(self, relay: Relay) -> None:
        if not (relay.ended or relay.unsent or relay.flow.over):
            self._read(relay)

    def _after_write(self, relay: Relay) -> None:
        """Wait for the client, or for the backend again, or for nobody any more."""
        if relay.flow.over and relay.chunked:
            relay.chunked = False
            self._write(relay, relay.unsent + _END)
        if relay.unsent:
            self._await_client(relay)
        elif relay.flow.over:
            self._end(relay, whole=True)
        else:
            relay.flow.go_on()
            self._watch(relay, relay.source)
            if relay.secure:
                self._read(relay)

    def _send(self, relay: Relay, portion: bytes) -> None:
        self._write(relay, b"%X\r\n%b\r\n" % (len(portion), portion) if relay.chunked else portion)

    def _write(self, relay: Relay, data: bytes) -> None:
        """Write what the client takes; the rest is ``unsent``. Raises OSError."""
        try:
            sent = relay.client.send(data)
        except BlockingIOError:
            sent = 0
        relay.unsent = b"" if sent == len(data) else data[sent:]
        relay.at = time.monotonic()

    def _flush(self, relay: Relay) -> None:
        """The client takes something again."""
        before = len(relay.unsent)
        self._write(relay, relay.unsent)
        if len(relay.unsent) < before and relay.deadline is not None:
            relay.deadline.cancel()
            relay.deadline = None
        self._after_write(relay)

    def _await_client(self, relay: Relay) -> None:
        if relay.deadline is None:
            relay.deadline = self._timers.after(self._write_timeout_s, partial(_shut, relay.client))
        relay.flow.pause()
        self._watch(relay, relay.client, select.EPOLLOUT)

    def _watch(self, relay: Relay, sock: socket.socket | None, events: int = _READABLE) -> None:
        """Wait for ``sock``, and for nothing else; None: for nothing at all."""
        descriptor = None if sock is None else sock.fileno()
        if relay.watched == descriptor:
            return
        before, relay.watched = relay.watched, None
        if before is not None:
            del self._watched[before]
            self._epoll.unregister(before)
        if descriptor is not None:
            self._epoll.register(descriptor, events)
            relay.watched, self._watched[descriptor] = descriptor, relay

    def _beat_in(self, relay: Relay, seconds: float) -> None:
        beat = partial(self._guarded, self._beat, relay)
        relay.beat = self._timers.after(seconds, lambda: self._call(beat))

    def _beat(self, relay: Relay) -> None:
        """Say that nothing is to be said, if that has been so for long."""
        if relay.ended or relay.flow.over:
            return
        left_s = relay.at + self._keepalive_s - time.monotonic()
        # What is left unsent is no silence; after [DONE] nothing is expected, comments least of all.
        if left_s <= 0 and not (relay.unsent or relay.flow.done):
            self._send(relay, COMMENT)
            if relay.unsent:
                self._await_client(relay)
        self._beat_in(relay, left_s if left_s > 0 else self._keepalive_s)

    def _end(self, relay: Relay, *, whole: bool) -> None:
        if relay.ended:
            return
        relay.ended = True
        # Whatever goes wrong there, its place and its connection have to be given back.
        with contextlib.suppress(OSError):
            self._watch(relay, None)
        for deadline in (relay.beat, relay.deadline):
            if deadline is not None:
                deadline.cancel()
        try:
            relay.on_end(whole)
        except Exception:  # as above
            log.exception("a stream could not be ended")


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
