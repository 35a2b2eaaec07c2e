"""Chat completions in, the Responses API out, and back again. Shapes: openai 3.54.0, perplexityai 0.46.1."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ai_router.providers.families import FAMILIES, RequestParts

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}


def sent(messages: list[dict[str, Any]], family: str = "responses", **params: Any) -> dict[str, Any]:
    parts = RequestParts("m", "model", bool(params.pop("stream", False)), orjson.dumps(messages), params)
    return orjson.loads(FAMILIES[family].body(parts))


def test_system_messages_are_instructions_and_the_rest_is_input() -> None:
    body = sent([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}], stream=True)
    assert body == {
        "model": "m",
        "instructions": "Be brief.",
        "stream": True,
        "input": [{"type": "message", "role": "user", "content": "hi"}],
    }


def test_calls_of_tools_and_their_results_are_items() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = sent(
        [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "f"}},
    )
    assert body["input"] == [
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
    ]
    assert body["tools"] == [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "function", "name": "f"}


def test_pictures_are_input_images() -> None:
    body = sent([{"role": "user", "content": [{"type": "text", "text": "what?"}, PICTURE]}])
    assert body["input"][0]["content"] == [
        {"type": "input_text", "text": "what?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA"},
    ]


def test_limits_efforts_and_forms_have_other_names_and_what_has_none_is_left_out() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    user = [{"role": "user", "content": "hi"}]
    body = sent(user, max_tokens=5, reasoning_effort="low", response_format=form, seed=1, stop=["x"], temperature=0.5)
    del body["input"], body["model"]
    assert body == {
        "max_output_tokens": 5,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}},
        "temperature": 0.5,
    }
    assert sent(user, "agent", response_format=form)["response_format"] == form


def test_a_preset_is_no_model() -> None:
    parts = RequestParts("fast", "preset", False, b'[{"role": "user", "content": "hi"}]', {})
    body = orjson.loads(FAMILIES["agent"].body(parts))
    assert (body["preset"], "model" in body) == ("fast", False)
    assert FAMILIES["agent"].path == "/agent"


def response(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10, "cost": {"total_cost": 0.01}}
    return {
        "id": "resp_1",
        "created_at": 1,
        "model": "m",
        "status": "completed",
        "output": list(output),
        "usage": usage,
        **more,
    }


def said(text: str) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


CALLED = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
FOUND = {"type": "search_results", "results": [{"url": "https://a"}, {"url": "https://a"}, {"url": "https://b"}]}


def test_an_answer_is_a_completion_that_the_sdk_reads() -> None:
    completion = FAMILIES["responses"].completion(response(FOUND, said("hello")))
    read = ChatCompletion.model_validate(completion)
    assert (read.choices[0].message.content, read.choices[0].finish_reason) == ("hello", "stop")
    assert read.usage is not None
    assert (read.usage.prompt_tokens, read.usage.completion_tokens) == (7, 3)
    assert completion["citations"] == ["https://a", "https://b"]
    assert completion["usage"]["cost"] == {"total_cost": 0.01}


def test_an_answer_that_calls_a_tool() -> None:
    read = ChatCompletion.model_validate(FAMILIES["responses"].completion(response(CALLED)))
    assert read.choices[0].finish_reason == "tool_calls"
    assert read.choices[0].message.tool_calls is not None
    assert read.choices[0].message.tool_calls[0].id == "c1"


@pytest.mark.parametrize(("why", "reason"), [("max_output_tokens", "length"), ("content_filter", "content_filter")])
def test_an_incomplete_answer_says_why(why: str, reason: str) -> None:
    cut = response(said("hel"), status="incomplete", incomplete_details={"reason": why})
    assert FAMILIES["responses"].completion(cut)["choices"][0]["finish_reason"] == reason


def streamed(*events: dict[str, Any]) -> list[dict[str, Any]]:
    translation = FAMILIES["responses"].translation()
    chunks = [chunk for event in events for chunk in translation.feed(event)]
    assert translation.ended or "error" in chunks[-1]
    return chunks


CREATED = {"type": "response.created", "response": response(status="in_progress")}


def test_a_stream_is_chunks_that_the_sdk_reads() -> None:
    chunks = streamed(
        CREATED,
        {"type": "response.output_text.delta", "delta": "hel"},
        {"type": "response.output_text.delta", "delta": "lo"},
        {"type": "response.completed", "response": response(said("hello"))},
    )
    read = [ChatCompletionChunk.model_validate(chunk) for chunk in chunks]
    assert [chunk.choices[0].delta.content for chunk in read[:3]] == ["hel", "lo", None]
    assert (read[0].choices[0].delta.role, read[1].choices[0].delta.role) == ("assistant", None)
    assert read[2].choices[0].finish_reason == "stop"
    assert read[3].usage is not None
    assert read[3].choices == []


def test_a_tool_call_in_a_stream_in_openai_s_way_and_in_perplexity_s() -> None:
    item = {**CALLED, "arguments": ""}
    deltas = [
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": d} for d in ('{"a"', ": 1}")
    ]
    end = {"type": "response.completed", "response": response(CALLED)}
    openai = streamed(CREATED, {"type": "response.output_item.added", "item": item}, *deltas, end)
    perplexity = streamed(CREATED, {"type": "response.output_item.added", "item": CALLED}, end)
    for chunks in (openai, perplexity):
        calls = [
            call for chunk in chunks if chunk["choices"] for call in chunk["choices"][0]["delta"].get("tool_calls", [])
        ]
        assert calls[0]["id"] == "c1"
        assert {call["index"] for call in calls} == {0}
        assert "".join(call["function"]["arguments"] for call in calls) == '{"a": 1}'
        assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_text_that_comes_only_at_the_end_is_not_lost() -> None:
    chunks = streamed(CREATED, {"type": "response.completed", "response": response(said("all of it"))})
    assert chunks[0]["choices"][0]["delta"]["content"] == "all of it"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "slow down"},
        {"type": "response.failed", "response": response(error={"message": "slow down"}, status="failed")},
        {"type": "response.failed", "error": {"message": "slow down"}},
    ],
)
def test_a_failure_is_an_error_in_chat_s_shape(event: dict[str, Any]) -> None:
    assert streamed(CREATED, event)[-1]["error"]["message"] == "slow down"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "output", "content", "text"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.fixed_dictionaries({"output": _JSON}, optional={"usage": _JSON, "incomplete_details": _JSON, "error": _JSON}))
def test_an_answer_of_any_shape_is_read_or_refused(payload: dict[str, Any]) -> None:
    try:
        completion = FAMILIES["responses"].completion(payload)
    except (ValueError, TypeError, AttributeError):
        return
    assert completion["choices"]


def test_an_error_of_one_word_is_an_error() -> None:
    assert streamed(CREATED, {"type": "error", "error": "overloaded"})[-1]["error"]["message"] == "overloaded"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_response_that_failed_without_a_reason_is_no_answer(status: str) -> None:
    with pytest.raises(ValueError, match="failed"):
        FAMILIES["responses"].completion(response(status=status, error=None))


def test_a_refusal_is_a_refusal() -> None:
    refused = {"type": "message", "content": [{"type": "refusal", "refusal": "I will not."}]}
    message = FAMILIES["responses"].completion(response(refused))["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I will not.")
    chunks = streamed(
        CREATED,
        {"type": "response.refusal.delta", "delta": "I will not."},
        {"type": "response.completed", "response": response(refused)},
    )
    assert chunks[0]["choices"][0]["delta"]["refusal"] == "I will not."


def test_a_stream_s_sources_are_told_to_clients_that_did_not_ask_for_usage() -> None:
    chunks = streamed(CREATED, {"type": "response.completed", "response": response(FOUND, said("x"))})
    assert chunks[-2]["citations"] == ["https://a", "https://b"]
    assert "citations" not in chunks[-1]
