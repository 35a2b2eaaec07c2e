"""What the probabilities of a decision model are worth: fitted on decisions whose label is known.

A temperature for all labels and a bias for each, by maximum likelihood (vector scaling, Guo et al. 2017, with one
temperature). Whether that helps is measured on decisions that it was not fitted on, in folds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from ai_router.learning.evaluation import expected_calibration_error
from ai_router.routing.decision_model import AS_THEY_ARE, Calibration
from ai_router.types import LabelName

LEAST_CASES = 30
_FOLDS = 5
_PENALTY = 0.01
_LEAST = 1e-6

Case = tuple[Mapping[LabelName, float], LabelName]
"""Probabilities of the labels, and the label that was right."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """Of ``cases``: the share that is right, the mean loss (nats), and the expected calibration error of what the most
    probable label has, before and after; after: by what was fitted on other cases."""

    cases: int
    right: tuple[float, float]
    loss: tuple[float, float]
    error: tuple[float, float]

    @property
    def helps(self) -> bool:
        """Whether cases that it was not fitted on are told better."""
        return self.loss[1] < self.loss[0]


def fit_calibration(cases: Sequence[Case]) -> tuple[Calibration, CalibrationResult]:
    """The calibration, fitted on all cases, and how good such a one is. Raises ValueError for fewer than
    LEAST_CASES."""
    if len(cases) < LEAST_CASES:
        raise ValueError(f"{len(cases)} decisions of which the label is known; {LEAST_CASES} are needed")
    labels = sorted({label for shares, _ in cases for label in shares})
    held_out: list[Case] = []
    for fold in range(_FOLDS):
        fitted = _fitted([case for number, case in enumerate(cases) if number % _FOLDS != fold], labels)
        held_out += [(fitted.applied(shares), right) for shares, right in cases[fold::_FOLDS]]
    before = [(AS_THEY_ARE.applied(shares), right) for shares, right in cases]
    result = CalibrationResult(
        len(cases), *((measure(before), measure(held_out)) for measure in (_right, _loss, _calibration_error))
    )
    return _fitted(cases, labels), result


def _fitted(cases: Sequence[Case], labels: Sequence[LabelName]) -> Calibration:
    logs = np.array([[math.log(max(shares.get(label, 0.0), _LEAST)) for label in labels] for shares, _ in cases])
    classes = np.array([labels.index(right) if right in labels else -1 for _, right in cases])
    known = np.flatnonzero(classes >= 0)
    logs, classes = logs[known], classes[known]

    def loss(parameters: Floats) -> float:
        # The temperature as its logarithm, so that it stays above zero.
        logits = logs / np.exp(parameters[0]) + parameters[1:]
        peak = logits.max(axis=1, keepdims=True)
        log_p = logits - peak - np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
        return float(-log_p[np.arange(len(classes)), classes].mean() + _PENALTY * (parameters**2).sum())

    found = minimize(loss, np.zeros(1 + len(labels)), method="BFGS").x
    bias = found[1:] - found[1:].mean()
    return Calibration(
        round(float(np.exp(found[0])), 4),
        {label: round(float(value), 4) for label, value in zip(labels, bias, strict=True)},
    )


def _likeliest(shares: Mapping[LabelName, float]) -> LabelName:
    return max(shares, key=lambda label: shares[label])


def _right(cases: Sequence[Case]) -> float:
    return sum(_likeliest(shares) == right for shares, right in cases) / len(cases)


def _loss(cases: Sequence[Case]) -> float:
    return -sum(math.log(max(shares.get(right, 0.0), _LEAST)) for shares, right in cases) / len(cases)


def _calibration_error(cases: Sequence[Case]) -> float:
    return expected_calibration_error([(max(shares.values()), _likeliest(shares) == right) for shares, right in cases])
