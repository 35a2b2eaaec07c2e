"""Training a head: fit its models on examples as they are and dressed, and have it calibrated on others.

Fitting and calibrating never use the same examples. One group in CALIBRATION_PART, and every source named in
``calibration_sources``, calibrates (calibration.py); the rest is fitted on. Both are dressed, with words of their own.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ai_router.learning.calibration import FOLDS, UNCALIBRATED, Cases, calibrate, fit_dial
from ai_router.learning.dressing import Dressings, dressed_examples
from ai_router.learning.examples import Example
from ai_router.learning.fitting import NEGLIGIBLE, LinearModel, feature_matrix, fit_linear
from ai_router.learning.networks import Fit, KnownVectors, fit_network
from ai_router.routing.head.asking import AskModel
from ai_router.routing.head.confidence import Stages
from ai_router.routing.head.encoder import Encoder
from ai_router.routing.head.features import Excerpt, excerpt_features, excerpt_of
from ai_router.routing.head.model import Head, HeadParts, SlowModels, look_closer, texts_to_read
from ai_router.routing.head.sentences import Array, Network, meaning_of, meaning_row
from ai_router.routing.head.store import pack_head
from ai_router.routing.verdict import LABELS

RISK = 0.03
"""The share of wrong answers that is allowed where the head is sure."""
CALIBRATION_PART = 8
PAIR_SOURCES = ("contrast", "conversations", "hard_easy")
"""Sources of minimal pairs: the same words, or the same last turn, with different labels. They are good to fit models
and their mix on; confidence that was fitted on them would be too low for ordinary requests."""
PENALTY = 0.1
_DRESSED_TIMES = 2
_DRESSED_WEIGHT = 0.5
_WHOLE_WEIGHT = 0.25
"""Of a dressed example as a whole, with all that surrounds its ask: the words must not be lost where that is not
found."""
_NETWORK = Fit(units=256, epochs=12)


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
    vectors: KnownVectors,
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
    ``weights``: of a source's examples (default 1). ``year``: the present one. ``start``: the head whose words to begin
    with and to stay near to. ``difficulty``: as in HeadParts. ``metadata``: what to add to the head's own.
    """
    plain = [example for example in examples if not is_for_calibration(example, calibration_sources)]
    undressed = [example for example in examples if is_for_calibration(example, calibration_sources)]
    to_fit, to_calibrate = dressings.split()
    fitting = _looked_at(
        plain, [dressed_examples(plain, to_fit, seed) for seed in range(_DRESSED_TIMES)], asks, vectors
    )
    calibrating = [*undressed, *dressed_examples(undressed, to_calibrate, _DRESSED_TIMES)]
    words, vocabulary = _fit_words(fitting, weights, year, start)
    rounded = np.where(np.abs(words.weights) < NEGLIGIBLE, 0, words.weights).astype(np.float16).astype(np.float32)
    parts = HeadParts(
        weights=rounded,
        bias=words.bias.tolist(),
        vocabulary=vocabulary,
        meaning=_fit_meaning(fitting, weights),
        asks=asks,
        stages=Stages(UNCALIBRATED, UNCALIBRATED, UNCALIBRATED),
        difficulty=difficulty,
        dial=None,
        metadata={**(metadata or {}), "year": year, "risk": risk, "fitted": len(plain), "calibrated": len(undressed)},
    )
    cases = _cases(Head(parts, SlowModels(vectors, encoder)), calibrating, vectors, weights, year)
    found = calibrate(cases, risk)
    described = {**parts.metadata, "confidences": found.histogram}
    finished = dataclasses.replace(parts, stages=found.stages, dial=fit_dial(cases, found.stages), metadata=described)
    return TrainedHead(pack_head(finished), len(plain), len(undressed), found.coverage, found.risk)


@dataclass(frozen=True, slots=True)
class _Looked:
    """An example to fit on. ``excerpt``: with the ask as its words show it, ``clearer`` as its sentence vectors do;
    ``sentences`` are the vectors of that, and ``before`` the one of the turn before. ``plain``: it is not dressed."""

    example: Example
    plain: bool
    excerpt: Excerpt
    clearer: Excerpt
    sentences: Array
    before: Array | None


def _looked_at(
    plain: Sequence[Example], dressed: Sequence[Sequence[Example]], asks: AskModel, vectors: KnownVectors
) -> list[_Looked]:
    rows = [(example, True) for example in plain] + [(example, False) for copies in dressed for example in copies]
    excerpts = [excerpt_of(example.messages, asks.find) for example, _ in rows]
    vectors.prepare(text for excerpt in excerpts for text in texts_to_read(excerpt))
    found = []
    for (example, is_plain), excerpt in zip(rows, excerpts, strict=True):
        closer, before = look_closer(excerpt, asks, vectors)
        found.append(_Looked(example, is_plain, excerpt, excerpt.with_ask(closer.ask), closer.kept, before))
    return found


def _fit_words(
    looked: Sequence[_Looked], weights: Mapping[str, float], year: int, start: Head | None
) -> tuple[LinearModel, npt.NDArray[np.uint32]]:
    """The linear model, and the hashes of the words that it has met."""
    rows = list(_excerpts_for_words(looked))
    features = [excerpt_features(excerpt, year) for _, excerpt, _ in rows]
    classes = np.array([LABELS.index(example.label) for example, _, _ in rows])
    case_weights = np.array([weight * weights.get(example.source, 1.0) for example, _, weight in rows])
    initial = None if start is None else LinearModel(*start.words_model())
    linear = fit_linear(
        feature_matrix(features), classes, case_weights, penalty=PENALTY, class_count=len(LABELS), start=initial
    )
    vocabulary = np.unique(np.concatenate([row.words for row in features])).astype(np.uint32)
    return linear, vocabulary if start is None else np.union1d(vocabulary, start.vocabulary)


def _excerpts_for_words(looked: Sequence[_Looked]) -> Iterator[tuple[Example, Excerpt, float]]:
    """What the linear model learns from: asks as either look finds them, and the whole around them; with weights."""
    for index, row in enumerate(looked):
        if row.plain:
            yield row.example, row.clearer, 1.0
            continue
        yield row.example, row.clearer if index % 2 else row.excerpt, _DRESSED_WEIGHT
        if row.excerpt.whole and index % 2:
            turns = (row.excerpt.whole, *row.excerpt.turns[1:])
            yield row.example, dataclasses.replace(row.excerpt, turns=turns), _WHOLE_WEIGHT


def _fit_meaning(looked: Sequence[_Looked], weights: Mapping[str, float]) -> Network:
    inputs = np.array([meaning_row(meaning_of(row.sentences), row.before) for row in looked], np.float16)
    targets = np.eye(len(LABELS), dtype=np.float32)[[LABELS.index(row.example.label) for row in looked]]
    case_weights = np.array(
        [weights.get(row.example.source, 1.0) * (1.0 if row.plain else _DRESSED_WEIGHT) for row in looked]
    )
    return fit_network(lambda indices: inputs[indices].astype(np.float32), targets, case_weights, _NETWORK)


def _cases(
    head: Head, examples: Sequence[Example], vectors: KnownVectors, weights: Mapping[str, float], year: int
) -> Cases:
    excerpts = [head.excerpt(example.messages) for example in examples]
    vectors.prepare(text for excerpt in excerpts for text in texts_to_read(excerpt))
    words = [head.words_scores(excerpt, year) for excerpt in excerpts]
    closer = [head.scores_with_vectors(excerpt, scores, year) for excerpt, scores in zip(excerpts, words, strict=True)]
    return Cases(
        (words, [scores for _, scores in closer], [head.scores_with_encoder(*found) for found in closer]),
        np.array([LABELS.index(example.label) for example in examples]),
        np.array([zlib.crc32(example.group.encode()) % FOLDS for example in examples]),
        np.array(
            [
                0.0 if example.source.startswith(PAIR_SOURCES) else weights.get(example.source, 1.0)
                for example in examples
            ]
        ),
    )
