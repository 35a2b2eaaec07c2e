"""The head: three models that read what the last turn asks, and calibrated confidence in what they say together.

A linear model over hashed words is quick. A network over sentence vectors knows what it has not met in so many words,
and other languages. The encoder reads the words in their order. An AskModel finds what the turn asks: first by its
words, and anew once there are sentence vectors.

They are asked in this order, in three stages, because the first takes a tenth of the time of the others and settles
most requests: where a stage is sure, the next one is not asked. Each has a confidence and a threshold of its own.
Confidence is lower where the models disagree, where the whole turn looks otherwise than the ask in it, and where one
of the ask's sentences does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ai_router.routing.dial import Dial
from ai_router.routing.head.asking import AskModel, ClearerAsk, read_segments
from ai_router.routing.head.confidence import HeadScores, Stage, Stages, calibrated, log_softmax, sigmoid
from ai_router.routing.head.encoder import Encoder
from ai_router.routing.head.features import Excerpt, Features, excerpt_features, excerpt_of, word_buckets
from ai_router.routing.head.own_routes import NO_ROUTES, OwnMatch, RouteModels
from ai_router.routing.head.sentences import Array, Network, Vectors, meaning_of, meaning_row
from ai_router.routing.verdict import LABELS
from ai_router.types import Label, Message

Looked = tuple[ClearerAsk, Array | None]
"""The ask as the sentence vectors show it, and the vector of the turn before, if there is one."""
_LEAST_KNOWN = 0.2
_OF_UNKNOWN_WORDS = 0.5
"""The most confidence in a guess about a text in Latin letters of whose words fewer than _LEAST_KNOWN were met in
training: it may be no language at all, and the models find something in anything. (Other scripts are languages that
the sentence vectors know, also where the vocabulary does not.)"""
_EVIDENCE_WORDS = 3
"""How many words a reason names."""


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
    own_match: OwnMatch | None = None
    """The owner's route that it is near to; None: to none. All else is as if there were no such routes."""


@dataclass(frozen=True, slots=True)
class SlowModels:
    """The models that are asked where the words alone are not sure. They ship with the package; heads share them."""

    vectors: Vectors
    encoder: Encoder


@dataclass(frozen=True, slots=True)
class FirstGuess:
    """What the linear model makes of a conversation. ``final``: there is no better guess to be had, because that is
    sure, or the slow models cannot be asked; else ``Head.second_guess`` asks them."""

    guess: Guess
    final: bool
    excerpt: Excerpt
    scores: HeadScores


@dataclass(frozen=True, slots=True)
class HeadParts:
    """All that a head's file holds. ``difficulty``, (buckets, 2), may be None: it was not learned, or is not wanted."""

    weights: npt.NDArray[np.generic]
    """The linear model's: (buckets, labels)."""
    bias: Sequence[float]
    """The linear model's: (labels,)."""
    vocabulary: npt.NDArray[np.uint32]
    """Hashes of the words it was trained on, sorted."""
    meaning: Network
    """From sentence vectors to labels."""
    asks: AskModel
    stages: Stages
    difficulty: npt.NDArray[np.generic] | None
    dial: Dial | None
    """Its thresholds for each quality; None in a file that was made before there were any."""
    metadata: Mapping[str, Any]
    """How it was made: year, risk, sources, number of examples; and ``confidences``, see ``Head.reference``."""


class Head:
    """The classification head. Immutable; safe from any thread. Without ``slow`` it guesses by words alone."""

    def __init__(self, parts: HeadParts, slow: SlowModels | None) -> None:
        weights = parts.weights
        # As wide as in the file: a million rows are 6 MB, and the few that a guess takes are widened then.
        self._weights = weights if weights.dtype == np.float16 else weights.astype(np.float32)
        self._bias = np.array(parts.bias, np.float32)
        self._vocabulary = parts.vocabulary
        self._stages = parts.stages
        self._slow = slow
        self.asks = parts.asks
        self._meaning = parts.meaning
        self._difficulty = parts.difficulty
        self.dial = parts.dial
        self.metadata = parts.metadata

    @property
    def reference(self) -> tuple[float, ...]:
        """The distribution of its confidence at calibration: the share of each of CONFIDENCE_BINS bins."""
        return tuple(self.metadata["confidences"])

    @property
    def has_slow_models(self) -> bool:
        """Whether ``second_guess`` can be had."""
        return self._slow is not None

    @property
    def threshold(self) -> float:
        """The confidence from which the last stage is sure."""
        return self._stages.words.threshold if self._slow is None else self._stages.encoder.threshold

    def guess(
        self, messages: Sequence[Message], year: int, *, all_stages: bool = False, own_routes: RouteModels = NO_ROUTES
    ) -> Guess:
        """The label of a conversation's last turn. ``year`` is the present one; ``all_stages`` asks every model, also
        where an earlier stage is sure. ``own_routes``: the owner's, as learned.

        Never sure of a turn of which it cannot read all: one with an image, or with a tool's result after it.
        """
        first = self.first_guess(messages, year, own_routes=own_routes)
        if first.final and not all_stages:
            return first.guess
        return self.second_guess(first, year, all_stages=all_stages, own_routes=own_routes)

    def first_guess(
        self, messages: Sequence[Message], year: int, *, may_wait: bool = True, own_routes: RouteModels = NO_ROUTES
    ) -> FirstGuess:
        """The guess of the linear model, in a few milliseconds; the slow models take ten or more on top.

        Evidence is named where it is final only. Without ``may_wait`` it is final, too, while the slow models load.
        """
        excerpt = self.excerpt(messages)
        scores = self.words_scores(excerpt, year)
        guess = self._guess(scores, self._stages.words, excerpt)
        can_ask = self._slow is not None and (may_wait or self._slow.vectors.ready)
        # Words alone do not tell a route of the owner's.
        final = not can_ask or (not own_routes.labels and self._by_words(guess))
        return FirstGuess(self._with_evidence(guess, excerpt, year) if final else guess, final, excerpt, scores)

    def _by_words(self, guess: Guess) -> bool:
        """Whether the first stage's guess needs no other."""
        return guess.confidence >= self._stages.words.threshold

    def second_guess(
        self, first: FirstGuess, year: int, *, all_stages: bool = False, own_routes: RouteModels = NO_ROUTES
    ) -> Guess:
        """The guess with the sentence vectors, and with the encoder where those are not sure, or ``all_stages``.

        Raises ValueError where there are no slow models.
        """
        looked = look_closer(first.excerpt, self.asks, self._asked_slow().vectors)
        match = own_routes.nearest(looked[0].kept)
        if match is not None:
            match = match.doubted() if first.excerpt.partial else match
            if match.sure:
                return dataclasses.replace(first.guess, own_match=match)
        excerpt, guess = first.excerpt, first.guess
        if all_stages or not self._by_words(guess):
            excerpt, guess = self._slow_guess(first, looked, year, all_stages=all_stages)
        return dataclasses.replace(self._with_evidence(guess, excerpt, year), own_match=match)

    def _slow_guess(self, first: FirstGuess, looked: Looked, year: int, *, all_stages: bool) -> tuple[Excerpt, Guess]:
        """The guess of the later stages, and what they have read."""
        excerpt, scores = self.scores_with_vectors(first.excerpt, first.scores, year, looked)
        guess = self._guess(scores, self._stages.vectors, excerpt)
        if all_stages or guess.confidence < self._stages.vectors.threshold:
            guess = self._guess(self.scores_with_encoder(excerpt, scores), self._stages.encoder, excerpt)
        return excerpt, guess

    def _guess(self, scores: HeadScores, stage: Stage, excerpt: Excerpt) -> Guess:
        probabilities, confidence = calibrated(scores, stage)
        best = int(probabilities.argmax())
        if scores.known_share < _LEAST_KNOWN and _is_latin(excerpt.last):
            confidence = min(confidence, _OF_UNKNOWN_WORDS)
        return Guess(
            LABELS[best],
            dict(zip(LABELS, probabilities.tolist(), strict=True)),
            confidence,
            confidence >= stage.threshold and not excerpt.partial,
            f"fast path: reads like {LABELS[best]} ({confidence:.2f})",
            excerpt.last,
        )

    def _with_evidence(self, guess: Guess, excerpt: Excerpt, year: int) -> Guess:
        return dataclasses.replace(guess, evidence=self._evidence(LABELS.index(guess.label), excerpt, year))

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

    def words_scores(self, excerpt: Excerpt, year: int) -> HeadScores:
        """The scores of the first stage."""
        features = excerpt_features(excerpt, year)
        whole = None
        if excerpt.whole:
            turns = (excerpt.whole, *excerpt.turns[1:])
            whole = self._words_log_p(excerpt_features(dataclasses.replace(excerpt, turns=turns), year))
        return HeadScores(
            self._words_log_p(features),
            self._known_share(features),
            len(excerpt.turns),
            excerpt.length,
            excerpt.certainty,
            whole,
        )

    def scores_with_vectors(
        self, excerpt: Excerpt, scores: HeadScores, year: int, looked: Looked | None = None
    ) -> tuple[Excerpt, HeadScores]:
        """The excerpt with the ask that the sentence vectors show, and the scores of the second stage for that.
        ``looked``: what look_closer found; None: it is asked."""
        clearer, before = looked or look_closer(excerpt, self.asks, self._asked_slow().vectors)
        if clearer.ask.text != excerpt.last:
            excerpt = excerpt.with_ask(clearer.ask)
            scores = self.words_scores(excerpt, year)
        rows = [meaning_row(meaning_of(clearer.kept), before)]
        if len(clearer.kept) > 1:
            rows += [meaning_row(sentence, before) for sentence in clearer.kept]
        log_p = np.array([log_softmax(row) for row in self._meaning.logits(np.array(rows))])
        return excerpt, dataclasses.replace(scores, meaning=log_p[0], sentences=log_p[1:] if len(log_p) > 1 else None)

    def scores_with_encoder(self, excerpt: Excerpt, scores: HeadScores) -> HeadScores:
        """The scores of the last stage, from those of the second."""
        return dataclasses.replace(scores, encoder=log_softmax(self._asked_slow().encoder.logits(excerpt)))

    def _asked_slow(self) -> SlowModels:
        if self._slow is None:
            raise ValueError("this head has no slow models")
        return self._slow

    def _words_log_p(self, features: Features) -> Array:
        rows = self._weights[features.buckets].astype(np.float32)
        return log_softmax(features.weights @ rows + self._bias)

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


def _is_latin(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    return 2 * sum(char < "\u0250" for char in letters) > len(letters)


def difficulty_score(features: Features, weights: npt.NDArray[np.generic]) -> float:
    """The probability that the strong model is right, less that of the weak one.

    ``weights`` (buckets, 2) are two logistic models: weak, strong.
    """
    weak, strong = features.weights @ weights[features.buckets].astype(np.float32)
    return sigmoid(float(strong)) - sigmoid(float(weak))


def texts_to_read(excerpt: Excerpt) -> list[str]:
    """The texts of which sentence vectors are needed: the segments that are read, and the turn before if there is one.

    Raises ValueError for an excerpt in which no ask was looked for.
    """
    if excerpt.ask is None:
        raise ValueError("no ask was looked for")
    segments = excerpt.ask.segments
    return [*(segments[index] for index in read_segments(len(segments))), *excerpt.turns[1:2]]


def look_closer(excerpt: Excerpt, asks: AskModel, vectors: Vectors) -> Looked:
    """The ask as the sentence vectors show it, and the vector of the turn before, if there is one."""
    if excerpt.ask is None:
        raise ValueError("no ask was looked for")
    found = vectors.of(texts_to_read(excerpt))
    has_before = len(excerpt.turns) > 1
    clearer = asks.find_by_meaning(excerpt.ask, found[:-1] if has_before else found)
    return clearer, found[-1] if has_before else None
