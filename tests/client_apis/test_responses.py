"""The Responses API: what is read, what is refused, and that what is written is what OpenAI's library knows."""

from __future__ import annotations

import typing
from typing import Any

import openai.types.responses as openai_types
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ai_router.client_apis.responses import API
from ai_router.errors import InvalidRequest, UpstreamBroken
from ai_router.errors import Source as Backend
from tests.client_apis.answers import answers, chunks_of, client_form, completion, events_in, written


def event_types() -> dict[str, TypeAdapter[Any]]:
    """OpenAI's classes of events, by the type that an event has."""
    union = typing.get_args(typing.get_args(openai_types.ResponseStreamEvent)[0])
    return {typing.get_args(event.model_fields["type"].annotation)[0]: TypeAdapter(event) for event in union}


EVENTS = event_types()
SEARCH = {"type": "web_search"}
FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object"}}
CUSTOM = {"type": "custom", "name": "apply_patch", "description": "a patch", "format": {"type": "text"}}


def read(**fields: Any) -> Any:
    return API.read({"input": "hi", **fields})


@given(answer=answers(), piece=st.integers(1, 7))
def test_every_event_is_one_that_openais_library_knows(answer: dict[str, Any], piece: int) -> None:
    stream, whole = written(API, client_form(API, {"input": "hi"}), chunks_of(answer, piece))
    events = events_in(stream)
    for number, event in enumerate(events):
        assert EVENTS[event["type"]].validate_python(event).sequence_number == number
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    assert openai_types.Response.model_validate(whole).id == events[0]["response"]["id"]


def test_items_open_and_close_in_order() -> None:
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": "{}"}} for n in (1, 2)]
    message = {"role": "assistant", "reasoning": "hm", "content": "well", "tool_calls": calls}
    stream, _ = written(API, client_form(API, {"input": "hi"}), chunks_of(completion(message, "tool_calls"), 9))
    kinds = [(event["type"], event["output_index"]) for event in events_in(stream) if "output_item" in event["type"]]
    assert kinds == [(f"response.output_item.{what}", n) for n in range(4) for what in ("added", "done")]


def test_an_answer_that_was_cut_is_incomplete() -> None:
    whole = API.answer(completion({"content": "so"}, "length"), client_form(API, {"input": "hi"}))
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_an_answer_repeats_what_was_asked() -> None:
    asked = {"input": "hi", "instructions": "be brief", "tools": [FUNCTION], "temperature": 0.5, "metadata": {"a": "b"}}
    whole = API.answer(completion({"content": "so"}), client_form(API, asked))
    assert {name: whole[name] for name in asked if name != "input"} == {n: v for n, v in asked.items() if n != "input"}


@pytest.mark.parametrize("begun", [False, True])
def test_a_failure_is_an_event_and_never_a_clean_end(begun: bool) -> None:
    writer = API.writer(client_form(API, {"input": "hi"}))
    before = writer.chunk(chunks_of(completion({"content": "so"}), 9)[1]) if begun else b""
    events = events_in(before + writer.error(UpstreamBroken("the connection broke", Backend("primary", "m"))))
    for event in events:
        EVENTS[event["type"]].validate_python(event)
    kinds = [event["type"] for event in events]
    assert "error" in kinds
    assert ("response.failed" in kinds) == begun
    assert "response.completed" not in kinds


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["hi"]}, "input[0]"),
        ({"input": [{"role": "boss", "content": "hi"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [5]}]}, "input[0].content[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": "5"}, "max_output_tokens"),
        ({"tools": [{"type": "file_search"}]}, "tools[0]"),
        ({"tools": [FUNCTION, {"type": "mcp"}]}, "tools[1]"),
        ({"text": {"format": 5}}, "text.format"),
        ({"instructions": 5}, "instructions"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": "zzz"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type"),
        ({"tools": [{"type": "custom"}]}, "tools[0].name"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": 1}]}, "tools[0].tools"),
    ],
)
def test_what_is_wrong_or_not_offered_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert caught.value.param == param


def test_a_search_tool_is_taken_out_with_a_warning() -> None:
    asked = read(tools=[FUNCTION, SEARCH], tool_choice="auto")
    assert asked.client_fields["tools"] == [FUNCTION]
    assert [tool["function"]["name"] for tool in asked.params["tools"]] == ["look"]
    assert not asked.searches
    assert "the tool web_search was taken out" in asked.warnings[0]


@pytest.mark.parametrize(
    ("tools", "choice", "searches"),
    [
        ([SEARCH], SEARCH, True),
        ([{"type": "web_search_preview_2025_03_11"}], {"type": "web_search_preview"}, True),
        ([SEARCH], "required", True),
        ([SEARCH, FUNCTION], "required", False),
        ([SEARCH], "auto", False),
        ([FUNCTION], "required", False),
    ],
)
def test_a_forced_search_means_a_search(tools: list[Any], choice: Any, searches: bool) -> None:
    asked = read(tools=tools, tool_choice=choice)
    assert asked.searches == searches
    assert (
        ("tool_choice" in asked.client_fields)
        == ("tool_choice" in asked.params)
        == (FUNCTION in tools and not searches)
    )


def test_no_backend_is_to_keep_anything() -> None:
    asked = read(store=True, previous_response_id="resp_1")
    assert asked.client_fields["store"] is False
    assert "previous_response_id" not in asked.client_fields
    assert asked.kept["store"]


def test_leading_instructions_become_one_system_message() -> None:
    developer = {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "two"}]}
    asked = API.read({"instructions": "one", "input": [developer, {"role": "user", "content": "hi"}]})
    assert asked.messages == [{"role": "system", "content": "one\n\ntwo"}, {"role": "user", "content": "hi"}]


def test_thoughts_are_left_out_of_chat_completions_and_named() -> None:
    items = [{"role": "user", "content": "hi"}, {"type": "reasoning", "id": "rs_1", "summary": []}]
    asked = API.read({"input": [*items, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "so?"}]})
    assert [turn["role"] for turn in asked.messages] == ["user", "assistant", "user"]
    assert asked.kept["reasoning"] == ("rs_1",)


def test_a_custom_tool_is_a_function_with_one_text_and_its_call_a_custom_call_again() -> None:
    form = client_form(API, {"input": "hi", "tools": [CUSTOM]})
    (tool,) = API.read({"input": "hi", "tools": [CUSTOM]}).params["tools"]
    assert tool["function"]["parameters"]["required"] == ["input"]
    arguments = orjson.dumps({"input": "*** Begin Patch"}).decode()
    call = {"id": "c1", "type": "function", "function": {"name": "apply_patch", "arguments": arguments}}
    stream, whole = written(API, form, chunks_of(completion({"content": None, "tool_calls": [call]}, "tool_calls"), 4))
    (item,) = whole["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "apply_patch", "*** Begin Patch")
    for event in events_in(stream):
        EVENTS[event["type"]].validate_python(event)
    back = [{**item}, {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"}]
    turns = API.read({"input": [{"role": "user", "content": "go"}, *back], "tools": [CUSTOM]}).messages
    assert turns[1]["tool_calls"][0]["function"] == {"name": "apply_patch", "arguments": arguments}
    assert turns[2] == {"role": "tool", "tool_call_id": "c1", "content": "done"}


def test_what_chat_completions_have_no_place_for_is_named() -> None:
    assert read(tools=[{"type": "local_shell"}]).kept["untranslatable"] == "tools[0].type"
    part = {"type": "input_image", "file_id": "file_1"}
    items = [{"role": "user", "content": [part]}]
    assert API.read({"input": items}).kept["untranslatable"] == "input[0].content[0]"


def test_only_the_tools_that_are_allowed_are_offered() -> None:
    tools = [{**FUNCTION, "name": name} for name in ("safe", "danger")]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "safe"}]}
    asked = read(tools=tools, tool_choice=choice)
    assert [tool["function"]["name"] for tool in asked.params["tools"]] == ["safe"]
    assert (asked.params["tool_choice"], asked.client_fields["tool_choice"]) == ("required", choice)


def test_tools_of_a_namespace_are_functions_with_a_joint_name_and_their_calls_have_both_again() -> None:
    asked = {"input": "hi", "tools": [{"type": "namespace", "name": "agents", "tools": [FUNCTION]}]}
    choice = {"type": "function", "namespace": "agents", "name": "look"}
    params = API.read({**asked, "tool_choice": choice}).params
    assert params["tools"][0]["function"]["name"] == params["tool_choice"]["function"]["name"] == "agents__look"
    call = {"id": "c", "type": "function", "function": {"name": "agents__look", "arguments": "{}"}}
    whole = API.answer(completion({"content": None, "tool_calls": [call]}), client_form(API, asked))
    (item,) = whole["output"]
    assert (item["namespace"], item["name"]) == ("agents", "look")
    turns = API.read({"input": [{"role": "user", "content": "go"}, item]}).messages
    assert turns[1]["tool_calls"][0]["function"]["name"] == "agents__look"


def test_text_behind_a_call_belongs_to_the_turn_of_the_call() -> None:
    items = [
        {"role": "user", "content": "hi"},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"role": "assistant", "content": "looking"},
        {"type": "function_call_output", "call_id": "c", "output": "seen"},
    ]
    turns = API.read({"input": items}).messages
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool"]
    assert turns[1]["content"] == "looking"


def test_a_call_that_was_cut_is_incomplete() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"path": "/etc'}}
    whole = API.answer(completion({"content": None, "tool_calls": [call]}, "length"), client_form(API, {"input": "hi"}))
    assert (whole["status"], whole["output"][0]["status"]) == ("incomplete", "incomplete")


def test_null_is_answered_with_the_default() -> None:
    whole = API.answer(
        completion({"content": "so"}), client_form(API, {"input": "hi", "tools": None, "metadata": None})
    )
    assert (whole["tools"], whole["metadata"]) == ([], {})


def test_pictures_in_results_of_tools_are_the_users_behind_all_results() -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    calls = [{"type": "function_call", "call_id": f"c{n}", "name": "look", "arguments": "{}"} for n in (1, 2)]
    outputs = [
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "seen"}, picture]},
        {"type": "function_call_output", "call_id": "c2", "output": "done"},
    ]
    turns = API.read({"input": [{"role": "user", "content": "go"}, *calls, *outputs]}).messages
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "tool", "user"]
    assert [turn["content"] for turn in turns[2:4]] == ["seen", "done"]
    assert turns[4]["content"][0]["image_url"]["url"] == picture["image_url"]
