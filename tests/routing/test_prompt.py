"""What the classifier is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.prompt import SYSTEM_PROMPT, classifier_messages, render_conversation
from tests.chat_requests import chat_request

_TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=400)}),
    min_size=1,
    max_size=8,
)


def test_the_system_prompt_comes_first_and_the_newest_turn_last() -> None:
    messages = [{"role": "user", "content": "weather in Rome?"}, {"role": "assistant", "content": "Sunny."}]
    request = chat_request(messages=[*messages, {"role": "user", "content": "and tomorrow?"}], date_context="DATE")
    system, user = classifier_messages(request, 6000)
    assert system["content"] == SYSTEM_PROMPT
    assert user["content"].startswith("DATE")
    assert user["content"].endswith("user: weather in Rome?\n\nassistant: Sunny.\n\nuser: and tomorrow?")


@given(_TURNS, st.integers(50, 2000))
def test_the_budget_is_kept(messages: list[dict[str, str]], budget: int) -> None:
    assert len(render_conversation(messages, budget)) <= budget


def test_the_oldest_turns_go_first() -> None:
    messages = [{"role": "user", "content": f"turn {number} " + "x" * 90} for number in range(20)]
    shown = render_conversation(messages, 500)
    assert "turn 19" in shown
    assert "turn 0 " not in shown


def test_a_long_last_turn_keeps_both_ends() -> None:
    shown = render_conversation([{"role": "user", "content": "BEGIN" + "x" * 10_000 + "END?"}], 1000)
    assert shown.startswith("user: BEGIN")
    assert shown.endswith("END?")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "who?"}]},
            "[image]\nwho?",
        ),
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, "[calls a tool]"),
    ],
)
def test_what_is_no_text_is_named(message: dict[str, object], shown: str) -> None:
    assert render_conversation([message], 1000).endswith(shown)
