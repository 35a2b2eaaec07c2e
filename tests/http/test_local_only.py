"""What is local, and that a local-only call connects to nothing else; on real sockets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from ai_router.errors import Source
from ai_router.http import local_only
from ai_router.http.calls import CancelScope, Timeouts, UpstreamCall, UpstreamRequest
from ai_router.http.client import UpstreamClient
from ai_router.http.local_only import NotLocal, is_local
from ai_router.http.timers import TimerThread
from tests.fakes.upstream import FakeUpstream, Plain

PATH = "/v1/chat/completions"
TIMEOUTS = Timeouts(connect=2.0, total=5.0, idle=5.0)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.20", "169.254.7.7"),
        *("::1", "fd12:3456::1", "fe80::1%eth0", "::ffff:10.0.0.1"),
    ],
)
def test_loopback_private_and_link_local_addresses_are_local(address: str) -> None:
    assert is_local(address)


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "172.32.0.1", "192.169.0.1", "100.64.0.1", "0.0.0.0", "203.0.113.7", "224.0.0.1"),
        *("2001:4860:4860::8888", "::", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:a00:1::"),
    ],
)
def test_all_others_are_not(address: str) -> None:
    assert not is_local(address)


@pytest.fixture
def client() -> Iterator[UpstreamClient]:
    timers = TimerThread()
    client = UpstreamClient(timers, pool_size=4)
    yield client
    client.close()
    timers.close()


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own address is taken for one of the internet."""
    monkeypatch.setattr(local_only, "_NETWORKS", (ipaddress.ip_network("10.0.0.0/8"),))


def ask(client: UpstreamClient, url: str, call: UpstreamCall, *, declared_local: bool = False) -> int:
    request = UpstreamRequest(
        Source("primary", "m"), "POST", f"{url}{PATH}", TIMEOUTS, body=b"{}", declared_local=declared_local
    )
    return client.fetch(request, call, 1000).status


def local_call() -> UpstreamCall:
    return CancelScope(local_only=True).new_call()


def test_a_local_address_is_asked(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on(PATH, Plain({}))
    assert ask(client, upstream.url, local_call()) == 200


@pytest.mark.usefixtures("far_away")
def test_another_address_is_not_even_connected_to(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on(PATH, Plain({}))
    with pytest.raises(NotLocal, match="primary is not in the local network"):
        ask(client, upstream.url, local_call())
    assert upstream._connections == 0


@pytest.mark.usefixtures("far_away")
def test_nor_on_a_connection_that_is_there_already(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on(PATH, Plain({}))
    assert ask(client, upstream.url, UpstreamCall()) == 200
    with pytest.raises(NotLocal):
        ask(client, upstream.url, local_call())
    assert len(upstream.calls(PATH)) == 1
    assert ask(client, upstream.url, UpstreamCall()) == 200, "others are served as before"


@pytest.mark.usefixtures("far_away")
def test_what_the_catalogue_declares_local_is_asked_wherever_it_is(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.on(PATH, Plain({}))
    assert ask(client, upstream.url, local_call(), declared_local=True) == 200


def test_through_a_proxy_nobody_knows_where_it_goes(
    client: UpstreamClient, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, upstream.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(NotLocal):
        ask(client, "http://10.255.255.1:8000", local_call())
    assert not upstream.requests


def test_one_address_that_is_not_local_is_enough_to_refuse_a_host() -> None:
    with pytest.raises(NotLocal):
        local_only.check_addresses("primary", ["10.0.0.1", "8.8.8.8"])
    local_only.check_addresses("primary", ["10.0.0.1", "fe80::1"])
