"""Which segments of a message ask for something, and which only surround that: a linear model over hashed words.

A segment is a sentence or a line (routing/ask.py). The model sees its words and characters, and where it stands. It was
trained on dressed examples, in which it is known what was put around (learning/asks.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_router.routing.ask import segments, unwrap
from ai_router.routing.head.features import (
    Features,
    char_ngrams,
    combine_features,
    normalised_text,
    word_hashes,
    word_ngrams,
    words_of,
)

_LEAST_ASKING = 0.4
"""A segment that asks with at least this probability is kept."""
_LEAST_SHARE = 0.7
"""Where none is that likely: those are kept that are so near to the likeliest."""
_ANY_YEAR = 0
_SEGMENT_CHARS = 300


@dataclass(frozen=True, slots=True)
class Ask:
    """What a message asks. ``text``: its segments that ask, one a line. ``certainty``: of the least clear segment, 0
    for one that may as well ask as not, 1 for one that surely does or does not."""

    text: str
    certainty: float


class AskModel:
    """Finds the ask. Immutable; safe from any thread. ``weights`` are (buckets,); above zero: it asks."""

    def __init__(self, weights: npt.NDArray[np.generic], bias: float) -> None:
        self.weights = weights
        self.bias = bias

    def find(self, message: str) -> Ask:
        """The ask in a user's message; the message itself where nothing surrounds it."""
        unwrapped = unwrap(message)
        pieces = segments(unwrapped)
        if len(pieces) < 2:
            return Ask(unwrapped, 1.0)
        asking = np.array([self._probability(pieces, index) for index in range(len(pieces))])
        least = min(_LEAST_ASKING, _LEAST_SHARE * float(asking.max()))
        kept = [piece for piece, probability in zip(pieces, asking, strict=True) if probability >= least]
        # With all of it kept, its own line breaks and blanks stay.
        text = unwrapped if len(kept) == len(pieces) else "\n".join(kept)
        return Ask(text, float(np.abs(2 * asking - 1).min()))

    def _probability(self, pieces: Sequence[str], index: int) -> float:
        features = segment_features(pieces, index)
        logit = float(features.weights @ self.weights[features.buckets].astype(np.float32)) + self.bias
        return float(1 / (1 + np.exp(-min(max(logit, -40.0), 40.0))))


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
