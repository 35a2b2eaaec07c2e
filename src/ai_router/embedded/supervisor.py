"""Keeps a llama_server running: ``python -m ai_router.embedded.supervisor WEIGHTS NAME PORT READY_FD``.

A server that never became ready is not started again: that is a broken installation, and the router says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence

_RESTART_PAUSE_S = 1.0


def main() -> int:
    """Run until stdin ends. Exit status 1 if the first start fails."""
    served, ready_fd = sys.argv[1:4], int(sys.argv[4])
    orphaned = threading.Event()
    threading.Thread(target=_watch_stdin, args=(orphaned,), daemon=True).start()
    server, ready = _start(served)
    if not ready:
        return 1
    os.write(ready_fd, b"1")
    os.close(ready_fd)
    while not orphaned.is_set():
        server.wait()
        print(f"llama_server ended with {server.returncode}, starting another", file=sys.stderr, flush=True)  # noqa: T201
        if orphaned.wait(_RESTART_PAUSE_S):
            break
        server, _ = _start(served)
    return 0


def _watch_stdin(orphaned: threading.Event) -> None:
    sys.stdin.buffer.read()
    orphaned.set()
    # The server's stdin ends with this process, and the server with it.
    os._exit(0)


def _start(served: Sequence[str]) -> tuple[subprocess.Popen[bytes], bool]:
    """Start a server of these weights, name and port, and wait; (its process, whether it became ready)."""
    ready, ready_in_child = os.pipe()
    command = [sys.executable, "-m", "ai_router.embedded.llama_server", *served, str(ready_in_child)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(ready_in_child,))  # noqa: S603 - our own module
    os.close(ready_in_child)
    try:
        return server, os.read(ready, 1) == b"1"
    finally:
        os.close(ready)


if __name__ == "__main__":
    sys.exit(main())
