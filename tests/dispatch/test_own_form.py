"""Who speaks which API, and whose thoughts are whose."""

from __future__ import annotations

from typing import Any

import pytest

from ai_router.apis import OwnForm
from ai_router.client_apis.messages import API as MESSAGES
from ai_router.client_apis.ollama_chat import API as OLLAMA
from ai_router.client_apis.responses import API as RESPONSES
from ai_router.config import load_settings
from ai_router.dispatch.own_form import SpokenApis, ThoughtOrigins
from ai_router.errors import ApiNotSpoken
from ai_router.providers.families import FAMILIES
from ai_router.providers.registry import Registry, build_registry
from ai_router.types import Attempt
from tests.chat_requests import chat_request
from tests.outcomes import outcome


@pytest.fixture(scope="module")
def registry() -> Registry:
    keys = {f"{name}_API_KEY": "k" for name in ("XAI", "OPENAI", "ANTHROPIC", "GEMINI", "PERPLEXITY", "OPENROUTER")}
    return build_registry(load_settings({"PRIMARY_URL": "http://gpu:8000", **keys}, dotenv=None))


def own(api: Any, **kept: Any) -> OwnForm:
    return OwnForm(api, {}, kept=kept)


@pytest.mark.parametrize(
    ("backend", "speaks"),
    [
        ("primary", {"responses", "messages"}),
        ("xai", {"responses"}),
        ("openai", {"responses"}),
        ("anthropic", {"messages"}),
        ("gemini", set()),
        ("perplexity", set()),
        ("openrouter", set()),
    ],
)
def test_who_may_speak_what(registry: Registry, backend: str, speaks: set[str]) -> None:
    asked = registry.clouds.get(backend, registry.primary)
    spoken = SpokenApis()
    found = {api.name for api in (RESPONSES, MESSAGES, OLLAMA) if spoken.family_for(own(api), asked) is not None}
    assert found == speaks


@pytest.mark.parametrize("status", [404, 405, 501])
def test_what_a_server_does_not_have_is_remembered(registry: Registry, status: int) -> None:
    spoken = SpokenApis()
    family = spoken.family_for(own(RESPONSES), registry.primary)
    assert family is not None
    spoken.check(400, family, registry.primary)
    with pytest.raises(ApiNotSpoken):
        spoken.check(status, family, registry.primary)
    assert spoken.family_for(own(RESPONSES), registry.primary) is None
    assert spoken.family_for(own(MESSAGES), registry.primary) is not None


def test_a_backends_first_api_is_never_given_up(registry: Registry) -> None:
    spoken, anthropic = SpokenApis(), registry.clouds["anthropic"]
    spoken.check(404, FAMILIES["messages"], anthropic)  # type: ignore[arg-type]
    assert spoken.family_for(own(MESSAGES), anthropic) is not None


def thought(api: Any, answer: dict[str, Any], backend: str) -> Any:
    attempt = Attempt(backend, "m", 0.0, 1.0, stream=False)
    return outcome(request=chat_request(own=OwnForm(api, {})), own_answer=answer, attempts=(attempt,))


@pytest.mark.parametrize(
    ("api", "answer"),
    [
        (RESPONSES, {"output": [{"type": "reasoning", "id": "t1"}, {"type": "message", "id": "m1"}]}),
        (MESSAGES, {"content": [{"type": "thinking", "thinking": "hm", "signature": "t1"}]}),
    ],
)
def test_thoughts_go_to_whoever_made_them(registry: Registry, api: Any, answer: dict[str, Any]) -> None:
    origins, asked = ThoughtOrigins(), own(api, reasoning=("t1", "unknown"))
    origins.note(thought(api, answer, "xai"))
    assert origins.foreign(asked, registry.clouds["xai"]) == {"unknown"}
    assert origins.foreign(asked, registry.primary) == {"t1", "unknown"}
    assert origins.foreign(own(api), registry.primary) == frozenset()
