"""What a measurement runs on: servers in processes of their own, what they use, and requests and loads in turn."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from benchmarks.backend import Timing, arguments
from benchmarks.load import Series, Spec, Turn, run
from tests.fakes.router import COMMAND, clean_environment

ROOT = Path(__file__).parents[1]
LOADING_S = 3.0
"""How long a router is given after its start to load what it loads in the background."""


@dataclass(frozen=True)
class Server:
    """A server under measurement: its address, its top process, and headers that each request to it must have."""

    url: str
    pid: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def cpu_s(self) -> float:
        """Processor seconds that it and its workers have used."""
        return sum(_cpu_s(pid) for pid in self.family())

    def rss_mib(self) -> float:
        """Resident memory of its largest process."""
        sizes = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.family()]
        return max(sizes) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def family(self) -> list[int]:
        """The process ids of it and of all that it has started."""
        found, new = [self.pid], [self.pid]
        while new:
            new = [int(child) for pid in new for child in _children(pid)]
            found += new
        return found


def _children(pid: int) -> list[str]:
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [child for task in tasks for child in (task / "children").read_text().split()]
    return []


def _cpu_s(pid: int) -> float:
    """From the scheduler's own count in nanoseconds. The ticks of /proc/PID/stat are samples: they show much more than
    there is for what timers wake, as they wake everything here."""
    total = 0.0
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
    return total


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], port: int, environment: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """A command that listens on a port, until the block ends; its output goes to ``folder``.

    Raises RuntimeError if it does not listen within a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"output-{port}.txt").open("wb") as output:
        running = subprocess.Popen(command, env=dict(environment), cwd=folder, stdout=output, stderr=output)
    try:
        if not _listens(port, running):
            raise RuntimeError(f"{command[0]} did not start: {(folder / f'output-{port}.txt').read_text()[-2000:]}")
        yield Server(f"http://127.0.0.1:{port}", running.pid)
    finally:
        running.terminate()
        with suppress(subprocess.TimeoutExpired):
            running.wait(15)
        if running.poll() is None:
            running.kill()
            running.wait()


def _listens(port: int, running: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end and running.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.01)
    return False


@contextmanager
def backend(timing: Timing, folder: Path) -> Iterator[Server]:
    """A simulated model."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.backend", str(port), arguments(timing)]
    with process(command, port, {**os.environ, "PYTHONPATH": str(ROOT)}, folder) as server:
        yield server


def set_timing(model: Server, timing: Timing) -> None:
    """Have a simulated model answer new requests with this timing, and end the streams that are under way."""
    Endpoint(model.url).post("/_timing", arguments(timing).encode())


@contextmanager
def router(
    folder: Path, settings: Mapping[str, str], *, wait: bool = True, command: Path = COMMAND
) -> Iterator[Server]:
    """A router with these settings and no other, its data in ``folder``/data. With ``wait`` it has had time to load
    what it loads in the background. ``command`` is that of this checkout, or of another one."""
    port = free_port()
    environment = clean_environment(PORT=str(port), DATA_DIR=str(folder / "data"), **settings)
    with process([str(command), "serve"], port, environment, folder) as server:
        if wait:
            time.sleep(LOADING_S)
        yield server


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder for one measurement."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Timed:
    """One request and its answer; milliseconds from sending it."""

    status: int
    first_ms: float
    """To the first event with data of a stream; of a plain answer, to its end."""
    whole_ms: float
    headers: Mapping[str, str]
    body: bytes

    def text(self) -> str:
        """A plain answer's content, or its reasoning where a reasoning model's budget left no content."""
        message = orjson.loads(self.body)["choices"][0]["message"]
        return message.get("content") or message.get("reasoning") or message.get("reasoning_content") or ""


@dataclass(frozen=True)
class Endpoint:
    """A server that speaks the OpenAI API, the model to ask it for, and the key and other headers that it wants."""

    url: str
    model: str = ""
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def ask(self, text: str, **fields: Any) -> Timed:
        """One chat request with these further fields, on a connection of its own, read to its end."""
        body, first_ms = self._body(text, fields), None
        with self._connection() as connection:
            started = time.perf_counter()
            response = self._send(connection, body)
            received = _to_first_event(response) if fields.get("stream") else b""
            if fields.get("stream"):
                first_ms = (time.perf_counter() - started) * 1000
            received += response.read()
            whole_ms = (time.perf_counter() - started) * 1000
        answered = {name.lower(): value for name, value in response.getheaders()}
        return Timed(response.status, first_ms or whole_ms, whole_ms, answered, received)

    def first_event(self, text: str) -> tuple[int, bytes]:
        """Ask for a stream and leave it after its first event with data; returns the status and what came by then."""
        with self._connection() as connection:
            response = self._send(connection, self._body(text, {"stream": True}))
            return response.status, _to_first_event(response)

    def get(self, path: str) -> bytes:
        """The body of the answer to a GET request, whatever its status."""
        return self._exchange("GET", path)

    def post(self, path: str, body: bytes = b"") -> bytes:
        """The body of the answer to a POST request, whatever its status."""
        return self._exchange("POST", path, body)

    def _exchange(self, method: str, path: str, body: bytes | None = None) -> bytes:
        with self._connection() as connection:
            connection.request(method, path, body, self._sent())
            return connection.getresponse().read()

    def _sent(self) -> Mapping[str, str]:
        return {**({"Authorization": f"Bearer {self.key}"} if self.key else {}), **self.headers}

    def _body(self, text: str, fields: Mapping[str, Any]) -> bytes:
        return orjson.dumps({"model": self.model, "messages": [{"role": "user", "content": text}], **fields})

    def _send(self, connection: http.client.HTTPConnection, body: bytes) -> http.client.HTTPResponse:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json", **self._sent()})
        return connection.getresponse()

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=600)
        try:
            yield connection
        finally:
            connection.close()


def _to_first_event(response: http.client.HTTPResponse) -> bytes:
    received = b""
    while b"data:" not in received and (portion := response.read1(65536)):
        received += portion
    return received


def flush_sessions(server: Server) -> None:
    """Have a router write what it keeps of the requests so far. It does so before it looks for a session; this asks for
    one that does not exist. A server without sessions has nothing to write."""
    Endpoint(server.url).get(f"/api/sessions/{'0' * 32}")


def one_turn(server: Server, spec: Spec, *, flush: bool = False) -> Turn:
    """One load of one server, with the headers that it wants. With ``flush`` the processor time includes writing what
    is kept of these requests, which would be counted with the next turn otherwise."""
    before = server.cpu_s()
    result = run(replace(spec, headers=dict(server.headers)))
    if flush:
        flush_sessions(server)
    return Turn(result, server.cpu_s() - before)


def in_turn(servers: Mapping[str, Server], rounds: int, spec: Callable[[str], Spec]) -> Mapping[str, Series]:
    """Load each server once a round; the first round warms up and does not count. ``spec`` is given a server's address.

    A server that ends or hangs meanwhile is left out of what is returned.
    """
    found: dict[str, list[Turn]] = {name: [] for name in servers}
    for number in range(rounds + 1):
        for name in list(found):
            try:
                turn = one_turn(servers[name], spec(servers[name].url))
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as problem:
                left_out(name, f"the load did not come to its end ({type(problem).__name__})")
                del found[name]
                continue
            if number:
                found[name].append(turn)
    return found


def left_out(name: str, why: str) -> None:
    """Say that a server is missing from the results."""
    print(f"  {name} is left out: {why}", file=sys.stderr)
