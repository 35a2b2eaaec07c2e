"""Ollama's API, and the old completions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ai_router.apis import ClientApi
from ai_router.client_apis.completions import API as COMPLETIONS
from ai_router.client_apis.ollama_chat import API as CHAT
from ai_router.client_apis.ollama_generate import API as GENERATE
from ai_router.errors import InvalidRequest, UpstreamBroken
from ai_router.errors import Source as Backend
from tests.client_apis.answers import chunks_of, client_form, completion, written

HELLO = {"model": "auto:latest", "messages": [{"role": "user", "content": "hi"}]}
CALLS = [
    {"id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": orjson.dumps({"n": n}).decode()}}
    for n in (1, 2)
]


def lines(api: ClientApi, asked: dict[str, Any], answer: dict[str, Any], piece: int = 3) -> list[dict[str, Any]]:
    stream, _ = written(api, client_form(api, asked), chunks_of(answer, piece))
    return [orjson.loads(line) for line in stream.split(b"\n") if line]


def test_a_chat_is_lines_of_which_the_last_one_has_the_figures() -> None:
    answer = completion({"content": "hello there", "reasoning": "hm"}, "length")
    *parts, last = lines(CHAT, HELLO, answer)
    assert "".join(part["message"]["content"] for part in parts) == "hello there"
    assert "".join(part["message"].get("thinking", "") for part in parts) == "hm"
    assert not any(part["done"] for part in parts)
    assert (last["done"], last["done_reason"], last["eval_count"], last["prompt_eval_count"]) == (True, "length", 3, 5)


def test_calls_of_tools_are_sent_whole() -> None:
    *_, last = lines(CHAT, HELLO, completion({"content": None, "tool_calls": CALLS}, "tool_calls"))
    assert [call["function"] for call in last["message"]["tool_calls"]] == [
        {"name": "look", "arguments": {"n": 1}},
        {"name": "look", "arguments": {"n": 2}},
    ]


def test_a_whole_answer_has_everything_in_one_object() -> None:
    whole = CHAT.answer(completion({"content": "hello", "tool_calls": CALLS}), client_form(CHAT, HELLO))
    assert (whole["message"]["content"], len(whole["message"]["tool_calls"]), whole["done"]) == ("hello", 2, True)
    generated = GENERATE.answer(completion({"content": "hello"}), client_form(GENERATE, {"prompt": "hi"}))
    assert (generated["response"], generated["done"]) == ("hello", True)


@pytest.mark.parametrize(("api", "asked"), [(CHAT, HELLO), (GENERATE, {"prompt": "hi"})])
def test_only_a_stream_tells_when_its_first_token_came(api: ClientApi, asked: dict[str, Any]) -> None:
    times = {"prompt_eval_duration", "eval_duration"}
    *_, last = lines(api, asked, completion({"content": "hello"}))
    assert times <= last.keys()
    whole = api.answer(completion({"content": "hello"}), client_form(api, asked))
    assert not times & whole.keys()
    assert whole["total_duration"] > 0


def test_options_and_names_are_translated() -> None:
    asked = CHAT.read(
        {
            **HELLO,
            "options": {"temperature": 0, "num_predict": 5, "num_ctx": 8192, "stop": ["x"]},
            "format": {"type": "object"},
            "think": False,
        }
    )
    assert asked.model == "auto"
    assert asked.params == {
        "temperature": 0,
        "max_tokens": 5,
        "stop": ["x"],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
        "reasoning_effort": "none",
    }
    assert "max_tokens" not in CHAT.read({**HELLO, "options": {"num_predict": -1}}).params


def test_it_streams_unless_the_client_says_otherwise() -> None:
    assert CHAT.streams(HELLO)
    assert not CHAT.streams({**HELLO, "stream": False})


def test_a_tools_result_belongs_to_the_call_of_that_name() -> None:
    call = {"function": {"name": "look", "arguments": {"n": 1}}}
    turns = CHAT.read(
        {
            "messages": [
                {"role": "user", "content": "hi", "images": ["/9j/AAAA"]},
                {"role": "assistant", "content": "", "tool_calls": [call, {"function": {"name": "other"}}]},
                {"role": "tool", "content": "seen", "tool_name": "other"},
                {"role": "tool", "content": "looked", "tool_name": "look"},
            ]
        }
    ).messages
    assert turns[0]["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    ids = [made["id"] for made in turns[1]["tool_calls"]]
    assert [turn["tool_call_id"] for turn in turns[2:]] == ids[::-1]


def test_a_failure_is_a_line_and_there_are_no_comments() -> None:
    writer = CHAT.writer(client_form(CHAT, HELLO))
    assert writer.error(UpstreamBroken("broke", Backend("primary", "m"))) == b'{"error":"primary (m): broke"}\n'
    assert writer.comment("waiting") == b""


@pytest.mark.parametrize(
    ("api", "payload", "param"),
    [
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": [{"role": "boss", "content": ""}]}, "messages[0].role"),
        (CHAT, {**HELLO, "format": 5}, "format"),
        (CHAT, {**HELLO, "options": []}, "options"),
        (CHAT, {**HELLO, "options": {"num_predict": "abc"}}, "options.num_predict"),
        (CHAT, {**HELLO, "think": {}}, "think"),
        (CHAT, {"messages": [{"role": "user", "content": "x", "images": "AAAA"}]}, "messages[0].images"),
        (CHAT, {"messages": [{"role": "assistant", "tool_calls": [3]}]}, "messages[0].tool_calls[0]"),
        (GENERATE, {}, "prompt"),
        (COMPLETIONS, {}, "prompt"),
        (COMPLETIONS, {"prompt": 5}, "prompt"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(api: ClientApi, payload: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        api.read(payload)
    assert caught.value.param == param


def test_a_prompt_with_a_suffix_is_an_editors() -> None:
    assert COMPLETIONS.read({"prompt": "def f(", "suffix": "\n"}).task == "code_completion"
    assert COMPLETIONS.read({"prompt": "once upon a time"}).task is None


@pytest.mark.parametrize(("fields", "shown"), [({}, False), ({"stream_options": {"include_usage": True}}, True)])
def test_the_usage_of_a_text_is_shown_to_those_who_want_it(fields: dict[str, Any], shown: bool) -> None:
    form = client_form(COMPLETIONS, {"prompt": "hi", **fields})
    stream, _ = written(COMPLETIONS, form, chunks_of(completion({"content": "hello"}), 3))
    assert (b'"usage"' in stream) == shown
    assert stream.endswith(b"data: [DONE]\n\n")
    events = [orjson.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: {")]
    assert "".join(choice["text"] for event in events for choice in event["choices"]) == "hello"


@pytest.mark.parametrize(("payload", "field"), [({"echo": True}, "echo"), ({"prompt": ["a", "b"]}, "prompt")])
def test_what_needs_a_backend_with_this_api_is_named(payload: dict[str, Any], field: str) -> None:
    assert COMPLETIONS.read({"prompt": "x", **payload}).kept["untranslatable"] == field


def test_a_call_that_was_cut_is_left_out() -> None:
    cut = {"id": "c", "type": "function", "function": {"name": "rm", "arguments": '{"path": "/etc'}}
    *_, last = lines(CHAT, HELLO, completion({"content": None, "tool_calls": [cut]}, "length"))
    assert not last["message"].get("tool_calls")
    assert last["done_reason"] == "length"
