"""Anthropic's API for backends: what is sent for chat completions, and what becomes of a body that is passed on."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ai_router.apis import Additions
from ai_router.config_loading import load_settings
from ai_router.providers.building import build_registry
from ai_router.providers.families import FAMILIES, ClientBodyParts, RequestParts
from ai_router.providers.families.messages import FAMILY
from ai_router.providers.message_blocks import chat_usage
from ai_router.providers.pricing import usage_of
from ai_router.types import Usage

HELLO = [{"role": "user", "content": "hi"}]


def body(messages: list[dict[str, Any]] = HELLO, **params: Any) -> dict[str, Any]:
    return orjson.loads(FAMILY.body(RequestParts("m", "model", False, orjson.dumps(messages), params)))


def own(fields: dict[str, Any], **parts: Any) -> dict[str, Any]:
    made = ClientBodyParts(
        "m", "model", parts.pop("stream", False), fields, parts.pop("additions", Additions()), **parts
    )
    return orjson.loads(FAMILY.body_from_client(made))


def test_a_limit_is_always_sent() -> None:
    assert body()["max_tokens"] == 32_000
    assert body(max_completion_tokens=5)["max_tokens"] == 5


def test_fields_have_their_names_here() -> None:
    sent = body(stop="x", user="me", temperature=0.5, reasoning_effort="xhigh", parallel_tool_calls=False)
    assert sent == {
        "model": "m",
        "max_tokens": 32_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "stop_sequences": ["x"],
        "metadata": {"user_id": "me"},
        "temperature": 0.5,
        "output_config": {"effort": "max"},
    }


def test_system_messages_wherever_they_stand_are_the_system_text() -> None:
    sent = body([{"role": "developer", "content": "one"}, *HELLO, {"role": "system", "content": "two"}])
    assert sent["system"] == "one\n\ntwo"
    assert [turn["role"] for turn in sent["messages"]] == ["user"]


def test_results_of_parallel_calls_are_one_turn() -> None:
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)]
    results = [{"role": "tool", "tool_call_id": f"c{n}", "content": "r"} for n in (1, 2)]
    turns = body([*HELLO, {"role": "assistant", "content": None, "tool_calls": calls}, *results])["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert [block["type"] for block in turns[2]["content"]] == ["tool_result", "tool_result"]


def test_a_structured_output_is_asked_for() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    sent = body(response_format=wanted)
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}


@pytest.mark.parametrize("part", [{"type": "input_audio", "input_audio": {}}, {"type": "nothing"}])
def test_what_has_no_place_here_is_an_error(part: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no place"):
        body([{"role": "user", "content": [part]}])


def test_in_a_body_that_is_passed_on_the_date_stands_behind_the_system_text() -> None:
    added = Additions(date="DATE")
    assert own({"messages": HELLO}, additions=added)["system"] == "DATE"
    assert own({"messages": HELLO, "system": "be brief"}, additions=added)["system"] == "be brief\n\nDATE"
    blocks = orjson.Fragment(b'[{"type":"text","text":"be brief","cache_control":{"type":"ephemeral"}}]')
    assert own({"messages": HELLO, "system": blocks}, additions=added)["system"] == [
        {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "DATE"},
    ]


def test_the_webs_context_stands_before_the_last_question() -> None:
    sent = own({"messages": orjson.Fragment(orjson.dumps(HELLO))}, additions=Additions(context="FOUND"))
    assert sent["messages"] == [{"role": "user", "content": "FOUND\n\nhi"}]


def test_thoughts_of_others_are_left_out_and_no_turn_is_empty() -> None:
    thoughts = [{"type": "thinking", "thinking": "hm", "signature": signature} for signature in ("mine", "theirs")]
    turns = [*HELLO, {"role": "assistant", "content": thoughts}, {"role": "assistant", "content": thoughts[1:]}]
    sent = own({"messages": turns}, left_out={"theirs"})["messages"]
    assert sent[1]["content"] == thoughts[:1]
    assert sent[2]["content"] == [{"type": "text", "text": "..."}]


def test_the_bill_of_a_stream_counts_what_was_cached() -> None:
    stream = FAMILY.translation()
    usage = {"input_tokens": 2, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 5, "output_tokens": 1}
    stream.feed({"type": "message_start", "message": {"id": "m", "model": "x", "usage": usage}})
    stream.feed({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}})
    *_, last = stream.feed({"type": "message_stop"})
    assert last["usage"]["prompt_tokens"] == 17
    assert last["usage"]["completion_tokens"] == 7
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 10


def test_what_was_written_into_a_cache_is_told_by_how_long_it_stays() -> None:
    written = {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3}
    usage = {"input_tokens": 2, "cache_creation_input_tokens": 5, "cache_creation": written, "output_tokens": 1}
    assert usage_of(chat_usage(usage)) == Usage(7, 1, cache_written=2, cache_written_hour=3)


def test_an_overloaded_server_is_an_error_and_no_end() -> None:
    stream = FAMILY.translation()
    (chunk,) = stream.feed({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    assert chunk["error"]["message"] == "Overloaded"
    assert not stream.ended


def test_anthropic_is_a_provider_with_its_own_header_for_the_key() -> None:
    settings = {"PRIMARY_URL": "http://gpu:8000", "ANTHROPIC_API_KEY": "anthropic-key"}
    backend = build_registry(load_settings(settings, dotenv=None)).clouds["anthropic"]
    assert backend.family is FAMILIES["messages"]
    assert backend.url(backend.family.path) == "https://api.anthropic.com/v1/messages"
    assert backend.headers["x-api-key"] == "anthropic-key"
    assert backend.headers["anthropic-version"] == "2023-06-01"
    assert "Authorization" not in backend.headers
