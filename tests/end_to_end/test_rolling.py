"""Two routers behind a real proxy, under load: what is lost when they are restarted one after the other, or killed."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from tests.end_to_end.test_replicas import shared_state
from tests.fakes.keys import new_key
from tests.fakes.personas import CHAT, DONE, anew, says
from tests.fakes.process import workers
from tests.fakes.proxies import is_installed, running_proxy
from tests.fakes.router import RunningRouter, eventually, free_port, running_router
from tests.fakes.upstream import FakeUpstream, fake_upstream
from tests.fakes.valkey import RunningValkey, running_valkey

DRAIN_S = "2"
CLIENTS = 8


@dataclass
class Load:
    """Clients that ask through the proxy until they are told to stop, each with a connection of its own that it keeps.

    ``results``: what became of each request: "ok", or what went wrong.
    """

    port: int
    secret: str = ""
    results: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n % 2 == 0,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, more: int) -> None:
        """Until so many more requests have been answered."""
        before = self.results["ok"]
        assert eventually(lambda: self.results["ok"] >= before + more, 30), self.results

    def stop(self) -> Counter[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        return self.results

    def _ask(self, stream: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self._stop.is_set():
            try:
                self.results[self._result(connection, stream)] += 1
            except (OSError, http.client.HTTPException) as problem:
                self.results[repr(problem)] += 1
                connection.close()
        connection.close()

    def _result(self, connection: http.client.HTTPConnection, stream: bool) -> str:
        body = {"messages": [{"role": "user", "content": anew()}], "stream": stream, "model": "primary"}
        headers = {"Authorization": f"Bearer {self.secret}"} if self.secret else {}
        connection.request("POST", CHAT, orjson.dumps(body), headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            return f"{response.status} {answer[:200]!r}"
        whole = answer.endswith(DONE) if stream else b"three" in answer
        return "ok" if whole else f"half an answer: {answer[-100:]!r}"


@dataclass
class Pair:
    """Two routers, which can be restarted."""

    folder: Path
    settings: dict[str, str]
    ports: list[int]
    stacks: list[ExitStack]
    routers: list[RunningRouter]

    def start(self, number: int) -> None:
        running = running_router(self.folder / str(number), port=self.ports[number], **self.settings)
        self.routers[number] = self.stacks[number].enter_context(running)

    def restart(self, number: int) -> None:
        """As a rolling upgrade does: SIGTERM, the end, a new start, and on with the next one once the proxy has seen
        that this one is back."""
        assert self.routers[number].stop(signal.SIGTERM) == 0
        self.stacks[number].close()
        self.start(number)
        answered = len(self.routers[number].log())
        assert eventually(lambda: len(self.routers[number].log()) > answered + 50, 30)


@contextmanager
def running_pair(folder: Path, primary: FakeUpstream, valkey: RunningValkey, **more: str) -> Iterator[Pair]:
    settings = {
        "PRIMARY_URL": primary.url,
        "REDIS_URL": valkey.url,
        "DATABASE_URL": f"sqlite:///{folder / 'usage.db'}",
        "DRAIN_S": DRAIN_S,
        **more,
    }
    with ExitStack() as first, ExitStack() as second:
        pair = Pair(folder, settings, [free_port(), free_port()], [first, second], [None, None])  # type: ignore[list-item]
        pair.start(0)
        pair.start(1)
        yield pair


@pytest.fixture
def primary() -> Iterator[FakeUpstream]:
    with fake_upstream() as fake:
        fake.on(CHAT, says("one ", "two ", "three", gap=0.01))
        yield fake


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[RunningValkey]:
    (tmp_path / "valkey").mkdir()
    with running_valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    if not is_installed(kind):
        pytest.skip(f"{kind.upper()} WAS NOT TRIED: it is not installed (a Debian package of that name)")
    return kind


def test_a_rolling_restart_loses_nothing(
    proxy: str, tmp_path: Path, primary: FakeUpstream, valkey: RunningValkey
) -> None:
    with (
        running_pair(tmp_path, primary, valkey) as pair,
        running_proxy(proxy, tmp_path / "proxy", pair.ports) as port,
    ):
        load = Load(port)
        load.wait_for(50)
        for number in (0, 1):
            pair.restart(number)
            load.wait_for(50)
        results = load.stop()
    assert set(results) == {"ok"}, results


def test_while_it_drains_a_router_accepts_and_says_that_it_is_not_ready(tmp_path: Path, primary: FakeUpstream) -> None:
    with running_router(tmp_path, PRIMARY_URL=primary.url, DRAIN_S="1.5") as router:
        kept = router.connection()
        kept.request("GET", "/health/live")
        kept.getresponse().read()
        router.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: router.get("/health/ready")[0] == 503, 1)
        # On new connections and on old ones, which may be used again.
        assert router.chat(anew(), model="primary")[0] == 200
        kept.request("GET", "/health/live")
        response = kept.getresponse()
        response.read()
        assert response.getheader("Connection") != "close"
        kept.close()
        assert router.process.wait(20) == 0


def test_when_one_is_killed_the_others_go_on_and_nobody_is_left_waiting(
    proxy: str, tmp_path: Path, primary: FakeUpstream, valkey: RunningValkey
) -> None:
    database = f"sqlite:///{tmp_path / 'usage.db'}"
    _, secret = new_key(database, "--concurrency", str(CLIENTS))
    with (
        running_pair(tmp_path, primary, valkey, VIRTUAL_KEYS="on", WORKERS="2") as pair,
        running_proxy(proxy, tmp_path / "proxy", pair.ports) as port,
    ):
        load = Load(port, secret)
        load.wait_for(20)
        os.kill(workers(pair.routers[0])[0], signal.SIGKILL)
        load.wait_for(20)
        for pid in (*workers(pair.routers[1]), pair.routers[1].process.pid):
            os.kill(pid, signal.SIGKILL)
        load.wait_for(20)
        results = load.stop()
        # What was under way, or sent before the proxy had noticed, ended at once. Nobody was left to wait.
        assert not [what for what in results if "timed out" in what or "Timeout" in what], results
        assert eventually(lambda: shared_state(pair.routers[0])["processes"] == 2, 30)


def test_redis_may_be_restarted_under_load(tmp_path: Path, primary: FakeUpstream, valkey: RunningValkey) -> None:
    with running_pair(tmp_path, primary, valkey) as pair:
        load = Load(pair.ports[0])
        load.wait_for(30)
        for _ in range(2):
            valkey.stop()
            load.wait_for(30)
            valkey.start()
            load.wait_for(30)
        results = load.stop()
        assert set(results) == {"ok"}, results
        assert eventually(lambda: shared_state(pair.routers[0]) == {"ok": True, "processes": 2})
