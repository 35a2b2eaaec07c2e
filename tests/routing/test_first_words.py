"""What the beginning of an answer tells of the request."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from ai_router.routing.first_words import FIRST_CHARS, first_words, reconsidered
from ai_router.types import DecidedBy, Decision, Label

PAGE = Path(__file__).parents[2] / "docs/steering.md"
OPENINGS = Path(__file__).parents[2] / "datasets/first_words/openings.jsonl"
ROWS = [orjson.loads(line) for line in OPENINGS.read_bytes().splitlines()]


def told(answer: str) -> str:
    found = first_words(answer)
    return Label.MODERATE if found is None else found.label


@pytest.mark.parametrize(("label", "least"), [("ENRICH", 14), ("COMPLEX", 11), ("MODERATE", 18)])
def test_most_openings_are_told_apart(label: str, least: int) -> None:
    ours = [row for row in ROWS if row["label"] == label]
    assert sum(told(row["answer"]) == label for row in ours) >= least
    assert len(ours) <= least + 2


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("I don\u2019t have access to real-time prices.", Label.ENRICH),
        ("Well, I don't know.", Label.COMPLEX),
        ('Say: "I don\'t know, ask my lawyer".', Label.MODERATE),
        ("```text\nI don't know\n```", Label.MODERATE),
        ("a" * FIRST_CHARS + " I don't know", Label.MODERATE),
        ("", Label.MODERATE),
        ("<think>I'm not sure whether they want it soft. I don't know.", Label.MODERATE),
        ("<think>Easy, or is it?</think>\nI'm not sure.", Label.COMPLEX),
    ],
)
def test_only_what_the_model_says_itself_at_the_beginning_counts(answer: str, label: Label) -> None:
    assert told(answer) == label


def test_improbable_tokens_tell_that_the_model_hardly_knows_what_it_says() -> None:
    found = first_words("The capital is", [-2.0] * 20)
    assert found is not None
    assert (found.label, found.why) == (Label.COMPLEX, "hardly knows what it says")
    assert first_words("The capital is", [-0.3] * 20) is None
    assert first_words("The capital is", [-2.0] * 19) is None


def test_a_changed_decision_is_sure_of_nothing_and_keeps_what_was_judged() -> None:
    decision = Decision(Label.MODERATE, "primary", DecidedBy.CLASSIFIER, "classifier: MODERATE (0.8)", 0.8)
    found = first_words("I don't know.")
    assert found is not None
    changed = reconsidered(decision, found)
    assert (changed.label, changed.route, changed.judged, changed.confidence) == ("COMPLEX", "xai", "MODERATE", None)
    assert changed.reason == "classifier: MODERATE (0.8); but the primary's answer is not sure of itself"


def test_the_phrases_in_the_docs_are_told() -> None:
    section = PAGE.read_text().partition("## The primary's first words")[2].partition("\n## ")[0]
    rows = re.findall(r'^\| [^|]*: ("[^|]*") \| (\w+) \|$', section, re.MULTILINE)
    phrases = [(phrase, label) for quoted, label in rows for phrase in re.findall(r'"([^"]*)"', quoted)]
    assert len(phrases) >= 7
    for phrase, label in phrases:
        assert told(f"Well, {phrase} that.") == label, phrase
