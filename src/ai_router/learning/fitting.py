"""Fitting linear models over sparse features: multinomial logistic regression, pulled towards where it began, and the
difficulty model, which is two of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from ai_router.routing.head.features import BUCKETS, Excerpt, Features, excerpt_features
from ai_router.routing.head.model import difficulty_score

_DIFFICULTY_PENALTY = 1.0
NEGLIGIBLE = 0.02
"""Weights below it are left out of the file: most of a million, and they decide nothing. Difficulty: an eighth."""
_FOLDS = 5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LinearModel:
    """Weights (buckets, classes) and bias (classes,)."""

    weights: Floats
    bias: Floats


def feature_matrix(rows: Sequence[Features], buckets: int = BUCKETS) -> csr_matrix:
    """Features of many texts as a sparse matrix (texts, buckets), float64."""
    lengths = [len(row.buckets) for row in rows]
    return csr_matrix(
        (
            np.concatenate([row.weights for row in rows]).astype(np.float64),
            np.concatenate([row.buckets for row in rows]),
            np.concatenate(([0], np.cumsum(lengths))),
        ),
        shape=(len(rows), buckets),
    )


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def fit_linear(
    features: csr_matrix,
    classes: npt.NDArray[np.int64],
    example_weights: Floats,
    *,
    penalty: float,
    class_count: int,
    start: LinearModel | None = None,
    iterations: int = 150,
) -> LinearModel:
    """Fit multinomial logistic regression: L-BFGS on the weighted cross-entropy plus ``penalty``/2 times the squared
    distance to ``start`` (default: zero).

    ``features`` (rows, buckets), ``classes`` (rows,) in [0, class_count), ``example_weights`` (rows,).

    Only columns that occur are fitted; the others stay as in ``start``. Deterministic.
    """
    used = np.unique(features.indices)
    compact = features[:, used]
    origin = np.zeros((len(used), class_count)) if start is None else start.weights[used]
    origin_bias = np.zeros(class_count) if start is None else start.bias
    targets = np.zeros((len(classes), class_count))
    targets[np.arange(len(classes)), classes] = 1.0
    transposed = compact.T.tocsr()

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights, bias = flat[:-class_count].reshape(-1, class_count), flat[-class_count:]
        log_p = log_softmax(compact @ weights + bias)
        distance = weights - origin
        value = -(example_weights * (targets * log_p).sum(axis=1)).sum() + penalty / 2 * (distance**2).sum()
        residual = (np.exp(log_p) - targets) * example_weights[:, None]
        gradient = np.concatenate(((transposed @ residual + penalty * distance).ravel(), residual.sum(axis=0)))
        return float(value), gradient

    initial = np.concatenate((origin.ravel(), origin_bias))
    found = minimize(loss, initial, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 12}).x
    weights = np.zeros((features.shape[1], class_count)) if start is None else start.weights.copy()
    weights[used] = found[:-class_count].reshape(-1, class_count)
    return LinearModel(weights, found[-class_count:])


def fit_difficulty(excerpts: Sequence[Excerpt], weak: Sequence[bool], strong: Sequence[bool], year: int) -> Any:
    """Weights (buckets, 2) of two logistic models: whether the weak model is right, and whether the strong one is."""
    features = feature_matrix([excerpt_features(excerpt, year) for excerpt in excerpts])
    equal_weights = np.ones(len(excerpts))
    columns = []
    for correct in (weak, strong):
        linear = fit_linear(
            features, np.array(correct, np.int64), equal_weights, penalty=_DIFFICULTY_PENALTY, class_count=2
        )
        columns.append(linear.weights[:, 1] - linear.weights[:, 0])
    weights = np.stack(columns, axis=1)
    return np.where(np.abs(weights) < NEGLIGIBLE / 8, 0, weights).astype(np.float32)


def held_out_difficulty(
    excerpts: Sequence[Excerpt], weak: Sequence[bool], strong: Sequence[bool], year: int
) -> tuple[list[int], list[float]]:
    """Indices of a fifth of the prompts, and their difficulty by weights that were fitted on the others."""
    held_out = [index for index, excerpt in enumerate(excerpts) if zlib.crc32(excerpt.last.encode()) % _FOLDS == 0]
    others = sorted(set(range(len(excerpts))) - set(held_out))
    weights = fit_difficulty(
        [excerpts[index] for index in others],
        [weak[index] for index in others],
        [strong[index] for index in others],
        year,
    )
    return held_out, [difficulty_score(excerpt_features(excerpts[index], year), weights) for index in held_out]
