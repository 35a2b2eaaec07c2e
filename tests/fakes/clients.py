"""Clients on bare sockets, for what a well-behaved one cannot do."""

from __future__ import annotations

import socket
import struct
from typing import Any

import orjson


class RawClient:
    """A connection that a test drives byte by byte."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_chat(self, *, text: str = "hello", headers: str = "", **fields: Any) -> None:
        self.send_json("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields}, headers)

    def send_json(self, path: str, payload: Any, headers: str = "") -> None:
        body = orjson.dumps(payload)
        self.send(
            b"POST "
            + path.encode()
            + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + headers.encode()
            + b"Content-Length: %d\r\n\r\n" % len(body)
            + body
        )

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to and with ``mark``; fails if the router closes first."""
        while mark not in self.received:
            data = self.socket.recv(65536)
            assert data, f"closed before {mark!r}: {self.received!r}"
            self.received += data
        return self.received

    def read_to_end(self) -> bytes:
        """Everything until the router closes."""
        while data := self.socket.recv(65536):
            self.received += data
        return self.received

    def leave(self) -> None:
        """Close as a client does: FIN."""
        self.socket.close()

    def reset(self) -> None:
        """Close as a crash does: RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
