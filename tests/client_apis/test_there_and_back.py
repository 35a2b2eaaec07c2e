"""Translated into another API and back, requests and answers mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.apis import ClientApi
from ai_router.client_apis.messages import API as MESSAGES
from ai_router.client_apis.responses import API as RESPONSES
from ai_router.providers.families import FAMILIES, RequestParts
from tests.client_apis.answers import answers, chunks_of, client_form, conversations, gathered, written

ASKED: Mapping[str, dict[str, Any]] = {
    "responses": {"input": "hi"},
    "messages": {"max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]},
}
BOTH = pytest.mark.parametrize("api", [RESPONSES, MESSAGES], ids=lambda api: api.name)
PARAMS = {
    "max_tokens": 50,
    "temperature": 0.5,
    "tools": [
        {
            "type": "function",
            "function": {"name": "look", "description": "d", "parameters": {"type": "object", "properties": {}}},
        }
    ],
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "reasoning_effort": "low",
}


def there(api: ClientApi, messages: list[dict[str, Any]], params: Mapping[str, Any]) -> dict[str, Any]:
    parts = RequestParts("m", "model", stream=False, messages_json=orjson.dumps(messages), params=params)
    return orjson.loads(FAMILIES[api.name].body(parts))


@BOTH
@given(messages=conversations())
def test_a_conversation_comes_back_as_it_was(api: ClientApi, messages: list[dict[str, Any]]) -> None:
    assert list(api.read(there(api, messages, {"max_tokens": 10})).messages) == messages


@BOTH
def test_fields_come_back_as_they_were(api: ClientApi) -> None:
    body = there(api, [{"role": "user", "content": "hi"}], PARAMS)
    assert api.read(body).params == PARAMS


@BOTH
@pytest.mark.parametrize("choice", ["auto", "required", "none"])
def test_the_choice_of_tools_comes_back(api: ClientApi, choice: str) -> None:
    body = there(api, [{"role": "user", "content": "hi"}], {**PARAMS, "tool_choice": choice})
    assert api.read(body).params["tool_choice"] == choice


@BOTH
@given(answer=answers())
def test_a_whole_answer_comes_back_as_it_was(api: ClientApi, answer: dict[str, Any]) -> None:
    form = client_form(api, ASKED[api.name])
    back = FAMILIES[api.name].completion(api.answer(answer, form))
    assert back is not None
    (sent,), (come,) = answer["choices"], back["choices"]
    assert (come["message"], come["finish_reason"]) == (sent["message"], sent["finish_reason"])
    assert all(back["usage"][name] == count for name, count in answer["usage"].items())


@BOTH
@given(answer=answers(), piece=st.integers(1, 7))
def test_a_streamed_answer_comes_back_as_it_was(api: ClientApi, answer: dict[str, Any], piece: int) -> None:
    form = client_form(api, ASKED[api.name])
    stream, whole = written(api, form, chunks_of(answer, piece))
    translation = FAMILIES[api.name].translation()
    assert translation is not None
    back, (sent,) = gathered(stream, translation), answer["choices"]
    usage = back.pop("usage")
    assert back == {**sent["message"], "finish_reason": sent["finish_reason"]}
    assert all(usage[name] == count for name, count in answer["usage"].items())
    again = FAMILIES[api.name].completion(whole)
    assert again is not None
    assert again["choices"][0]["message"] == sent["message"]
