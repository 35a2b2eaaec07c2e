"""Calling a backend on a real socket: deadlines, aborts, pooling, and what foreign exceptions become."""

from __future__ import annotations

import errno
import socket
import threading
from typing import Any

import pytest

from ai_router.errors import (
    ClientGone,
    IdleConnectionSilent,
    Source,
    UpstreamBroken,
    UpstreamError,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ai_router.http import client as client_module
from ai_router.http import connections
from ai_router.http.calls import Timeouts, UpstreamCall, UpstreamRequest
from ai_router.http.client import UpstreamClient
from ai_router.http.http1 import ResponseParser
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Slam, Stream, fake_upstream


def upstream_request(url: str, **timeouts: Any) -> UpstreamRequest:
    limits = Timeouts(**{"connect": 2.0, "total": 20.0, "idle": 20.0, **timeouts})
    return UpstreamRequest(Source("primary", "m"), "POST", f"{url}/x", limits, headers={}, body=b"{}")


def test_a_refused_connection_is_unreachable(client: UpstreamClient) -> None:
    with fake_upstream() as gone:
        url = gone.url
    with pytest.raises(UpstreamUnreachable, match=r"primary \(m\): connection refused"):
        client.open(upstream_request(url), UpstreamCall())


def test_an_unknown_host_is_unreachable(client: UpstreamClient) -> None:
    with pytest.raises(UpstreamUnreachable, match="no such host"):
        client.open(upstream_request("http://no-such-host.invalid"), UpstreamCall())


def test_tls_to_a_plain_port_is_unreachable_and_named(client: UpstreamClient, upstream: FakeUpstream) -> None:
    with pytest.raises(UpstreamUnreachable, match="TLS failed"):
        client.open(upstream_request(upstream.url.replace("http:", "https:")), UpstreamCall())


def test_a_reset_before_the_headers_is_broken(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on("/x", Slam())
    with pytest.raises(UpstreamBroken, match="closed without an answer"):
        client.open(upstream_request(upstream.url), UpstreamCall())


@pytest.mark.parametrize(
    ("timeouts", "message"),
    [
        ({"first_byte": 0.1}, "no first byte within 0.1 s"),
        ({"total": 0.1}, "no complete answer within 0.1 s"),
        ({"idle": 0.1}, "silent for 0.1 s"),
    ],
)
def test_each_deadline_ends_a_hang(
    client: UpstreamClient, upstream: FakeUpstream, timeouts: dict[str, float], message: str
) -> None:
    upstream.on("/x", Hang())
    with pytest.raises(UpstreamTimeout, match=message):
        client.open(upstream_request(upstream.url, **timeouts), UpstreamCall())
    assert upstream.wait_for("/x").gone.wait(5)


@pytest.mark.parametrize("portions", [[], [b"some"]], ids=["before the body", "in the body"])
def test_an_abort_from_another_thread_ends_a_read_with_its_reason(
    client: UpstreamClient, upstream: FakeUpstream, portions: list[bytes]
) -> None:
    upstream.on("/x", Stream(portions, ending="hang"))
    call = UpstreamCall()
    response = client.open(upstream_request(upstream.url), call)
    threading.Timer(0.05, call.abort, [ClientGone()]).start()
    with pytest.raises(ClientGone):
        response.read(1000)
    assert upstream.wait_for("/x").gone.wait(5)
    response.close()


def test_an_answer_read_to_its_end_leaves_the_connection_to_the_next_call(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.on("/x", Plain({"a": 1}), Stream([b"one", b"two"]))
    calls = [UpstreamCall(), UpstreamCall()]
    assert client.open(upstream_request(upstream.url), calls[0]).read(100) == b'{"a":1}'
    assert b"".join(client.open(upstream_request(upstream.url), calls[1]).chunks()) == b"onetwo"
    assert [call.reused for call in calls] == [False, True]
    assert [request.connection for request in upstream.requests] == [1, 1]


def test_an_idle_connection_that_turns_out_to_be_closed_costs_no_answer_however_late_that_shows(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.on("/x", Plain({"a": 1}), Slam(delay=0.3), Plain({"b": 2}))
    client.open(upstream_request(upstream.url), UpstreamCall()).read(100)
    call = UpstreamCall()
    assert client.open(upstream_request(upstream.url), call).read(100) == b'{"b":2}'
    assert not call.reused
    assert len(upstream.requests) == 3


def test_a_connection_that_was_idle_for_too_long_is_not_used(
    client: UpstreamClient, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.on("/x", Plain({"a": 1}), Plain({"a": 1}))
    client.open(upstream_request(upstream.url), UpstreamCall()).read(100)
    monkeypatch.setattr(connections, "_MAX_IDLE_S", -1.0)
    call = UpstreamCall()
    client.open(upstream_request(upstream.url), call).read(100)
    assert not call.reused


def test_a_timeout_on_an_idle_connection_is_an_error_of_its_own_and_no_connection_idle_then_is_used_again(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.on("/x", *[Plain({"a": 1})] * 2, Hang(), Plain({"b": 2}))
    opened = [client.open(upstream_request(upstream.url), UpstreamCall()) for _ in range(2)]
    for response in opened:
        response.read(100)
    with pytest.raises(IdleConnectionSilent):
        client.open(upstream_request(upstream.url, total=0.2), UpstreamCall())
    call = UpstreamCall()
    assert client.open(upstream_request(upstream.url), call).read(100) == b'{"b":2}'
    assert not call.reused


def test_a_timeout_on_a_new_connection_is_the_backends(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on("/x", Hang())
    with pytest.raises(UpstreamTimeout) as caught:
        client.open(upstream_request(upstream.url, total=0.2), UpstreamCall())
    assert not isinstance(caught.value, IdleConnectionSilent)


def test_a_connection_that_the_kernel_gives_up_is_replaced_at_once(
    client: UpstreamClient, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.on("/x", Plain({"a": 1}), Plain({"b": 2}))
    client.open(upstream_request(upstream.url), UpstreamCall()).read(100)
    lost = [TimeoutError(errno.ETIMEDOUT, "Connection timed out")]

    def receive(*arguments: Any) -> ResponseParser:
        if lost:
            raise lost.pop()
        return receive_headers(*arguments)

    receive_headers = client_module._receive_headers
    monkeypatch.setattr(client_module, "_receive_headers", receive)
    assert client.open(upstream_request(upstream.url), UpstreamCall()).read(100) == b'{"b":2}'


def test_the_kernel_looks_after_connections_on_which_nothing_is_said(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.on("/x", Stream([b"one"], ending="hang"))
    call = UpstreamCall()
    response = client.open(upstream_request(upstream.url), call)
    assert response._lease.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    response.close()


def test_a_late_abort_of_a_finished_call_does_not_touch_the_next_one(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.on("/x", Plain({}), Stream([b"one", b"two"], gap=0.1))
    first = UpstreamCall()
    client.open(upstream_request(upstream.url), first).read(100)
    second = client.open(upstream_request(upstream.url), UpstreamCall())
    first.abort(ClientGone())
    assert b"".join(second.chunks()) == b"onetwo"


def test_an_answer_closed_early_closes_its_connection(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on("/x", Stream([b"one"], ending="hang"))
    response = client.open(upstream_request(upstream.url), UpstreamCall())
    assert next(response.chunks()) == b"one"
    response.close()
    assert upstream.wait_for("/x").gone.wait(5)


def test_an_answer_over_the_limit_is_refused(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on("/x", Plain(raw=b"x" * 101))
    with pytest.raises(UpstreamFailed, match="longer than 100 bytes"):
        client.open(upstream_request(upstream.url), UpstreamCall()).read(100)


def test_a_truncated_body_is_broken(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on("/x", Stream([b"one"], ending="truncate"))
    response = client.open(upstream_request(upstream.url), UpstreamCall())
    with pytest.raises(UpstreamBroken):
        b"".join(response.chunks())


def test_portions_come_as_they_are_sent(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on("/x", Stream([b"one", b"two", b"three"], gap=0.05))
    response = client.open(upstream_request(upstream.url), UpstreamCall())
    assert list(response.chunks()) == [b"one", b"two", b"three"]


def test_no_key_is_shown_by_a_call_s_repr() -> None:
    secret = UpstreamRequest(
        Source("xai", "m"), "GET", "http://x", Timeouts(1, 1, 1), headers={"Authorization": "Bearer s3cret"}
    )
    assert "s3cret" not in repr(secret)


def test_every_error_names_backend_and_model(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on("/x", Slam())
    with pytest.raises(UpstreamError) as caught:
        client.open(upstream_request(upstream.url), UpstreamCall())
    assert caught.value.source == Source("primary", "m")


def test_what_has_arrived_is_read_without_waiting(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on("/x", Stream([b"one", b"two"]))
    response = client.open(upstream_request(upstream.url), UpstreamCall())
    arrived = response.read_portion()
    while not response.complete:
        arrived += response.read_arrived() or b""
    assert arrived == b"onetwo"
    assert response.read_arrived() is None
    response.close()


def test_where_nothing_has_arrived_nothing_is_waited_for(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on("/x", Stream([b"one"], ending="hang"))
    response = client.open(upstream_request(upstream.url), UpstreamCall())
    assert response.read_portion() == b"one"
    assert response.read_arrived() is None
    response.close()


def test_a_body_that_has_broken_off_is_told_by_reading_what_has_arrived(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.on("/x", Stream([b"some"], ending="reset"))
    response = client.open(upstream_request(upstream.url), UpstreamCall())
    assert response.read_portion() == b"some"

    def read_on() -> None:
        while True:
            response.read_arrived()

    with pytest.raises(UpstreamBroken):
        read_on()
