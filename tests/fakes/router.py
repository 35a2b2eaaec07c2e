"""A real router: the installed command in a process of its own, on a free port, with its data in a test's folder."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

COMMAND = Path(sys.executable).with_name("ai-router")


class RunningRouter:
    """A started router: where it is, what it logs, what it saves."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, data: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.data = data

    def connection(self, timeout: float = 30.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        return self._exchange("GET", path, None, headers)

    def chat(self, text: str = "hello", headers: Mapping[str, str] | None = None, **fields: Any) -> Any:
        """A chat request; returns (status, headers, body)."""
        body = {"messages": [{"role": "user", "content": text}], **fields}
        return self.post(orjson.dumps(body), headers)

    def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        return self._exchange("POST", "/v1/chat/completions", body, headers)

    def answers(self) -> bool:
        """Whether it is there. While its workers start nobody may listen yet, which is no error."""
        try:
            return self.get("/health/live")[0] == 200
        except OSError:
            return False

    def log(self) -> list[str]:
        path = self.data / "app.log"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_log(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """The first line of the log that matches the whole pattern; the log is written behind the response's back."""
        found = eventually(
            lambda: next((m for line in self.log() if (m := re.fullmatch(pattern, line))), None), timeout
        )
        assert found, f"no line like {pattern!r} in:\n" + "\n".join(self.log())
        return found

    def session(self, session_id: str, timeout: float = 10.0) -> dict[str, Any]:
        """The session file, waited for."""
        folder = self.data / "sessions"
        path = eventually(lambda: next(iter(folder.glob(f"*-{session_id}.json")), None), timeout)
        assert path, f"no session {session_id} in {folder}"
        return orjson.loads(path.read_bytes())

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return self.process.wait(timeout=20)

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = self.connection()
        try:
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()


def eventually(look: Any, timeout: float = 10.0) -> Any:
    """What ``look`` returns once it is truthy, or last when time is up. For files, which have no event to wait on."""
    end = time.monotonic() + timeout
    while not (seen := look()) and time.monotonic() < end:
        time.sleep(0.01)
    return seen


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without any setting of a router in it, and then ``settings``."""
    keep = {
        name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")
    }
    return {**keep, **settings}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_router(
    folder: Path, *, command: Sequence[str | Path] | None = None, port: int = 0, **settings: str
) -> Iterator[RunningRouter]:
    """``ai-router serve``, or ``command``, with these settings, ready to be asked; stopped in the end."""
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stderr.txt").open("wb") as stderr:
        process = subprocess.Popen(
            command or [COMMAND, "serve"],
            cwd=folder,
            env=clean_environment(**{"PORT": str(port), "DATA_DIR": str(folder / "data"), "DRAIN_S": "0", **settings}),
            stdout=stderr,
            stderr=stderr,
        )
    router = RunningRouter(process, port, folder / "data")
    try:
        assert eventually(lambda: router.answers() or process.poll() is not None, 30.0), "the router did not start"
        assert process.poll() is None, (folder / "stderr.txt").read_text()
        yield router
    finally:
        if process.poll() is None:
            router.stop()
