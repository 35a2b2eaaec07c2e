"""Labels with an owner's routes among them: what the classifier is told, and how its answers are read."""

from __future__ import annotations

import math

import pytest

from ai_router.providers.own_routes import OwnRoute
from ai_router.routing.labels import Labels
from ai_router.routing.verdict import LabelSet, WordFinder, constrained_verdict, word_in_answer
from ai_router.types import Label

CODE = OwnRoute(
    description="program code.", examples=("sort a list\nin C", "x" * 200, "3", "4", "5", "six"), backend="primary"
)
LABELS = Labels({"code": CODE, "legal-advice": CODE})


def test_the_classifier_is_told_what_is_asked_of_a_route_with_some_examples() -> None:
    prompt = LABELS.prompt
    assert "\nCODE - program code. For instance: sort a list in C; xx" in prompt
    assert "; 5\n" in prompt, "five examples, not more"
    assert "[...]" in prompt, "a long one is cut"
    assert "\nWhere CODE or LEGAL-ADVICE fits, that goes before MODERATE and COMPLEX.\n" in prompt
    assert prompt.endswith("Answer with exactly one word: MODERATE, COMPLEX, ENRICH, CODE or LEGAL-ADVICE.")


def test_without_routes_it_is_the_prompt_that_it_was() -> None:
    assert Labels().prompt.endswith("Answer with exactly one word: MODERATE, COMPLEX or ENRICH.")
    assert "\n\n\n" not in Labels().prompt
    assert (Labels().digest, Labels().names.deciding_tokens) == (b"", 1)


def test_as_many_tokens_are_read_as_tell_the_labels_apart() -> None:
    # C-O-D and C-O-M, whatever the tokens are.
    assert LABELS.names.deciding_tokens == 3


def test_a_constrained_answer_names_a_route_and_its_probability() -> None:
    top = [{"token": "CODE", "logprob": math.log(0.6)}, {"token": "MOD", "logprob": math.log(0.2)}]
    logprobs = {"content": [{"token": "CODE", "logprob": math.log(0.6), "top_logprobs": top}]}
    choice = {"message": {"content": "CODE"}, "logprobs": logprobs, "finish_reason": "stop"}
    verdict = constrained_verdict({"choices": [choice]}, LABELS.names)
    assert verdict is not None
    assert (verdict.label, verdict.confidence) == ("CODE", pytest.approx(0.75))
    assert verdict.complex_share == 0.0


def test_reasoning_may_name_it_too() -> None:
    assert word_in_answer("<think>COMPLEX?</think> legal-advice, I think.", "", LABELS.names) == "LEGAL-ADVICE"
    finder = WordFinder(LABELS.names)
    assert [finder.feed("CO", ""), finder.feed("DE", "")] == [None, "CODE"]


def test_a_built_in_label_stays_what_it_is() -> None:
    assert word_in_answer("ENRICH", "", LABELS.names) is Label.ENRICH


@pytest.mark.parametrize("names", [("CODE", "CODE-REVIEW"), ("code",), ("CÖDE",), ("A B",)])
def test_labels_that_cannot_be_told_apart_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"label"):
        LabelSet(names)


def test_other_examples_make_other_keys_of_kept_decisions() -> None:
    changed = OwnRoute(description="program code.", examples=("1", "2", "3", "4", "5"), backend="primary")
    assert Labels({"code": CODE}).digest != Labels({"code": changed}).digest
