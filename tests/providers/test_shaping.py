"""Phrasing a request for a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.apis import Additions
from ai_router.config import MaxTokensPolicy
from ai_router.providers.catalogue import Rules
from ai_router.providers.chat_completions import web_context, with_additions
from ai_router.providers.families import FAMILIES, RequestParts
from ai_router.providers.fields import sent_fields
from tests.chat_requests import chat_request

PASS = MaxTokensPolicy("pass")

_CONTENT = st.one_of(st.none(), st.text(max_size=20), st.lists(st.just({"type": "text", "text": "t"}), max_size=2))
_MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": _CONTENT}),
    min_size=1,
    max_size=4,
)


def body(policy: MaxTokensPolicy = PASS, rules: Sequence[Rules] = (), **changes: Any) -> dict[str, Any]:
    request = chat_request(**changes)
    params = sent_fields(request.params, rules, policy).values
    parts = RequestParts("m", "model", request.stream, request.messages_json, params)
    return orjson.loads(FAMILIES["chat"].body(parts))


def test_the_model_is_the_backend_s_and_the_rest_the_client_s() -> None:
    assert body(params={"seed": 1, "x": {"y": None}}) == {
        "model": "m",
        "seed": 1,
        "x": {"y": None},
        "messages": [{"role": "user", "content": "hello"}],
    }


def test_a_stream_is_asked_for_its_usage_and_keeps_its_other_options() -> None:
    shaped = body(stream=True, params={"stream_options": {"include_usage": False, "other": 1}})
    assert shaped["stream"] is True
    assert shaped["stream_options"] == {"include_usage": True, "other": 1}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    ("policy", "sent"), [(MaxTokensPolicy("strip"), None), (PASS, 10), (MaxTokensPolicy("add", 500), 510)]
)
def test_the_max_tokens_policies(name: str, policy: MaxTokensPolicy, sent: int | None) -> None:
    assert body(policy, params={name: 10, "seed": 1}).get(name) == sent


def test_adding_leaves_null_alone() -> None:
    assert body(MaxTokensPolicy("add", 500), params={"max_tokens": None})["max_tokens"] is None


def added(additions: Additions, messages: list[dict[str, Any]]) -> Any:
    return orjson.loads(with_additions(chat_request(messages=messages), additions))


@given(_MESSAGES)
def test_the_date_changes_the_first_system_message_and_nothing_else(messages: list[dict[str, Any]]) -> None:
    dated = added(Additions(date="DATE"), messages)
    if messages[0]["role"] in ("system", "developer"):
        assert dated[1:] == messages[1:]
        content = dated[0]["content"]
        assert (content[-1]["text"] if isinstance(content, list) else content).endswith("DATE")
    else:
        assert dated == [{"role": "system", "content": "DATE"}, *messages]


def test_without_additions_the_messages_are_the_very_bytes() -> None:
    request = chat_request()
    assert with_additions(request, Additions()) is request.messages_json


def test_the_context_stands_before_the_last_question_inside_its_turn() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "last"},
    ]
    shaped = added(Additions(context=web_context("FOUND", fence="f00")), messages)
    assert shaped[:2] == messages[:2]
    assert shaped[2]["content"].endswith("<<<web-context-f00>>>\nFOUND\n<<<end-web-context-f00>>>\n\nlast")


def test_the_context_becomes_a_part_of_a_turn_in_parts() -> None:
    image = {"type": "image_url", "image_url": {"url": "u"}}
    shaped = added(Additions(context="FOUND"), [{"role": "user", "content": [image]}])
    assert [part["type"] for part in shaped[0]["content"]] == ["text", "image_url"]


def test_without_any_user_turn_the_context_gets_one() -> None:
    shaped = added(Additions(context="FOUND"), [{"role": "assistant", "content": "x"}])
    assert [message["role"] for message in shaped] == ["assistant", "user"]


def test_every_fence_is_new() -> None:
    assert web_context("x") != web_context("x")
