"""What was decided, spliced into an answer of which no other byte changes."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.dispatch.explain import FIELD, explained, explained_first, explanation
from ai_router.dispatch.record import RequestRecord
from ai_router.types import DecidedBy, Decision, Label, Route
from tests.chat_requests import chat_request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def decided_record(reason: str = "why", scrub: Callable[[str], str] = str) -> RequestRecord:
    """Of a request that the primary answers."""
    record = RequestRecord(chat_request(), [], scrub=scrub)
    decision = Decision(Label.MODERATE, Route.PRIMARY, DecidedBy.FAST, reason, confidence=0.9, ask='a "word"')
    record.decided(decision, route="primary", model="m", note=None)
    return record


@given(st.dictionaries(st.text().filter(lambda name: name != FIELD), JSON, max_size=4))
def test_a_whole_answer_has_one_member_more(answer: dict[str, object]) -> None:
    record = decided_record()
    for body in (orjson.dumps(answer), b"\n " + orjson.dumps(answer, option=orjson.OPT_INDENT_2) + b"\n"):
        assert orjson.loads(explained(body, record)) == {**answer, FIELD: explanation(record)}


@given(st.dictionaries(st.text().filter(lambda name: name != FIELD), JSON, max_size=4))
def test_so_has_the_first_event_of_a_stream_and_no_other_one(event: dict[str, object]) -> None:
    record = decided_record()
    data = orjson.dumps(event)
    stream = b": wait\n\nevent: x\ndata: " + data + b"\n\ndata: " + data + b"\n\ndata: [DONE]\n\n"
    found = explained_first(stream, record)
    assert found is not None
    first, second = (line for line in found.split(b"\n") if line.startswith(b"data: {"))
    assert orjson.loads(first[6:]) == {**event, FIELD: explanation(record)}
    assert second[6:] == data
    assert found.replace(first, b"data: " + data) == stream


def test_a_line_of_json_is_an_event_too() -> None:
    found = explained_first(b'{"done":false}\n{"done":true}\n', decided_record())
    assert found is not None
    assert FIELD in orjson.loads(found.split(b"\n")[0])
    assert found.endswith(b'\n{"done":true}\n')


def test_an_event_with_data_on_several_lines_is_passed_over() -> None:
    spread = b'data: {"a": [\ndata: {"index": 0}\ndata: ]}\n\n'
    assert explained_first(spread, decided_record()) is None
    found = explained_first(spread + b'data: {"b": 1}\r\n\r\n', decided_record())
    assert found is not None
    assert found.startswith(spread + b'data: {"b": 1,"x_router":')


@pytest.mark.parametrize("portion", [b"", b": wait\n\n", b'data: {"a": 1', b"data: [DONE]\n\n", b'data: {"a":\n'])
def test_without_a_whole_event_there_is_nothing_to_put_it_in(portion: bytes) -> None:
    assert explained_first(portion, decided_record()) is None


@pytest.mark.parametrize("body", [b"[1]", b"no JSON", b"", b'"}"'])
def test_what_is_no_object_stays_as_it_is(body: bytes) -> None:
    assert explained(body, decided_record()) == body


def test_keys_are_taken_out_of_it() -> None:
    told = explanation(
        decided_record(reason="asked for sk-secret", scrub=lambda text: text.replace("sk-secret", "***"))
    )
    assert told["reason"] == "asked for ***"
