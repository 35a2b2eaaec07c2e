"""Finding a backend's address: within a time, and not again where nobody answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ai_router.errors import Source, UpstreamTimeout
from ai_router.http import connections
from ai_router.http.calls import Timeouts, UpstreamCall, UpstreamRequest
from ai_router.http.client import UpstreamClient
from ai_router.http.connections import Resolver
from tests.fakes.upstream import FakeUpstream, Plain


def entry(address: str, port: int = 80) -> tuple[Any, ...]:
    """As socket.getaddrinfo has it."""
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    made = Resolver()
    yield made
    made.close()


def test_an_address_that_did_not_answer_is_tried_last(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [entry("10.0.0.1"), entry("10.0.0.2"), entry("10.0.0.3")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    assert resolver.look_up("gpu", 80, 1.0) == found
    resolver.failed(("10.0.0.1", 80))
    assert [address for *_, address in resolver.look_up("gpu", 80, 1.0)] == [
        ("10.0.0.2", 80),
        ("10.0.0.3", 80),
        ("10.0.0.1", 80),
    ]


def test_a_name_server_that_is_silent_takes_no_longer_than_a_connect_may(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: silent.wait(30))
    limits = Timeouts(connect=0.1, total=20.0, idle=20.0)
    request = UpstreamRequest(Source("primary", "m"), "POST", "http://gpu.lan/x", limits, headers={}, body=b"{}")
    try:
        with pytest.raises(UpstreamTimeout, match=r"no connection within|no address within"):
            client.open(request, UpstreamCall())
    finally:
        silent.set()


def test_of_several_addresses_a_dead_one_costs_a_moment_once(
    client: UpstreamClient, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.on("/x", Plain({}))
    port = int(upstream.url.rpartition(":")[2])
    # A full queue of a listener that accepts nobody: a connect to it hangs.
    with socket.socket() as dead, socket.socket() as first, socket.socket() as second:
        dead.bind(("127.0.0.1", 0))
        dead.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(dead.getsockname())
        found = [entry("127.0.0.1", dead.getsockname()[1]), entry("127.0.0.1", port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        monkeypatch.setattr(connections, "_FIRST_TRY_S", 0.2)
        limits = Timeouts(connect=5.0, total=20.0, idle=20.0)
        request = UpstreamRequest(Source("primary", "m"), "POST", "http://gpu.lan/x", limits, headers={}, body=b"{}")
        client.open(request, UpstreamCall()).close()
        monkeypatch.setattr(connections, "_FIRST_TRY_S", 20.0)
        started = time.monotonic()
        client.open(request, UpstreamCall()).close()
        assert time.monotonic() - started < 5, "else the dead one was tried first again"
