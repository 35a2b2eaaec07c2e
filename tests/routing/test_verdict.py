"""Reading a classifier's answer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.verdict import (
    BUILT_IN,
    LABELS,
    GeneratedToken,
    WordFinder,
    constrained_verdict,
    delta_texts,
    label_beginning_with,
    label_probability,
    tokens_to_tell_apart,
    word_in_answer,
)
from ai_router.types import Label
from tests.fakes.personas import completion


@pytest.mark.parametrize(
    ("token", "label"),
    [("MOD", "MODERATE"), (" C", "COMPLEX"), ("enrich", "ENRICH"), ("EN", "ENRICH"), ("", None), ("X", None)],
)
def test_the_beginning_of_a_label_names_it(token: str, label: str | None) -> None:
    assert label_beginning_with(token) == label


def test_confidence_is_the_share_among_the_labels_not_among_all_tokens() -> None:
    tokens = [("MOD", math.log(0.3)), ("COM", math.log(0.1)), ("<think>", math.log(0.6))]
    assert label_probability(Label.MODERATE, [GeneratedToken("MOD", tokens)]) == pytest.approx(0.75)


def test_spellings_of_one_label_add_up() -> None:
    tokens = [("MOD", math.log(0.2)), (" mod", math.log(0.2)), ("EN", math.log(0.4))]
    assert label_probability(Label.MODERATE, [GeneratedToken("MOD", tokens)]) == pytest.approx(0.5)


def test_without_any_label_s_token_there_is_no_confidence() -> None:
    assert label_probability(Label.MODERATE, [GeneratedToken("x", [("x", -1.0)])]) is None


def test_our_labels_are_told_apart_by_one_token() -> None:
    assert BUILT_IN.deciding_tokens == 1


# Labels that share their first letters: nothing but LABELS would have to change.

ALIKE = ("MODERATE", "MODEST", "COMPLEX")


@pytest.mark.parametrize(
    ("labels", "tokens"), [(ALIKE, 5), (("YES", "NO"), 1), (("MAP", "MOP", "TOP"), 2), (("A",), 1)]
)
def test_as_many_tokens_are_needed_as_letters_tell_the_labels_apart(labels: tuple[str, ...], tokens: int) -> None:
    assert tokens_to_tell_apart(labels) == tokens


@pytest.mark.parametrize(
    "labels", [("ENRICH", "ENRICHED"), ("A", "A"), ("A", "É"), ("A", "b"), ("A", "B C"), ("A", "")]
)
def test_labels_that_cannot_be_told_apart_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="label"):
        tokens_to_tell_apart(labels)


@pytest.mark.parametrize(
    ("text", "label"),
    [("MOD", None), ("MODE", None), ("MODER", "MODERATE"), ("modes", "MODEST"), ("C", "COMPLEX"), ("MODEX", None)],
)
def test_a_beginning_of_several_labels_names_none(text: str, label: str | None) -> None:
    assert label_beginning_with(text, ALIKE) == label


def test_a_token_of_several_labels_counts_for_each_its_part() -> None:
    candidates = [("MOD", math.log(0.5)), ("MODER", math.log(0.1)), ("MODES", math.log(0.1)), ("C", math.log(0.2))]
    answer = [GeneratedToken("C", candidates)]
    assert label_probability("COMPLEX", answer, ALIKE) == pytest.approx(0.2 / 0.9)
    assert label_probability("MODERATE", answer, ALIKE) == pytest.approx((0.25 + 0.1) / 0.9)


def test_the_probability_of_a_generated_beginning_is_divided_by_the_tokens_after_it() -> None:
    answer = [
        GeneratedToken("MOD", [("MOD", math.log(0.6)), ("C", math.log(0.2)), ("x", math.log(0.2))]),
        GeneratedToken("E", [("E", math.log(0.9))]),
        GeneratedToken("ST", [("ST", math.log(0.3)), ("RATE", math.log(0.1)), ("L", math.log(0.6))]),
    ]
    shares = [label_probability(label, answer, ALIKE) for label in ALIKE]
    assert shares == pytest.approx([0.75 * 0.25, 0.75 * 0.75, 0.25])


def test_an_answer_that_ends_before_it_names_a_label_has_no_confidence() -> None:
    assert label_probability("MODERATE", [GeneratedToken("MOD", [("MOD", -0.1), ("C", -3.0)])], ALIKE) is None
    assert label_probability("MODERATE", [], ALIKE) is None


@given(st.permutations(ALIKE), st.lists(st.integers(1, 4), min_size=5, max_size=5))
def test_however_an_answer_is_cut_into_tokens_enough_of_them_name_its_label(
    labels: list[str], sizes: list[int]
) -> None:
    text = labels[0][: sum(sizes[: tokens_to_tell_apart(labels)])]
    assert label_beginning_with(text, labels) == labels[0]


# The whole answer


def test_a_constrained_answer_without_logprobs_has_no_confidence() -> None:
    verdict = constrained_verdict(completion("ENRICH"))
    assert verdict is not None
    assert (verdict.label, verdict.confidence, verdict.finish_reason) == ("ENRICH", None, "stop")


def test_the_generated_token_counts_also_where_the_list_of_the_likeliest_lacks_it() -> None:
    listed = [{"token": "C", "logprob": math.log(0.6)}]
    payload = completion("MOD", finish_reason="length")
    payload["choices"][0]["logprobs"] = {
        "content": [{"token": "MOD", "logprob": math.log(0.2), "top_logprobs": listed}]
    }
    verdict = constrained_verdict(payload)
    assert verdict is not None
    assert verdict.confidence == pytest.approx(0.25)


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
