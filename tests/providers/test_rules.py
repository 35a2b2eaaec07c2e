"""How the catalogue's rules change a request's fields for each provider."""

from __future__ import annotations

from typing import Any

import pytest

from ai_router.providers.catalogue import load_catalogue
from ai_router.providers.fields import sent_fields

CATALOGUE = load_catalogue()


def sent(provider: str, model: str, params: dict[str, Any]) -> dict[str, Any]:
    return dict(sent_fields(params, CATALOGUE.providers[provider].rules_for(model)).values)


@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-5.6-terra", "o3"])
def test_openai_s_reasoning_models_take_no_temperature_and_another_name_for_the_limit(model: str) -> None:
    params = {"max_tokens": 5, "temperature": 0.2, "top_p": 1, "seed": 1}
    assert sent("openai", model, params) == {"max_completion_tokens": 5, "seed": 1}


def test_without_reasoning_they_do() -> None:
    params = {"temperature": 0.2, "reasoning_effort": "none"}
    assert sent("openai", "gpt-6-luna", params) == params


def test_the_limit_by_its_new_name_wins() -> None:
    assert sent("openai", "o3", {"max_tokens": 5, "max_completion_tokens": 9}) == {"max_completion_tokens": 9}


def test_with_tools_openai_s_models_are_told_not_to_reason_unless_the_client_says() -> None:
    assert sent("openai", "gpt-6-luna", {"tools": [1]})["reasoning_effort"] == "none"
    assert sent("openai", "gpt-6-luna", {"tools": [1], "reasoning_effort": "high"})["reasoning_effort"] == "high"
    assert "reasoning_effort" not in sent("openai", "gpt-6-luna", {"seed": 1})


def test_gemini_gets_what_it_knows_and_nothing_else() -> None:
    params = {"max_tokens": 5, "seed": 1, "metadata": {}, "tools": [], "chat_template_kwargs": {}, "temperature": 1}
    assert sent("gemini", "gemini-3.8-flash", params) == {"max_tokens": 5, "tools": []}


def test_what_only_vllm_knows_stays_at_home() -> None:
    for provider, model in (("xai", "grok-4.7"), ("openai", "gpt-4o"), ("openrouter", "a/b")):
        assert sent(provider, model, {"chat_template_kwargs": {}, "cache_salt": "x", "seed": 1}) == {"seed": 1}


def test_xai_s_models_refuse_penalties_and_some_an_effort() -> None:
    params = {"presence_penalty": 0, "frequency_penalty": 0, "stop": ["x"], "reasoning_effort": "low"}
    assert sent("xai", "grok-4.7", params) == {"reasoning_effort": "low"}
    assert sent("xai", "grok-4.20", params) == {}


def test_a_bare_sonar_searches_and_a_preset_as_it_likes() -> None:
    assert sent("perplexity", "perplexity/sonar", {}) == {"tools": [{"type": "web_search"}]}
    assert sent("perplexity", "perplexity/sonar", {"tools": []}) == {"tools": []}
    assert sent("perplexity", "fast", {}) == {}


def test_without_rules_nothing_is_copied() -> None:
    params = {"seed": 1}
    assert sent_fields(params).values is params
