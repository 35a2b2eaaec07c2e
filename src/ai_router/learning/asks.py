"""Training the model that finds the ask: examples are dressed, so that it is known which segments were put around."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ai_router.learning.dressing import Dressings
from ai_router.learning.examples import Example
from ai_router.learning.fitting import NEGLIGIBLE, feature_matrix, fit_linear
from ai_router.routing.ask import segments, unwrap
from ai_router.routing.head.asking import AskModel, segment_features
from ai_router.routing.head.features import Features
from ai_router.routing.prompt import text_of

_DRESSED_TIMES = 3
_LONGEST_PROMPT = 1_500
_UNCLEAR_WEIGHT = 0.3
"""Of a segment of a prompt that has several: not all of them ask."""
_PENALTY = 0.3
_ITERATIONS = 80
_SHORTEST_STATEMENT = 12
_SENTENCES = (1, 5)
_NOT_WORDS = re.compile(r"\W+")


def train_ask_model(examples: Sequence[Example], dressings: Dressings, seed: int = 0) -> AskModel:
    """Fit on prompts of one turn, each as it is and dressed three times. Deterministic."""
    rows = list(_segments_of(examples, dressings, random.Random(seed)))  # noqa: S311 - for training, not a secret
    linear = fit_linear(
        feature_matrix([row.features for row in rows]),
        np.array([row.asks for row in rows], np.int64),
        np.array([row.weight for row in rows]),
        penalty=_PENALTY,
        class_count=2,
        iterations=_ITERATIONS,
    )
    weights = linear.weights[:, 1] - linear.weights[:, 0]
    rounded = np.where(np.abs(weights) < NEGLIGIBLE, 0, weights).astype(np.float16)
    return AskModel(rounded, float(linear.bias[1] - linear.bias[0]))


def material_of(examples: Sequence[Example], seed: int = 0) -> list[str]:
    """Paragraphs that ask for nothing: sentences of the answers in conversations, put together at random."""
    said = {
        sentence
        for example in examples
        for message in example.messages
        if message.get("role") == "assistant"
        for sentence in segments(text_of(message))
        if len(sentence) > _SHORTEST_STATEMENT and "?" not in sentence
    }
    rng = random.Random(seed)  # noqa: S311 - for training, not a secret
    sentences = sorted(said)
    rng.shuffle(sentences)
    return [" ".join(sentences[at : at + rng.randint(*_SENTENCES)]) for at in range(0, len(sentences), 4)]


@dataclass(frozen=True, slots=True)
class _Row:
    features: Features
    asks: bool
    weight: float


def _segments_of(examples: Sequence[Example], dressings: Dressings, rng: random.Random) -> Iterator[_Row]:
    families = sorted(dressings.families)
    for example in examples:
        prompt = text_of(example.messages[-1])
        if len(example.messages) != 1 or len(prompt) > _LONGEST_PROMPT:
            continue
        alone = len(segments(unwrap(prompt))) == 1
        dressed = [dressings.dress(prompt, rng.choice(families), rng).text for _ in range(_DRESSED_TIMES)]
        squeezed = _squeezed(prompt)
        for text in (prompt, *dressed):
            pieces = segments(unwrap(text))
            for index, piece in enumerate(pieces):
                asks = _squeezed(piece) in squeezed if _squeezed(piece) else piece in prompt
                yield _Row(segment_features(pieces, index), asks, _UNCLEAR_WEIGHT if asks and not alone else 1.0)


def _squeezed(text: str) -> str:
    """Letters and digits only: dressing may change the case and the marks."""
    return _NOT_WORDS.sub("", text.lower())
