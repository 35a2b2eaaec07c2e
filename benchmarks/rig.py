"""Processes for a measurement: simulated backends, routers, what they use, and one timed request."""

from __future__ import annotations

import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


@dataclass(frozen=True)
class Server:
    """A server under measurement, the process at its top, and headers that it wants to see."""

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
        """It and all that it has started, by process id."""
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
    """From the scheduler's own count in nanoseconds. The ticks of /proc/PID/stat are samples, and take what is woken by
    timers, as everything here is, for much more than it is."""
    total = 0.0
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
    return total


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], port: int, environment: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """A command that listens on a port, until the block ends. Raises RuntimeError if it does not come up."""
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
        time.sleep(0.05)
    return False


@contextmanager
def backend(timing: Timing, folder: Path) -> Iterator[Server]:
    """A simulated model."""
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with process(
        [sys.executable, "-m", "benchmarks.backend", str(port), arguments(timing)], port, environment, folder
    ) as it:
        yield it


@contextmanager
def router(folder: Path, *, flush: bool = True, **settings: str) -> Iterator[Server]:
    """The router, with its data in ``folder``; with ``settle``, given a moment to load what it loads late."""
    port = free_port()
    environment = clean_environment(PORT=str(port), DATA_DIR=str(folder / "data"), **settings)
    with process([str(COMMAND), "serve"], port, environment, folder) as it:
        if flush:
            time.sleep(_SETTLING_S)
        yield it


_SETTLING_S = 3.0


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for all of it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Timed:
    """One request; milliseconds from sending it."""

    status: int
    first_ms: float
    """To the first event with data of a stream; of a plain answer, to its end."""
    whole_ms: float
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Endpoint:
    """A server that speaks the OpenAI API. Each client has a connection of its own, kept alive."""

    url: str
    model: str
    key: str | None = None

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=600)

    def ask(
        self, connection: http.client.HTTPConnection, text: str, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Timed:
        """One chat request, read to its end."""
        body = orjson.dumps({"model": self.model, "messages": [{"role": "user", "content": text}], **fields})
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        started = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", body, sent)
        response = connection.getresponse()
        received, first_ms = b"", None
        if fields.get("stream"):
            while b"data:" not in received:
                portion = response.read1(65536)
                if not portion:
                    break
                received += portion
            first_ms = (time.perf_counter() - started) * 1000
        received += response.read()
        whole_ms = (time.perf_counter() - started) * 1000
        answered = {name.lower(): value for name, value in response.getheaders()}
        return Timed(response.status, first_ms or whole_ms, whole_ms, answered, received)


def text_in(answer: Timed) -> str:
    """Content, or reasoning where a reasoning model's budget left no content (a plain answer's)."""
    message = orjson.loads(answer.body)["choices"][0]["message"]
    return message.get("content") or message.get("reasoning") or message.get("reasoning_content") or ""


def p50(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    """The 99th percentile, or the largest of fewer than 100."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def set_timing(model: Server, timing: Timing) -> None:
    """Have a simulated model answer new requests so, and end what is under way."""
    connection = Endpoint(model.url, "").connect()
    connection.request("POST", "/_timing", arguments(timing))
    connection.getresponse().read()
    connection.close()


def settled(url: str) -> None:
    """Have a router write what it keeps of the requests so far: it does so before it looks for a session, here for one
    that there is not. A server without sessions has nothing to write."""
    connection = Endpoint(url, "").connect()
    connection.request("GET", f"/api/sessions/{'0' * 32}")
    connection.getresponse().read()
    connection.close()


def in_turn(servers: Mapping[str, Server], rounds: int, spec: Callable[[str], Spec]) -> Mapping[str, Series]:
    """Each server once a round; the first round warms up and does not count. ``spec`` is given a server's address.

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
    """Say that a contender is missing."""
    print(f"  {name} is left out: {why}", file=sys.stderr)


def one_turn(server: Server, spec: Spec) -> Turn:
    """One load of one server, with the headers that it wants."""
    before = server.cpu_s()
    result = run(replace(spec, headers=dict(server.headers)))
    return Turn(result, server.cpu_s() - before)
