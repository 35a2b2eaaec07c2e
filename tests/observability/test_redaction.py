"""SESSION_BODIES: what is left of what was said."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ai_router.config import SessionBodies
from ai_router.observability.redaction import kept_of_messages, kept_of_response, kept_of_step, redacted

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
    assert orjson.dumps(kept_of_messages(body, SessionBodies.FULL)) == body


def test_redacted_keeps_the_shape_and_not_a_word() -> None:
    kept = kept_of_messages(orjson.dumps(MESSAGES), SessionBodies.REDACTED)
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
    assert kept_of_response({"content": "secret", "finish_reason": "stop"}, bodies) == kept


def test_a_web_context_is_something_that_was_said() -> None:
    step = {"chars": 6, "context": "secret", "error": None}
    assert kept_of_step(step, SessionBodies.FULL) == step
    assert kept_of_step(step, SessionBodies.REDACTED)["context"] == "[6 characters]"
    assert kept_of_step(step, SessionBodies.OFF)["context"] is None


def test_numbers_say_something_too() -> None:
    assert redacted({"iban": 123456, "ok": True, "none": None}) == {"iban": "[number]", "ok": True, "none": None}
