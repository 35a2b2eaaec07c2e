"""Learning from answers whether the primary thinks."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ai_router.dispatch.thinking import PrimaryThinking
from ai_router.types import Status
from tests.chat_requests import chat_request
from tests.outcomes import FREE, attempt, outcome


def after(*answers: dict[str, Any]) -> bool | None:
    thinking = PrimaryThinking()
    for answer in answers:
        thinking.finished(outcome(**{"attempts": (attempt("primary", "m"),), "usage": {}, **answer}), FREE)
    return thinking.reasons


PLAIN = {"response": {"content": "hi"}}


@pytest.mark.parametrize(
    "answer",
    [
        {"response": {"content": "hi", "reasoning": "hm"}},
        {"response": {"content": "hi", "reasoning_content": "hm"}},
        {"response": {"content": "\n<think>hm</think>hi"}},
        {"response": {"content": "hi"}, "usage": {"completion_tokens_details": {"reasoning_tokens": 7}}},
    ],
)
def test_reasoning_in_any_form_is_known_for_good(answer: dict[str, Any]) -> None:
    assert after(answer) is True
    assert after(PLAIN, answer, PLAIN) is True


def test_an_answer_without_says_that_it_does_not() -> None:
    assert after(PLAIN) is False


@pytest.mark.parametrize(
    "answer",
    [
        {"attempts": (attempt("xai", "grok"),)},
        {"attempts": ()},
        {"status": Status.ERROR},
        {"request": chat_request(params={"reasoning_effort": "none"})},
        {"request": chat_request(params={"chat_template_kwargs": orjson.Fragment(b'{"enable_thinking":false}')})},
    ],
)
def test_other_answers_say_nothing(answer: dict[str, Any]) -> None:
    assert after({**PLAIN, **answer}) is None
