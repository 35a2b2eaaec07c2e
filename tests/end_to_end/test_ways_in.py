"""Ways in that people get wrong, and pages of other origins."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path

import openai
import orjson
import pytest

from tests.fakes.personas import CHAT, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, fake_upstream

KEY = {"Authorization": "Bearer key-one"}
PAGE = "https://chat.example:3000"


@pytest.fixture(scope="module")
def primary() -> Iterator[FakeUpstream]:
    with fake_upstream() as fake:
        fake.on(CHAT, says("hi"))
        yield fake


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, primary: FakeUpstream) -> Iterator[RunningRouter]:
    settings = {"AI_ROUTER_API_KEYS": "key-one", "CORS_ORIGINS": PAGE, "PRIMARY_URL": primary.url}
    with running_router(tmp_path_factory.mktemp("ways"), **settings) as router:
        yield router


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory, primary: FakeUpstream) -> Iterator[RunningRouter]:
    settings = {"CORS_ORIGINS": PAGE, "PRIMARY_URL": primary.url}
    with running_router(tmp_path_factory.mktemp("keyless"), **settings) as router:
        yield router


def asks(
    router: RunningRouter, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    connection = router.connection()
    try:
        connection.request(method, path, body or None, dict(headers))
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


CHAT_BODY = orjson.dumps({"messages": [{"role": "user", "content": "hi"}]})


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/v1/v1/chat/completions",
        "/v1/chat/completions/",
        "/openai/deployments/auto/chat/completions?api-version=2025-01-01",
    ],
)
def test_a_chat_is_answered_where_the_path_is_nearly_right(locked: RunningRouter, path: str) -> None:
    status, _, body = asks(locked, "POST", path, KEY, CHAT_BODY)
    assert status == 200
    assert orjson.loads(body)["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/v1/chat/completions/", "/models", "/openai/v1/models"])
def test_each_of_them_wants_the_key(locked: RunningRouter, path: str) -> None:
    method = "GET" if path.endswith("models") else "POST"
    assert asks(locked, method, path, {}, CHAT_BODY if method == "POST" else b"")[0] == 401


def test_azures_client_works(locked: RunningRouter) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=locked.url, api_key="key-one", api_version="2025-01-01", max_retries=0
    ) as client:
        answer = client.chat.completions.create(model="primary", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "hi"


def test_a_gzip_body_is_read(locked: RunningRouter) -> None:
    headers = {**KEY, "Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert asks(locked, "POST", "/v1/chat/completions", headers, gzip.compress(CHAT_BODY))[0] == 200
    status, _, body = asks(locked, "POST", "/v1/chat/completions", {**headers, "Content-Encoding": "br"}, b"x")
    assert (status, orjson.loads(body)["error"]["code"]) == (415, "unsupported_content_encoding")


def test_a_path_that_leads_nowhere_is_named_logged_and_counted(locked: RunningRouter) -> None:
    status, _, body = asks(locked, "POST", "/v1/chat/completion", KEY, CHAT_BODY)
    error = orjson.loads(body)["error"]
    assert (status, error["code"]) == (404, "not_found")
    assert "there is no POST /v1/chat/completion here; did you mean POST /v1/chat/completions?" in error["message"]
    locked.wait_for_log(r"No such path: there is no POST /v1/chat/completion here.*")
    counted = asks(locked, "GET", "/metrics", KEY)[2].decode()
    assert 'code="not_found"' in counted


def test_a_key_in_a_path_is_neither_logged_nor_said(locked: RunningRouter) -> None:
    status, _, body = asks(locked, "GET", "/v1/key-one/x", KEY)
    assert status == 404
    assert b"key-one" not in body
    locked.wait_for_log(r"No such path: there is no GET /v1/\[key\].*|No such path: there is no GET /v1/\*+.*")
    assert not any("key-one" in line for line in locked.log())


def test_head_and_options_are_answered(locked: RunningRouter) -> None:
    status, headers, body = asks(locked, "HEAD", "/v1/models", KEY)
    assert (status, body) == (200, b"")
    status, headers, body = asks(locked, "OPTIONS", "/v1/chat/completions", {})
    assert (status, body) == (204, b"")
    assert "POST" in headers["allow"]
    status, headers, body = asks(locked, "HEAD", "/v1/chat/completions", KEY)
    assert status == 405
    assert "POST" in headers["allow"]


PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    "Access-Control-Request-Private-Network": "true",
}


def test_a_preflight_of_a_page_that_is_named_is_answered_without_a_key(locked: RunningRouter) -> None:
    status, headers, _ = asks(locked, "OPTIONS", "/v1/chat/completions", PREFLIGHT)
    assert status == 204
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-headers"] == PREFLIGHT["Access-Control-Request-Headers"]
    assert "POST" in headers["access-control-allow-methods"]
    assert headers["access-control-allow-private-network"] == "true"
    assert headers["vary"] == "Origin"


def test_answers_and_errors_may_be_read_by_that_page(locked: RunningRouter) -> None:
    for sent, status_due in ((KEY, 200), ({}, 401)):
        status, headers, _ = asks(locked, "POST", "/v1/chat/completions", {**sent, "Origin": PAGE}, CHAT_BODY)
        assert status == status_due
        assert headers["access-control-allow-origin"] == PAGE
        exposed = headers["access-control-expose-headers"]
        assert all(name in exposed for name in ("x-request-id", "x-router-reason", "server-timing", "retry-after"))


def test_another_page_gets_no_permission(locked: RunningRouter) -> None:
    for method in ("OPTIONS", "POST"):
        sent = {**PREFLIGHT, **KEY, "Origin": "https://evil.example"}
        _, headers, _ = asks(locked, method, "/v1/chat/completions", sent, CHAT_BODY if method == "POST" else b"")
        assert "access-control-allow-origin" not in headers


def test_without_keys_the_page_that_is_named_gets_in_and_no_other(keyless: RunningRouter) -> None:
    sent = {"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}
    for origin, status_due in ((PAGE, 200), ("https://evil.example", 403), ("null", 403)):
        status, _, _ = asks(keyless, "POST", "/v1/chat/completions", {**sent, "Origin": origin}, CHAT_BODY)
        assert status == status_due


def test_every_page_together_with_no_key_refuses_to_start(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="CORS_ORIGINS"),
        running_router(tmp_path, PRIMARY_URL="http://127.0.0.1:9", CORS_ORIGINS="*"),
    ):
        pass
