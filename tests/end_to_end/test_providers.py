"""Clouds behind the router: their names, their APIs, and a client that notices nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from openai import OpenAI

from tests.fakes.personas import CHAT, classifies, event, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, Plain, Stream, fake_upstream

AGENT = "/v1/agent"


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeUpstream, RunningRouter]]:
    """One fake that plays them all, and a router that knows it by five names."""
    with fake_upstream() as fake:
        names = ("XAI", "OPENAI", "GEMINI", "PERPLEXITY", "OPENROUTER")
        settings = {f"{name}_API_KEY": f"key-of-{name.lower()}" for name in names}
        settings |= {f"{name}_API_URL": fake.url for name in names}
        with running_router(tmp_path_factory.mktemp("clouds"), PRIMARY_URL=fake.url, **settings) as router:
            yield fake, router


@pytest.fixture
def cloud(clouds: tuple[FakeUpstream, RunningRouter]) -> FakeUpstream:
    clouds[0].reset()
    clouds[0].on(CHAT, says("hello"))
    return clouds[0]


@pytest.fixture
def router(clouds: tuple[FakeUpstream, RunningRouter]) -> RunningRouter:
    return clouds[1]


@pytest.mark.parametrize(
    ("model", "provider", "sent"),
    [
        ("openai/gpt-6-luna", "openai", "gpt-6-luna"),
        ("gpt-6.1-sol", "openai", "gpt-6.1-sol"),
        ("gemini-3.8-flash", "gemini", "gemini-3.8-flash"),
        ("openrouter/z-ai/glm-5.3-flash", "openrouter", "z-ai/glm-5.3-flash"),
        ("openrouter/some/model:free", "openrouter", "some/model:free"),
        ("xai/grok-4.3", "xai", "grok-4.3"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_model_s_name_leads_to_its_provider_with_that_provider_s_key(
    cloud: FakeUpstream, router: RunningRouter, model: str, provider: str, sent: str, stream: bool
) -> None:
    status, headers, _ = router.chat(model=model, stream=stream)
    assert (status, headers["x-router-route"], headers["x-router-model"]) == (200, provider, sent)
    assert "x-router-warning" not in headers
    (call,) = cloud.calls(CHAT)
    assert call.body["model"] == sent
    assert call.headers["authorization"] == f"Bearer key-of-{provider}"


@pytest.mark.parametrize(
    ("old", "new"), [("gpt-3.5-turbo", "gpt-6-luna"), ("grok-3", "grok-4.3"), ("gemini-pro", "gemini-3.8-flash")]
)
def test_a_retired_name_is_answered_by_its_successor_with_a_warning(
    cloud: FakeUpstream, router: RunningRouter, old: str, new: str
) -> None:
    status, headers, _ = router.chat(model=old)
    assert (status, headers["x-router-model"]) == (200, new)
    assert f"'{old}' was retired" in headers["x-router-warning"]
    assert cloud.calls(CHAT)[0].body["model"] == new


def test_openai_gets_the_limit_by_the_name_that_it_wants(cloud: FakeUpstream, router: RunningRouter) -> None:
    router.chat(model="gpt-6-luna", max_tokens=5, temperature=0.1)
    body = cloud.calls(CHAT)[0].body
    assert body["max_completion_tokens"] == 5
    assert not {"max_tokens", "temperature"} & set(body)


def agent_response(**more: Any) -> dict[str, Any]:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It rains."}]}
    results = {"type": "search_results", "results": [{"url": "https://weather"}]}
    usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10, "cost": {"total_cost": 0.012}}
    return {"id": "resp_1", "status": "completed", "model": "m", "output": [results, message], "usage": usage, **more}


def test_perplexity_s_agent_api_looks_like_chat_completions(cloud: FakeUpstream, router: RunningRouter) -> None:
    cloud.on(AGENT, Plain(agent_response()))
    status, headers, body = router.chat("rain?", model="perplexity/sonar", max_tokens=50)
    answer = orjson.loads(body)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "It rains.")
    assert answer["citations"] == ["https://weather"]
    sent = cloud.calls(AGENT)[0].body
    assert (sent["model"], sent["max_output_tokens"], sent["tools"]) == (
        "perplexity/sonar",
        50,
        [{"type": "web_search"}],
    )
    assert router.session(headers["x-session-id"])["cost_usd"] == 0.012


def test_a_stream_of_perplexity_s_through_the_official_sdk(cloud: FakeUpstream, router: RunningRouter) -> None:
    events = [
        event({"type": "response.created", "response": {"id": "resp_1", "model": "m"}}),
        event({"type": "response.output_text.delta", "delta": "It "}),
        event({"type": "response.output_text.delta", "delta": "rains."}),
        event({"type": "response.completed", "response": agent_response()}),
    ]
    cloud.on(AGENT, Stream(events, gap=0.01))
    client = OpenAI(base_url=f"{router.url}/v1", api_key="x", max_retries=0)
    stream = client.chat.completions.create(
        model="sonar-pro",
        messages=[{"role": "user", "content": "rain?"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "It rains."
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert cloud.calls(AGENT)[0].body["preset"] == "low"
    client.close()


def test_a_failure_in_a_200_of_perplexity_s_keeps_its_message(cloud: FakeUpstream, router: RunningRouter) -> None:
    failed = {"status": "failed", "error": {"message": "unknown field", "code": 400, "type": "invalid_request"}}
    cloud.on(AGENT, Plain(failed))
    status, _, body = router.chat(model="perplexity/sonar")
    assert (status, orjson.loads(body)["error"]["message"]) == (400, "perplexity (perplexity/sonar): unknown field")


def test_openai_stands_in_for_xai(tmp_path: Path) -> None:
    with fake_upstream() as xai, fake_upstream() as openai, fake_upstream() as primary:
        xai.on(CHAT, Plain({"error": "down"}, status=401))
        openai.on(CHAT, says("from openai"))
        settings = {"XAI_API_URL": xai.url, "OPENAI_API_URL": openai.url, "XAI_API_KEY": "k", "OPENAI_API_KEY": "k"}
        with running_router(tmp_path, PRIMARY_URL=primary.url, **settings) as router:
            status, headers, _ = router.chat(
                "Prove that there are infinitely many primes congruent to 3 modulo 4, in detail."
            )
            assert (status, headers["x-router-route"], headers["x-router-model"]) == (200, "openai", "gpt-6.1-sol")
            assert "xai failed (HTTP 401" in headers["x-router-reason"]


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": "x"}]}]},
    ],
)
def test_what_cannot_be_translated_is_400(cloud: FakeUpstream, router: RunningRouter, fields: dict[str, Any]) -> None:
    body = {"model": "perplexity/sonar", "messages": [{"role": "user", "content": "hi"}], **fields}
    status, _, answer = router.post(orjson.dumps(body))
    assert (status, orjson.loads(answer)["error"]["type"]) == (400, "invalid_request_error")
    assert not cloud.calls(AGENT)


@pytest.mark.parametrize("frame", [{"error": {"code": 429, "message": "busy"}}, {"type": "error", "error": "busy"}])
def test_an_error_instead_of_a_stream_of_perplexity_s_keeps_its_message(
    cloud: FakeUpstream, router: RunningRouter, frame: dict[str, Any]
) -> None:
    cloud.on(AGENT, Stream([event(frame)]), Stream([event({"error": {"code": 400, "message": "no more"}})]))
    _, _, body = router.chat(model="perplexity/sonar", stream=True)
    assert "busy" in orjson.loads(body.strip().split(b"\n\n")[-1].removeprefix(b"data: "))["error"]["message"]


def test_speculation_is_for_the_very_model_that_the_chain_names(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[chains]\nmoderate = ["primary/other"]\n')
    with fake_upstream() as classifier, fake_upstream() as primary:
        classifier.on(CHAT, classifies("MODERATE"))
        primary.on(CHAT, says("hello"))
        settings = {"ROUTER_URL": classifier.url, "PRIMARY_URL": primary.url, "FAST_ROUTING": "off"}
        with running_router(tmp_path, **settings, SPECULATION="always", CATALOGUE_FILE=str(mine)) as router:
            router.wait_for_log(r"Classifier probed: .*")
            headers = router.chat()[1]
            assert (headers["x-router-model"], headers["x-router-speculation"]) == ("other", "cancelled")
            assert primary.calls(CHAT)[-1].body["model"] == "other"
