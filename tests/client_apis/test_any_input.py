"""Whatever JSON a client sends: it is read, or refused by the name of a field. And calls in any order."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_router.apis import ClientForm
from ai_router.client_apis import APIS
from ai_router.client_apis.calls import CallsInOrder
from ai_router.errors import InvalidRequest
from ai_router.web.requests import as_fragments
from tests.client_apis.answers import completion

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
TURNS = [
    {"role": "user", "content": "hi", "images": ["AAAA"]},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
    {"role": "tool", "content": "x", "tool_name": "f"},
]
BODIES: Mapping[str, dict[str, Any]] = {
    "responses": {
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "x"},
            {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "x"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
        ],
        "tools": [
            FUNCTION,
            {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
            {"type": "namespace", "name": "n", "tools": [FUNCTION]},
            {"type": "web_search"},
        ],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "low"},
        "reasoning": {"effort": "low"},
        "instructions": "be brief",
        "max_output_tokens": 5,
        "previous_response_id": "r",
        "metadata": {"a": "b"},
        "stream": True,
    },
    "messages": {
        "max_tokens": 5,
        "system": [{"type": "text", "text": "x"}],
        "messages": [
            {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "x"}}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text"}]}]},
        ],
        "tools": [{"name": "f", "input_schema": {}}, {"type": "web_search_20250305", "name": "web_search"}],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 5000},
        "output_config": {"format": {"type": "json_schema", "schema": {}}, "effort": "low"},
        "stop_sequences": ["x"],
        "metadata": {"user_id": "me"},
    },
    "completions": {"prompt": ["x"], "suffix": "y", "logprobs": 1, "max_tokens": 5, "stream_options": {}},
    "ollama_chat": {
        "model": "auto:latest",
        "messages": TURNS,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "options": {"temperature": 0.5, "stop": ["x"]},
        "format": {"type": "object"},
        "think": "low",
    },
    "ollama_generate": {"prompt": "x", "system": "y", "images": ["AAAA"], "format": "json", "options": {"seed": 1}},
}
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 10**30) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "name", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a body."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for name, inner in below for found in places(inner, (*path, name)))]


def replaced(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(body)
    holder: Any = changed
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    return changed


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
@settings(max_examples=300)
@given(data=st.data())
def test_any_json_is_read_or_refused_by_the_name_of_a_field(api: Any, data: st.DataObject) -> None:
    body = BODIES[api.name]
    path = data.draw(st.sampled_from([path for path in places(body) if path]))
    changed = replaced(body, path, data.draw(ANY))
    try:
        stream, asked = api.streams(changed), api.read(changed)
    except InvalidRequest as refused:
        assert refused.param
        return
    assert isinstance(stream, bool)
    assert all(isinstance(turn["role"], str) for turn in asked.messages)
    # What was read can be answered.
    form = ClientForm(api, as_fragments(asked.client_fields), kept=asked.kept)
    assert api.answer(completion({"role": "assistant", "content": "so"}), form)


def test_the_bodies_that_are_changed_are_read_as_they_are() -> None:
    for api in APIS.values():
        assert api.read(copy.deepcopy(BODIES[api.name])).messages


def call(index: int, arguments: str, call_id: str = "", name: str = "") -> dict[str, Any]:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


def test_other_ids_under_one_index_are_other_calls() -> None:
    calls = CallsInOrder()
    parts = [*calls.feed(call(0, '{"a":1}', "one", "f")), *calls.feed(call(0, '{"b":1}', "two", "f")), *calls.rest()]
    assert [(part.number, part.arguments) for part in parts] == [(0, '{"a":1}'), (1, '{"b":1}')]


def test_long_arguments_take_time_in_proportion_to_their_length() -> None:
    """Ten times as long may take ten times as long, and a good deal more on a busy machine; not a hundred times."""

    def seconds(length: int) -> float:
        calls, started = CallsInOrder(), time.process_time()
        list(calls.feed(call(0, '{"text": "', "one", "f")))
        for _ in range(length):
            list(calls.feed(call(0, "word")))
        return time.process_time() - started

    seconds(1_000)
    assert seconds(100_000) < 50 * max(seconds(10_000), 0.001)
