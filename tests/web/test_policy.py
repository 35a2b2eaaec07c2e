"""Local-only requests where the primary is not local: nothing is sent, and nobody else suffers from it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from ai_router.app import create_app
from ai_router.config_loading import load_settings
from ai_router.http import local_only
from ai_router.runtime import close_app
from tests.fakes.personas import CHAT, says
from tests.fakes.upstream import FakeUpstream

LOCAL_ONLY = {"x-router-policy": "local-only"}
CHAT_BODY = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def far_away(upstream: FakeUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """A router whose primary is taken to be on the internet."""
    monkeypatch.setattr(local_only, "_NETWORKS", (ipaddress.ip_network("10.0.0.0/8"),))
    upstream.on(CHAT, says("hello"))
    environment = {
        "PRIMARY_URL": upstream.url,
        "DATA_DIR": str(tmp_path),
        "BACKEND_CAP": "1",
        "QUEUE_BUDGET_S": "0.1",
        "BREAKER_FAILURES": "2",
        "FAST_ROUTING": "off",
        "TELEMETRY": "off",
    }
    app = create_app(load_settings(environment, dotenv=None))
    yield app
    close_app(app)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_it_is_refused_and_leaves_no_place_taken_and_no_breaker_open(
    far_away: Flask, upstream: FakeUpstream, stream: bool
) -> None:
    client = far_away.test_client()
    for _ in range(5):
        answer = client.post(CHAT, json={**CHAT_BODY, "stream": stream}, headers=LOCAL_ONLY)
        error = answer.get_json()["error"]
        assert (answer.status_code, error["code"]) == (403, "not_local")
        assert error["message"] == "primary is not in the local network, and this request is local-only"
    assert not upstream.calls(CHAT)
    assert client.post(CHAT, json=CHAT_BODY).status_code == 200, "others are served as before"


def test_embeddings_are_refused_as_well(far_away: Flask, upstream: FakeUpstream) -> None:
    answer = far_away.test_client().post("/v1/embeddings", json={"input": "hello"}, headers=LOCAL_ONLY)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (403, "not_local")
    assert not upstream.calls("/v1/embeddings")


def test_a_count_of_tokens_is_an_estimate_then(far_away: Flask, upstream: FakeUpstream) -> None:
    body = {**CHAT_BODY, "model": "auto", "max_tokens": 1}
    answer = far_away.test_client().post("/v1/messages/count_tokens", json=body, headers=LOCAL_ONLY)
    assert answer.status_code == 200
    assert answer.headers["x-router-warning"].startswith("an estimate")
    assert not upstream.calls("/v1/messages/count_tokens")
