"""A running router: its processes, what they hold (threads, descriptors, memory), what it thinks is under way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import orjson

from tests.fakes.router import RunningRouter, eventually

IDLE_CONNECTIONS = 6
"""A kept-alive connection or two for each backend, and this test's own."""
SPARE_THREADS = 16
"""Pools grow up to their limits: they make a thread when a job comes a moment before the last one's thread is idle
again. What leaked one with each test would be far beyond this at the end of a module.
"""


@dataclass(frozen=True)
class Holdings:
    """Of the worker process."""

    threads: int
    descriptors: int
    sockets: int
    resident_kib: int


def children(pid: int) -> dict[int, str]:
    """The processes that this one has started, and their command lines."""
    started = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    commands = {int(child): command_of(int(child)) for child in started}
    return {child: command for child, command in commands.items() if command}


def command_of(pid: int) -> str:
    """Its command line; empty once it has ended, which it may between being listed and being read."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def workers(router: RunningRouter) -> list[int]:
    """The processes that serve; gunicorn's master is their parent."""
    return [pid for pid, command in children(router.process.pid).items() if "valkey_process" not in command]


def worker_of(router: RunningRouter) -> int:
    """The first of them: the only one, where WORKERS is 1."""
    return workers(router)[0]


def holdings(pid: int) -> Holdings:
    """Now."""
    status = Path(f"/proc/{pid}/status").read_text()
    links = [link for entry in Path(f"/proc/{pid}/fd").iterdir() if (link := _link(entry))]
    return Holdings(
        threads=int(re.search(r"Threads:\s+(\d+)", status)[1]),
        descriptors=len(links),
        sockets=sum(link.startswith("socket:") for link in links),
        resident_kib=int(re.search(r"VmRSS:\s+(\d+)", status)[1]),
    )


def idle(router: RunningRouter) -> bool:
    """Whether the router says that nothing is under way, at any gate or in the queue."""
    under_way = rb"^ai_router_(?:backend_in_flight|queue_depth)\{.*\} [^0]"
    if re.search(under_way, router.get("/metrics")[2], re.MULTILINE):
        return False
    return orjson.loads(router.get("/health")[2])["in_flight"] == 0


def assert_nothing_leaked(router: RunningRouter, before: Holdings) -> None:
    """All places are given back, and no more sockets and threads are held than idle ones."""
    assert eventually(lambda: idle(router)), router.get("/metrics")[2].decode()
    pid = worker_of(router)

    def flat() -> bool:
        now = holdings(pid)
        sockets_ok = now.sockets <= before.sockets + IDLE_CONNECTIONS
        return sockets_ok and now.threads <= before.threads + SPARE_THREADS

    assert eventually(flat), (before, holdings(pid))


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:
        return ""
