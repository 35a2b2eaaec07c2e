"""Training a head: fit the linear model, mix it with the encoder, calibrate confidence, set the thresholds.

Fitting and calibrating never use the same examples. One group in CALIBRATION_PART, and every source named in
``calibration_sources``, calibrates; the rest is fitted on. The threshold is the lowest confidence above which the head
is wrong in at most ``risk`` of the calibration cases that it answers. The confidences for that are cross-validated: no
case has taken part in its own.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from ai_router.learning.dressing import Dressings, dressed_examples
from ai_router.learning.examples import Example
from ai_router.learning.fitting import NEGLIGIBLE, Floats, LinearModel, feature_matrix, fit_linear
from ai_router.routing.head.asking import AskModel
from ai_router.routing.head.encoder import Encoder
from ai_router.routing.head.features import Features, excerpt_features, excerpt_of
from ai_router.routing.head.model import (
    CONFIDENCE_BINS,
    Head,
    HeadScores,
    Stage,
    calibrated,
    confidence_inputs,
    mixed_probabilities,
)
from ai_router.routing.head.store import pack_head
from ai_router.routing.verdict import LABELS

RISK = 0.03
"""The share of wrong answers that is allowed where the head is sure."""
WORDS_ALONE_RISK = 0.05
"""The linear model decides alone from the confidence at which at most this share of its decisions would not be made, or
be made otherwise, with the encoder. The second threshold makes up for what that costs in risk."""
CALIBRATION_PART = 8
PAIR_SOURCES = ("contrast", "conversations", "hard_easy")
"""Sources of minimal pairs: the same words, or the same last turn, with different labels. They are good to fit models
and their mix on; confidence that was fitted on them would be too low for ordinary requests."""
PENALTY = 0.1
_FOLDS = 5
_UNCALIBRATED = Stage((1.0, 1.0), (0.0,) * 11, 1.0)
_DRESSED_TIMES = 2
_DRESSED_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A head as a file's content, and its figures on the calibration examples.

    ``fitted`` and ``calibrated``: how many examples there were for each; dressed copies do not count.
    """

    content: bytes
    fitted: int
    calibrated: int
    coverage: float
    """The share of calibration examples of which it is sure."""
    risk: float
    """Of these, the share on which it is wrong."""


def is_for_calibration(example: Example, calibration_sources: Collection[str] = ()) -> bool:
    """Whether an example calibrates. By its group's name: the same in every run, and for encoder and head alike."""
    return example.source in calibration_sources or zlib.crc32(example.group.encode()) % CALIBRATION_PART == 0


def train_head(
    examples: Sequence[Example],
    encoder: Encoder,
    asks: AskModel,
    dressings: Dressings,
    *,
    year: int,
    weights: Mapping[str, float],
    calibration_sources: Collection[str] = (),
    risk: float = RISK,
    start: Head | None = None,
    difficulty: npt.NDArray[np.float32] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> TrainedHead:
    """Fit and calibrate, on the examples as they are and dressed. Deterministic.

    ``asks`` finds what dressed examples ask; it should have been fitted with the same part of ``dressings``.
    ``weights``: of a source's examples (default 1). ``year``: the present one. ``start``: the head to begin with and to
    stay near to. ``difficulty``: as in Head. ``metadata``: what to add to the head's own.
    """
    plain = [example for example in examples if not is_for_calibration(example, calibration_sources)]
    undressed = [example for example in examples if is_for_calibration(example, calibration_sources)]
    to_fit, to_calibrate = dressings.split()
    fitting = [*plain, *(row for seed in range(_DRESSED_TIMES) for row in dressed_examples(plain, to_fit, seed))]
    calibrating = [*undressed, *dressed_examples(undressed, to_calibrate, _DRESSED_TIMES)]
    features = [excerpt_features(excerpt_of(example.messages, asks.find), year) for example in fitting]
    fit_weights = np.array([weights.get(example.source, 1.0) for example in fitting])
    fit_weights[len(plain) :] *= _DRESSED_WEIGHT
    words = _fit_words(features, fitting, fit_weights, start)
    vocabulary = np.unique(np.concatenate([row.words for row in features])).astype(np.uint32)
    if start is not None:
        vocabulary = np.union1d(vocabulary, start.vocabulary)
    bias = words.bias.tolist()
    rounded = np.where(np.abs(words.weights) < NEGLIGIBLE, 0, words.weights).astype(np.float16).astype(np.float32)
    uncalibrated = Head(rounded, bias, vocabulary, _UNCALIBRATED, _UNCALIBRATED, encoder, asks, None, {})
    scores = [uncalibrated.scores(uncalibrated.excerpt(example.messages), year) for example in calibrating]
    classes = np.array([LABELS.index(example.label) for example in calibrating])
    groups = np.array([zlib.crc32(example.group.encode()) % _FOLDS for example in calibrating])
    case_weights = np.array(
        [
            0.0 if example.source.startswith(PAIR_SOURCES) else weights.get(example.source, 1.0)
            for example in calibrating
        ]
    )
    words_scores = [dataclasses.replace(row, encoder=None) for row in scores]
    judged_by_words = _cross_validated(words_scores, classes, groups, case_weights)
    judged_by_both = _cross_validated(scores, classes, groups, case_weights)
    words_threshold = max(
        threshold_for_risk(_right_where_both_agree(judged_by_words, judged_by_both, risk), WORDS_ALONE_RISK),
        threshold_for_risk(judged_by_words, risk),
    )
    answered = judged_by_words.confidences >= words_threshold
    both_threshold = threshold_for_risk(
        judged_by_both, risk, answered=answered, answered_correctly=judged_by_words.correct
    )
    words_only = _stage(words_scores, classes, case_weights, words_threshold)
    both = _stage(scores, classes, case_weights, both_threshold)
    sure = answered | (judged_by_both.confidences >= both_threshold)
    right = np.where(answered, judged_by_words.correct, judged_by_both.correct)
    confidences = np.where(answered, judged_by_words.confidences, judged_by_both.confidences)
    histogram = np.histogram(confidences, bins=CONFIDENCE_BINS, range=(0, 1), weights=case_weights)[0]
    description = {
        **(metadata or {}),
        "year": year,
        "risk": risk,
        "fitted": len(plain),
        "calibrated": len(undressed),
        "confidences": [round(float(share), 4) for share in histogram / histogram.sum()],
    }
    return TrainedHead(
        content=pack_head(rounded, bias, vocabulary, words_only, both, asks, difficulty, description),
        fitted=len(plain),
        calibrated=len(undressed),
        coverage=float(case_weights[sure].sum() / case_weights.sum()),
        risk=float(case_weights[sure & ~right].sum() / case_weights[sure].sum()) if sure.any() else 0.0,
    )


def _fit_words(
    features: Sequence[Features], examples: Sequence[Example], case_weights: Floats, start: Head | None
) -> LinearModel:
    classes = np.array([LABELS.index(example.label) for example in examples])
    initial = None if start is None else LinearModel(*start.words_model())
    return fit_linear(
        feature_matrix(features), classes, case_weights, penalty=PENALTY, class_count=len(LABELS), start=initial
    )


@dataclass(frozen=True, slots=True)
class Scored:
    """For each case the confidence, whether the label was right, its weight, and the label's number."""

    confidences: Floats
    correct: npt.NDArray[np.bool_]
    weights: Floats
    labels: npt.NDArray[np.int64]


def _right_where_both_agree(words: Scored, both: Scored, risk: float) -> Scored:
    """The linear model's answers, counted as right where both models together would be sure of the same label."""
    agree = (both.confidences >= threshold_for_risk(both, risk)) & (both.labels == words.labels)
    return Scored(words.confidences, agree, words.weights, words.labels)


def _cross_validated(
    scores: Sequence[HeadScores], classes: npt.NDArray[np.int64], folds: npt.NDArray[np.int64], case_weights: Floats
) -> Scored:
    """The confidence in each case, by a stage that was made from the cases of the other folds."""
    confidences, labels = np.zeros(len(scores)), np.zeros(len(scores), np.int64)
    for fold in range(_FOLDS):
        others = np.flatnonzero(folds != fold)
        stage = _stage([scores[int(index)] for index in others], classes[others], case_weights[others], 1.0)
        for index in map(int, np.flatnonzero(folds == fold)):
            probabilities, confidences[index] = calibrated(scores[index], stage)
            labels[index] = int(probabilities.argmax())
    return Scored(confidences, labels == classes, case_weights, labels)


def threshold_for_risk(
    judged: Scored,
    risk: float,
    *,
    answered: npt.NDArray[np.bool_] | None = None,
    answered_correctly: npt.NDArray[np.bool_] | None = None,
) -> float:
    """The lowest confidence from which on at most ``risk`` of the answered cases are wrong.

    ``answered``: cases that an earlier stage has answered, ``answered_correctly`` whether rightly; they count.
    """
    none = np.zeros(len(judged.correct), bool)
    before = none if answered is None else answered
    wrong_before = none if answered_correctly is None else before & ~answered_correctly
    order = np.flatnonzero(~before)[np.argsort(-judged.confidences[~before], kind="stable")]
    errors = judged.weights[wrong_before].sum() + np.cumsum(judged.weights[order] * ~judged.correct[order])
    total = judged.weights[before].sum() + np.cumsum(judged.weights[order])
    within_risk = np.flatnonzero(errors <= risk * total)
    return float(judged.confidences[order[within_risk[-1]]]) if len(within_risk) else 1.0


def _stage(
    scores: Sequence[HeadScores], classes: npt.NDArray[np.int64], case_weights: Floats, threshold: float
) -> Stage:
    mix = _fit_mix(scores, classes)
    stage = Stage(mix, _UNCALIBRATED.confidence, threshold)
    probabilities = [mixed_probabilities(case, stage) for case in scores]
    inputs = np.array([confidence_inputs(case, row) for case, row in zip(scores, probabilities, strict=True)])
    right = np.array([int(row.argmax()) for row in probabilities]) == classes
    return Stage(mix, _fit_confidence(inputs, right, case_weights), threshold)


def _fit_mix(scores: Sequence[HeadScores], classes: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Weights of the two models by maximum likelihood. There is no offset for each label: how often a label occurs
    among the examples says nothing about real requests."""
    words = np.array([case.words for case in scores], np.float64)
    encoder = np.array([np.zeros(len(LABELS)) if r.encoder is None else r.encoder for r in scores], np.float64)
    rows = np.arange(len(classes))

    def loss(mix: Floats) -> float:
        logits = mix[0] * words + mix[1] * encoder
        peak = logits.max(axis=1, keepdims=True)
        log_p = logits - peak - np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
        return float(-log_p[rows, classes].mean())

    words_weight, encoder_weight = _minimum(loss, np.array([1.0, 1.0]))
    return float(words_weight), float(encoder_weight)


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
