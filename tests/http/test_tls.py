"""Backends behind TLS: verified, and aborted as promptly as plain ones."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from ai_router.errors import ClientGone, UpstreamUnreachable
from ai_router.http.calls import UpstreamCall
from ai_router.http.client import UpstreamClient
from ai_router.http.connections import ConnectionPool
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Stream, fake_upstream
from tests.http.test_client import upstream_request


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[FakeUpstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with fake_upstream(context) as fake:
        yield fake


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority in the bundle that requests is told to use."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))


def test_an_unknown_authority_is_refused_and_named(client: UpstreamClient, secure: FakeUpstream) -> None:
    with pytest.raises(UpstreamUnreachable, match="TLS failed: CERTIFICATE_VERIFY_FAILED"):
        client.open(upstream_request(secure.url), UpstreamCall())
    assert not secure.requests


@pytest.mark.usefixtures("trusted")
def test_the_connection_is_kept_alive(client: UpstreamClient, secure: FakeUpstream) -> None:
    secure.on("/x", Plain({"a": 1}))
    for _ in range(2):
        assert client.open(upstream_request(secure.url), UpstreamCall()).read(100) == b'{"a":1}'
    assert [request.connection for request in secure.requests] == [1, 1]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    "script", [Hang(), Stream([b"some"], ending="hang")], ids=["before the headers", "in the body"]
)
def test_an_abort_ends_the_read_and_the_backend_sees_it_in_time(
    client: UpstreamClient, secure: FakeUpstream, script: Hang | Stream
) -> None:
    secure.on("/x", script)
    call, aborted_at = UpstreamCall(), []

    def abort() -> None:
        secure.wait_for("/x")
        aborted_at.append(time.monotonic())
        call.abort(ClientGone())

    aborting = threading.Thread(target=abort)
    aborting.start()
    with pytest.raises(ClientGone):
        client.open(upstream_request(secure.url), call).read(1000)
    aborting.join()
    request = secure.wait_for("/x")
    assert request.gone.wait(5)
    assert request.disconnected_at is not None
    assert request.disconnected_at - aborted_at[0] < 0.3, "the contract's bound"


def test_without_a_word_in_the_environment_certifi_s_authorities_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    resolved = ConnectionPool(1)._resolve("https://api.x.ai/v1/models")
    pool: Any = resolved.pool
    assert pool.ca_certs == requests.certs.where()
    assert pool.cert_reqs == "CERT_REQUIRED"
