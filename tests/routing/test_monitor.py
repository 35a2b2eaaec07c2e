"""When the head leaves service, when it comes back, and what drift is."""

from __future__ import annotations

import random

import pytest

from ai_router.routing.monitor import CONFIDENCE_BINS, RETURN_AFTER, WINDOW, Agreement, Monitor


def seen(monitor: Monitor, *agreed: bool) -> None:
    for one in agreed:
        monitor.record_comparison(agreed=one)


def test_a_head_that_agrees_stays() -> None:
    monitor = Monitor(0.1)
    seen(monitor, *[True] * 300)
    assert monitor.in_service
    assert monitor.agreement() == Agreement(WINDOW, WINDOW)


def test_a_few_early_disagreements_prove_nothing() -> None:
    monitor = Monitor(0.1)
    seen(monitor, *[False] * 3, *[True] * 16)
    assert monitor.in_service


def test_sustained_disagreement_takes_it_out_of_service_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    monitor = Monitor(0.1)
    with caplog.at_level("WARNING"):
        seen(monitor, *[True, False] * 10)
    assert not monitor.in_service
    assert "Fast path out of service: it disagreed with the classifier in 50.0% of 20 comparisons" in caplog.text


def test_it_comes_back_after_a_run_of_agreement(caplog: pytest.LogCaptureFixture) -> None:
    monitor = Monitor(0.1)
    seen(monitor, *[False] * 20)
    seen(monitor, *[True] * (RETURN_AFTER - 1))
    assert not monitor.in_service
    with caplog.at_level("INFO"):
        seen(monitor, True)
    assert monitor.in_service
    assert "Fast path back in service" in caplog.text


def test_a_new_head_begins_in_service_with_nothing_held_against_it() -> None:
    monitor = Monitor(0.1)
    seen(monitor, *[False] * 30)
    monitor.reset((0.1,) * CONFIDENCE_BINS)
    assert monitor.in_service
    assert monitor.agreement().share is None


def test_the_bound_is_below_what_was_seen_and_closes_in() -> None:
    few, many = Agreement(20, 16), Agreement(2000, 1600)
    assert few.disagreement_lower_bound() < many.disagreement_lower_bound() < 0.2


def test_drift_is_nothing_for_like_traffic_and_much_for_another() -> None:
    reference = tuple([0.02] * 9 + [0.82])
    monitor, rng = Monitor(0.1, reference), random.Random(1)
    assert monitor.drift() is None
    for _ in range(1000):
        monitor.record_confidence(rng.choices([0.05 + index / 10 for index in range(CONFIDENCE_BINS)], reference)[0])
    like = monitor.drift()
    for _ in range(1000):
        monitor.record_confidence(0.45)
    other = monitor.drift()
    assert like is not None
    assert other is not None
    assert like < 0.1
    assert other > 0.25


def test_full_confidence_falls_into_the_last_bin() -> None:
    monitor = Monitor(0.1, (0.0,) * 9 + (1.0,))
    for _ in range(WINDOW):
        monitor.record_confidence(1.0)
    assert monitor.drift() == pytest.approx(0.0, abs=0.1)
