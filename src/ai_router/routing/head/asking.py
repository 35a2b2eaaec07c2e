"""Which segments of a message ask for something, and which only surround that.

A segment is a sentence or a line (routing/ask.py). Two models say how likely it is that it asks: a quick one, linear
over hashed words, and a network over sentence vectors, which knows surroundings that it has not met by their meaning.
Both see where a segment stands. They were trained on dressed examples, in which it is known what was put around
(learning/asks.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_router.routing.ask import Ask, segments, unwrap
from ai_router.routing.head.features import (
    Features,
    char_ngrams,
    combine_features,
    normalised_text,
    word_hashes,
    word_ngrams,
    words_of,
)
from ai_router.routing.head.sentences import Array, Network, scaled

_LEAST_ASKING = 0.4
"""A segment that asks with at least this probability is kept."""
_LEAST_SHARE = 0.7
"""Where none is that likely: those are kept that are so near to the likeliest."""
_ANY_YEAR = 0
_SEGMENT_CHARS = 300
MAX_READ = 8
"""Segments of a message of which there are sentence vectors, half of them at each end."""


@dataclass(frozen=True, slots=True)
class ClearerAsk:
    """The ask as sentence vectors show it. ``kept``: the vectors of its segments, (segments, SIZE); at least one."""

    ask: Ask
    kept: Array


class AskModel:
    """Finds the ask. Immutable; safe from any thread.

    ``weights``, (buckets,), and ``bias`` are the linear model; above zero: it asks. So says the only output of
    ``network``.
    """

    def __init__(self, weights: npt.NDArray[np.generic], bias: float, network: Network) -> None:
        self.weights = weights
        self.bias = bias
        self.network = network

    def find(self, message: str) -> Ask:
        """The ask in a user's message, by its words; the message itself where nothing surrounds it."""
        unwrapped = unwrap(message)
        pieces = tuple(segments(unwrapped))
        if len(pieces) < 2:
            return Ask(unwrapped, 1.0, pieces or (unwrapped,), unwrapped)
        return _kept_of(pieces, unwrapped, self._by_words(pieces))[0]

    def find_by_meaning(self, ask: Ask, vectors: Array) -> ClearerAsk:
        """The ask anew, by the sentence vectors of the segments that ``read_segments`` names, (read, SIZE).

        Of the segments between those the words decide.
        """
        if len(ask.segments) < 2:
            return ClearerAsk(ask, vectors)
        read = read_segments(len(ask.segments))
        asking = np.zeros(len(ask.segments)) if len(read) == len(ask.segments) else self._by_words(ask.segments)
        forms = np.array([segment_form(ask.segments, index) for index in read], np.float32)
        rows = network_rows(vectors, vectors.sum(axis=0), np.full(len(read), len(read)), forms)
        asking[read] = _sigmoid(self.network.logits(rows)[:, 0])
        clearer, kept = _kept_of(ask.segments, ask.unwrapped, asking)
        kept_vectors = vectors[kept[read]]
        return ClearerAsk(clearer, kept_vectors if len(kept_vectors) else vectors)

    def _by_words(self, pieces: Sequence[str]) -> npt.NDArray[np.float64]:
        logits = []
        for index in range(len(pieces)):
            features = segment_features(pieces, index)
            logits.append(float(features.weights @ self.weights[features.buckets].astype(np.float32)) + self.bias)
        return _sigmoid(np.array(logits))


def _kept_of(
    pieces: tuple[str, ...], unwrapped: str, asking: npt.NDArray[np.float64]
) -> tuple[Ask, npt.NDArray[np.bool_]]:
    """The ask, given the probability of each segment, and which segments that keeps."""
    kept = asking >= min(_LEAST_ASKING, _LEAST_SHARE * float(asking.max()))
    # With all of it kept, its own line breaks and blanks stay.
    text = unwrapped if kept.all() else "\n".join(piece for piece, keep in zip(pieces, kept, strict=True) if keep)
    return Ask(text, float(np.abs(2 * asking - 1).min()), pieces, unwrapped), kept


def _sigmoid(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -40, 40)))
    return result


def read_segments(count: int) -> list[int]:
    """Which of ``count`` segments there are sentence vectors of: MAX_READ at most, half of them at each end."""
    half = MAX_READ // 2
    return list(range(count)) if count <= MAX_READ else [*range(half), *range(count - half, count)]


def network_rows(own: Array, sums: Array, counts: npt.NDArray[np.integer], forms: Array) -> Array:
    """What the network reads of segments, (segments, inputs): its vector, the mean of the others', and its form.

    For each: ``own``, (segments, SIZE), its vector; ``sums``, (segments, SIZE) or (SIZE,), the sum of the vectors of
    all that are read of its message, which are so many as ``counts`` says, (segments,); ``forms`` by ``segment_form``.
    """
    others = (sums - own) / np.maximum(counts - 1, 1).astype(np.float32)[:, None]
    return np.concatenate((scaled(own), scaled(others), forms), axis=1)


def segment_form(pieces: Sequence[str], index: int) -> list[float]:
    """Where a segment stands, how long it is, and how it begins and ends; each about 0 to 1."""
    raw, last = pieces[index].rstrip(), len(pieces) - 1
    words = len(raw.split())
    return [
        float(index == 0),
        float(index == last),
        index / max(last, 1),
        min(len(pieces), 12) / 12,
        *(float(raw.endswith(mark)) for mark in ("?", "!", ".", ":", ")")),
        float("?" in raw),
        float(any("?" in piece for at, piece in enumerate(pieces) if at != index)),
        min(words, 40) / 40,
        float(words < 3),
        float(raw.startswith("```")),
        float(raw[:1].islower()),
        float(index == 0 and words < 4),
        sum(not (char.isalnum() or char.isspace()) for char in raw) / max(len(raw), 1),
    ]


def segment_features(pieces: Sequence[str], index: int) -> Features:
    """The features of one of a message's segments."""
    raw = pieces[index].rstrip()
    text = normalised_text(raw, _ANY_YEAR)
    words = word_hashes(words_of(text))
    return combine_features(
        [
            ("s1", 1.0, word_ngrams(words, 1)),
            ("s2", 0.8, word_ngrams(words, 2)),
            ("sb", 0.8, word_ngrams(words[:4], 2)),
            ("sc", 1.0, char_ngrams(text[:_SEGMENT_CHARS])),
            ("sp", 0.3, _neighbour(pieces[index - 1], -2) if index else word_hashes(["^"])),
            ("sn", 0.3, _neighbour(pieces[index + 1], 2) if index + 1 < len(pieces) else word_hashes(["$"])),
            ("sm", 0.8, word_hashes(_form(pieces, index, raw, len(words)))),
        ],
        words,
    )


def _neighbour(text: str, count: int) -> npt.NDArray[np.uint64]:
    """The first words of a segment, or with a negative ``count`` its last ones."""
    words = words_of(normalised_text(text, _ANY_YEAR))
    return word_hashes(words[:count] if count > 0 else words[count:])


def _form(pieces: Sequence[str], index: int, raw: str, words: int) -> list[str]:
    """Where a segment stands and how it ends, as words."""
    last = len(pieces) - 1
    return [
        f"of:{min(len(pieces), 6)}",
        f"first:{index == 0}",
        f"last:{index == last}",
        f"at:{index if index < 3 else 'middle'}/{min(last - index, 3)}",
        f"ends:{raw[-1:] if raw[-1:] in ('?', '!', '.', ':', ')') else 'other'}",
        f"words:{min(words, 40).bit_length()}",
        f"fenced:{raw.startswith('```')}",
        f"question:{'?' in raw}/{any('?' in piece for piece in pieces)}",
    ]
