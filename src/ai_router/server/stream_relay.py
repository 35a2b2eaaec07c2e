"""Sends streams to their clients, in the event loop: bytes of backends are read, looked at and sent where they arrive.

How a stream gets here: ``Worker._stream`` (worker.py), on the request's thread, sends the headers and the first events,
calls ``StreamRelay.begin``, and then ``RelayedStream.follow``. From ``begin`` on only the loop's thread writes to the
client's socket. From ``follow`` on it also reads the backend's, which ``EventStream.detach`` makes non-blocking.

Who owns the sockets then: the client's still belongs to the event loop, which gets the connection back at the end
(``on_end``) and closes it or keeps it. The backend's still belongs to its upstream call, which closes it or returns it
to the pool and calls ``_release`` before, so that nothing here watches a descriptor that is somebody else's.

Why not a thread for each stream: each portion woke one, which found its code out of the processor's caches and fought
the others for the interpreter's lock (docs/decisions/0019). One writer for a socket, comments into silence included, so
that none falls into the middle of an event.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from socket import MSG_DONTWAIT

from ai_router.dispatch.reply import EventStream
from ai_router.http.timers import Deadline, TimerThread
from ai_router.server.connection import Connection
from ai_router.server.event_loop import EventLoop
from ai_router.server.poller import CLOSED, READ, WRITE

log = logging.getLogger(__name__)

_READ_SIZE = 65_536
_READS = 8
"""Of one stream behind TLS, before it is the others' turn."""
_MOST_UNSENT = 1 << 20
"""Bytes of our own events that may wait for a client: who takes them more slowly than they come is given up."""
_LAST_CHUNK = b"0\r\n\r\n"
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError)


class RelayedStream:
    """One stream on its way to its client.

    ``on_end`` is called once, on the loop's thread, with whether the client was given all of it. Two phases: while the
    request's thread runs the stream's opening it calls ``send``, and then ``follow`` or ``finish``, exactly one of
    them and once. From ``follow`` on, what the backend's socket gives is sent, or what is made here (``attach``).
    """

    __slots__ = (
        *(
            "_broken",
            "_chunked",
            "_client",
            "_conn",
            "_ended",
            "_finished",
            "_keepalive",
            "_loop",
            "_on_end",
            "_opening",
        ),
        *("_relay", "_secure", "_sent_at", "_source", "_stream", "_unsent", "_write_deadline"),
    )

    def __init__(
        self,
        relay: StreamRelay,
        conn: Connection,
        stream: EventStream,
        *,
        chunked: bool,
        on_end: Callable[[bool], object],
    ) -> None:
        self._relay = relay
        self._loop = relay.loop
        self._conn = conn
        self._client = conn.sock
        self._stream = stream
        self._chunked = chunked
        self._on_end = on_end
        self._opening = True
        self._finished = False
        """Whether nothing more is to come."""
        self._broken = False
        """Whether the client takes nothing any more."""
        self._ended = False
        self._source: socket.socket | None = None
        """The backend's socket, while it is read here."""
        self._secure = False
        self._unsent = b""
        """What the client does not take just now; until it does, nothing is read."""
        self._sent_at = time.monotonic()
        self._keepalive: Deadline | None = None
        self._write_deadline: Deadline | None = None

    # From the request's thread, and later from whoever makes events of our own (``EventStream.attach``).

    def send(self, events: bytes) -> None:
        """Send events that were made here."""
        self._loop.defer(partial(self._guarded, partial(self._send_own, events)))

    def follow(self) -> None:
        """The opening is over: go on with what the backend's socket gives."""
        self._loop.defer(partial(self._guarded, self._follow))

    def finish(self) -> None:
        """The opening is over, and so is the stream."""
        self._loop.defer(partial(self._guarded, self._finish))

    # On the loop's thread.

    def begin(self) -> None:
        """From now on comments are sent into silence. The loop goes on to watch whether the client leaves."""
        self._keepalive_in(self._relay.keepalive_s)

    def _guarded(self, action: Callable[[], None], _events: int = 0) -> None:
        """Do it, unless the stream has ended. Also a handler of the loop, which says what is so of a socket."""
        if self._ended:
            return
        try:
            action()
        except OSError:
            # The client has left, or takes nothing any more. What happens to the backend's side is no exception here.
            self._break()
        except Exception:  # one bad stream must not end all others
            log.exception("a stream could not be relayed")
            self._break()

    def _send_own(self, events: bytes) -> None:
        if self._broken or self._finished:
            return
        self._send(events)
        if len(self._unsent) > _MOST_UNSENT:
            self._break()
        elif self._unsent:
            self._await_client()

    def _follow(self) -> None:
        self._opening = False
        if self._broken or self._conn.gone:
            self._end(whole=False)
            return
        # A descriptor that is closed, or goes to another call, must not be watched any more: its number is theirs.
        self._source = self._stream.detach(self._release)
        if self._source is None:
            self._stream.attach(self.send, self.finish)
            return
        self._secure = isinstance(self._source, ssl.SSLSocket)
        if self._unsent:
            self._stream.pause()
            return
        self._watch_source()
        self._read()

    def _finish(self) -> None:
        self._opening = False
        self._finished = True
        if self._broken or self._conn.gone:
            self._end(whole=False)
        else:
            self._after_write()

    def _release(self) -> None:
        if (source := self._source) is not None:
            self._source = None
            self._loop.forget(source)

    def _watch_source(self) -> None:
        if self._source is not None:
            self._loop.watch(self._source, READ, partial(self._guarded, self._read))

    def _on_client(self, events: int) -> None:
        if events & CLOSED:
            self._conn.gone = True
            self._loop.forget(self._conn.sock)
            if (callback := self._conn.on_disconnect) is not None:
                callback()
            if self._unsent:
                self._guarded(self._break)
        elif events & WRITE:
            self._guarded(self._flush)

    def _read(self) -> None:
        """Read and send what there is. Raises OSError for the client's socket."""
        stream = self._stream
        for _ in range(_READS):
            source = self._source
            if source is None or self._unsent:
                return
            data: bytes | None
            try:
                data = source.recv(_READ_SIZE)
            except _NOT_YET:
                return
            except OSError:
                data = None
            if events := stream.feed(data):
                # Nothing is unsent here.
                self._write(_chunk(events) if self._chunked else events)
            if stream.over or self._unsent:
                self._finished = stream.over
                self._after_write()
                return
            if not self._secure:
                # The poller says so again, if there is more; the others come first.
                return
        # TLS may keep to itself what has come, and the poller does not know of that.
        self._loop.defer(partial(self._guarded, self._read))

    def _after_write(self) -> None:
        """Wait for the client, or for the backend again, or for nobody any more."""
        if self._finished and self._chunked:
            self._chunked = False
            self._write(self._unsent + _LAST_CHUNK)
        if self._unsent:
            self._await_client()
        elif self._finished:
            self._end(whole=True)
        elif self._source is not None:
            self._stream.resume()
            self._watch_source()
            if self._secure:
                self._read()

    def _send(self, events: bytes) -> None:
        self._write(self._unsent + (_chunk(events) if self._chunked else events))

    def _write(self, data: bytes) -> None:
        """Write what the client takes; the rest is ``_unsent``. Raises OSError."""
        try:
            sent = self._client.send(data, MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        self._unsent = b"" if sent == len(data) else data[sent:]
        self._sent_at = time.monotonic()

    def _flush(self) -> None:
        """The client takes something again."""
        self._write(self._unsent)
        if not self._unsent:
            # Not before: a client that takes a byte now and then would have all the time there is.
            if self._write_deadline is not None:
                self._write_deadline.cancel()
                self._write_deadline = None
            self._loop.watch(self._conn.sock, CLOSED, self._on_client)
        if not self._opening:
            self._after_write()
        elif self._unsent:
            self._await_client()

    def _await_client(self) -> None:
        if self._write_deadline is None:
            late = partial(_shut, self._conn.sock)
            self._write_deadline = self._relay.timers.after(self._relay.write_timeout_s, late)
        if self._source is not None:
            self._stream.pause()
            self._loop.forget(self._source)
        if not self._conn.gone:
            self._loop.watch(self._conn.sock, WRITE | CLOSED, self._on_client)

    def _keepalive_in(self, seconds: float) -> None:
        action = partial(self._guarded, self._keep_alive)
        self._keepalive = self._relay.timers.after(seconds, lambda: self._loop.defer(action))

    def _keep_alive(self) -> None:
        """Send a comment if nothing was sent for long."""
        if self._finished or self._broken:
            return
        left_s = self._sent_at + self._relay.keepalive_s - time.monotonic()
        # What is left unsent is no silence; behind [DONE] nothing is expected, comments least of all.
        if left_s <= 0 and not (self._unsent or self._stream.done):
            if keepalive := self._stream.keepalive:
                self._send(keepalive)
            if self._unsent:
                self._await_client()
        self._keepalive_in(left_s if left_s > 0 else self._relay.keepalive_s)

    def _break(self) -> None:
        """The client takes nothing any more. While the opening runs, its thread has to end it first."""
        self._broken = True
        if not self._opening:
            self._end(whole=False)
        elif (callback := self._conn.on_disconnect) is not None:
            callback()

    def _end(self, *, whole: bool) -> None:
        if self._ended:
            return
        self._ended = True
        self._release()
        for deadline in (self._keepalive, self._write_deadline):
            if deadline is not None:
                deadline.cancel()
        try:
            self._on_end(whole)
        except Exception:  # as in ``_guarded``
            log.exception("a stream could not be ended")


class StreamRelay:
    """The streams under way in a loop. ``write_timeout_s``: how long a client may take for a portion. ``keepalive_s``:
    after so much silence a comment is sent."""

    def __init__(self, loop: EventLoop, timers: TimerThread, *, write_timeout_s: float, keepalive_s: float) -> None:
        self.loop = loop
        self.timers = timers
        self.write_timeout_s = write_timeout_s
        self.keepalive_s = keepalive_s

    def begin(
        self, conn: Connection, stream: EventStream, *, chunked: bool, on_end: Callable[[bool], object]
    ) -> RelayedStream:
        """Take the sending to ``conn`` over, from whatever has been sent. From the request's thread."""
        relayed = RelayedStream(self, conn, stream, chunked=chunked, on_end=on_end)
        self.loop.defer(relayed.begin)
        return relayed


def _chunk(data: bytes) -> bytes:
    """A chunk of HTTP's chunked transfer coding."""
    return b"%X\r\n%b\r\n" % (len(data), data)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
