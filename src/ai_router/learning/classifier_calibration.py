"""What the probabilities of a decision model are worth: fitted on decisions whose label is known.

A temperature for all labels and a bias for each, by maximum likelihood (vector scaling, Guo et al. 2017, with one
temperature). Whether that helps is measured on decisions that it was not fitted on, in folds.

Each label counts the same, however many cases it has: what is plain enough to be known is no fair sample, and how often
a label occurs there must not become a belief about the requests that the model will be asked about.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from ai_router.learning.evaluation import expected_calibration_error
from ai_router.routing.decision_model import AS_THEY_ARE, Calibration
from ai_router.types import LabelName

LEAST_CASES = 30
LEAST_OF_LABEL = 5
"""Of at least two labels there must be so many; of a label with fewer nothing is learned."""
_FOLDS = 5
_PENALTY = 0.01
_LEAST = 1e-6

Case = tuple[Mapping[LabelName, float], LabelName]
"""Probabilities of the labels, and the label that was right."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """Of ``cases``, before and after: the share that is right and the mean loss (nats), each the mean over the labels;
    and the expected calibration error of what the most probable label has. After: by what was fitted on others."""

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
    counts = Counter(right for _, right in cases)
    cases = [case for case in cases if counts[case[1]] >= LEAST_OF_LABEL]
    if len({right for _, right in cases}) < 2:
        listed = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
        raise ValueError(f"at least {LEAST_OF_LABEL} decisions of two labels are needed, and there are: {listed}")
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
    counts = np.bincount(classes, minlength=len(labels))
    weights = 1 / counts[classes]
    # A label that none of the cases has stays as it is.
    learned = np.concatenate([[True], counts > 0])

    def loss(parameters: Floats) -> float:
        # The temperature as its logarithm, so that it stays above zero.
        logits = logs / np.exp(parameters[0]) + parameters[1:]
        peak = logits.max(axis=1, keepdims=True)
        log_p = logits - peak - np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
        mean = np.average(-log_p[np.arange(len(classes)), classes], weights=weights)
        return float(mean + _PENALTY * (parameters**2).sum())

    found = minimize(lambda free: loss(np.where(learned, free, 0.0)), np.zeros(1 + len(labels)), method="BFGS").x
    bias = np.where(learned[1:], found[1:], 0.0)
    return Calibration(
        round(float(np.exp(found[0])), 4),
        {label: round(float(value), 4) for label, value in zip(labels, bias, strict=True)},
    )


def _likeliest(shares: Mapping[LabelName, float]) -> LabelName:
    return max(shares, key=lambda label: shares[label])


def _balanced(cases: Sequence[Case], value: Callable[[Case], float]) -> float:
    """The mean of the means of each label's cases."""
    of_label: dict[LabelName, list[float]] = {}
    for case in cases:
        of_label.setdefault(case[1], []).append(value(case))
    return statistics.fmean(statistics.fmean(values) for values in of_label.values())


def _right(cases: Sequence[Case]) -> float:
    return _balanced(cases, lambda case: float(_likeliest(case[0]) == case[1]))


def _loss(cases: Sequence[Case]) -> float:
    return _balanced(cases, lambda case: -math.log(max(case[0].get(case[1], 0.0), _LEAST)))


def _calibration_error(cases: Sequence[Case]) -> float:
    return expected_calibration_error([(max(shares.values()), _likeliest(shares) == right) for shares, right in cases])
