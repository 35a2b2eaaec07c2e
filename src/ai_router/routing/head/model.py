"""The head: a linear model over hashed n-grams, an encoder for what that is unsure of, and calibrated confidence.

Two stages, because the first costs a tenth of the second and settles most requests: where the words alone are sure, the
encoder is not asked. Each stage has a confidence and a threshold of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ai_router.routing.head.encoder import Array, Encoder
from ai_router.routing.head.features import Features, View, view_features, view_of, word_buckets
from ai_router.routing.verdict import LABELS
from ai_router.types import Label, Message

EVIDENCE = 3
BINS = 10
"""Of confidence, from 0 to 1, for comparing how it is spread."""


@dataclass(frozen=True, slots=True)
class Guess:
    """The likeliest label, and whether to rely on it.

    ``shares``: probability of each label, adding up to 1. ``confidence``: calibrated probability that ``label`` is what
    the classifier would have said; ``sure``: at or above the head's threshold, which comes from a stated risk.
    """

    label: Label
    shares: Mapping[Label, float]
    confidence: float
    sure: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Stage:
    """How to read one stage. ``mix``: weights of the words' and the encoder's log-probabilities; ``confidence``:
    coefficients for ``traits``; ``threshold``: from which confidence on the stage is sure."""

    mix: tuple[float, float]
    confidence: tuple[float, ...]
    threshold: float


@dataclass(frozen=True, slots=True)
class HeadScores:
    """What the models say of one view, before calibration: log-probabilities in the order of LABELS."""

    words: Array
    encoder: Array | None
    known: float
    """The share of the last turn's words that the model was made from."""
    turns: int
    length: int


class Head:
    """Immutable; safe from any thread."""

    def __init__(
        self,
        weights: npt.NDArray[np.generic],
        bias: Sequence[float],
        vocabulary: npt.NDArray[np.uint32],
        words_only: Stage,
        both: Stage,
        encoder: Encoder | None,
        difficulty: npt.NDArray[np.generic] | None,
        about: Mapping[str, Any],
    ) -> None:
        self._weights = weights.astype(np.float32)
        self._bias = np.array(bias, np.float32)
        self._vocabulary = vocabulary
        self._words_only = words_only
        self._both = both
        self._encoder = encoder
        self._difficulty = difficulty
        self.about = about
        """When and from what it was made, at which risk, and how confident it was at calibration."""

    @property
    def reference(self) -> tuple[float, ...]:
        """How its confidence was spread at calibration: shares of ten bins from 0 to 1."""
        return tuple(self.about["confidences"])

    @property
    def threshold(self) -> float:
        """The confidence from which on the head, having used all it has, is sure."""
        return self._words_only.threshold if self._encoder is None else self._both.threshold

    def guess(self, messages: Sequence[Message], year: int, *, at_length: bool = False) -> Guess:
        """The label of a conversation's last turn; ``year`` is the present one. ``at_length``: both stages in any case.

        It is never sure of a turn of which it cannot read all: an image, or a tool's result that came after it.
        """
        view = view_of(messages)
        features = view_features(view, year)
        reading = self._read_words(view, features)
        stage = self._words_only
        shares, confidence = judged(reading, stage)
        if at_length or (confidence < stage.threshold and self._encoder is not None):
            stage = self._both
            heard = None if self._encoder is None else log_softmax(self._encoder.logits(view))
            reading = HeadScores(reading.words, heard, reading.known, reading.turns, reading.length)
            shares, confidence = judged(reading, stage)
        best = int(shares.argmax())
        return Guess(
            LABELS[best],
            dict(zip(LABELS, shares.tolist(), strict=True)),
            confidence,
            confidence >= stage.threshold and not view.partial,
            self._reason(best, confidence, view, year),
        )

    def words_model(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Weights (buckets, labels) and bias of the linear model, to go on from."""
        return self._weights.astype(np.float64), self._bias.astype(np.float64)

    @property
    def difficulty_model(self) -> npt.NDArray[np.float32] | None:
        """What ``difficulty`` is computed from, (buckets, 2), to hand on."""
        return None if self._difficulty is None else self._difficulty.astype(np.float32)

    @property
    def vocabulary(self) -> npt.NDArray[np.uint32]:
        """Hashes of the words it was made from, in order."""
        return self._vocabulary

    def difficulty(self, messages: Sequence[Message], year: int) -> float | None:
        """How much likelier a strong model is right than a weak one, on a scale of its own; None if that was not
        learned. For ordering requests, not a probability."""
        if self._difficulty is None:
            return None
        return difficulty_score(view_features(view_of(messages), year), self._difficulty)

    def read(self, view: View, year: int) -> HeadScores:
        """Both models' words on a view, for fitting and measuring."""
        reading = self._read_words(view, view_features(view, year))
        encoder = None if self._encoder is None else log_softmax(self._encoder.logits(view))
        return HeadScores(reading.words, encoder, reading.known, reading.turns, reading.length)

    def _read_words(self, view: View, features: Features) -> HeadScores:
        rows = self._weights[features.buckets]
        logits = features.weights @ rows + self._bias
        return HeadScores(log_softmax(logits), None, self._known(features), len(view.turns), view.length)

    def _known(self, features: Features) -> float:
        """The share of the turn's words that were among those it was made from."""
        if not len(features.words) or not len(self._vocabulary):
            return 0.0
        words = features.words.astype(np.uint32)
        places = np.searchsorted(self._vocabulary, words)
        return float((self._vocabulary[np.minimum(places, len(self._vocabulary) - 1)] == words).mean())

    def _reason(self, best: int, confidence: float, view: View, year: int) -> str:
        """The label and the words that spoke for it most."""
        found = word_buckets(view, year)
        rows = self._weights[[bucket for _, bucket in found]] if found else np.zeros((0, len(LABELS)), np.float32)
        force = rows[:, best] - np.delete(rows, best, axis=1).max(axis=1) if len(rows) else np.zeros(0, np.float32)
        told = dict.fromkeys(found[i][0] for i in np.argsort(-force)[: 2 * EVIDENCE] if force[i] > 0)
        evidence = ", ".join(f"'{word}'" for word in list(told)[:EVIDENCE])
        return f"fast path: reads like {LABELS[best]} ({confidence:.2f}{'; ' + evidence if evidence else ''})"


def difficulty_score(features: Features, weights: npt.NDArray[np.generic]) -> float:
    """The strong model's chance less the weak one's; ``weights`` (buckets, 2) of the two logistic models."""
    weak, strong = features.weights @ weights[features.buckets].astype(np.float32)
    return sigmoid(float(strong)) - sigmoid(float(weak))


def mixed(reading: HeadScores, stage: Stage) -> Array:
    """Probabilities of the labels as the stage sees them."""
    logits = stage.mix[0] * reading.words
    if reading.encoder is not None:
        logits = logits + stage.mix[1] * reading.encoder
    shares: Array = np.exp(log_softmax(logits))
    return shares


def judged(reading: HeadScores, stage: Stage) -> tuple[Array, float]:
    """Probabilities of the labels, and the confidence in the leading one."""
    shares = mixed(reading, stage)
    told = zip(stage.confidence, traits(reading, shares), strict=True)
    return shares, sigmoid(sum(coefficient * trait for coefficient, trait in told))


def traits(reading: HeadScores, shares: Array) -> tuple[float, ...]:
    """What confidence is computed from: the leading share and its lead, whether the models agree, how well the leading
    label does with the less convinced of them, how much of the request is familiar, and its form."""
    order = np.argsort(-shares)
    best = int(order[0])
    words = float(math.exp(reading.words[best]))
    encoder = words if reading.encoder is None else float(math.exp(reading.encoder[best]))
    return (
        1.0,
        _logit(float(shares[best])),
        float(shares[best] - shares[order[1]]),
        float(reading.encoder is None or int(reading.encoder.argmax()) == int(reading.words.argmax())),
        _logit(min(words, encoder)),
        reading.known,
        float(reading.turns > 1),
        math.log2(1 + reading.length) / 10,
    )


def log_softmax(logits: Array) -> Array:
    """Log-probabilities of one row of logits."""
    shifted = logits - logits.max()
    result: Array = shifted - np.log(np.exp(shifted).sum())
    return result


def sigmoid(value: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-max(min(value, 40.0), -40.0)))


def _logit(share: float) -> float:
    share = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(share / (1 - share))
