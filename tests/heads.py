"""Heads small enough to be made in a test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ai_router.routing.head.asking import AskModel, segment_form
from ai_router.routing.head.confidence import CONFIDENCE_INPUTS, Stage, Stages
from ai_router.routing.head.features import BUCKETS
from ai_router.routing.head.model import HeadParts
from ai_router.routing.head.sentences import SIZE, Array, Network

_STAGE = Stage((1.0, 1.0, 1.0), (0.0,) * CONFIDENCE_INPUTS, 0.5)


def network(inputs: int, outputs: int) -> Network:
    """A network of four hidden units that says the same to everything."""
    return Network(
        (np.zeros((inputs, 4), np.float32), np.zeros(4, np.float32)),
        (np.zeros((4, outputs), np.float32), np.zeros(outputs, np.float32)),
    )


def ask_model(word_bias: float, weights: float = 0.0, by_meaning: Network | None = None) -> AskModel:
    """One that finds each segment equally likely to ask: ``word_bias`` is the logit by its words."""
    inputs = 2 * SIZE + len(segment_form(["a"], 0))
    return AskModel(np.full(BUCKETS, weights, np.float16), word_bias, by_meaning or network(inputs, 1))


def made_head_parts() -> HeadParts:
    """A head that says MODERATE to everything, with a confidence of one half."""
    weights = np.zeros((BUCKETS, 3), np.float32)
    weights[7] = 0.5
    return HeadParts(
        weights=weights,
        bias=[1.0, 0.0, 0.0],
        vocabulary=np.array([1, 2], np.uint32),
        meaning=network(2 * SIZE + 1, 3),
        asks=ask_model(1.0),
        stages=Stages(_STAGE, _STAGE, _STAGE),
        difficulty=None,
        dial=None,
        metadata={"confidences": [0.1] * 10},
    )


class LetterVectors:
    """Sentence vectors without a model: how often each letter occurs."""

    ready = True

    def of(self, texts: Sequence[str]) -> Array:
        rows = np.zeros((len(texts), SIZE), np.float32)
        for index, text in enumerate(texts):
            np.add.at(rows[index], [ord(letter) % SIZE for letter in text.lower()], 1)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1)
