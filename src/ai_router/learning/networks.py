"""Fitting the small networks over sentence vectors, and keeping the vectors of many texts for that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_router.routing.head.sentences import READ_CHARS, SIZE, Array, Network, Vectors

_BATCH_TEXTS = 256


class KnownVectors:
    """Sentence vectors that are computed once a text. Not safe from several threads."""

    def __init__(self, model: Vectors) -> None:
        self._model = model
        self._known: dict[str, npt.NDArray[np.float16]] = {}

    @property
    def ready(self) -> bool:
        """Always: it computes what it does not know."""
        return True

    def prepare(self, texts: Iterable[str]) -> None:
        """Compute the vectors of all texts that are not known yet, many at once, which takes a third of the time."""
        read = {text[:READ_CHARS] for text in texts}
        unknown = sorted((text for text in read if text not in self._known), key=lambda text: (len(text), text))
        for at in range(0, len(unknown), _BATCH_TEXTS):
            batch = unknown[at : at + _BATCH_TEXTS]
            self._known.update(zip(batch, self._model.of(batch).astype(np.float16), strict=True))

    def of(self, texts: Sequence[str]) -> Array:
        """A vector for each text, (texts, SIZE)."""
        self.prepare(texts)
        if not texts:
            return np.zeros((0, SIZE), np.float32)
        return np.array([self._known[text[:READ_CHARS]] for text in texts], np.float32)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a network is fitted: by Adam, with dropout of the hidden units, and a rate that falls to zero."""

    units: int
    epochs: int
    batch: int = 256
    learning_rate: float = 1e-3
    decay: float = 1e-4
    dropout: float = 0.3
    seed: int = 0


def fit_network(
    rows: Callable[[npt.NDArray[np.intp]], Array],
    targets: Array,
    example_weights: npt.NDArray[np.floating],
    fit: Fit,
) -> Network:
    """Fit on weighted cross-entropy. Deterministic.

    ``rows`` gives the inputs, (indices, inputs), of the examples with these indices. ``targets``: (examples, labels), a
    one in each row; or (examples, 1) for yes (1) or no (0).
    """
    rng = np.random.default_rng(fit.seed)
    count, outputs = targets.shape
    inputs = rows(np.arange(1)).shape[1]
    parameters = [
        rng.normal(0, np.sqrt(2 / inputs), (inputs, fit.units)).astype(np.float32),
        np.zeros(fit.units, np.float32),
        rng.normal(0, np.sqrt(1 / fit.units), (fit.units, outputs)).astype(np.float32),
        np.zeros(outputs, np.float32),
    ]
    adam = _Adam(parameters, fit, steps=fit.epochs * -(-count // fit.batch))
    for indices in _batches(count, fit, rng):
        weights = example_weights[indices, None].astype(np.float32)
        adam.step(_gradients(parameters, rows(indices), targets[indices], weights, fit.dropout, rng))
    # As they will be in the file.
    stored = [values.astype(np.float16).astype(np.float32) for values in parameters]
    return Network((stored[0], stored[1]), (stored[2], stored[3]))


def _batches(count: int, fit: Fit, rng: np.random.Generator) -> Iterator[npt.NDArray[np.intp]]:
    for _ in range(fit.epochs):
        order = rng.permutation(count)
        for at in range(0, count, fit.batch):
            yield order[at : at + fit.batch]


def _gradients(
    parameters: Sequence[Array], inputs: Array, targets: Array, weights: Array, dropout: float, rng: np.random.Generator
) -> list[Array]:
    """Of the loss by weights and bias of the hidden and of the output layer."""
    kept = (rng.random((len(inputs), len(parameters[1])), np.float32) >= dropout) / np.float32(1 - dropout)
    units = np.maximum(inputs @ parameters[0] + parameters[1], 0) * kept
    logits = units @ parameters[2] + parameters[3]
    error = (_probabilities(logits) - targets) * weights / np.float32(len(inputs))
    back = (error @ parameters[2].T) * kept * (units > 0)
    return [inputs.T @ back, back.sum(axis=0), units.T @ error, error.sum(axis=0)]


def _probabilities(logits: Array) -> Array:
    if logits.shape[1] == 1:
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -40, 40))), np.float32)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


class _Adam:
    """Adam (Kingma and Ba 2015), with weight decay on matrices. Changes the parameters in place."""

    def __init__(self, parameters: Sequence[Array], fit: Fit, steps: int) -> None:
        self._parameters = parameters
        self._fit = fit
        self._steps = steps
        self._done = 0
        self._mean = [np.zeros_like(values) for values in parameters]
        self._square = [np.zeros_like(values) for values in parameters]

    def step(self, gradients: Sequence[Array]) -> None:
        rate = self._fit.learning_rate * (1 - self._done / self._steps)
        self._done += 1
        for values, gradient, mean, square in zip(self._parameters, gradients, self._mean, self._square, strict=True):
            slope = gradient + self._fit.decay * values if values.ndim > 1 else gradient
            mean[...] += (1 - 0.9) * (slope - mean)
            square[...] += (1 - 0.999) * (slope * slope - square)
            unbiased, spread = mean / (1 - 0.9**self._done), square / (1 - 0.999**self._done)
            values[...] -= np.float32(rate) * unbiased / (np.sqrt(spread) + np.float32(1e-8))
