"""The figures that ``eval`` prints, on cases small enough to count by hand."""

from __future__ import annotations

import random

import pytest

from ai_router.learning.evaluation import (
    Prediction,
    always_primary,
    at_random,
    auroc,
    by_length,
    coverage_at,
    expected_calibration_error,
    ideal_scores,
    performance_gap_recovered,
    report,
)
from ai_router.types import Label

M, C, E = Label.MODERATE, Label.COMPLEX, Label.ENRICH


def test_accuracy_precision_recall_and_confusion() -> None:
    found = report([M, M, C, E], [Prediction(M), Prediction(C), Prediction(C), Prediction(None)])
    assert (found.accuracy, found.failed) == (0.5, 1)
    assert (found.classes[C].precision, found.classes[C].recall) == (0.5, 1.0)
    assert (found.classes[E].precision, found.classes[E].recall) == (None, 0.0)
    assert found.confusion[M] == {M: 1, C: 1, E: 0, "failed": 0}
    assert found.confusion[E]["failed"] == 1


def test_coverage_is_where_it_was_sure() -> None:
    found = report([M, M, C], [Prediction(M, 0.9), Prediction(M, 0.8), Prediction(M, 0.4, sure=False)])
    assert found.coverage == pytest.approx(2 / 3)
    assert found.accuracy_sure == 1.0


def test_coverage_at_risk_takes_the_most_confident_first() -> None:
    confident = [(0.9, True), (0.8, True), (0.7, False), (0.6, True), (0.5, False)]
    assert coverage_at(0.0, confident, 5) == 0.4
    assert coverage_at(0.25, confident, 5) == 0.8
    assert coverage_at(0.4, confident, 5) == 1.0


def test_a_confidence_that_is_always_right_about_itself_has_no_calibration_error() -> None:
    assert expected_calibration_error([(0.75, True)] * 3 + [(0.75, False)]) == pytest.approx(0)
    assert expected_calibration_error([(0.95, False)] * 4) == pytest.approx(0.95)


def test_auroc() -> None:
    assert auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == 0.75
    assert auroc([1, 1, 1], [True, False, True]) == 0.5
    assert auroc([1, 2], [True, True]) is None


def test_baselines() -> None:
    truths = [M, C, M, C]
    assert report(truths, always_primary(truths)).accuracy == 0.5
    assert report(truths, by_length(truths, [5, 80, 7, 90])).accuracy == 1.0
    assert at_random(truths) == at_random(truths), "the same each time"


def test_latency_percentiles() -> None:
    found = report([M] * 100, [Prediction(M, ms=float(number)) for number in range(1, 101)])
    assert found.ms == {"p50": 51, "p90": 91, "p99": 100, "max": 100}


def test_apgr_is_a_half_by_chance_and_at_most_the_ideal() -> None:
    rng = random.Random(0)
    weak = [rng.random() < 0.6 for _ in range(4000)]
    strong = [rng.random() < 0.8 for _ in range(4000)]
    drawn = performance_gap_recovered([rng.random() for _ in weak], weak, strong)
    ideal = performance_gap_recovered(ideal_scores(weak, strong), weak, strong)
    assert drawn == pytest.approx(0.5, abs=0.05)
    assert ideal > 0.9 > drawn


def test_apgr_of_two_prompts_by_hand() -> None:
    assert performance_gap_recovered([1.0, 0.0], [False, True], [True, True]) == 0.75
    assert performance_gap_recovered([0.0, 1.0], [False, True], [True, True]) == 0.25


def test_apgr_needs_a_strong_model_that_is_stronger() -> None:
    with pytest.raises(ValueError, match="not better"):
        performance_gap_recovered([1.0], [True], [True])
