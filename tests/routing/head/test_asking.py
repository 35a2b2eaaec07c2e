"""The model that finds the ask: it keeps the segments that ask, and says how clear that was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.head.asking import AskModel, segment_features
from ai_router.routing.head.features import BUCKETS
from ai_router.routing.head.store import packaged_head


@pytest.fixture(scope="module")
def asks() -> AskModel:
    return packaged_head(with_difficulty=False).asks


@pytest.mark.parametrize(
    ("message", "ask"),
    [
        ("Please: what is the capital of Peru?", "what is the capital of Peru?"),
        ("Hello! I am a baker and live in Leeds. What is the capital of Peru?", "What is the capital of Peru?"),
        ("What is the capital of Peru? Thanks in advance!", "What is the capital of Peru?"),
        ("What is the capital of Peru? (answer in German)", "What is the capital of Peru?"),
        ("Translate into French: what is the weather today", "Translate into French: what is the weather today"),
    ],
)
def test_what_surrounds_the_ask_is_left_out(asks: AskModel, message: str, ask: str) -> None:
    assert asks.find(message).text.replace("\n", " ") == ask


def test_a_message_of_one_segment_is_the_ask_for_certain(asks: AskModel) -> None:
    found = asks.find('"is it far?"')
    assert (found.text, found.certainty) == ("is it far?", 1.0)


def test_with_nothing_to_tell_them_apart_all_is_kept_and_nothing_is_certain() -> None:
    message = "is it far?  I am\ttired."
    found = AskModel(np.zeros(BUCKETS, np.float16), 0.0).find(message)
    assert (found.text, found.certainty) == (message, 0.0)


def test_something_is_always_kept() -> None:
    assert AskModel(np.zeros(BUCKETS, np.float16), -9.0).find("Thanks! Bye! Have a nice day!").text


def test_a_segment_is_seen_with_its_place() -> None:
    first, last = (set(segment_features(["is it far?", "is it far?"], index).buckets.tolist()) for index in (0, 1))
    assert first & last
    assert first - last


@given(st.text(max_size=300))
def test_any_text_has_an_ask(message: str) -> None:
    found = AskModel(np.ones(BUCKETS, np.float16), 0.0).find(message)
    assert 0.0 <= found.certainty <= 1.0
    assert bool(found.text) == bool(message.strip())
