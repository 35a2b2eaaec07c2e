"""The model that finds the ask: it keeps the segments that ask, and says how clear that was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.head.asking import MAX_READ, AskModel, read_segments, segment_features
from ai_router.routing.head.sentences import SentenceVectors
from ai_router.routing.head.store import packaged_head
from tests.heads import LetterVectors, ask_model


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


UNMET = [
    ("My sister keeps eleven tortoises in the attic.", "What is the boiling point of ethanol?", ""),
    ("", "How do I get red wine out of a carpet?", "A reply of two lines at the most, and no bullet points."),
    ("The kiln must cool down before it is opened. Shards go into the grey bin.", "How old do whales get?", ""),
    ("We sailed past the island at dawn and nobody spoke.", "Write a haiku about snow.", ""),
    ("Please bear with an old sailor.", "How many legs does a lobster have?", ""),
    ("The invoice was paid in two parts. The second came late.", "Translate 'good night' into Danish.", ""),
    ("", "Who invented the zip?", "No fuss, no frills, no footnotes."),
    ("Our orchard gave nine crates of pears this autumn.", "What does 'ad hoc' mean?", ""),
]


def test_sentence_vectors_find_the_ask_in_most_surroundings_that_nobody_has_met(asks: AskModel) -> None:
    vectors, exact = SentenceVectors(), 0
    for before, ask, after in UNMET:
        found = asks.find(f"{before}\n{ask}\n{after}")
        read = vectors.of([found.segments[at] for at in read_segments(len(found.segments))])
        clearer = asks.find_by_meaning(found, read).ask.text
        assert ask in clearer
        exact += ask == clearer
    assert exact > len(UNMET) / 2


def test_of_a_long_message_both_ends_are_read_as_vectors_and_the_words_decide_between_them() -> None:
    assert read_segments(MAX_READ) == list(range(MAX_READ))
    assert read_segments(20) == [0, 1, 2, 3, 16, 17, 18, 19]
    asks = ask_model(-9.0)
    found = asks.find("\n".join(f"line {number}" for number in range(20)))
    vectors = LetterVectors().of([found.segments[at] for at in read_segments(20)])
    clearer = asks.find_by_meaning(found, vectors)
    assert clearer.ask.text.split("\n") == [f"line {number}" for number in (0, 1, 2, 3, 16, 17, 18, 19)]
    assert (clearer.kept == vectors).all()


def test_a_message_of_one_segment_is_the_ask_for_certain(asks: AskModel) -> None:
    found = asks.find('"is it far?"')
    assert (found.text, found.certainty) == ("is it far?", 1.0)


def test_with_nothing_to_tell_them_apart_all_is_kept_and_nothing_is_certain() -> None:
    message = "is it far?  I am\ttired."
    found = ask_model(0.0).find(message)
    assert (found.text, found.certainty) == (message, 0.0)


def test_something_is_always_kept() -> None:
    assert ask_model(-9.0).find("Thanks! Bye! Have a nice day!").text


def test_a_segment_is_seen_with_its_place() -> None:
    first, last = (set(segment_features(["is it far?", "is it far?"], index).buckets.tolist()) for index in (0, 1))
    assert first & last
    assert first - last


@given(st.text(max_size=300))
def test_any_text_has_an_ask(message: str) -> None:
    found = ask_model(0.0, weights=1.0).find(message)
    assert 0.0 <= found.certainty <= 1.0
    assert bool(found.text) == bool(message.strip())
