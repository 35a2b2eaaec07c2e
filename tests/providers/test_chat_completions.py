"""What the session keeps of an answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.providers.chat_completions import AnswerReader
from ai_router.providers.pricing import charged_usd


def chunk(delta: Any, finish_reason: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": index, "delta": delta, "finish_reason": finish_reason}]}


def read(*chunks: Any) -> AnswerReader:
    reader = AnswerReader()
    for one in chunks:
        reader.chunk(one)
    return reader


def test_texts_are_joined_by_name() -> None:
    message = read(
        chunk({"role": "assistant", "content": None}),
        chunk({"reasoning": "h"}),
        chunk({"reasoning": "m"}),
        chunk({"content": "a"}),
        chunk({"content": "b"}, "stop"),
    ).gathered()
    assert message == {"role": "assistant", "content": "ab", "reasoning": "hm", "finish_reason": "stop"}


def test_tool_calls_are_joined_by_index() -> None:
    message = read(
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "[]"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}, "tool_calls"),
    ).gathered()
    assert message is not None
    assert [(call["id"], call["function"]) for call in message["tool_calls"]] == [
        ("a", {"name": "f", "arguments": "{}"}),
        ("b", {"name": "g", "arguments": "[]"}),
    ]


def test_tool_calls_without_index_are_calls_of_their_own() -> None:
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in "ab"]
    message = read(*(chunk({"tool_calls": [call]}) for call in calls)).gathered()
    assert message is not None
    assert [call["id"] for call in message["tool_calls"]] == ["a", "b"]


def test_a_tool_call_without_index_and_id_goes_on_with_the_last() -> None:
    parts = [{"function": {"arguments": "1"}}, {"id": "b", "function": {"arguments": "2"}}, {"function": {}}]
    chunks = [chunk({"tool_calls": [part]}) for part in parts]
    read(*chunks)
    assert [told["choices"][0]["delta"]["tool_calls"][0]["index"] for told in chunks] == [0, 1, 1]


def test_of_an_answer_without_end_so_much_is_kept() -> None:
    texts = read(*(chunk({"content": "a" * (1 << 20)}) for _ in range(40))).gathered()
    assert texts is not None
    assert (len(texts["content"]), texts["truncated"]) == (16 << 20, True)
    several = [{"index": number, "id": f"c{number}"} for number in range(5_000)]
    calls = read(chunk({"tool_calls": several})).gathered()
    assert calls is not None
    assert (len(calls["tool_calls"]), calls["truncated"]) == (1_000, True)


@pytest.mark.parametrize("index", [[1], {"a": 1}, "1", True, 1.5])
def test_a_choice_whose_index_is_no_number_is_the_first(index: object) -> None:
    reader = read({"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": "stop"}]})
    assert (reader.gathered() or {})["content"] == "a"
    assert reader.finished


def test_of_several_choices_the_first_is_kept() -> None:
    message = read(chunk({"content": "a"}), chunk({"content": "z"}, index=1)).gathered()
    assert message is not None
    assert message["content"] == "a"


def test_the_last_usage_counts() -> None:
    assert read({"usage": None}, {"usage": {"total_tokens": 3}, "choices": []}).usage == {"total_tokens": 3}


def test_nothing_came_is_nothing() -> None:
    assert AnswerReader().gathered() is None


def test_an_index_that_is_no_number_is_passed_over() -> None:
    assert read(chunk({"tool_calls": [{"index": [1], "id": "a"}]})).gathered() is not None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "tool_calls", "function", "content", "usage", "index", "arguments", "id"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["choices", "usage", "model"]), _JSON))
def test_no_shape_of_chunk_breaks_it(payload: dict[str, Any]) -> None:
    reader = read(payload)
    reader.gathered()
    AnswerReader().whole(payload)


@pytest.mark.parametrize(
    ("usage", "usd"),
    [(None, None), ({}, None), ({"cost_in_usd_ticks": 12_500_000_000}, 1.25), ({"cost_in_usd_ticks": "x"}, None)],
)
def test_the_provider_s_own_charge(usage: dict[str, Any] | None, usd: float | None) -> None:
    assert charged_usd(usage or {}) == usd
