"""A lab: fakes for the classifier, the primary and xAI, and a real router in front of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.fakes.clients import RawClient
from tests.fakes.personas import CHAT, SEARCH, classifies, finds, says
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Plain, fake_upstream

XAI_KEY = "xai-test-key-0123456789"

Connect = Callable[[int], RawClient]


@dataclass
class Lab:
    """The three backends and the router. ``reset`` makes all of them well-behaved again."""

    classifier: FakeUpstream
    primary: FakeUpstream
    xai: FakeUpstream
    router: RunningRouter

    def reset(self) -> None:
        for fake in (self.classifier, self.primary, self.xai):
            fake.reset()
        well_behaved(self.classifier, self.primary, self.xai)
        if self._closed_gates():
            self._reopen_gates()

    def _closed_gates(self, states: bytes = rb"[12]") -> list[str]:
        """The backends whose breakers are in one of these states: 1 half-open, 2 open."""
        pattern = rb'^ai_router_breaker_state\{backend="(\w+)"\} ' + states
        return [name.decode() for name in re.findall(pattern, self.router.get("/metrics")[2], re.MULTILINE)]

    def _reopen_gates(self) -> None:
        """What one test did to a backend must not keep the next from it: wait, and let a call go well."""
        assert eventually(lambda: not self._closed_gates(rb"2"))
        for name in self._closed_gates():
            self.router.chat(**({} if name == "classifier" else {"model": name}))
        for fake in (self.classifier, self.primary, self.xai):
            fake.requests.clear()


def well_behaved(classifier: FakeUpstream, primary: FakeUpstream, xai: FakeUpstream) -> None:
    classifier.on(CHAT, classifies("MODERATE"))
    primary.on(CHAT, says("from ", "the ", "primary"))
    xai.on(CHAT, says("from ", "xai"))
    xai.on(SEARCH, finds("It rains in Paris."))
    xai.on("/v1/models", Plain({"object": "list", "data": []}))


def lab_settings(classifier: FakeUpstream, primary: FakeUpstream, xai: FakeUpstream) -> dict[str, str]:
    return {
        "ROUTER_URL": classifier.url,
        "PRIMARY_URL": primary.url,
        "XAI_API_URL": xai.url,
        "XAI_API_KEY": XAI_KEY,
        "KEEPALIVE_S": "0.2",
        "BACKOFF_S": "0.02",
        # One test's failures are no reason to spare a backend in the next.
        "BREAKER_FAILURES": "1000",
        # What these tests are about is what happens once the classifier has been asked.
        "FAST_ROUTING": "off",
    }


@pytest.fixture(scope="package")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        settings = lab_settings(classifier, primary, xai)
        with running_router(tmp_path_factory.mktemp("lab"), **settings) as router:
            router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
            yield Lab(classifier, primary, xai, router)


@pytest.fixture
def lab(shared_lab: Lab) -> Lab:
    shared_lab.reset()
    return shared_lab


@pytest.fixture
def raw() -> Iterator[Connect]:
    """Connects raw clients to a port; those that a test leaves open are closed after it."""
    clients: list[RawClient] = []

    def connect(port: int) -> RawClient:
        clients.append(RawClient(port))
        return clients[-1]

    yield connect
    for client in clients:
        client.leave()


def let_wait(router: RunningRouter, raw: Connect, count: int) -> list[RawClient]:
    """So many clients whose requests wait for a thread, while every thread for requests is taken."""
    waiting = [raw(router.port) for _ in range(count)]
    for client in waiting:
        client.send_chat(stream=True)
    for _ in range(2):
        # One loop reads all clients: it has read theirs by the time that it has read and answered this.
        assert router.get("/health/live")[0] == 200
    return waiting
