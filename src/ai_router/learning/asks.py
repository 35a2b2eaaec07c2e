"""Training the models that find the ask: examples are dressed, so that it is known which segments were put around."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_router.learning.dressing import Dressings
from ai_router.learning.examples import Example
from ai_router.learning.fitting import NEGLIGIBLE, feature_matrix, fit_linear
from ai_router.learning.networks import Fit, KnownVectors, fit_network
from ai_router.routing.ask import segments, unwrap
from ai_router.routing.head.asking import AskModel, network_rows, read_segments, segment_features, segment_form
from ai_router.routing.head.sentences import Array, Network
from ai_router.routing.prompt import text_of

_DRESSED_TIMES = 3
_LONGEST_PROMPT = 1_500
_UNCLEAR_WEIGHT = 0.3
"""Of a segment of a prompt that has several: not all of them ask."""
_PENALTY = 0.3
_ITERATIONS = 80
_SHORTEST_STATEMENT = 12
_SENTENCES = (1, 5)
_NETWORK = Fit(units=128, epochs=8)
_NOT_WORDS = re.compile(r"\W+")


def train_ask_model(
    examples: Sequence[Example], dressings: Dressings, vectors: KnownVectors, seed: int = 0
) -> AskModel:
    """Fit on prompts of one turn, each as it is and dressed three times. Deterministic."""
    messages = list(_messages_of(examples, dressings, random.Random(seed)))  # noqa: S311 - for training, not a secret
    network = _train_network([message for message in messages if len(message.segments) > 1], vectors)
    linear = fit_linear(
        feature_matrix(
            [segment_features(message.segments, at) for message in messages for at in range(len(message.segments))]
        ),
        np.array([asks for message in messages for asks in message.asks], np.int64),
        np.array([weight for message in messages for weight in message.weights]),
        penalty=_PENALTY,
        class_count=2,
        iterations=_ITERATIONS,
    )
    weights = linear.weights[:, 1] - linear.weights[:, 0]
    rounded = np.where(np.abs(weights) < NEGLIGIBLE, 0, weights).astype(np.float16)
    return AskModel(rounded, float(linear.bias[1] - linear.bias[0]), network)


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
class _Message:
    """The segments of a dressed prompt, which of them ask, and how much each of them counts."""

    segments: Sequence[str]
    asks: Sequence[bool]
    weights: Sequence[float]


def _messages_of(examples: Sequence[Example], dressings: Dressings, rng: random.Random) -> Iterator[_Message]:
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
            asks = [_squeezed(piece) in squeezed if _squeezed(piece) else piece in prompt for piece in pieces]
            yield _Message(pieces, asks, [_UNCLEAR_WEIGHT if does and not alone else 1.0 for does in asks])


def _train_network(messages: Sequence[_Message], vectors: KnownVectors) -> Network:
    read = [read_segments(len(message.segments)) for message in messages]
    texts = [message.segments[at] for message, places in zip(messages, read, strict=True) for at in places]
    vectors.prepare(texts)
    number_of = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    # A million rows of a thousand numbers would be 4 GB: they are put together batch by batch from these.
    unique = vectors.of(list(number_of))
    text_at = np.array([number_of[text] for text in texts])
    counts = np.array([len(places) for places in read])
    message_at = np.repeat(np.arange(len(messages)), counts)
    sums = np.add.reduceat(unique[text_at], np.concatenate(([0], np.cumsum(counts)[:-1])), axis=0)
    places_of = [(message, at) for message, places in zip(messages, read, strict=True) for at in places]
    forms = np.array([segment_form(message.segments, at) for message, at in places_of], np.float32)

    def rows(indices: npt.NDArray[np.intp]) -> Array:
        own, of = unique[text_at[indices]], message_at[indices]
        return network_rows(own, sums[of], counts[of], forms[indices])

    asks = np.array([message.asks[at] for message, at in places_of], np.float32)
    return fit_network(rows, asks[:, None], np.array([message.weights[at] for message, at in places_of]), _NETWORK)


def _squeezed(text: str) -> str:
    """Letters and digits only: dressing may change the case and the marks."""
    return _NOT_WORDS.sub("", text.lower())
