"""Hop one: what is asked of the search, and what is made of its answer."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ai_router.config import load_settings
from ai_router.dispatch.web_search import findings, search_body
from ai_router.errors import Source, UpstreamFailed, UpstreamFoundNothing
from ai_router.http.calls import Timeouts, UpstreamRequest
from ai_router.providers.registry import build_registry
from tests.chat_requests import chat_request
from tests.fakes.personas import finds

REGISTRY = build_registry(load_settings({"PRIMARY_URL": "http://gpu", "XAI_API_KEY": "k"}, dotenv=None))
XAI = REGISTRY.searchers[0]
CALL = UpstreamRequest(Source("xai", "grok"), "POST", "http://x", Timeouts(1, 1, 1))


def made_of(payload: Any) -> str:
    return findings(orjson.dumps(payload), CALL).text


def test_the_search_is_a_tool_and_not_search_parameters() -> None:
    body = orjson.loads(search_body(chat_request("weather?", date_context="DATE"), XAI))
    assert body["model"] == "grok-4.3"
    assert body["tools"] == [{"type": "web_search"}]
    assert "search_parameters" not in body
    assert body["input"] == [{"role": "user", "content": "DATE\n\nuser: weather?"}]


def test_the_findings_are_the_text_with_each_source_once() -> None:
    text = made_of(finds("It rains.", urls=["https://a", "https://b"]).payload)
    assert text == "It rains.\n\nSources:\n- https://a\n- https://b"


def test_long_findings_are_cut_but_keep_their_sources() -> None:
    text = made_of(finds("x" * 100_000, urls=["https://a"]).payload)
    assert len(text) == 24_000
    assert text.endswith("- https://a")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"status": "failed", "error": {"message": "no credits"}}, "no credits"),
        ({"status": "failed"}, "does not say why"),
        ([], "not a response"),
        ("x", "not a response"),
    ],
)
def test_what_is_no_finding_is_a_failure(payload: Any, message: str) -> None:
    with pytest.raises(UpstreamFailed, match=message):
        made_of(payload)


@pytest.mark.parametrize(
    "payload",
    [
        {"status": "completed", "output": []},
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": ""}]}]},
        {},
    ],
)
def test_a_search_without_a_result_is_no_failure_of_the_backend(payload: Any) -> None:
    with pytest.raises(UpstreamFoundNothing):
        made_of(payload)
    assert not UpstreamFoundNothing.transient, "it would find nothing again"
