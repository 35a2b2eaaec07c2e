"""From what the models say of a request to probabilities of the labels, and a calibrated confidence in the likeliest.

Pure. learning/training.py fits the coefficients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ai_router.routing.head.sentences import Array

CONFIDENCE_BINS = 10
"""Bins of confidence, from 0 to 1, in which two distributions of it are compared."""
CONFIDENCE_INPUTS = 12
"""How many ``confidence_inputs`` there are."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How one stage is calibrated.

    ``mix``: weights of the models' log-probabilities: the linear model's, the network's, the encoder's.
    ``confidence``: coefficients for ``confidence_inputs``. ``threshold``: the confidence from which the stage is sure.
    """

    mix: tuple[float, float, float]
    confidence: tuple[float, ...]
    threshold: float


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages in their order: the linear model alone, with the sentence vectors, and with the encoder, too."""

    words: Stage
    vectors: Stage
    encoder: Stage


@dataclass(frozen=True, slots=True)
class HeadScores:
    """What the models say of one excerpt, before calibration.

    ``words`` (the linear model), ``meaning`` (the network over sentence vectors) and ``encoder`` are log-probabilities,
    (labels,), in the order of LABELS; None: not asked. ``turns`` and ``length`` are of the excerpt.
    """

    words: Array
    known_share: float
    """The share of the ask's words, in [0, 1], that occurred in training."""
    turns: int
    length: int
    certainty: float = 1.0
    """How clear it was what of the turn asks (Excerpt)."""
    whole: Array | None = None
    """The linear model's log-probabilities for the whole turn; None: the ask is the whole."""
    meaning: Array | None = None
    sentences: Array | None = None
    """The network's log-probabilities for each sentence of the ask alone, (sentences, labels); None: it has but one."""
    encoder: Array | None = None

    @property
    def asked(self) -> list[Array]:
        """The log-probabilities of the models that were asked."""
        return [given for given in (self.words, self.meaning, self.encoder) if given is not None]


def mixed_probabilities(scores: HeadScores, stage: Stage) -> Array:
    """Probabilities of the labels, (labels,): the stage's mix of the models that were asked."""
    logits = stage.mix[0] * scores.words
    if scores.meaning is not None:
        logits = logits + stage.mix[1] * scores.meaning
    if scores.encoder is not None:
        logits = logits + stage.mix[2] * scores.encoder
    probabilities: Array = np.exp(log_softmax(logits))
    return probabilities


def calibrated(scores: HeadScores, stage: Stage) -> tuple[Array, float]:
    """Probabilities of the labels, (labels,), and the stage's confidence in the likeliest."""
    probabilities = mixed_probabilities(scores, stage)
    terms = zip(stage.confidence, confidence_inputs(scores, probabilities), strict=True)
    return probabilities, sigmoid(sum(coefficient * value for coefficient, value in terms))


def confidence_inputs(scores: HeadScores, probabilities: Array) -> tuple[float, ...]:
    """What confidence is computed from: the leading share and its lead, how many models agree, how well the leading
    label does with the least convinced of them, how much of the request is familiar, its form, how clear it was what
    asks, whether the whole turn looks the same, and how well the label does with the ask's sentences one by one."""
    order = np.argsort(-probabilities)
    best = int(order[0])
    asked = scores.asked
    return (
        1.0,
        _logit(float(probabilities[best])),
        float(probabilities[best] - probabilities[order[1]]),
        sum(int(given.argmax()) == best for given in asked) / len(asked),
        _logit(min(float(math.exp(given[best])) for given in asked)),
        scores.known_share,
        float(scores.turns > 1),
        math.log2(1 + scores.length) / 10,
        scores.certainty,
        float(scores.whole is not None),
        0.0 if scores.whole is None else float(int(scores.whole.argmax()) == best),
        1.0 if scores.sentences is None else float(np.exp(scores.sentences[:, best]).min()),
    )


def log_softmax(logits: Array) -> Array:
    """Log-probabilities of one row of logits."""
    shifted = logits - logits.max()
    result: Array = shifted - np.log(np.exp(shifted).sum())
    return result


def sigmoid(value: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-max(min(value, 40.0), -40.0)))


def _logit(probability: float) -> float:
    probability = min(max(probability, 1e-4), 1 - 1e-4)
    return math.log(probability / (1 - probability))
