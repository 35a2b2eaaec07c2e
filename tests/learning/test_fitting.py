"""Fitting linear models, on rows few enough for a test."""

from __future__ import annotations

import numpy as np

from ai_router.learning.fitting import feature_matrix, fit_difficulty, fit_linear
from ai_router.routing.head.features import BUCKETS, Excerpt, Features


def row(*buckets: int) -> Features:
    return Features(np.array(buckets), np.ones(len(buckets), np.float32), np.empty(0, np.uint64))


def test_what_separates_the_classes_gets_the_weight() -> None:
    rows = [row(1, 9), row(1), row(2, 9), row(2)]
    found = fit_linear(feature_matrix(rows), np.array([0, 0, 1, 1]), np.ones(4), penalty=0.1, class_count=2)
    assert found.weights[1, 0] > 0.5 > -0.5 > found.weights[1, 1]
    assert abs(found.weights[9]).max() < 0.01
    assert not found.weights[[0, 3, BUCKETS - 1]].any()


def test_fitting_on_stays_near_where_it_began() -> None:
    before = fit_linear(feature_matrix([row(1), row(2)]), np.array([0, 1]), np.ones(2), penalty=0.01, class_count=2)
    rows = feature_matrix([row(3), row(4)])
    after = fit_linear(rows, np.array([0, 1]), np.ones(2), penalty=0.01, class_count=2, start=before)
    assert np.array_equal(after.weights[[1, 2]], before.weights[[1, 2]])
    assert after.weights[3, 0] > 0


def test_difficulty_orders_what_the_weak_model_fails() -> None:
    easy, hard = (
        [Excerpt((f"what is {n}",), "", 9) for n in range(40)],
        [Excerpt((f"prove {n}",), "", 9) for n in range(40)],
    )
    weights = fit_difficulty([*easy, *hard], [True] * 40 + [False] * 40, [True] * 80, 2026)
    assert weights.shape == (BUCKETS, 2)
    assert weights[:, 0].any()
