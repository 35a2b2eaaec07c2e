"""Processes for a measurement: simulated backends, routers, and what they use."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.backend import Timing, arguments
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
