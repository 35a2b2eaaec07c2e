"""Who speaks which API, and whose thoughts are whose."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ai_router.apis import ClientForm
from ai_router.client_apis.messages import API as MESSAGES
from ai_router.client_apis.ollama_chat import API as OLLAMA
from ai_router.client_apis.responses import API as RESPONSES
from ai_router.config_loading import load_settings
from ai_router.dispatch.client_form import AnswerForm, SpokenApis, ThoughtOrigins
from ai_router.errors import ApiNotSpoken
from ai_router.providers.building import build_registry
from ai_router.providers.families import FAMILIES
from ai_router.providers.registry import Registry
from ai_router.types import Attempt, ChatRequest
from tests.chat_requests import chat_request
from tests.client_apis.answers import completion
from tests.outcomes import outcome


@pytest.fixture(scope="module")
def registry() -> Registry:
    keys = {f"{name}_API_KEY": "k" for name in ("XAI", "OPENAI", "ANTHROPIC", "GEMINI", "PERPLEXITY", "OPENROUTER")}
    return build_registry(load_settings({"PRIMARY_URL": "http://gpu:8000", **keys}, dotenv=None))


def form_of(api: Any, **kept: Any) -> ClientForm:
    return ClientForm(api, {}, kept=kept)


def asks(api: Any, request_id: str = "req_1") -> ChatRequest:
    return chat_request(client_form=form_of(api), request_id=request_id)


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
    found = {api.name for api in (RESPONSES, MESSAGES, OLLAMA) if spoken.family_for(asks(api), asked) is not None}
    assert found == speaks


@pytest.mark.parametrize("status", [404, 405, 501])
def test_what_a_server_does_not_have_is_remembered_once_it_has_answered_otherwise(
    registry: Registry, status: int
) -> None:
    spoken, primary, first = SpokenApis(), registry.primary, asks(RESPONSES, "req_1")
    family = spoken.family_for(first, primary)
    assert family is not None
    spoken.check(400, family, primary, first)
    with pytest.raises(ApiNotSpoken):
        spoken.check(status, family, primary, first)
    # Perhaps only the model was wrong: this request asks in another API now, the others as before.
    assert spoken.family_for(first, primary) is None
    assert spoken.family_for(asks(RESPONSES, "req_2"), primary) is not None
    spoken.answered(first, primary)
    assert spoken.family_for(asks(RESPONSES, "req_2"), primary) is None
    assert spoken.family_for(asks(MESSAGES, "req_2"), primary) is not None


def test_a_backends_first_api_is_never_given_up(registry: Registry) -> None:
    spoken, anthropic, asked = SpokenApis(), registry.clouds["anthropic"], asks(MESSAGES)
    spoken.check(404, FAMILIES["messages"], anthropic, asked)  # type: ignore[arg-type]
    assert spoken.family_for(asked, anthropic) is not None


EVENT = {"type": "response.created", "response": {"id": "r"}}


def test_an_error_as_the_first_event_says_nothing_of_the_form() -> None:
    noted: list[bool] = []
    form = AnswerForm(
        FAMILIES["responses"], form_of(RESPONSES), passes_on=True, on_partly_spoken=lambda: noted.append(True)
    )
    rewriting = form.rewriting()
    assert rewriting is not None
    rewriting.chunks({"error": {"message": "overloaded"}})
    assert rewriting.passes_on
    assert not noted
    rewriting.chunks(EVENT)
    assert not rewriting.passes_on
    assert noted


def test_an_answer_that_is_not_strict_json_is_written_anew() -> None:
    form = AnswerForm(FAMILIES["messages"], form_of(MESSAGES), passes_on=True)
    body, answer = form.whole(b'{"content": NaN}', completion({"content": "so"}), is_whole=True)
    assert answer is not None
    assert orjson.loads(body)["content"] == [{"type": "text", "text": "so"}]


def thought(api: Any, answer: dict[str, Any], backend: str) -> Any:
    attempt = Attempt(backend, "m", 0.0, 1.0, stream=False)
    return outcome(request=chat_request(client_form=ClientForm(api, {})), client_answer=answer, attempts=(attempt,))


@pytest.mark.parametrize(
    ("api", "answer"),
    [
        (RESPONSES, {"output": [{"type": "reasoning", "id": "t1"}, {"type": "message", "id": "m1"}]}),
        (MESSAGES, {"content": [{"type": "thinking", "thinking": "hm", "signature": "t1"}]}),
    ],
)
def test_thoughts_go_to_whoever_made_them(registry: Registry, api: Any, answer: dict[str, Any]) -> None:
    origins, asked = ThoughtOrigins(), form_of(api, reasoning=("t1", "unknown"))
    origins.note(thought(api, answer, "xai"))
    assert origins.foreign(asked, registry.clouds["xai"]) == {"unknown"}
    assert origins.foreign(asked, registry.primary) == {"t1", "unknown"}
    assert origins.foreign(form_of(api), registry.primary) == frozenset()
