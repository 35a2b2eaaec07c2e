"""Sentence vectors: near where texts mean the same, whatever the language."""

from __future__ import annotations

import numpy as np
import pytest

from ai_router.routing.head import blas, sentences
from ai_router.routing.head.sentences import (
    READ_CHARS,
    SIZE,
    Network,
    SentenceVectors,
    meaning_of,
    meaning_row,
)


@pytest.fixture(scope="module")
def vectors() -> SentenceVectors:
    return SentenceVectors()


def test_a_translation_is_nearer_than_another_question(vectors: SentenceVectors) -> None:
    weather, wetter, tenki, recipe = vectors.of(
        ["what will the weather be like tomorrow", "wie wird morgen das Wetter", "明日の天気は", "a recipe for lentils"]
    )
    assert min(weather @ wetter, weather @ tenki) > 0.7
    assert weather @ recipe < 0.4


def test_vectors_have_length_one_and_only_the_beginning_of_a_text_counts(vectors: SentenceVectors) -> None:
    long = "the old mill by the river " * 20
    found = vectors.of([long, long[:READ_CHARS], ""])
    assert found.shape == (3, SIZE)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1], abs=0.01)
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_half_a_surrogate_pair_is_read_as_a_question_mark(vectors: SentenceVectors) -> None:
    broken, mark = vectors.of(["what is \ud800", "what is ?"])
    assert broken == pytest.approx(mark, abs=1e-5)


def test_who_needs_the_model_hears_why_it_did_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(sentences, "USE", broken)
    with pytest.raises(MemoryError, match="none left"):
        SentenceVectors().of(["hello"])


def test_the_model_loads_without_looking_for_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []

    def look(self: object) -> None:
        looked.append(self)

    controller = type(blas._LIBRARIES)
    monkeypatch.setattr(controller, "_load_libraries", look)
    assert SentenceVectors().of(["hello"]).shape == (1, SIZE)
    blas.take_one_thread()
    assert not looked, "another thread may be importing: see blas.py"
    controller()
    assert looked, "the name that this test relies on is still the one"


def test_what_sentences_mean_together_is_between_them_and_of_length_one() -> None:
    one, two = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
    one[0] = two[1] = 1
    both = meaning_of(np.array([one, two]))
    assert both[:3] == pytest.approx([0.7071, 0.7071, 0], abs=0.001)


def test_the_turn_before_is_part_of_what_a_label_is_told_from() -> None:
    vector = np.full(SIZE, 0.1, np.float32)
    alone, after = meaning_row(vector, None), meaning_row(vector, vector)
    assert alone.shape == after.shape == (2 * SIZE + 1,)
    assert (alone[-1], after[-1]) == (0, 1)
    assert (alone[:SIZE] == after[:SIZE]).all()


def test_a_network_is_one_hidden_layer() -> None:
    network = Network(
        (np.array([[1, -1]], np.float32), np.zeros(2, np.float32)),
        (np.array([[1], [1]], np.float32), np.ones(1, np.float32)),
    )
    assert network.logits(np.array([[3], [-2]], np.float32)).tolist() == [[4], [3]]
