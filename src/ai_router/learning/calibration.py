"""Calibrating a head: the mix of its models in each stage, its confidence, and the thresholds that keep a stated risk.

The thresholds are the lowest confidences above which the head is wrong in at most that share of the cases that it
answers. The confidences for that are cross-validated: no case has taken part in its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import beta

from ai_router.learning.fitting import Floats
from ai_router.routing.dial import HIGHEST, LOWEST, NEUTRAL, NEUTRAL_THRESHOLD, NOTHING, Dial, complex_share
from ai_router.routing.head.confidence import (
    CONFIDENCE_BINS,
    CONFIDENCE_INPUTS,
    HeadScores,
    Stage,
    Stages,
    calibrated,
    confidence_inputs,
    mixed_probabilities,
)
from ai_router.routing.verdict import LABELS
from ai_router.types import Label

EARLY_SHARES = (1 / 3, 1 / 2)
"""How much of the risk may have been used up behind the first stage, and behind the second: their cases are the easy
ones, and the last stage needs the rest for the hard ones."""
EARLY_RISK = 0.05
"""A stage decides without the next ones from the confidence at which at most this share of its decisions would not be
made, or be made otherwise, by all models."""
CERTAINTY = 0.95
"""The risk is kept with this probability for requests like the calibration cases. (Exactly so for thresholds that are
set beforehand; ours are chosen on the same cases, so that it is somewhat less.)"""
FOLDS = 5
_ROUNDING = 1e-9
UNCALIBRATED = Stage((1.0, 1.0, 1.0), (0.0,) * CONFIDENCE_INPUTS, 1.0)


@dataclass(frozen=True, slots=True)
class Cases:
    """What to calibrate with. ``by_stage``: the scores of each case in each stage; ``classes``: the numbers of the true
    labels; ``folds``: cases with one number are left out together; ``weights`` of the cases."""

    by_stage: tuple[Sequence[HeadScores], Sequence[HeadScores], Sequence[HeadScores]]
    classes: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    weights: Floats


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibrated stages; the shares of cases of which they are sure, and of these on which they are wrong; and the
    share of each of CONFIDENCE_BINS bins of confidence."""

    stages: Stages
    coverage: float
    risk: float
    histogram: list[float]


def calibrate(cases: Cases, risk: float) -> Calibration:
    """Fit each stage's mix and confidence, and set the thresholds so that ``risk`` is kept over all of them."""
    judged = [_cross_validated(scores, cases) for scores in cases.by_stage]
    by_all = judged[-1]
    answered, right = np.zeros(len(cases.classes), bool), np.zeros(len(cases.classes), bool)
    confidences, thresholds = by_all.confidences.copy(), []
    for stage, share in zip(judged, (*EARLY_SHARES, 1.0), strict=True):
        is_last = stage is by_all
        threshold = threshold_for_risk(
            stage, share * risk, certainty=CERTAINTY if is_last else None, answered=answered, answered_correctly=right
        )
        if not is_last:
            # Nor may it say what all models together would not.
            threshold = max(threshold, threshold_for_risk(_right_where_all_agree(stage, by_all, risk), EARLY_RISK))
        thresholds.append(threshold)
        now = ~answered & (stage.confidences >= threshold)
        right |= now & stage.correct
        confidences[now] = stage.confidences[now]
        answered |= now
    stages = [
        _stage(scores, cases.classes, cases.weights, threshold)
        for scores, threshold in zip(cases.by_stage, thresholds, strict=True)
    ]
    histogram = np.histogram(confidences, bins=CONFIDENCE_BINS, range=(0, 1), weights=cases.weights)[0]
    sure = float(cases.weights[answered].sum())
    return Calibration(
        Stages(stages[0], stages[1], stages[2]),
        sure / float(cases.weights.sum()),
        float(cases.weights[answered & ~right].sum()) / sure if sure else 0.0,
        [round(float(share), 4) for share in histogram / histogram.sum()],
    )


def fit_dial(cases: Cases, stages: Stages) -> Dial:
    """The thresholds of each quality, from the cases that are COMPLEX: the share of them that stays below is the one
    that the quality accepts (routing/dial.py). Raises ValueError where none of them is COMPLEX."""
    judged = [_judged(scores, stages) for scores in zip(*cases.by_stage, strict=True)]
    is_complex = (cases.classes == LABELS.index(Label.COMPLEX)) & (cases.weights > 0)
    if not is_complex.any():
        raise ValueError("no case is COMPLEX")
    # One that is taken for ENRICH stays at home at every quality: no threshold can change that.
    can_go = np.array([label is not Label.ENRICH for label, _ in judged])[is_complex]
    shares = np.array([share for _, share in judged])[is_complex]
    weights = cases.weights[is_complex] / cases.weights[is_complex].sum()
    order = np.flatnonzero(can_go)[np.argsort(shares[can_go], kind="stable")]
    below = np.cumsum(weights[order]) - weights[order]
    missed = float(weights[can_go & (shares < NEUTRAL_THRESHOLD)].sum())
    thresholds = []
    for quality in range(LOWEST, HIGHEST + 1):
        # The highest that leaves no more than is accepted below it.
        found = np.flatnonzero(below <= accepted_share(quality, missed) + _ROUNDING)
        thresholds.append(float(shares[order[found[-1]]]) if len(found) else NEUTRAL_THRESHOLD)
    thresholds[LOWEST], thresholds[NEUTRAL] = NOTHING, NEUTRAL_THRESHOLD
    accepted = [round(float(weights[~can_go | (shares < threshold)].sum()), 4) for threshold in thresholds]
    return Dial(tuple(thresholds), tuple(accepted))


def accepted_share(quality: int, missed: float) -> float:
    """The share of COMPLEX that may stay at home: all at LOWEST, ``missed``, what the head misses by itself, at
    NEUTRAL, none at HIGHEST, and in even steps between."""
    if quality <= NEUTRAL:
        return missed + (1 - missed) * (NEUTRAL - quality) / (NEUTRAL - LOWEST)
    return missed * (HIGHEST - quality) / (HIGHEST - NEUTRAL)


def _judged(scores: Sequence[HeadScores], stages: Stages) -> tuple[Label, float]:
    """The label, and the share of COMPLEX, by the first stage that is sure, else by the last one."""
    for given, stage in zip(scores, (stages.words, stages.vectors, stages.encoder), strict=True):
        probabilities, confidence = calibrated(given, stage)
        if confidence >= stage.threshold:
            break
    found = dict(zip(LABELS, probabilities.tolist(), strict=True))
    return LABELS[int(probabilities.argmax())], complex_share(found) or 0.0


@dataclass(frozen=True, slots=True)
class Scored:
    """For each case the confidence, whether the label was right, its weight, and the label's number."""

    confidences: Floats
    correct: npt.NDArray[np.bool_]
    weights: Floats
    labels: npt.NDArray[np.int64]


def _right_where_all_agree(early: Scored, by_all: Scored, risk: float) -> Scored:
    """An early stage's answers, counted as right where all models together would be sure of the same label."""
    agree = (by_all.confidences >= threshold_for_risk(by_all, risk)) & (by_all.labels == early.labels)
    return Scored(early.confidences, agree, early.weights, early.labels)


def _cross_validated(scores: Sequence[HeadScores], cases: Cases) -> Scored:
    """The confidence in each case, by a stage that was made from the cases of the other folds."""
    confidences, labels = np.zeros(len(scores)), np.zeros(len(scores), np.int64)
    for fold in range(FOLDS):
        others = np.flatnonzero(cases.folds != fold)
        stage = _stage([scores[int(index)] for index in others], cases.classes[others], cases.weights[others], 1.0)
        for index in map(int, np.flatnonzero(cases.folds == fold)):
            probabilities, confidences[index] = calibrated(scores[index], stage)
            labels[index] = int(probabilities.argmax())
    return Scored(confidences, labels == cases.classes, cases.weights, labels)


def threshold_for_risk(
    judged: Scored,
    risk: float,
    *,
    certainty: float | None = None,
    answered: npt.NDArray[np.bool_] | None = None,
    answered_correctly: npt.NDArray[np.bool_] | None = None,
) -> float:
    """The lowest confidence from which on at most ``risk`` of the answered cases are wrong; 1.0 if there is none.

    ``certainty``: not of these cases, but of the ones that they stand for, with this probability (_upper_bound).
    ``answered``: cases that an earlier stage has answered, ``answered_correctly`` whether rightly; they count.
    """
    none = np.zeros(len(judged.correct), bool)
    before = none if answered is None else answered
    wrong_before = none if answered_correctly is None else before & ~answered_correctly
    order = np.flatnonzero(~before)[np.argsort(-judged.confidences[~before], kind="stable")]
    errors = judged.weights[wrong_before].sum() + np.cumsum(judged.weights[order] * ~judged.correct[order])
    total = judged.weights[before].sum() + np.cumsum(judged.weights[order])
    ordered = judged.confidences[order]
    # Cases of one confidence are answered all or none.
    last_of_equals = np.append(ordered[1:] < ordered[:-1], True)[: len(ordered)]
    within = errors <= risk * total if certainty is None else _upper_bound(errors, total, certainty) <= risk
    found = np.flatnonzero(within & last_of_equals)
    return float(ordered[found[-1]]) if len(found) else 1.0


def _upper_bound(errors: Floats, total: Floats, certainty: float) -> Floats:
    """The share of errors that is not exceeded, with probability ``certainty``, where so many of ``total`` cases, drawn
    independently, were errors (Clopper and Pearson 1934)."""
    bound: Floats = beta.ppf(certainty, errors + 1, np.maximum(total - errors, 1e-9))
    return bound


def _stage(
    scores: Sequence[HeadScores], classes: npt.NDArray[np.int64], case_weights: Floats, threshold: float
) -> Stage:
    mix = _fit_mix(scores, classes)
    stage = Stage(mix, UNCALIBRATED.confidence, threshold)
    probabilities = [mixed_probabilities(case, stage) for case in scores]
    inputs = np.array([confidence_inputs(case, row) for case, row in zip(scores, probabilities, strict=True)])
    right = np.array([int(row.argmax()) for row in probabilities]) == classes
    return Stage(mix, _fit_confidence(inputs, right, case_weights), threshold)


def _fit_mix(scores: Sequence[HeadScores], classes: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    """Weights of the three models by maximum likelihood. There is no offset for each label: how often a label occurs
    among the examples says nothing about real requests."""
    none = np.zeros(len(LABELS))
    given = np.array(
        [[none if log_p is None else log_p for log_p in (case.words, case.meaning, case.encoder)] for case in scores]
    )
    rows = np.arange(len(classes))

    def loss(mix: Floats) -> float:
        logits = np.einsum("m,cml->cl", mix, given)
        peak = logits.max(axis=1, keepdims=True)
        log_p = logits - peak - np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
        return float(-log_p[rows, classes].mean())

    words, meaning, encoder = (float(weight) for weight in _minimum(loss, np.ones(3)))
    return words, meaning, encoder


def _fit_confidence(inputs: Floats, right: npt.NDArray[np.bool_], case_weights: Floats) -> tuple[float, ...]:
    """Logistic regression, with a small L2 penalty, of being right on ``confidence_inputs``."""
    signs = np.where(right, 1.0, -1.0)

    def loss(coefficients: Floats) -> float:
        losses = np.logaddexp(0, -signs * (inputs @ coefficients))
        return float(np.average(losses, weights=case_weights) + 1e-3 * (coefficients[1:] ** 2).sum())

    return tuple(float(value) for value in _minimum(loss, np.zeros(inputs.shape[1])))


def _minimum(loss: Callable[[Floats], float], start: Floats) -> Floats:
    found: Floats = minimize(loss, start, method="BFGS").x
    return found
