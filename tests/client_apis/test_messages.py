"""Anthropic's Messages API: what is read, what is refused, and what is written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.client_apis.messages import API
from ai_router.errors import InvalidRequest, Overloaded, UpstreamBroken
from ai_router.errors import Source as Backend
from tests.client_apis.answers import answers, chunks_of, client_form, completion, events_in, written

ASKED = {"max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def read(**fields: Any) -> Any:
    return API.read({**ASKED, **fields})


@given(answer=answers(), piece=st.integers(1, 7))
def test_blocks_come_one_after_another_between_start_and_stop(answer: dict[str, Any], piece: int) -> None:
    stream, whole = written(API, client_form(API, ASKED), chunks_of(answer, piece))
    events = events_in(stream)
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert events[0]["message"]["usage"]["input_tokens"] == 7
    open_block, seen = None, -1
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert (open_block, event["index"]) == (None, seen + 1)
            open_block = seen = event["index"]
        elif event["type"] == "content_block_stop":
            assert event["index"] == open_block
            open_block = None
        else:
            assert (event["type"], event["index"]) == ("content_block_delta", open_block)
    assert open_block is None
    assert whole["content"]
    bill = events[-2]["usage"]
    assert (bill["input_tokens"], bill["output_tokens"]) == (5, 3)


@pytest.mark.parametrize(
    ("finish_reason", "extra", "stop_reason"),
    [
        ("stop", {}, "end_turn"),
        ("length", {}, "max_tokens"),
        ("content_filter", {}, "refusal"),
        ("stop", {"stop_reason": "END"}, "stop_sequence"),
    ],
)
def test_stop_reasons(finish_reason: str, extra: dict[str, Any], stop_reason: str) -> None:
    answer = completion({"content": "so"}, finish_reason)
    answer["choices"][0] |= extra
    whole = API.answer(answer, client_form(API, ASKED))
    assert whole["stop_reason"] == stop_reason
    assert whole["stop_sequence"] == extra.get("stop_reason")


def test_what_was_cached_is_counted_apart() -> None:
    answer = completion({"content": "so"})
    answer["usage"]["prompt_tokens_details"] = {"cached_tokens": 4}
    usage = API.answer(answer, client_form(API, ASKED))["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (1, 4)


def test_without_a_count_of_the_backends_the_bill_is_an_estimate() -> None:
    chunks = [chunk for chunk in chunks_of(completion({"content": "12345678"}), 9) if "usage" not in chunk]
    _, whole = written(API, client_form(API, ASKED), chunks)
    assert whole["usage"] == {"input_tokens": 7, "output_tokens": 2}


def test_a_failure_is_an_error_event_and_never_a_clean_end() -> None:
    writer = API.writer(client_form(API, ASKED))
    before = writer.chunk(chunks_of(completion({"content": "so"}), 9)[1])
    events = events_in(before + writer.error(UpstreamBroken("the connection broke", Backend("primary", "m"))))
    assert events[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "primary (m): the connection broke"},
    }
    assert "message_stop" not in [event["type"] for event in events]


def test_silence_is_broken_by_pings() -> None:
    ping = API.writer(client_form(API, ASKED)).comment("waiting for primary:\nposition 2")
    assert ping == b': waiting for primary: position 2\nevent: ping\ndata: {"type":"ping"}\n\n'


def test_errors_have_anthropics_envelope() -> None:
    body = API.error_body(Overloaded("full"), "req_1")
    assert body == b'{"type":"error","error":{"type":"overloaded_error","message":"full"},"request_id":"req_1"}'


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}, "tools[0]"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"thinking": True}, "thinking"),
    ],
)
def test_what_is_wrong_or_not_offered_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert caught.value.param == param


def test_system_may_be_blocks() -> None:
    blocks = [{"type": "text", "text": "one"}, {"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}}]
    assert read(system=blocks).messages[0] == {"role": "system", "content": "one\n\ntwo"}


def test_results_of_tools_stand_before_the_text_of_their_turn() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
        {
            "type": "tool_result",
            "tool_use_id": "t2",
            "is_error": True,
            "content": [{"type": "text", "text": "no"}, image],
        },
    ]
    uses = [{"type": "tool_use", "id": f"t{n}", "name": "look", "input": {"n": n}} for n in (1, 2)]
    turns = read(
        messages=[
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, *uses]},
            {"role": "user", "content": [*results, {"type": "text", "text": "and now?"}]},
        ]
    ).messages
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "tool", "user"]
    assert [call["function"]["arguments"] for call in turns[1]["tool_calls"]] == ['{"n":1}', '{"n":2}']
    assert [turn["content"] for turn in turns[2:4]] == ["sunny", "error: no"]
    picture, text = turns[4]["content"]
    assert picture["image_url"]["url"] == "data:image/png;base64,AAAA"
    assert text == {"type": "text", "text": "and now?"}


def test_a_search_tool_is_taken_out_and_a_forced_one_means_a_search() -> None:
    asked = read(tools=[TOOL, SEARCH])
    assert asked.client_fields["tools"] == [TOOL]
    assert not asked.searches
    assert "web_search_20250305 was taken out" in asked.warnings[0]
    assert read(tools=[SEARCH], tool_choice={"type": "tool", "name": "web_search"}).searches
    assert read(tools=[SEARCH], tool_choice={"type": "any"}).searches


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"type": "disabled"}, "none"),
        ({"type": "enabled", "budget_tokens": 1024}, "low"),
        ({"type": "enabled", "budget_tokens": 8000}, "medium"),
        ({"type": "enabled", "budget_tokens": 32000}, "high"),
        ({"type": "adaptive"}, None),
    ],
)
def test_how_hard_the_model_may_think(thinking: dict[str, Any], effort: str | None) -> None:
    assert read(thinking=thinking).params.get("reasoning_effort") == effort


def test_the_signatures_of_thoughts_are_named() -> None:
    thoughts = [{"type": "thinking", "thinking": "hm", "signature": signature} for signature in ("abc", "")]
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": thoughts}]
    assert read(messages=[*messages, {"role": "user", "content": "so?"}]).kept["reasoning"] == ("abc", "")


def test_a_later_system_message_is_a_reminder_behind_the_users_words() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "system", "content": "agents: none"}]
    turns = read(system="be brief", messages=messages).messages
    assert [turn["role"] for turn in turns] == ["system", "user"]
    assert turns[1]["content"] == "hi\n\n<system-reminder>\nagents: none\n</system-reminder>"


def test_a_call_that_was_cut_is_no_call_to_make() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "rm", "arguments": '{"path": "/etc'}}
    whole = API.answer(completion({"content": None, "tool_calls": [call]}, "length"), client_form(API, ASKED))
    assert whole["stop_reason"] == "max_tokens"


def test_text_between_the_parts_of_a_call_waits_for_its_end() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "look", "arguments": '{"n":'}}
    deltas = [
        {"tool_calls": [call]},
        {"content": "hm"},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ]
    chunks = [{"model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    stream, whole = written(API, client_form(API, ASKED), chunks)
    assert [block["type"] for block in whole["content"]] == ["tool_use", "text"]
    assert whole["content"][0]["input"] == {"n": 1}
    opened = [event for event in events_in(stream) if event["type"] == "content_block_start"]
    assert [event["index"] for event in opened] == [0, 1]


def test_encrypted_thoughts_are_thoughts_of_somebody_too() -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
    ]
    assert read(messages=[*messages, {"role": "user", "content": "so?"}]).kept["reasoning"] == ("x",)
