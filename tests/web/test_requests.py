"""From bytes to a ChatRequest, or to an error that names the field."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.errors import BodyTooLarge, InvalidRequest
from ai_router.types import ChatRequest
from ai_router.web.requests import Arrival, Ids, check_values, parse_chat_request

ARRIVAL = Arrival(0.0, datetime(2026, 11, 21, tzinfo=UTC), "req_1", "s1", (), "DATE")

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = st.dictionaries(
    st.sampled_from(["model", "messages", "stream", "stream_options", "max_tokens", "temperature", "tools", "n", "x"]),
    _JSON,
)


def parsed(**fields: Any) -> ChatRequest:
    return parse_chat_request(orjson.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}), ARRIVAL)


@given(st.binary(max_size=200) | _FIELDS.map(orjson.dumps))
def test_anything_is_a_request_or_an_error_with_a_field(body: bytes) -> None:
    try:
        request = parse_chat_request(body, ARRIVAL)
    except InvalidRequest as error:
        assert error.param
        assert str(error)
    else:
        assert request.messages


@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda name: name not in PARSED), _JSON, max_size=4))
def test_every_field_that_is_not_ours_is_kept(fields: dict[str, Any]) -> None:
    kept = {name: orjson.loads(orjson.dumps(value)) for name, value in parsed(**fields).params.items()}
    assert kept == fields


PARSED = {
    *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "tools"),
    *("temperature", "top_p", "presence_penalty", "frequency_penalty", "api_base", "base_url", "api_key"),
}


def test_the_messages_are_serialised_once_and_shared() -> None:
    request = parsed()
    assert request.messages_json == b'[{"role":"user","content":"hi"}]'


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": ""}])
def test_no_model_is_auto(model: dict[str, Any]) -> None:
    assert parsed(**model).model == "auto"


def test_a_model_has_a_name_that_can_be_written_down() -> None:
    assert parsed(model="m" * 256).model == "m" * 256
    with pytest.raises(InvalidRequest, match="'model' may have 256 characters at most") as caught:
        parsed(model="m" * 257)
    assert caught.value.param == "model"


def test_null_is_as_good_as_absent() -> None:
    request = parsed(stream=None, stream_options=None, max_tokens=None, temperature=None)
    assert (request.stream, request.wants_usage) == (False, False)


def test_characters_are_counted_in_all_messages_and_parts() -> None:
    messages = [
        {"role": "system", "content": "abc"},
        {"role": "user", "content": [{"type": "text", "text": "de"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    assert parsed(messages=messages).total_chars == 5


@pytest.mark.parametrize("good", ["a", "A-b_c.9", "x" * 128])
def test_a_good_request_id_is_honoured(good: str) -> None:
    assert Ids().request_id(good) == good


@pytest.mark.parametrize("bad", [None, "", "a b", "x" * 129, "a\n", "ä"])
def test_a_bad_request_id_is_replaced(bad: str | None) -> None:
    assert Ids().request_id(bad) not in (bad, "")


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":[' + b",".join([b"[]"] * 1000) + b"]}",
        b'{"x":[' + b",".join([b'{"":0}'] * 600) + b"]}",
        b'{"x":' + b"[" * 1001 + b"]" * 1001 + b"}",
        b'{"x":[' + b",".join([b'"a\\"b, c"'] * 1000) + b"]}",
    ],
    ids=["empty lists", "small objects", "lists in lists", "texts"],
)
def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(body: bytes) -> None:
    with pytest.raises(BodyTooLarge, match=r"more than 1000 JSON values \(MAX_BODY_VALUES\)"):
        check_values(body, 1000)


@pytest.mark.parametrize(
    "text",
    [
        "one, two, three [four] {five} " * 2000,
        'he said "[,]" and wrote C:\\dir\\ ' * 2000,
        "\\" * 3001,
        '\\"' * 3001,
    ],
    ids=["commas and brackets", "quotation marks", "backslashes", "both"],
)
def test_a_long_text_is_one_value_whatever_is_in_it(text: str) -> None:
    check_values(orjson.dumps({"messages": [{"role": "user", "content": text}]}), 1000)


@given(_JSON)
def test_no_json_has_more_values_than_are_counted(value: object) -> None:
    def count(of: object) -> int:
        inner = of.values() if isinstance(of, dict) else of if isinstance(of, list) else ()
        return 1 + sum(map(count, inner))

    with pytest.raises(BodyTooLarge):
        check_values(orjson.dumps(value) + b" " * 50, count(value) - 1)


def test_whole_numbers_beyond_64_bits_go_on_as_they_came() -> None:
    long = 2**64 + 1
    request = parsed(seed=1, metadata={"ids": [1]})
    assert orjson.dumps(request.params) == b'{"seed":1,"metadata":{"ids":[1]}}'
    body = b'{"messages":[{"role":"user","content":"hi"}],"seed":%d,"metadata":{"ids":[%d,-%d]}}' % (long, long, long)
    assert orjson.dumps(parse_chat_request(body, ARRIVAL).params) == (
        b'{"seed":%d,"metadata":{"ids":[%d,-%d]}}' % (long, long, long)
    )
