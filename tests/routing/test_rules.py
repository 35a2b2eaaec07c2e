"""The rules that stand in for a classifier."""

from __future__ import annotations

import pytest

from ai_router.routing.rules import match_rules


def label_of(text: str) -> str | None:
    match = match_rules([{"role": "user", "content": text}])
    return match.label if match else None


@pytest.mark.parametrize(
    "text",
    [
        "what's the weather in Paris?",
        "latest news about the election",
        "search the web for flights",
        "bitcoin price?",
        "Who won the match?",
    ],
)
def test_a_wish_for_what_is_current_is_enrich(text: str) -> None:
    assert label_of(text) == "ENRICH"


@pytest.mark.parametrize(
    "text", ["prove that sqrt(2) is irrational", "design a distributed storage system", "x" * 7000]
)
def test_a_large_task_is_complex(text: str) -> None:
    assert label_of(text) == "COMPLEX"


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "explain what weather is",
        "translate 'what is the weather today' into Spanish",
        "list vs tuple?",
        "what is electric current?",
        "summarize: the latest news were bad",
        "",
    ],
)
def test_everything_else_is_left_to_the_default(text: str) -> None:
    assert label_of(text) is None


def test_only_the_last_user_turn_is_judged() -> None:
    turns = [{"role": "user", "content": "weather in Rome?"}, {"role": "assistant", "content": "Sunny"}]
    assert match_rules([*turns, {"role": "user", "content": "thanks"}]) is None
