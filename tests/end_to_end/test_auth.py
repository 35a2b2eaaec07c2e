"""AI_ROUTER_API_KEYS, and the refusal to listen to the world without."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import openai
import orjson
import pytest

from tests.fakes.personas import CHAT, says
from tests.fakes.router import COMMAND, RunningRouter, clean_environment, running_router
from tests.fakes.upstream import FakeUpstream, fake_upstream


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    with fake_upstream() as primary:
        primary.on(CHAT, says("hi"))
        keys = {"AI_ROUTER_API_KEYS": "key-one, key-two"}
        with running_router(tmp_path_factory.mktemp("locked"), PRIMARY_URL=primary.url, **keys) as router:
            yield router


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer key-one"},
        {"Authorization": "bearer key-two"},
        {"x-api-key": "key-two"},
        {"x-api-key": "key-two", "Authorization": "Bearer what-an-sdk-sends-anyway"},
    ],
)
def test_either_header_with_any_key_opens(locked: RunningRouter, headers: Mapping[str, str]) -> None:
    assert locked.chat(headers=headers)[0] == 200
    assert locked.get("/v1/models", headers)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer key-one, key-two"},
        {"Authorization": "Basic key-one"},
        {"Authorization": "Bearer"},
        {"x-api-key": ""},
        {"x-api-key": "key-on"},
    ],
)
def test_anything_else_is_401_in_the_envelope(locked: RunningRouter, headers: Mapping[str, str]) -> None:
    for status, _, body in (locked.chat(headers=headers), locked.get("/v1/models", headers), locked.get("/x", headers)):
        assert (status, orjson.loads(body)["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_needs_no_key(locked: RunningRouter, path: str) -> None:
    assert locked.get(path)[0] == 200


def test_the_sdk_raises_its_own_error(locked: RunningRouter) -> None:
    with (
        openai.OpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def serve(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(PRIMARY_URL="http://127.0.0.1:9", **settings)
    return subprocess.run(
        [COMMAND, "serve"], cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_another_host_than_loopback_without_keys_refuses_to_start(tmp_path: Path) -> None:
    ended = serve(tmp_path, HOST="0.0.0.0")
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "ai-router: HOST 0.0.0.0 is reachable from outside this machine: set AI_ROUTER_API_KEYS"
    )


def test_a_bad_setting_stops_the_start_with_one_line_naming_it(tmp_path: Path) -> None:
    ended = serve(tmp_path, PORT="eighty")
    assert (ended.returncode, ended.stderr) == (2, "ai-router: PORT must be a whole number, not 'eighty'\n")


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningRouter, FakeUpstream]]:
    with fake_upstream() as primary:
        primary.on(CHAT, says("hi"))
        folder = tmp_path_factory.mktemp("keyless")
        with running_router(folder, PRIMARY_URL=primary.url, ALLOWED_HOSTS="router.lan") as router:
            yield router, primary


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json"])
def test_without_keys_no_web_page_of_another_origin_is_answered(
    keyless: tuple[RunningRouter, FakeUpstream], content_type: str
) -> None:
    router, primary = keyless
    before = len(primary.calls(CHAT))
    sent = {"Content-Type": content_type, "origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    status, headers, body = router.chat(headers=sent)
    assert (status, orjson.loads(body)["error"]["code"]) == (403, "origin_not_allowed")
    assert not [name for name in headers if name.startswith("access-control")]
    assert len(primary.calls(CHAT)) == before


def test_without_keys_a_name_that_leads_here_reads_nothing(keyless: tuple[RunningRouter, FakeUpstream]) -> None:
    router, _ = keyless
    for path in ("/api/sessions", "/v1/models", "/metrics", "/nothing"):
        status, _, body = router.get(path, {"host": "evil.example"})
        assert (status, orjson.loads(body)["error"]["code"]) == (403, "host_not_allowed")
        assert "ALLOWED_HOSTS" in orjson.loads(body)["error"]["message"]
    assert router.get("/api/sessions", {"host": "router.lan:8080"})[0] == 200
    assert router.get("/health/live", {"host": "evil.example"})[0] == 200


def test_without_keys_curl_needs_no_content_type(keyless: tuple[RunningRouter, FakeUpstream]) -> None:
    router, _ = keyless
    assert router.chat(headers={"Content-Type": "application/x-www-form-urlencoded"})[0] == 200


def test_with_keys_a_page_that_shows_one_may_ask(locked: RunningRouter) -> None:
    sent = {"Authorization": "Bearer key-one", "origin": "https://chat.example", "sec-fetch-site": "cross-site"}
    assert locked.chat(headers={**sent, "host": "router.example"})[0] == 200


def test_empty_parts_of_a_path_are_none_and_no_way_around_a_key(locked: RunningRouter) -> None:
    assert locked.get("//v1///models")[0] == 401
    status, headers, _ = locked.get("/v1//models", {"x-api-key": "key-one"})
    assert (status, headers["content-type"]) == (200, "application/json")
    assert locked.get("//health//live")[0] == 200
