"""Reading a request's messages: what the classifier is shown, META tasks, the date sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.providers.catalogue import CHAINS
from ai_router.routing.labels import Labels
from ai_router.routing.prompt import (
    classifier_messages,
    date_context,
    local_date_context,
    render_conversation,
)
from ai_router.routing.verdict import LABELS
from ai_router.types import Label, Route, route_of
from tests.chat_requests import chat_request

_TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=400)}),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("label", LABELS)
def test_a_label_that_the_classifier_may_say_is_in_its_prompt_and_has_a_route_and_a_chain(label: Label) -> None:
    assert label in Labels().prompt
    assert route_of(label) in Route
    assert label.lower() in CHAINS


def test_the_system_prompt_comes_first_and_the_newest_turn_last() -> None:
    messages = [{"role": "user", "content": "weather in Rome?"}, {"role": "assistant", "content": "Sunny."}]
    request = chat_request(messages=[*messages, {"role": "user", "content": "and tomorrow?"}], date_context="DATE")
    system, user = classifier_messages(request, 6000, "PROMPT")
    assert system["content"] == "PROMPT"
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


# The date sentence

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def test_it_names_day_date_and_hour() -> None:
    assert date_context(NOON) == "Current date: Saturday, 21 November 2026 (weekend), between 12:00 and 12:59 UTC."


def test_it_keeps_its_bytes_for_an_hour() -> None:
    assert date_context(NOON) == date_context(NOON + timedelta(minutes=59, seconds=59))
    assert date_context(NOON) != date_context(NOON + timedelta(hours=1))


@pytest.mark.parametrize("minutes", [0, 59, 60, 24 * 60])
def test_here_it_is_that_of_the_local_time(minutes: int) -> None:
    moment = NOON + timedelta(minutes=minutes, seconds=59)
    assert local_date_context(moment) == date_context(moment.astimezone())
