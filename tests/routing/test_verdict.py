"""Reading a classifier's answer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.verdict import (
    LABELS,
    WordFinder,
    constrained_verdict,
    delta_texts,
    label_of_token,
    label_probability,
    word_in_answer,
)
from ai_router.types import Label
from tests.fakes.personas import completion


@pytest.mark.parametrize(
    ("token", "label"),
    [("MOD", "MODERATE"), (" C", "COMPLEX"), ("enrich", "ENRICH"), ("EN", "ENRICH"), ("", None), ("X", None)],
)
def test_the_beginning_of_a_label_names_it(token: str, label: str | None) -> None:
    assert label_of_token(token) == label


def test_confidence_is_the_share_among_the_labels_not_among_all_tokens() -> None:
    tokens = [("MOD", math.log(0.3)), ("COM", math.log(0.1)), ("<think>", math.log(0.6))]
    assert label_probability(Label.MODERATE, tokens) == pytest.approx(0.75)


def test_spellings_of_one_label_add_up() -> None:
    tokens = [("MOD", math.log(0.2)), (" mod", math.log(0.2)), ("EN", math.log(0.4))]
    assert label_probability(Label.MODERATE, tokens) == pytest.approx(0.5)


def test_without_any_label_s_token_there_is_no_confidence() -> None:
    assert label_probability(Label.MODERATE, [("x", -1.0)]) is None


def test_a_constrained_answer_without_logprobs_has_no_confidence() -> None:
    verdict = constrained_verdict(completion("ENRICH"))
    assert verdict is not None
    assert (verdict.label, verdict.confidence, verdict.finish_reason) == ("ENRICH", None, "stop")


@pytest.mark.parametrize("payload", [{}, {"choices": []}, {"choices": [None]}, completion(None), completion("hm")])
def test_garbage_is_no_verdict(payload: dict[str, object]) -> None:
    assert constrained_verdict(payload) is None


@pytest.mark.parametrize(
    ("content", "reasoning", "label"),
    [
        ("COMPLEX", "", "COMPLEX"),
        ("**Decision:** ENRICH", "", "ENRICH"),
        ("<think>MODERATE? no</think>\n\nCOMPLEX", "", "COMPLEX"),
        ("MODERATE? COMPLEX? hm.</think>ENRICH", "", "ENRICH"),
        ("<think>Is it MODERATE? No, COMPLEX", "", "COMPLEX"),
        ("", "Could be MODERATE, but ENRICH", "ENRICH"),
        ("moderate", "", "MODERATE"),
        ("This is not a simple question but one that is COMPLEX... no wait, MODERATE", "", "MODERATE"),
        ("I cannot say", "", None),
        ("", "", None),
    ],
)
def test_the_word_of_a_finished_answer(content: str, reasoning: str, label: str | None) -> None:
    assert word_in_answer(content, reasoning) == label


def found_after(deltas: list[str]) -> tuple[Label | None, int]:
    finder = WordFinder()
    for number, delta in enumerate(deltas, 1):
        if (label := finder.feed(delta, "")) is not None:
            return label, number
    return finder.finish(), len(deltas) + 1


def test_the_streamed_word_counts_as_soon_as_it_stands() -> None:
    assert found_after(["\n", "MOD", "ERATE", ". Because"]) == (Label.MODERATE, 3)


def test_words_inside_the_think_block_do_not_count() -> None:
    assert found_after(["<th", "ink>", "COMPLEX?", "</think>", "\n\n", "ENRICH"]) == (Label.ENRICH, 6)


def test_words_deep_in_an_unmarked_text_wait_for_its_end() -> None:
    thinking = "The user wants to know something, and that may well be a COMPLEX matter"
    assert found_after([thinking, "</think>", "MODERATE"]) == (Label.MODERATE, 3)


@given(st.sampled_from(LABELS), st.integers(1, 5))
def test_the_cut_of_the_stream_does_not_matter(label: Label, size: int) -> None:
    text = f"<think>\nCOMPLEX or ENRICH or MODERATE\n</think>\n\n{label}"
    assert found_after([text[i : i + size] for i in range(0, len(text), size)])[0] == label


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_has_two_names(name: str) -> None:
    assert delta_texts({"choices": [{"delta": {name: "hm"}}]}) == ("", "hm", None)
