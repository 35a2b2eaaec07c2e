"""Fitting a network, and vectors that are computed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ai_router.learning.networks import Fit, KnownVectors, fit_network
from ai_router.routing.head.sentences import SIZE, Array
from tests.heads import LetterVectors

FIT = Fit(units=16, epochs=60, batch=32, learning_rate=0.02, dropout=0.1)


def test_a_network_learns_what_no_linear_model_can() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (600, 2)).astype(np.float32)
    differ = (points[:, 0] > 0) != (points[:, 1] > 0)
    network = fit_network(lambda indices: points[indices], differ[:, None].astype(np.float32), np.ones(600), FIT)
    assert ((network.logits(points)[:, 0] > 0) == differ).mean() > 0.95


def test_of_several_labels_the_likeliest_is_the_true_one_and_an_example_without_weight_does_not_count() -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), 40, axis=0)
    targets = np.repeat(np.eye(3, dtype=np.float32), 40, axis=0)
    wrong = np.zeros(120)
    wrong[::2] = 1
    targets[1::2] = np.roll(targets[1::2], 1, axis=1)
    network = fit_network(lambda indices: points[indices], targets, wrong, FIT)
    assert network.logits(np.eye(3, dtype=np.float32)).argmax(axis=1).tolist() == [0, 1, 2]


def test_the_same_examples_make_the_same_network() -> None:
    points = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    targets = (points[:, :1] > 0).astype(np.float32)
    first, again = (fit_network(lambda indices: points[indices], targets, np.ones(50), FIT) for _ in range(2))
    assert (first.hidden[0] == again.hidden[0]).all()


class Counting(LetterVectors):
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def of(self, texts: Sequence[str]) -> Array:
        self.asked += texts
        return super().of(texts)


def test_a_text_s_vector_is_computed_once() -> None:
    model = Counting()
    vectors = KnownVectors(model)
    vectors.prepare(["b", "a", "a"])
    found = vectors.of(["a", "b", "c"])
    assert found.shape == (3, SIZE)
    assert sorted(model.asked) == ["a", "b", "c"]
    assert np.allclose(found, LetterVectors().of(["a", "b", "c"]), atol=0.001)
    assert vectors.of([]).shape == (0, SIZE)
