"""Plain requests to backends: how long, how much, what went wrong in which words, and who goes through a proxy."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import responses

from ai_router.errors import (
    Source,
    UpstreamBroken,
    UpstreamError,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ai_router.http.calls import Timeouts, UpstreamCall, UpstreamRequest
from ai_router.http.client import UpstreamClient
from ai_router.http.session import BackendSession, is_loopback
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Slam, Stream, fake_upstream

TOTAL_S = 0.4


def asking(url: str, path: str = "/x", **headers: str) -> UpstreamRequest:
    limits = Timeouts(connect=TOTAL_S, total=TOTAL_S, idle=TOTAL_S)
    return UpstreamRequest(Source("primary", "m"), "GET", url + path, limits, headers=headers)


@contextlib.contextmanager
def dripping(at_once: bytes, drop: bytes) -> Iterator[str]:
    """A server that sends ``at_once`` and then a drop every 50 ms, without an end. Its address."""
    stop = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection = listener.accept()[0]
            with connection:
                connection.recv(65536)
                connection.sendall(at_once)
                while not stop.wait(0.05):
                    connection.sendall(drop)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stop.set()
    server.join()


@pytest.mark.parametrize(
    ("at_once", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nServer: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X-Drop: 1\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFF\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    ],
    ids=["one header", "headers", "a body of a length", "chunks", "one chunk", "a body to the end of the connection"],
)
def test_an_answer_that_drips_ends_at_the_total(backend_session: BackendSession, at_once: bytes, drop: bytes) -> None:
    with dripping(at_once, drop) as url:
        started = time.monotonic()
        with pytest.raises(UpstreamTimeout, match=r"no complete answer within 0\.4 s"):
            backend_session.fetch(asking(url), 1000)
        assert TOTAL_S <= time.monotonic() - started < 2 * TOTAL_S


def test_a_backend_that_says_nothing_ends_at_the_total(backend_session: BackendSession, upstream: FakeUpstream) -> None:
    upstream.on("/x", Hang())
    with pytest.raises(UpstreamTimeout, match=r"primary \(m\): no complete answer within 0\.4 s"):
        backend_session.fetch(asking(upstream.url), 1000)
    assert upstream.wait_for("/x").gone.wait(5)


def test_the_next_answer_on_a_kept_connection_has_a_total_of_its_own(
    backend_session: BackendSession, upstream: FakeUpstream
) -> None:
    upstream.on("/x", Plain({"a": 1}, delay=0.25))
    for _ in range(2):
        assert backend_session.fetch(asking(upstream.url), 1000).body == b'{"a":1}'
    assert [request.connection for request in upstream.requests] == [1, 1]


def test_a_refused_connection_is_unreachable(backend_session: BackendSession) -> None:
    with fake_upstream() as gone:
        url = gone.url
    with pytest.raises(UpstreamUnreachable, match=r"primary \(m\): connection refused$"):
        backend_session.fetch(asking(url), 1000)


def test_an_unknown_host_is_unreachable(backend_session: BackendSession) -> None:
    with pytest.raises(UpstreamUnreachable, match=r"no such host$"):
        backend_session.fetch(asking("http://no-such-host.invalid"), 1000)


def test_tls_to_a_plain_port_is_unreachable_and_named(backend_session: BackendSession, upstream: FakeUpstream) -> None:
    with pytest.raises(UpstreamUnreachable, match="TLS failed"):
        backend_session.fetch(asking(upstream.url.replace("http:", "https:")), 1000)


@responses.activate
def test_a_connect_that_takes_too_long_is_named(backend_session: BackendSession) -> None:
    responses.get("http://gpu/x", body=requests.ConnectTimeout(TimeoutError()))
    with pytest.raises(UpstreamTimeout, match=r"no connection within 0\.4 s$"):
        backend_session.fetch(asking("http://gpu"), 1000)


def test_a_reset_before_the_headers_is_broken_and_not_asked_again(
    backend_session: BackendSession, upstream: FakeUpstream
) -> None:
    upstream.on("/x", Slam())
    with pytest.raises(UpstreamBroken, match="the connection was closed without an answer"):
        backend_session.fetch(asking(upstream.url), 1000)
    assert len(upstream.calls("/x")) == 1


def test_an_answer_that_is_not_http_is_broken(backend_session: BackendSession) -> None:
    with (
        dripping(b"SSH-2.0-OpenSSH_9.2\r\n", b"x") as url,
        pytest.raises(UpstreamBroken, match=r"the answer is not HTTP/1\.1"),
    ):
        backend_session.fetch(asking(url), 1000)


def test_a_truncated_body_is_broken(backend_session: BackendSession, upstream: FakeUpstream) -> None:
    upstream.on("/x", Stream([b"one"], ending="truncate"))
    with pytest.raises(UpstreamBroken, match="broke before the answer was complete"):
        backend_session.fetch(asking(upstream.url), 1000)


@responses.activate
def test_an_answer_over_the_limit_is_refused(backend_session: BackendSession) -> None:
    responses.get("http://gpu/x", body=b"x" * 101)
    assert len(backend_session.fetch(asking("http://gpu"), 101).body) == 101
    with pytest.raises(UpstreamFailed, match="longer than 100 bytes"):
        backend_session.fetch(asking("http://gpu"), 100)


def test_an_answer_that_is_compressed_unasked_counts_by_its_full_length(
    backend_session: BackendSession, upstream: FakeUpstream
) -> None:
    upstream.on("/x", Plain(raw=gzip.compress(b"x" * 5000), headers={"Content-Encoding": "gzip"}))
    assert backend_session.fetch(asking(upstream.url), 5000).body == b"x" * 5000
    with pytest.raises(UpstreamFailed, match="longer than 4999 bytes"):
        backend_session.fetch(asking(upstream.url), 4999)


@responses.activate
def test_a_redirect_is_an_answer_and_is_not_followed(backend_session: BackendSession) -> None:
    responses.get("http://gpu/x", status=302, headers={"Location": "http://elsewhere/x"})
    assert backend_session.fetch(asking("http://gpu"), 1000).status == 302
    assert len(responses.calls) == 1


def test_nothing_is_sent_but_the_call_s_own_headers(
    backend_session: BackendSession, upstream: FakeUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    upstream.on("/x", Plain({}, headers={"Set-Cookie": "a=1"}))
    mine = {"Authorization": "Bearer k", "User-Agent": "ai-router", "Accept-Encoding": "identity"}
    for _ in range(2):
        backend_session.fetch(asking(upstream.url, **mine), 1000)
    sent = dict(upstream.requests[1].headers)
    assert sent.pop("host") == f"127.0.0.1:{upstream.port}"
    assert sent == {"authorization": "Bearer k", "user-agent": "ai-router", "accept-encoding": "identity"}


def test_no_key_is_in_an_error(backend_session: BackendSession) -> None:
    with pytest.raises(UpstreamError) as caught:
        backend_session.fetch(asking("http://gpu", Authorization="Bearer s3cret\n"), 1000)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10:80", True),
        ("[::1]:8080", True),
        ("localhost:8000", True),
        ("LocalHost.", True),
        ("10.0.0.1", False),
        ("[fe80::1]", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_which_hosts_are_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(f"http://{host}/v1/models") is loopback
    assert is_loopback(f"https://{host}") is loopback


Fetch = Callable[[UpstreamRequest], int]


@pytest.fixture(params=["plain requests", "the own transport"])
def status_of(request: pytest.FixtureRequest, backend_session: BackendSession, client: UpstreamClient) -> Fetch:
    if request.param == "plain requests":
        return lambda upstream_request: backend_session.fetch(upstream_request, 1000).status

    def open_and_close(upstream_request: UpstreamRequest) -> int:
        response = client.open(upstream_request, UpstreamCall())
        response.close()
        return response.status

    return open_and_close


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUpstream]:
    """One that the environment names for everything."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with fake_upstream() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        yield proxy


def test_a_proxy_of_the_environment_never_gets_what_is_for_loopback(
    status_of: Fetch, proxy: FakeUpstream, upstream: FakeUpstream
) -> None:
    upstream.on("/x", Plain({}))
    assert status_of(asking(upstream.url)) == 200
    assert status_of(asking(f"http://localhost:{upstream.port}")) == 200
    assert proxy.requests == []


def test_a_proxy_of_the_environment_gets_all_else(status_of: Fetch, proxy: FakeUpstream) -> None:
    proxy.on("http://gpu.invalid/x", Plain({}))
    assert status_of(asking("http://gpu.invalid")) == 200
    assert len(proxy.requests) == 1
