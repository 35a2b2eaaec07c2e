"""The head: a linear model over hashed words, an encoder for what that is unsure of, and calibrated confidence.

Both read what the last turn asks, which an AskModel finds in it. What the linear model makes of the whole turn is a
second look: where that is another label, confidence is lower.

Two stages, because the first costs a tenth of the second and settles most requests: where the linear model is sure, the
encoder is not asked. Each stage has a confidence and a threshold of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ai_router.routing.head.asking import AskModel
from ai_router.routing.head.encoder import Array, Encoder
from ai_router.routing.head.features import Excerpt, Features, excerpt_features, excerpt_of, word_buckets
from ai_router.routing.verdict import LABELS
from ai_router.types import Label, Message

_EVIDENCE_WORDS = 3
"""How many words a reason names."""
CONFIDENCE_BINS = 10
"""Bins of confidence, from 0 to 1, in which two distributions of it are compared."""


@dataclass(frozen=True, slots=True)
class Guess:
    """The likeliest label, and whether to rely on it.

    ``probabilities`` of the labels add up to 1. ``confidence``: calibrated probability that ``label`` is what the
    classifier would have said; ``sure``: at or above the head's threshold, which comes from a stated risk. ``reason``
    holds no word of the user's. ``ask`` is what was judged, and ``evidence`` its words that spoke for the label.
    """

    label: Label
    probabilities: Mapping[Label, float]
    confidence: float
    sure: bool
    reason: str
    ask: str = ""
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """How one stage is calibrated.

    ``mix``: weights of the linear model's and the encoder's log-probabilities. ``confidence``: coefficients for
    ``confidence_inputs``. ``threshold``: the confidence from which the stage is sure.
    """

    mix: tuple[float, float]
    confidence: tuple[float, ...]
    threshold: float


@dataclass(frozen=True, slots=True)
class HeadScores:
    """What the models say of one excerpt, before calibration.

    ``words`` (the linear model) and ``encoder`` (None: not asked) are log-probabilities, (labels,), in the order of
    LABELS. ``turns`` and ``length`` are of the excerpt.
    """

    words: Array
    encoder: Array | None
    known_share: float
    """The share of the ask's words, in [0, 1], that occurred in training."""
    turns: int
    length: int
    certainty: float = 1.0
    """How clear it was what of the turn asks (Excerpt)."""
    whole: Array | None = None
    """The linear model's log-probabilities for the whole turn; None: the ask is the whole."""


@dataclass(frozen=True, slots=True)
class FirstGuess:
    """What the linear model makes of a conversation. ``final``: there is no better guess to be had, because that is
    sure, or there is no encoder; else ``Head.encoder_guess`` asks the encoder."""

    guess: Guess
    final: bool
    excerpt: Excerpt
    scores: HeadScores


class Head:
    """The classification head. Immutable; safe from any thread.

    ``weights`` (buckets, labels) and ``bias`` (labels,) are the linear model; ``vocabulary`` has the sorted hashes of
    the words it was trained on; ``difficulty`` (buckets, 2) may be None, and so may ``encoder``.
    """

    def __init__(
        self,
        weights: npt.NDArray[np.generic],
        bias: Sequence[float],
        vocabulary: npt.NDArray[np.uint32],
        words_only: Stage,
        both: Stage,
        encoder: Encoder | None,
        asks: AskModel,
        difficulty: npt.NDArray[np.generic] | None,
        metadata: Mapping[str, Any],
    ) -> None:
        # As wide as in the file: a million rows are 6 MB, and the few that a guess takes are widened then.
        self._weights = weights if weights.dtype == np.float16 else weights.astype(np.float32)
        self._bias = np.array(bias, np.float32)
        self._vocabulary = vocabulary
        self._words_only = words_only
        self._both = both
        self._encoder = encoder
        self.asks = asks
        self._difficulty = difficulty
        self.metadata = metadata
        """How it was made: year, risk, sources, number of examples; and ``confidences``, see ``reference``."""

    @property
    def reference(self) -> tuple[float, ...]:
        """The distribution of its confidence at calibration: the share of each of CONFIDENCE_BINS bins."""
        return tuple(self.metadata["confidences"])

    @property
    def threshold(self) -> float:
        """The confidence from which the last stage is sure."""
        return self._words_only.threshold if self._encoder is None else self._both.threshold

    def guess(self, messages: Sequence[Message], year: int, *, both_stages: bool = False) -> Guess:
        """The label of a conversation's last turn. ``year`` is the present one; ``both_stages`` asks the encoder also
        where the linear model is sure.

        Never sure of a turn of which it cannot read all: one with an image, or with a tool's result after it.
        """
        first = self.first_guess(messages, year)
        return self.encoder_guess(first, year) if both_stages or not first.final else first.guess

    def first_guess(self, messages: Sequence[Message], year: int) -> FirstGuess:
        """The guess of the linear model, in a few milliseconds; the encoder takes ten or more on top."""
        excerpt = self.excerpt(messages)
        scores = self._words_scores(excerpt, year)
        guess = self._guess(scores, self._words_only, excerpt, year)
        final = self._encoder is None or guess.confidence >= self._words_only.threshold
        return FirstGuess(guess, final, excerpt, scores)

    def encoder_guess(self, first: FirstGuess, year: int) -> Guess:
        """The guess of both models."""
        return self._guess(self._with_encoder(first.scores, first.excerpt), self._both, first.excerpt, year)

    def _guess(self, scores: HeadScores, stage: Stage, excerpt: Excerpt, year: int) -> Guess:
        probabilities, confidence = calibrated(scores, stage)
        best = int(probabilities.argmax())
        return Guess(
            LABELS[best],
            dict(zip(LABELS, probabilities.tolist(), strict=True)),
            confidence,
            confidence >= stage.threshold and not excerpt.partial,
            f"fast path: reads like {LABELS[best]} ({confidence:.2f})",
            excerpt.last,
            self._evidence(best, excerpt, year),
        )

    def excerpt(self, messages: Sequence[Message]) -> Excerpt:
        """What the head reads of a conversation."""
        return excerpt_of(messages, self.asks.find)

    def words_model(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Weights (buckets, labels) and bias (labels,) of the linear model, to continue training from."""
        return self._weights.astype(np.float64), self._bias.astype(np.float64)

    @property
    def difficulty_model(self) -> npt.NDArray[np.float32] | None:
        """The weights of ``difficulty``, (buckets, 2); None if it was not learned."""
        return None if self._difficulty is None else self._difficulty.astype(np.float32)

    @property
    def vocabulary(self) -> npt.NDArray[np.uint32]:
        """Hashes of the words it was trained on, sorted, uint32."""
        return self._vocabulary

    def difficulty(self, messages: Sequence[Message], year: int) -> float | None:
        """How much likelier a strong model is right than a weak one, on a scale of its own; None if that was not
        learned. For ordering requests, not a probability."""
        if self._difficulty is None:
            return None
        return difficulty_score(excerpt_features(self.excerpt(messages), year), self._difficulty)

    def scores(self, excerpt: Excerpt, year: int) -> HeadScores:
        """The scores of both models, for calibrating."""
        return self._with_encoder(self._words_scores(excerpt, year), excerpt)

    def _words_scores(self, excerpt: Excerpt, year: int) -> HeadScores:
        features = excerpt_features(excerpt, year)
        whole = None
        if excerpt.whole:
            turns = (excerpt.whole, *excerpt.turns[1:])
            whole = self._words_log_p(excerpt_features(dataclasses.replace(excerpt, turns=turns), year))
        return HeadScores(
            self._words_log_p(features),
            None,
            self._known_share(features),
            len(excerpt.turns),
            excerpt.length,
            excerpt.certainty,
            whole,
        )

    def _words_log_p(self, features: Features) -> Array:
        rows = self._weights[features.buckets].astype(np.float32)
        return log_softmax(features.weights @ rows + self._bias)

    def _with_encoder(self, scores: HeadScores, excerpt: Excerpt) -> HeadScores:
        if self._encoder is None:
            return scores
        return dataclasses.replace(scores, encoder=log_softmax(self._encoder.logits(excerpt)))

    def _known_share(self, features: Features) -> float:
        """The share of the turn's words that are in the vocabulary."""
        if not len(features.words) or not len(self._vocabulary):
            return 0.0
        words = features.words.astype(np.uint32)
        positions = np.searchsorted(self._vocabulary, words)
        return float((self._vocabulary[np.minimum(positions, len(self._vocabulary) - 1)] == words).mean())

    def _evidence(self, best: int, excerpt: Excerpt, year: int) -> tuple[str, ...]:
        """The words of the ask whose weights favour the label most."""
        found = word_buckets(excerpt, year)
        rows = self._weights[[bucket for _, bucket in found]].astype(np.float32)
        lead = rows[:, best] - np.delete(rows, best, axis=1).max(axis=1) if len(rows) else np.zeros(0, np.float32)
        words = dict.fromkeys(found[i][0] for i in np.argsort(-lead)[: 2 * _EVIDENCE_WORDS] if lead[i] > 0)
        return tuple(words)[:_EVIDENCE_WORDS]


def difficulty_score(features: Features, weights: npt.NDArray[np.generic]) -> float:
    """The probability that the strong model is right, less that of the weak one.

    ``weights`` (buckets, 2) are two logistic models: weak, strong.
    """
    weak, strong = features.weights @ weights[features.buckets].astype(np.float32)
    return sigmoid(float(strong)) - sigmoid(float(weak))


def mixed_probabilities(scores: HeadScores, stage: Stage) -> Array:
    """Probabilities of the labels, (labels,): the stage's mix of both models."""
    logits = stage.mix[0] * scores.words
    if scores.encoder is not None:
        logits = logits + stage.mix[1] * scores.encoder
    probabilities: Array = np.exp(log_softmax(logits))
    return probabilities


def calibrated(scores: HeadScores, stage: Stage) -> tuple[Array, float]:
    """Probabilities of the labels, (labels,), and the stage's confidence in the likeliest."""
    probabilities = mixed_probabilities(scores, stage)
    terms = zip(stage.confidence, confidence_inputs(scores, probabilities), strict=True)
    return probabilities, sigmoid(sum(coefficient * value for coefficient, value in terms))


def confidence_inputs(scores: HeadScores, probabilities: Array) -> tuple[float, ...]:
    """What confidence is computed from: the leading share and its lead, whether the models agree, how well the leading
    label does with the less convinced of them, how much of the request is familiar, its form, how clear it was what
    asks, and whether the whole turn looks the same."""
    order = np.argsort(-probabilities)
    best = int(order[0])
    words = float(math.exp(scores.words[best]))
    encoder = words if scores.encoder is None else float(math.exp(scores.encoder[best]))
    return (
        1.0,
        _logit(float(probabilities[best])),
        float(probabilities[best] - probabilities[order[1]]),
        float(scores.encoder is None or int(scores.encoder.argmax()) == int(scores.words.argmax())),
        _logit(min(words, encoder)),
        scores.known_share,
        float(scores.turns > 1),
        math.log2(1 + scores.length) / 10,
        scores.certainty,
        float(scores.whole is not None),
        0.0 if scores.whole is None else float(int(scores.whole.argmax()) == best),
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
