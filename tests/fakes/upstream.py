"""A backend on a real socket that does what a test scripts: answers, streams, hangs, breaks off.

It notices by itself, and with a clock of its own, when the router closes a connection: every request recorded says
when.
"""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import orjson

_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


@dataclass
class Recorded:
    """One request as it came, and when (monotonic) the peer closed its connection, if it did while we answered."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw_body: bytes
    arrived_at: float
    disconnected_at: float | None = None
    answered: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    streaming: threading.Event = field(default_factory=threading.Event)
    connection: int = 0

    @property
    def body(self) -> dict[str, Any]:
        return orjson.loads(self.raw_body)


@dataclass(frozen=True)
class Plain:
    """A whole answer after ``delay`` seconds."""

    payload: Any = None
    status: int = 200
    delay: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    content_type: str = "application/json"


@dataclass(frozen=True)
class Stream:
    """Portions, the first after ``ttft``, each next after ``gap``; then ``ending``: end, reset, truncate or hang."""

    portions: Sequence[bytes]
    ttft: float = 0.0
    gap: float = 0.0
    ending: str = "end"
    content_type: str = "text/event-stream; charset=utf-8"


@dataclass(frozen=True)
class Hang:
    """Take the request and say nothing."""


@dataclass(frozen=True)
class Slam:
    """Take the request and, after ``delay`` seconds, reset the connection."""

    delay: float = 0.0


Reply = Plain | Stream | Hang | Slam
Script = Reply | Callable[[Recorded], Reply]


class FakeUpstream:
    """A server. ``on(path, ...)`` sets what it does: the scripts in turn, the last one for ever."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Recorded] = []
        self._scripts: dict[str, deque[Script]] = {}
        self._arrived = threading.Condition()
        self._connections = 0
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler_for(self))
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._server.tls = tls
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.on("/health", Plain({}))

    def on(self, path: str, *scripts: Script) -> None:
        self._scripts[path] = deque(scripts)

    def reset(self) -> None:
        with self._arrived:
            self.requests.clear()
            self._scripts.clear()
        self.on("/health", Plain({}))

    def calls(self, path: str) -> list[Recorded]:
        with self._arrived:
            return [request for request in self.requests if request.path == path]

    def wait_for(self, path: str, count: int = 1, timeout: float = 10.0) -> Recorded:
        """The ``count``-th request of a path, waited for."""
        with self._arrived:
            there = self._arrived.wait_for(lambda: len([r for r in self.requests if r.path == path]) >= count, timeout)
            assert there, f"{path} was called {len([r for r in self.requests if r.path == path])} times, not {count}"
            return [r for r in self.requests if r.path == path][count - 1]

    def close(self) -> None:
        """End the server, every connection, and the threads that serve them."""
        self._stopping.set()
        self._server.shutdown()
        with self._arrived:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self._server.server_close()

    def connected(self, connection: socket.socket) -> int:
        with self._arrived:
            self._connections += 1
            self._open.add(connection)
            return self._connections

    def disconnected(self, connection: socket.socket) -> None:
        with self._arrived:
            self._open.discard(connection)

    def take(self, recorded: Recorded) -> Reply:
        with self._arrived:
            self.requests.append(recorded)
            self._arrived.notify_all()
            scripts = self._scripts.get(recorded.path.partition("?")[0])
            script: Script = Plain({"error": {"message": "no script for this path"}}, status=404)
            if scripts:
                script = scripts[0] if len(scripts) == 1 else scripts.popleft()
        return script(recorded) if callable(script) else script

    def pause(self, recorded: Recorded, sock: socket.socket, seconds: float) -> bool:
        """Wait, unless the peer leaves, which is recorded; whether it is still there."""
        poll = select.poll()
        poll.register(sock, select.POLLRDHUP)
        end = time.monotonic() + seconds
        while not self._stopping.is_set():
            left = end - time.monotonic()
            if any(event & _GONE for _, event in poll.poll(max(0.0, min(left, 0.05)) * 1000)):
                recorded.disconnected_at = time.monotonic()
                recorded.gone.set()
                return False
            if left <= 0:
                return True
        return False


class _Server(socketserver.ThreadingTCPServer):
    # Closing the server waits for its threads.
    daemon_threads = False
    allow_reuse_address = True
    request_queue_size = 256
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        # On the connection's own thread, so that a handshake that fails concerns nobody else.
        with self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as secured:
            secured.do_handshake()
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A router that closes a connection is what half of the tests are about."""


def _handler_for(fake: FakeUpstream) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class, not a function
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            self.number = fake.connected(self.connection)

        def finish(self) -> None:
            fake.disconnected(self.connection)
            super().finish()

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            recorded = Recorded(self.command, self.path, headers, body, time.monotonic(), connection=self.number)
            reply = fake.take(recorded)
            try:
                self._play(recorded, reply)
            except OSError:
                recorded.disconnected_at = recorded.disconnected_at or time.monotonic()
                recorded.gone.set()
                self.close_connection = True
            recorded.answered.set()

        def _play(self, recorded: Recorded, reply: Reply) -> None:
            if isinstance(reply, Plain):
                self._plain(recorded, reply)
            elif isinstance(reply, Stream):
                self._stream(recorded, reply)
            elif isinstance(reply, Slam):
                if not reply.delay or fake.pause(recorded, self.connection, reply.delay):
                    self._reset()
            else:
                fake.pause(recorded, self.connection, 3600)
                self.close_connection = True

        def _plain(self, recorded: Recorded, reply: Plain) -> None:
            if reply.delay and not fake.pause(recorded, self.connection, reply.delay):
                self.close_connection = True
                return
            body = reply.raw if reply.raw is not None else orjson.dumps(reply.payload)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(body)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, recorded: Recorded, reply: Stream) -> None:
            self.send_response(200)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for index, portion in enumerate(reply.portions):
                pause = reply.gap if index else reply.ttft
                if pause and not fake.pause(recorded, self.connection, pause):
                    self.close_connection = True
                    return
                self.wfile.write(b"%X\r\n%s\r\n" % (len(portion), portion))
                recorded.streaming.set()
            self._end(recorded, reply.ending)

        def _end(self, recorded: Recorded, ending: str) -> None:
            if ending == "end":
                self.wfile.write(b"0\r\n\r\n")
                return
            self.close_connection = True
            if ending == "hang":
                fake.pause(recorded, self.connection, 3600)
            elif ending == "reset":
                self._reset()
            elif ending == "truncate":
                self.wfile.write(b"FF\r\ndata: {")

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

    return Handler


@contextmanager
def fake_upstream(tls: ssl.SSLContext | None = None) -> Iterator[FakeUpstream]:
    fake = FakeUpstream(tls)
    try:
        yield fake
    finally:
        fake.close()
