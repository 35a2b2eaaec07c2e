"""From examples to a head: fit the words' model, mix it with the encoder, calibrate confidence, set the thresholds.

Fitting and calibrating never see the same examples: one group in CALIBRATION_PART, and every source that is named as
kept apart, calibrates; the rest is fitted on. The threshold is the lowest confidence above which the head, on the
calibration part, is wrong in at most ``risk`` of the cases that it answers; confidences for that are computed
crosswise, so that no case has taken part in its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from ai_router.learning.examples import Example
from ai_router.learning.fitting import NEGLIGIBLE, Floats, Linear, fit, matrix
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
ABRIDGED = 0.05
"""The words alone decide from the confidence on at which at most so many of their decisions would not have been made,
or not so, with the encoder. What that costs in risk, the second threshold makes up for."""
CALIBRATION_PART = 8
PAIRS = ("contrast", "conversations", "hard_easy")
"""Sources of minimal pairs: the same words, or the same last turn, with different labels. Good to learn from, and to
find out which model to believe; but confidence that was fitted on them would be fitted for a world of riddles."""
PENALTY = 0.1
_CROSS = 5
_NOTHING = Stage((1.0, 1.0), (0.0,) * 8, 1.0)


@dataclass(frozen=True, slots=True)
class Trained:
    """A head as a file's content, and how the stages came out on the calibration part."""

    content: bytes
    fitted: int
    calibrated: int
    coverage: float
    """The share of the calibration part on which it is sure."""
    risk: float
    """Of these, the share on which it is wrong."""


def is_for_calibration(example: Example, apart: Collection[str] = ()) -> bool:
    """Whether an example calibrates; by its group's name, so the same in every run and for encoder and head alike."""
    return example.source in apart or zlib.crc32(example.group.encode()) % CALIBRATION_PART == 0


def train_head(
    examples: Sequence[Example],
    encoder: Encoder,
    *,
    year: int,
    weights: Mapping[str, float],
    apart: Collection[str] = (),
    risk: float = RISK,
    start: Head | None = None,
    difficulty: npt.NDArray[np.float32] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Trained:
    """Fit and calibrate. ``weights``: how much a source's examples count (default 1); ``year``: the present one;
    ``start``: the head to begin with and to stay near to."""
    calibrating = [example for example in examples if is_for_calibration(example, apart)]
    fitting = [example for example in examples if not is_for_calibration(example, apart)]
    features = [excerpt_features(excerpt_of(example.messages), year) for example in fitting]
    words = _fit_words(features, fitting, weights, start)
    vocabulary = np.unique(np.concatenate([row.words for row in features])).astype(np.uint32)
    if start is not None:
        vocabulary = np.union1d(vocabulary, start.vocabulary)
    bias = words.bias.tolist()
    rounded = np.where(np.abs(words.weights) < NEGLIGIBLE, 0, words.weights).astype(np.float16).astype(np.float32)
    reader = Head(rounded, bias, vocabulary, _NOTHING, _NOTHING, encoder, None, {})
    readings = [reader.scores(excerpt_of(example.messages), year) for example in calibrating]
    classes = np.array([LABELS.index(example.label) for example in calibrating])
    groups = np.array([zlib.crc32(example.group.encode()) % _CROSS for example in calibrating])
    counts = np.array(
        [0.0 if example.source.startswith(PAIRS) else weights.get(example.source, 1.0) for example in calibrating]
    )
    bare = [HeadScores(r.words, None, r.known_share, r.turns, r.length) for r in readings]
    sure_by_words = _crosswise(bare, classes, groups, counts)
    sure_by_both = _crosswise(readings, classes, groups, counts)
    first = max(
        threshold_at(_as_both_would(sure_by_words, sure_by_both, risk), ABRIDGED), threshold_at(sure_by_words, risk)
    )
    answered = sure_by_words.confidences >= first
    second = threshold_at(sure_by_both, risk, already=answered, right_already=sure_by_words.right)
    words_only = _stage(bare, classes, counts, first)
    both = _stage(readings, classes, counts, second)
    sure = answered | (sure_by_both.confidences >= second)
    right = np.where(answered, sure_by_words.right, sure_by_both.right)
    confidences = np.where(answered, sure_by_words.confidences, sure_by_both.confidences)
    spread = np.histogram(confidences, bins=CONFIDENCE_BINS, range=(0, 1), weights=counts)[0]
    description = {
        **(about or {}),
        "year": year,
        "risk": risk,
        "fitted": len(fitting),
        "calibrated": len(calibrating),
        "confidences": [round(float(share), 4) for share in spread / spread.sum()],
    }
    return Trained(
        content=pack_head(rounded, bias, vocabulary, words_only, both, difficulty, description),
        fitted=len(fitting),
        calibrated=len(calibrating),
        coverage=float(counts[sure].sum() / counts.sum()),
        risk=float(counts[sure & ~right].sum() / counts[sure].sum()) if sure.any() else 0.0,
    )


def _fit_words(
    features: Sequence[Features], examples: Sequence[Example], weights: Mapping[str, float], start: Head | None
) -> Linear:
    classes = np.array([LABELS.index(example.label) for example in examples])
    counts = np.array([weights.get(example.source, 1.0) for example in examples])
    begin = None if start is None else Linear(*start.words_model())
    return fit(matrix(features), classes, counts, penalty=PENALTY, count=len(LABELS), start=begin)


@dataclass(frozen=True, slots=True)
class Scored:
    """For each case the confidence, whether the label was right, how much the case counts, and the label's number."""

    confidences: Floats
    right: npt.NDArray[np.bool_]
    counts: Floats
    labels: npt.NDArray[np.int64]


def _as_both_would(words: Scored, both: Scored, risk: float) -> Scored:
    """The words' judgements, counted right where both models together would be sure of the same label."""
    stands = (both.confidences >= threshold_at(both, risk)) & (both.labels == words.labels)
    return Scored(words.confidences, stands, words.counts, words.labels)


def _crosswise(
    readings: Sequence[HeadScores], classes: npt.NDArray[np.int64], parts: npt.NDArray[np.int64], counts: Floats
) -> Scored:
    """Confidence in each case by a stage that was made from the cases of the other parts."""
    confidences, labels = np.zeros(len(readings)), np.zeros(len(readings), np.int64)
    for part in range(_CROSS):
        others = np.flatnonzero(parts != part)
        stage = _stage([readings[int(index)] for index in others], classes[others], counts[others], 1.0)
        for index in map(int, np.flatnonzero(parts == part)):
            shares, confidences[index] = calibrated(readings[index], stage)
            labels[index] = int(shares.argmax())
    return Scored(confidences, labels == classes, counts, labels)


def threshold_at(
    judged: Scored,
    risk: float,
    *,
    already: npt.NDArray[np.bool_] | None = None,
    right_already: npt.NDArray[np.bool_] | None = None,
) -> float:
    """The lowest confidence from which on at most ``risk`` of the answered cases are wrong.

    ``already``: cases that an earlier stage has answered, ``right_already`` whether rightly; they count.
    """
    none = np.zeros(len(judged.right), bool)
    before = none if already is None else already
    wrong_before = none if right_already is None else before & ~right_already
    order = np.flatnonzero(~before)[np.argsort(-judged.confidences[~before], kind="stable")]
    errors = judged.counts[wrong_before].sum() + np.cumsum(judged.counts[order] * ~judged.right[order])
    answered = judged.counts[before].sum() + np.cumsum(judged.counts[order])
    fine = np.flatnonzero(errors <= risk * answered)
    return float(judged.confidences[order[fine[-1]]]) if len(fine) else 1.0


def _stage(readings: Sequence[HeadScores], classes: npt.NDArray[np.int64], counts: Floats, threshold: float) -> Stage:
    mix = _fit_mix(readings, classes)
    stage = Stage(mix, _NOTHING.confidence, threshold)
    shares = [mixed_probabilities(reading, stage) for reading in readings]
    inputs = np.array([confidence_inputs(reading, share) for reading, share in zip(readings, shares, strict=True)])
    right = np.array([int(share.argmax()) for share in shares]) == classes
    return Stage(mix, _fit_confidence(inputs, right, counts), threshold)


def _fit_mix(readings: Sequence[HeadScores], classes: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Weights of the two models that make the right labels likeliest. No offsets for the labels: how often each occurs
    among the examples says nothing about anybody's requests."""
    words = np.array([reading.words for reading in readings], np.float64)
    encoder = np.array([np.zeros(len(LABELS)) if r.encoder is None else r.encoder for r in readings], np.float64)
    rows = np.arange(len(classes))

    def loss(free: Floats) -> float:
        logits = free[0] * words + free[1] * encoder
        peak = logits.max(axis=1, keepdims=True)
        log_p = logits - peak - np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
        return float(-log_p[rows, classes].mean())

    first, second = _lowest(loss, np.array([1.0, 1.0]))
    return float(first), float(second)


def _fit_confidence(inputs: Floats, right: npt.NDArray[np.bool_], counts: Floats) -> tuple[float, ...]:
    """Logistic regression of being right on the traits, lightly held back."""
    signs = np.where(right, 1.0, -1.0)

    def loss(coefficients: Floats) -> float:
        surprise = np.logaddexp(0, -signs * (inputs @ coefficients))
        return float(np.average(surprise, weights=counts) + 1e-3 * (coefficients[1:] ** 2).sum())

    return tuple(float(value) for value in _lowest(loss, np.zeros(inputs.shape[1])))


def _lowest(loss: Callable[[Floats], float], start: Floats) -> Floats:
    found: Floats = minimize(loss, start, method="BFGS").x
    return found
