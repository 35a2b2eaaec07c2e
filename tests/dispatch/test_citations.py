"""The pages that a web search has found, put into an answer of which no other byte changes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.dispatch.citations import cited, cited_first, sources_of, url_annotations
from ai_router.types import Step

URLS = ["https://example.org/a", "https://example.org/b"]


def completion(**message: Any) -> dict[str, Any]:
    made = {"role": "assistant", "content": 'it says "message": {"x": 1} \\ so', **message}
    return {"id": "c", "choices": [{"index": 0, "message": made, "finish_reason": "stop"}], "usage": {"n": 1}}


@given(st.text())
def test_a_chat_completion_has_them_twice_and_all_else_as_it_was(content: str) -> None:
    answer = completion(content=content, tool_calls=None)
    body = orjson.dumps(answer)
    found = orjson.loads(cited(body, URLS, is_chat=True))
    assert found.pop("citations") == URLS
    assert found["choices"][0]["message"].pop("annotations") == url_annotations(URLS)
    assert found == answer


def test_they_are_in_openais_form() -> None:
    assert url_annotations(["https://example.org/a"]) == [
        {
            "type": "url_citation",
            "url_citation": {"url": "https://example.org/a", "title": "example.org", "start_index": 0, "end_index": 0},
        }
    ]


@pytest.mark.parametrize("present", [None, []])
def test_an_empty_list_of_the_backends_is_filled(present: Any) -> None:
    found = orjson.loads(cited(orjson.dumps(completion(annotations=present)), URLS, is_chat=True))
    assert found["choices"][0]["message"]["annotations"] == url_annotations(URLS)


def test_annotations_of_the_backends_own_stay() -> None:
    answer = completion(annotations=[{"type": "file"}])
    found = orjson.loads(cited(orjson.dumps(answer), URLS, is_chat=True))
    assert found["choices"][0]["message"]["annotations"] == [{"type": "file"}]
    assert found["citations"] == URLS


@pytest.mark.parametrize("body", [b"[]", b"no JSON", b'{"message": nonsense', b'{"a": 1}', b'{"message": {"half'])
def test_what_is_no_completion_does_no_harm(body: bytes) -> None:
    found = cited(body, URLS, is_chat=True)
    assert found in (body, b'{"a": 1,"citations":["https://example.org/a","https://example.org/b"]}')


def test_in_another_api_they_are_a_member_of_the_answer() -> None:
    assert orjson.loads(cited(b'{"output": []}', URLS, is_chat=False)) == {"output": [], "citations": URLS}


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_stream_has_them_in_its_first_event_and_in_a_chunk_of_their_own(end: bytes) -> None:
    first = {"id": "c", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [{"delta": {}}]}
    rest = b'data: {"x":1}' + end + b"data: [DONE]" + end
    found = cited_first(b": wait\n\ndata: " + orjson.dumps(first) + end + rest, URLS, is_chat=True)
    assert found is not None
    assert found.endswith(rest)
    told = [orjson.loads(line[6:]) for line in found.splitlines() if line.startswith(b"data: {")]
    assert told[0] == {**first, "citations": URLS}
    assert told[1] == {
        **{name: first[name] for name in ("id", "object", "created", "model")},
        "choices": [{"index": 0, "delta": {"annotations": url_annotations(URLS)}, "finish_reason": None}],
    }
    assert told[2] == {"x": 1}


def test_in_another_api_the_first_event_has_them() -> None:
    found = cited_first(b'event: a\ndata: {"type":"a"}\n\ndata: {"b":1}\n\n', URLS, is_chat=False)
    assert found is not None
    assert found.count(b"citations") == 1
    assert cited_first(b": wait\n\n", URLS, is_chat=False) is None


def test_the_sources_are_those_at_the_end_of_the_last_context() -> None:
    text = "It rains.\n\nSources:\n- https://example.org/a\n- https://example.org/b"
    steps = [Step("classification", 0, 1), Step("enrichment", 1, 2, {"context": text})]
    assert sources_of(steps) == URLS
    assert sources_of([Step("enrichment", 0, 1, {"context": None})]) == []
    assert sources_of([]) == []
