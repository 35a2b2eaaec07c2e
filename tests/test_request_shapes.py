"""What goes over the wire to each backend: URL, headers and body, and nothing else.

``responses`` stands in for the network here; it replaces HTTPAdapter.send, so time and sockets are tested elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import responses

from ai_router.execution.enrichment import fetch_enrichment_context
from ai_router.execution.forward import Forwarder
from ai_router.providers.backend import Candidate
from ai_router.providers.registry import Registry, build_registry
from ai_router.resilience.breaker import BreakerRules
from ai_router.resilience.gates import Gates
from ai_router.routing.classifier import Classifier, ClassifierSettings
from ai_router.settings import ClassifierMode, MaxTokensPolicy, load_settings
from ai_router.upstream.client import UpstreamClient
from ai_router.upstream.leg import Leg
from tests.chat_requests import chat_request
from tests.fakes.personas import completion, finds

SETTINGS = {
    "ROUTER_URL": "http://classifier:8000/v1",
    "PRIMARY_URL": "http://primary:8000",
    "XAI_API_KEY": "xai-key",
}


@pytest.fixture
def registry() -> Registry:
    return build_registry(load_settings(SETTINGS, dotenv=None))


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


def sent(wire: responses.RequestsMock) -> tuple[str, dict[str, str], dict[str, Any]]:
    (call,) = wire.calls
    return str(call.request.url), dict(call.request.headers), orjson.loads(call.request.body)


def ask(client: UpstreamClient, registry: Registry, backend: str, **changes: Any) -> None:
    forwarder = Forwarder(client, registry, primary_max_tokens=MaxTokensPolicy("strip"), request_timeout_s=60)
    chosen = registry.primary if backend == "primary" else registry.xai
    assert chosen is not None
    request = chat_request(**changes)
    candidate = Candidate(chosen, chosen.model)
    place = Gates(8, 8, BreakerRules()).enter([candidate.gate])
    assert place is not None
    forwarder.forward_request(request, candidate, request.messages_json, Leg(), place)


def test_the_primary(client: UpstreamClient, registry: Registry, wire: responses.RequestsMock) -> None:
    wire.post("http://primary:8000/v1/chat/completions", json=completion("hi"))
    ask(client, registry, "primary", params={"max_tokens": 5, "seed": 1})
    _, headers, body = sent(wire)
    assert headers == {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "ai-router",
        "X-Request-Id": "req_1",
        "Content-Length": headers["Content-Length"],
    }
    assert body == {
        "model": "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8",
        "seed": 1,
        "messages": [{"role": "user", "content": "hello"}],
    }


def test_xai_gets_its_key_and_the_client_s_limit(
    client: UpstreamClient, registry: Registry, wire: responses.RequestsMock
) -> None:
    wire.post("https://api.x.ai/v1/chat/completions", json=completion("hi"))
    ask(client, registry, "xai", params={"max_tokens": 5})
    _, headers, body = sent(wire)
    assert headers["Authorization"] == "Bearer xai-key"
    assert (body["model"], body["max_tokens"]) == ("grok-4.7", 5)


def test_the_search(client: UpstreamClient, registry: Registry, wire: responses.RequestsMock) -> None:
    wire.post("https://api.x.ai/v1/responses", json=finds("It rains.").payload)
    found = fetch_enrichment_context(
        client, registry.searchers[0], chat_request("rain?"), Leg(), timeout_s=5, connect_s=1
    )
    _, headers, body = sent(wire)
    assert found.text.startswith("It rains.")
    assert headers["Authorization"] == "Bearer xai-key"
    assert (body["model"], body["tools"], body["store"]) == ("grok-4.3", [{"type": "web_search"}], False)
    assert "search_parameters" not in body


def classifier(client: UpstreamClient, registry: Registry, mode: ClassifierMode) -> Classifier:
    assert registry.classifier is not None
    made = Classifier(
        client, registry.classifier, ClassifierSettings(mode, timeout_s=5, connect_s=1, context_chars=500)
    )
    made.stop_waiting()
    return made


def test_the_constrained_classifier(client: UpstreamClient, registry: Registry, wire: responses.RequestsMock) -> None:
    wire.post("http://classifier:8000/v1/chat/completions", json=completion("COM", finish_reason="length"))
    verdict = classifier(client, registry, ClassifierMode.CONSTRAINED).classify(chat_request(), Leg)
    _, headers, body = sent(wire)
    assert verdict.label == "COMPLEX"
    assert "Authorization" not in headers
    assert body["structured_outputs"] == {"choice": ["MODERATE", "COMPLEX", "ENRICH"]}
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["max_tokens"], body["temperature"], body["logprobs"]) == (1, 0, True)
    assert "guided_choice" not in body, "vLLM ignores it since structured_outputs, with a 200"


def test_the_reasoning_classifier(client: UpstreamClient, registry: Registry, wire: responses.RequestsMock) -> None:
    stream = b'data: {"choices": [{"delta": {"content": "ENRICH"}}]}\n\n'
    wire.post("http://classifier:8000/v1/chat/completions", body=stream, content_type="text/event-stream")
    verdict = classifier(client, registry, ClassifierMode.REASONING).classify(chat_request(), Leg)
    _, _, body = sent(wire)
    assert verdict.label == "ENRICH"
    assert body["stream"] is True
    assert not {"structured_outputs", "chat_template_kwargs"} & set(body), "it is to think"
