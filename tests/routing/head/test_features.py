"""What the head reads of a conversation, and its features: deterministic, bounded, frame apart from payload."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.head.features import (
    ANSWER_CHARS,
    BUCKETS,
    TURN_CHARS,
    Excerpt,
    excerpt_features,
    excerpt_of,
    split_turn,
    word_buckets,
)


def excerpt(text: str, *before: str) -> Excerpt:
    return Excerpt((text, *before), "", len(text))


@pytest.mark.parametrize(
    ("text", "frame", "payload"),
    [
        (
            "translate 'what is the weather today' into Spanish",
            "translate ⓠ into spanish",
            "'what is the weather today'",
        ),
        ("fix this:\nthe latest news is arrived", "fix this: ⓟ", ": the latest news is arrived"),
        ("what does ```x = 1``` do", "what does ⓒ do", "```x = 0```"),
        ("summarise https://example.org/a", "summarise ⓤ", ""),
        ("it's what's new, isn't it", "it's what's new, isn't it", ""),
    ],
)
def test_what_is_asked_is_told_from_what_it_is_asked_about(text: str, frame: str, payload: str) -> None:
    parts = split_turn(text, 2026)
    assert (parts.frame, parts.payload) == (frame, payload)


def test_a_year_is_past_or_not() -> None:
    assert split_turn("elections 1998, 2025 and 2026", 2026).frame == "elections ⓞ, ⓨ and ⓨ"


@given(st.text(max_size=400), st.text(max_size=40))
def test_any_text_has_features_in_range_and_the_same_each_time(text: str, before: str) -> None:
    once, again = excerpt_features(excerpt(text, before), 2026), excerpt_features(excerpt(text, before), 2026)
    assert np.array_equal(once.buckets, again.buckets)
    assert np.all((once.buckets >= 0) & (once.buckets < BUCKETS))
    assert np.all(np.isfinite(once.weights))
    assert len(once.buckets) == len(once.weights)


def test_lone_surrogates_are_text_too() -> None:
    assert len(excerpt_features(excerpt("a \ud800 b"), 2026).buckets)


def test_what_came_before_counts_less_for_a_long_turn() -> None:
    def share_of_context(text: str) -> float:
        alone = excerpt_features(excerpt(text), 2026).weights
        both = excerpt_features(excerpt(text, "weather in Oslo"), 2026).weights
        return float(np.linalg.norm(both) / np.linalg.norm(alone))

    assert share_of_context("and tomorrow?") > share_of_context("write a story about " + "a dog and " * 20) > 1


def test_explanations_name_words_only() -> None:
    assert [word for word, _ in word_buckets(excerpt("Price of 3 eggs?!"), 2026)] == ["price", "of", "eggs"]


# What the head reads of a conversation


def test_the_last_two_user_turns_newest_first_and_the_answer_between() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "third"},
    ]
    excerpt = excerpt_of(messages)
    assert (excerpt.turns, excerpt.answer, excerpt.length) == (("third", "second"), "two", 5)


def test_of_a_long_turn_both_ends_are_read_and_its_length_is_known() -> None:
    excerpt = excerpt_of([{"role": "user", "content": "begin " + "x" * 100_000 + " end"}])
    assert excerpt.last.startswith("begin")
    assert excerpt.last.endswith("end")
    assert len(excerpt.last) == TURN_CHARS + 1
    assert excerpt.length == 100_010


def test_parts_and_images_are_text_and_placeholders() -> None:
    content = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert excerpt_of([{"role": "user", "content": content}]).last == "what is this?\n[image]"


def test_a_tool_s_result_after_the_question_does_not_hide_it() -> None:
    messages = [{"role": "user", "content": "weather?"}, {"role": "assistant", "content": None}, {"role": "tool"}]
    assert excerpt_of(messages).last == "weather?"


def test_an_answer_is_read_from_its_beginning() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "y" * 900}]
    assert len(excerpt_of([*messages, {"role": "user", "content": "b"}]).answer) == ANSWER_CHARS


def test_nothing_said_is_an_empty_view() -> None:
    assert excerpt_of([{"role": "system", "content": "Be brief."}]).turns == ("",)


def test_what_cannot_be_read_is_told() -> None:
    image = [{"type": "text", "text": "prove this"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert excerpt_of([{"role": "user", "content": image}]).partial
    assert excerpt_of([{"role": "user", "content": "hi"}, {"role": "tool", "content": "a long result"}]).partial
    assert not excerpt_of([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]).partial
    assert not excerpt_of([{"role": "user", "content": "hi"}]).partial
