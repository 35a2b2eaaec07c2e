"""What goes over the wire to each backend: path, headers and body, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from ai_router.apis import Additions
from ai_router.config import ClassifierMode, MaxTokensPolicy
from ai_router.config_loading import load_settings
from ai_router.dispatch.forward import Forwarder
from ai_router.dispatch.thinking import PrimaryThinking
from ai_router.dispatch.web_search import fetch_enrichment_context
from ai_router.http.calls import UpstreamCall
from ai_router.http.client import UpstreamClient
from ai_router.providers.building import build_registry
from ai_router.providers.registry import Candidate, Registry
from ai_router.resilience.breaker import BreakerRules
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.routing.classifier import Classifier, ClassifierSettings
from tests.chat_requests import chat_request
from tests.fakes.personas import completion, finds
from tests.fakes.upstream import FakeUpstream, Plain, Stream

CHAT = "/v1/chat/completions"


@pytest.fixture
def registry(upstream: FakeUpstream) -> Registry:
    """Everybody at one address."""
    settings = {
        "ROUTER_URL": f"{upstream.url}/v1",
        "PRIMARY_URL": upstream.url,
        "XAI_API_URL": upstream.url,
        "XAI_API_KEY": "xai-key",
    }
    return build_registry(load_settings(settings, dotenv=None))


def sent(upstream: FakeUpstream) -> tuple[dict[str, str], dict[str, Any]]:
    (request,) = upstream.requests
    return dict(request.headers), request.body


def ask(client: UpstreamClient, registry: Registry, backend: str, **changes: Any) -> None:
    forwarder = Forwarder(
        client, registry, primary_max_tokens=MaxTokensPolicy("strip"), thinking=PrimaryThinking(), request_timeout_s=60
    )
    chosen = registry.primary if backend == "primary" else registry.xai
    assert chosen is not None
    request = chat_request(**changes)
    candidate = Candidate(chosen, chosen.model)
    permit = ConcurrencyLimiter(8, 8, BreakerRules()).acquire([candidate.limiter_key])
    assert permit is not None
    forwarder.forward_request(request, candidate, Additions(), UpstreamCall(), permit)


def test_the_primary(client: UpstreamClient, registry: Registry, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Plain(completion("hi")))
    ask(client, registry, "primary", params={"max_tokens": 5, "seed": 1})
    headers, body = sent(upstream)
    assert headers == {
        "host": upstream.url.removeprefix("http://"),
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": "ai-router",
        "x-request-id": "req_1",
        "content-length": headers["content-length"],
    }
    assert body == {
        "model": "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8",
        "seed": 1,
        "messages": [{"role": "user", "content": "hello"}],
    }


def test_xai_gets_its_key_and_the_client_s_limit(
    client: UpstreamClient, registry: Registry, upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, Plain(completion("hi")))
    ask(client, registry, "xai", params={"max_tokens": 5})
    headers, body = sent(upstream)
    assert headers["authorization"] == "Bearer xai-key"
    assert (body["model"], body["max_tokens"]) == ("grok-4.7", 5)


def test_the_search(client: UpstreamClient, registry: Registry, upstream: FakeUpstream) -> None:
    upstream.on("/v1/responses", finds("It rains."))
    found = fetch_enrichment_context(
        client, registry.searchers[0], chat_request("rain?"), UpstreamCall(), timeout_s=5, connect_s=1
    )
    headers, body = sent(upstream)
    assert found.text.startswith("It rains.")
    assert headers["authorization"] == "Bearer xai-key"
    assert (body["model"], body["tools"], body["store"]) == ("grok-4.3", [{"type": "web_search"}], False)
    assert "search_parameters" not in body


def classifier(client: UpstreamClient, registry: Registry, mode: ClassifierMode) -> Classifier:
    assert registry.classifier is not None
    made = Classifier(
        client, registry.classifier, ClassifierSettings(mode, timeout_s=5, connect_s=1, context_chars=500)
    )
    made.assume_mode()
    return made


def test_the_constrained_classifier(client: UpstreamClient, registry: Registry, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Plain(completion("COM", finish_reason="length")))
    verdict = classifier(client, registry, ClassifierMode.CONSTRAINED).classify(chat_request(), UpstreamCall)
    headers, body = sent(upstream)
    assert verdict.label == "COMPLEX"
    assert "authorization" not in headers
    assert body["structured_outputs"] == {"choice": ["MODERATE", "COMPLEX", "ENRICH"]}
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["max_tokens"], body["temperature"], body["logprobs"]) == (1, 0, True)
    assert "guided_choice" not in body, "vLLM ignores it since structured_outputs, with a 200"


def test_the_reasoning_classifier(client: UpstreamClient, registry: Registry, upstream: FakeUpstream) -> None:
    stream = b'data: {"choices": [{"delta": {"content": "ENRICH"}}]}\n\n'
    upstream.on(CHAT, Stream([stream]))
    verdict = classifier(client, registry, ClassifierMode.REASONING).classify(chat_request(), UpstreamCall)
    _, body = sent(upstream)
    assert verdict.label == "ENRICH"
    assert body["stream"] is True
    assert not {"structured_outputs", "chat_template_kwargs"} & set(body), "it is to think"
