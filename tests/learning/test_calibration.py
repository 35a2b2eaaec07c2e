"""Thresholds that keep a stated risk, over stages of which each answers what the one before left."""

from __future__ import annotations

import numpy as np
import pytest

from ai_router.learning.calibration import (
    UNCALIBRATED,
    Cases,
    Scored,
    accepted_share,
    calibrate,
    fit_dial,
    threshold_for_risk,
)
from ai_router.routing.dial import NOTHING
from ai_router.routing.head.confidence import HeadScores, Stages, calibrated


def judgement(confidences: list[float], right: list[bool]) -> Scored:
    return Scored(np.array(confidences), np.array(right), np.ones(len(right)), np.zeros(len(right), np.int64))


def test_the_threshold_is_the_lowest_that_keeps_the_risk() -> None:
    judged = judgement([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    assert threshold_for_risk(judged, 0.0) == 0.8
    assert threshold_for_risk(judged, 0.25) == 0.6
    assert threshold_for_risk(judgement([0.9], [False]), 0.5) == 1.0


def test_what_holds_for_the_cases_need_not_hold_for_those_they_stand_for() -> None:
    confidences, right = [1 - number / 1000 for number in range(300)], [number % 100 != 99 for number in range(300)]
    judged = judgement(confidences, right)
    assert threshold_for_risk(judged, 0.01) == confidences[-1]
    # With 3 errors in 300 cases, 2.6 % of all such cases may be errors, as far as one can be 95 % certain.
    assert threshold_for_risk(judged, 0.026, certainty=0.95) == confidences[-1]
    assert threshold_for_risk(judged, 0.025, certainty=0.95) > confidences[-1]
    assert threshold_for_risk(judgement(confidences[:50], [True] * 50), 0.05, certainty=0.95) == 1.0


def test_cases_of_one_confidence_are_answered_all_or_none() -> None:
    judged = judgement([0.9, 0.8, 0.8, 0.8], [True, True, False, False])
    assert threshold_for_risk(judged, 0.1) == 0.9
    assert threshold_for_risk(judged, 0.5) == 0.8


def test_what_an_earlier_stage_got_wrong_counts_against_the_later_one() -> None:
    judged = judgement([0.0, 0.9, 0.8], [False, True, True])
    already = np.array([True, False, False])
    assert threshold_for_risk(judged, 0.34, answered=already, answered_correctly=np.zeros(3, bool)) == 0.8
    assert threshold_for_risk(judged, 0.1, answered=already, answered_correctly=np.zeros(3, bool)) == 1.0


def likely(label: int, times: float) -> np.ndarray:
    """Log-probabilities in which a label is so many times likelier than each other one."""
    shares = np.ones(3, np.float32)
    shares[label] = times
    return np.log(shares / shares.sum())


def cases(count: int) -> Cases:
    """The words are right where they are convinced, in half of the cases; the encoder is always right."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, count)
    stages: tuple[list[HeadScores], list[HeadScores], list[HeadScores]] = ([], [], [])
    for number, label in enumerate(classes):
        convinced = number % 2 == 0
        said = int(label if convinced else rng.integers(0, 3))
        words = likely(said, 20.0 if convinced else 1.2)
        encoder = likely(int(label), 20.0)
        stages[0].append(HeadScores(words, 1.0, 1, 40))
        stages[1].append(HeadScores(words, 1.0, 1, 40, meaning=words))
        stages[2].append(HeadScores(words, 1.0, 1, 40, meaning=words, encoder=encoder))
    return Cases(stages, classes, rng.integers(0, 5, count), np.ones(count))


def test_an_early_stage_decides_what_it_knows_and_leaves_the_rest_to_the_last() -> None:
    given = cases(400)
    found = calibrate(given, risk=0.02)
    assert found.risk <= 0.02
    assert found.coverage > 0.95
    convinced, unconvinced = given.by_stage[0][0], given.by_stage[0][1]
    assert calibrated(convinced, found.stages.words)[1] >= found.stages.words.threshold
    assert calibrated(unconvinced, found.stages.words)[1] < found.stages.words.threshold
    assert sum(found.histogram) == pytest.approx(1, abs=0.001)


def in_one_stage(shares: list[float], labels: list[int], weights: list[float] | None = None) -> Cases:
    """Cases of which all models say that they are COMPLEX with these probabilities, and else MODERATE."""
    scores = []
    for share in shares:
        log_p = np.log(np.array([1 - share, share, 1e-9]) + 1e-12).astype(np.float32)
        scores.append(HeadScores(log_p, 1.0, 1, 10))
    every = np.ones(len(shares)) if weights is None else np.array(weights)
    return Cases((scores, scores, scores), np.array(labels), np.zeros(len(shares), np.int64), every)


ONLY_ONE = Stages(UNCALIBRATED, UNCALIBRATED, UNCALIBRATED)


def test_a_quality_accepts_the_share_of_complex_that_it_says() -> None:
    shares = [(number + 0.5) / 100 for number in range(100)]
    dial = fit_dial(in_one_stage(shares, [1] * 100), ONLY_ONE)
    assert dial.accepted == (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
    assert dial.thresholds[0] == NOTHING
    assert dial.thresholds[1:] == pytest.approx([0.905, 0.805, 0.705, 0.605, 0.5, 0.405, 0.305, 0.205, 0.105, 0.005])


def test_other_labels_and_cases_without_weight_do_not_count() -> None:
    shares = [0.9, 0.8, 0.1, 0.2]
    dial = fit_dial(in_one_stage(shares, [1, 1, 0, 1], [1, 1, 1, 0]), ONLY_ONE)
    assert dial.accepted[5] == 0.0
    assert dial.thresholds[10] == pytest.approx(0.8)


def test_what_is_taken_for_enrich_stays_at_every_quality() -> None:
    cases = in_one_stage([0.9, 0.6], [1, 1])
    live = HeadScores(np.log(np.array([0.1, 0.1, 0.8], np.float32)), 1.0, 1, 10)
    cases = Cases(([live, *cases.by_stage[0][1:]],) * 3, cases.classes, cases.folds, cases.weights)
    dial = fit_dial(cases, ONLY_ONE)
    assert dial.accepted[5:] == (0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    assert dial.thresholds[10] == pytest.approx(0.6)


def test_the_scale_runs_evenly_from_all_to_what_is_missed_to_none() -> None:
    assert [accepted_share(quality, 0.05) for quality in (0, 5, 10)] == pytest.approx([1.0, 0.05, 0.0])
    assert accepted_share(4, 0.05) == pytest.approx(0.24)
    assert accepted_share(8, 0.05) == pytest.approx(0.02)


def test_without_a_complex_case_there_is_no_dial() -> None:
    with pytest.raises(ValueError, match="no case is COMPLEX"):
        fit_dial(in_one_stage([0.1], [0]), ONLY_ONE)
