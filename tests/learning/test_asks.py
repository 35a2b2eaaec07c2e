"""Training the model that finds the ask, on prompts few enough for a test."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ai_router.cli.learning import own_dressings, own_examples
from ai_router.learning.asks import material_of, train_ask_model
from ai_router.learning.dressing import read_dressings
from ai_router.learning.examples import Example
from ai_router.learning.networks import KnownVectors
from ai_router.routing.head.asking import AskModel, read_segments
from ai_router.routing.head.sentences import SentenceVectors
from tests.heads import LetterVectors

TEST = read_dressings(Path(__file__).parents[2] / "datasets" / "test" / "dressings.toml")


@pytest.fixture(scope="module")
def few() -> list[Example]:
    return own_examples()[0][::12]


@pytest.fixture(scope="module")
def vectors() -> KnownVectors:
    return KnownVectors(SentenceVectors())


@pytest.fixture(scope="module")
def trained(few: list[Example], vectors: KnownVectors) -> AskModel:
    return train_ask_model(few, own_dressings(few).split()[0], vectors)


def test_it_learns_to_leave_out_what_it_has_not_met(trained: AskModel, vectors: KnownVectors) -> None:
    prompt = "how many rivers flow into the Black Sea?"
    for family in ("greeting", "polite_front", "about_in_front"):
        text = TEST.dress(prompt, family, random.Random(0)).text
        by_words = trained.find(text)
        assert prompt in by_words.text
        assert len(by_words.text) < len(text), family
        read = vectors.of([by_words.segments[at] for at in read_segments(len(by_words.segments))])
        by_meaning = trained.find_by_meaning(by_words, read).ask.text
        assert prompt in by_meaning
        assert len(by_meaning) < len(text), family


def test_training_is_reproducible(few: list[Example]) -> None:
    dressings = own_dressings(few).split()[0]
    first, again = (train_ask_model(few[::8], dressings, KnownVectors(LetterVectors())) for _ in range(2))
    assert first.bias == again.bias
    assert (first.weights == again.weights).all()
    assert (first.network.hidden[0] == again.network.hidden[0]).all()


def test_material_is_what_assistants_said_and_asks_nothing() -> None:
    said = "The tower was built in 1173. Shall I go on?"
    talk = Example(({"role": "assistant", "content": said},), own_examples()[0][0].label, "talk", "talk/1")
    assert material_of([talk]) == ["The tower was built in 1173."]
