"""Keys do not stand in what is written down; nor does what was said, by SESSION_BODIES."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.config import SessionBodies
from ai_router.observability.redaction import (
    Scrubber,
    kept_messages,
    kept_response,
    kept_step_detail,
    redact,
)

KEYS = ("xai-0123456789", 'odd"key\\with-marks', "xai-0123456789-longer")


def test_every_key_is_taken_out_of_a_text_the_longest_first() -> None:
    assert Scrubber(KEYS).text("a xai-0123456789-longer b xai-0123456789 c") == "a [key] b [key] c"


def test_a_key_is_found_in_json_as_json_writes_it() -> None:
    document = orjson.dumps({"content": f"my key is {KEYS[1]}!"})
    assert orjson.loads(Scrubber(KEYS).json(document)) == {"content": "my key is [key]!"}


def test_a_key_that_is_a_word_is_left_alone() -> None:
    assert Scrubber(["hi"]).text("hi there, this is high") == "hi there, this is high"


def test_without_keys_nothing_is_touched() -> None:
    assert Scrubber().json(b"{}") == b"{}"


@given(st.text(), st.text())
def test_wherever_it_stands_a_key_goes(before: str, after: str) -> None:
    scrubber = Scrubber(KEYS)
    for key in KEYS:
        assert key not in scrubber.text(before + key + after)
        assert orjson.loads(scrubber.json(orjson.dumps([before.encode("utf-8", "ignore").decode() + key])))


MESSAGES = [
    {"role": "user", "content": "my secret plan"},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
    {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "secret"}}],
    },
]
SAID = ("secret", "AAAA")


def test_full_keeps_the_bytes_as_they_came() -> None:
    body = orjson.dumps(MESSAGES)
    assert orjson.dumps(kept_messages(body, SessionBodies.FULL)) == body


def test_redacted_keeps_the_shape_and_not_a_word() -> None:
    kept = kept_messages(orjson.dumps(MESSAGES), SessionBodies.REDACTED)
    assert kept[0] == {"role": "user", "content": "[14 characters]"}
    assert kept[1]["content"][0]["type"] == "image_url"
    assert kept[2]["tool_calls"][0]["id"] == "c1"
    assert not any(word in orjson.dumps(kept).decode() for word in SAID)


@pytest.mark.parametrize(
    ("bodies", "kept"),
    [
        (SessionBodies.OFF, {"finish_reason": "stop"}),
        (SessionBodies.REDACTED, {"content": "[6 characters]", "finish_reason": "stop"}),
        (SessionBodies.FULL, {"content": "secret", "finish_reason": "stop"}),
    ],
)
def test_how_an_answer_ended_is_kept_in_any_case(bodies: SessionBodies, kept: Any) -> None:
    assert kept_response({"content": "secret", "finish_reason": "stop"}, bodies) == kept


def test_a_web_context_is_something_that_was_said() -> None:
    step = {"chars": 6, "context": "secret", "error": None}
    assert kept_step_detail(step, SessionBodies.FULL) == step
    assert kept_step_detail(step, SessionBodies.REDACTED)["context"] == "[6 characters]"
    assert kept_step_detail(step, SessionBodies.OFF)["context"] is None


def test_numbers_say_something_too() -> None:
    assert redact({"iban": 123456, "ok": True, "none": None}) == {"iban": "[number]", "ok": True, "none": None}
