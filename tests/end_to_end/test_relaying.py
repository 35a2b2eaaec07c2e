"""Streams that have begun are carried by one thread, whatever their backends and clients are like."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import trustme

from tests.end_to_end.conftest import Connect, Lab
from tests.end_to_end.test_cancel import cancel
from tests.fakes.personas import CHAT, DONE, anew, chunk, says
from tests.fakes.process import worker_of
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Plain, Stream, fake_upstream

BIG = "x" * 100_000
"""More than one read, and more than a TLS record."""


def text_of(stream: bytes) -> str:
    events = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: {")]
    return "".join(orjson.loads(event)["choices"][0]["delta"].get("content", "") for event in events)


def threads_of(router: RunningRouter) -> int:
    return len(list(Path(f"/proc/{worker_of(router)}/task").iterdir()))


def test_streams_that_have_begun_take_no_threads(tmp_path: Path, upstream: FakeUpstream, raw: Connect) -> None:
    with running_router(tmp_path, PRIMARY_URL=upstream.url, THREADS="72") as router:
        upstream.on(CHAT, says("warm"))
        router.chat(stream=True)
        before = threads_of(router)
        upstream.on(CHAT, Stream([chunk({"content": "begun"})], ending="hang"))
        for number in range(40):
            client = raw(router.port)
            client.send_chat(stream=True)
            client.read_until(b"begun")
            assert router.get("/health/live")[0] == 200, number
        assert threads_of(router) - before < 20


def test_a_held_stream_is_handed_over_once_it_has_begun(lab: Lab, raw: Connect) -> None:
    """A search takes longer than the patience before headers: comments first, on a thread, then the answer."""
    lab.xai.on("/v1/responses", Plain({}, status=500, delay=0.8))
    lab.primary.on(CHAT, Stream([chunk({"content": part}) for part in ("one", "two")], gap=0.3, ending="hang"))
    client = raw(lab.router.port)
    client.send_chat(text=anew(), stream=True, model="enrich")
    body = client.read_until(b"two")
    assert b": searching the web" in body.partition(b"one")[0], body
    assert eventually(lambda: client.socket.recv(65536).endswith(b": keep-alive\n\n\r\n")), (
        "the silence is broken there, too"
    )


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUpstream]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with fake_upstream(context) as fake:
        yield fake


def test_a_backend_behind_tls(tmp_path: Path, secure: FakeUpstream) -> None:
    secure.on(CHAT, says("a", BIG, "b", BIG, "c", gap=0.02))
    ca = str(tmp_path / "ca.pem")
    with running_router(tmp_path, PRIMARY_URL=secure.url, REQUESTS_CA_BUNDLE=ca) as router:
        for _ in range(2):
            assert text_of(router.chat(stream=True)[2]) == f"a{BIG}b{BIG}c"
    assert {request.connection for request in secure.calls(CHAT)} == {1}, "the connection is used again"


def test_a_client_that_pauses_loses_nothing(lab: Lab, raw: Connect) -> None:
    lab.primary.on(CHAT, says(*[BIG] * 100))
    slow = raw(lab.router.port)
    slow.send_chat(stream=True, model="primary")
    slow.read_until(b"data: ")
    assert lab.router.chat(stream=True, model="primary")[0] == 200, "another's stream goes on meanwhile"
    assert slow.read_until(b"[DONE]").count(b"x") >= 100 * len(BIG)


def test_many_streams_one_after_another_on_one_connection(lab: Lab, raw: Connect) -> None:
    lab.primary.on(CHAT, says("a", "b"))
    client = raw(lab.router.port)
    for number in range(30):
        client.received = b""
        client.send_chat(stream=True, model="primary", headers=f"X-Request-Id: r{number}\r\n")
        answer = client.read_until(b"[DONE]\n\n\r\n0\r\n\r\n")
        assert f"x-request-id: r{number}".encode() in answer
        assert text_of(answer.replace(b"\r\n", b"\n")) == "ab"


def test_old_clients_get_streams_without_frames(lab: Lab, raw: Connect) -> None:
    client = raw(lab.router.port)
    body = orjson.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True, "model": "primary"})
    client.send(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    answer = client.read_to_end()
    assert b"chunked" not in answer.lower().split(b"\r\n\r\n")[0]
    assert answer.endswith(b"data: [DONE]\n\n")


def test_nothing_is_lost_when_the_reason_changes_while_a_stream_is_held(lab: Lab, raw: Connect) -> None:
    """The comment that says so comes between the waiting and the answer."""
    lab.xai.on("/v1/responses", Plain({}, status=400, delay=0.8))
    lab.primary.on(CHAT, Stream([chunk({"content": word}) for word in "abc"] + [chunk({}, "stop"), DONE], gap=0.05))
    client = raw(lab.router.port)
    client.send_chat(text=anew(), stream=True, model="enrich")
    body = client.read_until(b"[DONE]")
    assert b"the web context is missing" in body
    assert text_of(body.replace(b"\r\n", b"\n")) == "abc"


def test_a_stream_that_is_cancelled_while_its_client_takes_nothing_was_cancelled(lab: Lab, raw: Connect) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": BIG})] * 200, ending="hang"))
    client = raw(lab.router.port)
    client.send_chat(stream=True, model="primary", headers="X-Request-Id: stuck\r\n")
    client.read_until(b"data: ")
    time.sleep(0.3)  # until nothing is taken any more
    assert cancel(lab.router, "stuck")[0] == 200
    client.leave()
    lab.router.wait_for_log(r"Request cancelled: session=\w+ the request was cancelled")


@pytest.mark.parametrize("path", ["//v1/chat/completions", "/v1/chat/completions"])
def test_a_base_url_that_ends_in_a_slash_will_do(lab: Lab, raw: Connect, path: str) -> None:
    client = raw(lab.router.port)
    body = orjson.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True, "model": "primary"})
    client.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    assert text_of(client.read_until(b"[DONE]").replace(b"\r\n", b"\n")) == "from the primary"


def test_other_methods_are_told_which_one_it_takes(lab: Lab, raw: Connect) -> None:
    client = raw(lab.router.port)
    client.send(b"GET /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert client.read_to_end().startswith(b"HTTP/1.1 405 ")
