"""Crowds of clients, with no setting of the router touched: a thousand streams, and those that drip or say nothing.

How long a look at health takes is compared with how long it takes when nobody else is there, in the same run.
"""

from __future__ import annotations

import http.client
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.backend import Timing
from benchmarks.load import Spec, body, percentile, run
from benchmarks.rig import Server, backend, router
from tests.end_to_end.conftest import Connect
from tests.fakes.clients import RawClient
from tests.fakes.personas import CHAT
from tests.fakes.router import eventually, running_router
from tests.fakes.upstream import FakeUpstream, Hang

LOOKS = 100
HEADERS = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
SWITCHES_MS = 10.0
"""What the interpreter's lock may keep two threads waiting for with a third one busy: the loop that accepts a look, and
the thread that answers it (5 ms each: sys.getswitchinterval)."""
USUAL = 0.9
"""Nine looks of ten are judged: the slowest ones tell of the other processes on the machine, not of the router."""
STREAMS, PER_S = 1000, 50.0


def look(port: int, path: str) -> float:
    """Milliseconds until ``path`` has answered 200 on a connection of its own."""
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == 200
    finally:
        connection.close()
    return (time.monotonic() - started) * 1000


def usual_times(port: int) -> dict[str, float]:
    """The 90th percentile of each look at health. /health has a fresh report: the one before is under a second old."""
    found = {}
    for path in ("/health/live", "/health/ready", "/health"):
        times = []
        for _ in range(LOOKS):
            if path == "/health":
                look(port, path)
            times.append(look(port, path))
        found[path] = percentile(times, USUAL)
    return found


@contextmanager
def dripping(port: int, first: bytes) -> Iterator[None]:
    """Ninety clients that begin like this and then send a byte each half second; whoever is closed comes again."""
    over = threading.Event()

    def begin() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(first)
        return sock

    def drip() -> None:
        socks = [begin() for _ in range(90)]
        begun.set()
        while not over.wait(0.5):
            for number, sock in enumerate(socks):
                try:
                    sock.sendall(b"a")
                except OSError:
                    sock.close()
                    socks[number] = begin()
        for sock in socks:
            sock.close()

    begun, thread = threading.Event(), threading.Thread(target=drip)
    thread.start()
    assert begun.wait(30)
    yield
    over.set()
    thread.join()


@contextmanager
def silent(port: int) -> Iterator[None]:
    """Eight hundred connections that say nothing."""
    with ExitStack() as held:
        for _ in range(800):
            held.enter_context(socket.create_connection(("127.0.0.1", port)))
        yield


CROWDS: dict[str, Callable[[int], object]] = {
    "heads": lambda port: dripping(port, HEADERS + b"X-A: a"),
    "bodies": lambda port: dripping(port, HEADERS + b"\r\n{"),
    "silent": silent,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Each stream lasts until the last one has begun, and a while longer.
    timing = Timing(ttft_s=(0.5, 0.5), tokens_per_s=1.0, tokens=round(STREAMS / PER_S) + 15)
    with backend(timing, tmp_path_factory.mktemp("model")) as server:
        yield server


@pytest.fixture
def site(model: Server, tmp_path: Path) -> Iterator[Server]:
    # How long a stop waits for a load balancer is not looked at.
    with router(tmp_path, {"PRIMARY_URL": model.url, "DRAIN_S": "0"}) as server:
        yield server


def assert_health_is_as_quick(alone: dict[str, float], now: dict[str, float]) -> None:
    for path, usual in alone.items():
        assert now[path] <= 3 * usual + SWITCHES_MS, f"{path}: {now[path]:.1f} ms, alone {usual:.1f} ms"


@pytest.mark.parametrize("crowd", CROWDS)
def test_health_is_as_quick_while_a_crowd_of_clients_is_slow_or_silent(site: Server, crowd: str) -> None:
    port = int(site.url.rpartition(":")[2])
    alone = usual_times(port)
    with CROWDS[crowd](port):  # type: ignore[attr-defined]
        assert_health_is_as_quick(alone, usual_times(port))


def test_a_thousand_streams_run_whole_with_the_defaults_and_health_answers_meanwhile(site: Server) -> None:
    port = int(site.url.rpartition(":")[2])
    alone, meanwhile = usual_times(port), dict[str, float]()
    spec = Spec(site.url, body(stream=True), STREAMS, once=True, begin_per_s=PER_S)

    def look_at_health() -> None:
        meanwhile.update(usual_times(port))

    looks = threading.Timer(STREAMS / PER_S + 1, look_at_health)
    looks.start()
    result = run(replace(spec, seconds=60))
    looks.join()
    assert (result.answered, result.incomplete, result.refused) == (STREAMS, 0, 0)
    assert result.at_once == STREAMS
    assert_health_is_as_quick(alone, meanwhile)


def test_a_primary_that_does_not_begin_gets_no_more_calls_than_hold_a_thread(
    tmp_path: Path, upstream: FakeUpstream, raw: Connect
) -> None:
    upstream.on(CHAT, Hang())
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as waiting:
        clients = [raw(waiting.port) for _ in range(300)]
        for client in clients:
            client.send_chat(stream=True)
        upstream.wait_for(CHAT, 63)
        answered: list[RawClient] = []

        def all_are_answered() -> bool:
            answered[:] = [client for client in clients if select.select([client.socket], [], [], 0)[0]]
            return len(answered) == 300 - 2 * 63

        assert eventually(all_are_answered), f"{len(answered)}: 63 hold a thread, and 63 wait for one"
        assert all(client.read_until(b"\r\n").startswith(b"HTTP/1.1 503") for client in answered)
        assert len(upstream.calls(CHAT)) == 63
