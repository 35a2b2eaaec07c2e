"""What the probabilities of a decision model are worth, fitted on decisions whose label is known."""

from __future__ import annotations

import numpy as np
import pytest

from ai_router.learning.classifier_calibration import LEAST_CASES, Case, fit_calibration
from ai_router.types import Label

LABELS = [Label.MODERATE, Label.COMPLEX, Label.ENRICH]


def cases(count: int, temperature: float, bias: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> list[Case]:
    """A model that says too much by ``temperature``, and whose labels are shifted by ``bias``."""
    rng = np.random.default_rng(1)
    made: list[Case] = []
    for _ in range(count):
        logits = rng.normal(0, 1.5, 3)
        true = np.exp(logits) / np.exp(logits).sum()
        said = np.exp(temperature * (logits - np.array(bias)))
        said /= said.sum()
        label = LABELS[int(rng.choice(3, p=true))]
        made.append((dict(zip(LABELS, map(float, said), strict=True)), label))
    return made


def test_one_that_is_surer_than_it_is_right_gets_a_temperature_above_1() -> None:
    calibration, result = fit_calibration(cases(600, 3.0))
    assert calibration.temperature == pytest.approx(3.0, rel=0.25)
    assert result.helps
    assert result.error[1] < result.error[0] / 2
    assert result.cases == 600


def test_a_label_that_is_said_too_rarely_gets_a_bias() -> None:
    calibration, result = fit_calibration(cases(600, 1.0, (0.0, 2.0, 0.0)))
    assert calibration.bias[Label.COMPLEX] > 0.7
    assert result.right[1] > result.right[0]


def test_one_that_is_right_about_itself_stays_as_it_is() -> None:
    calibration, _ = fit_calibration(cases(600, 1.0))
    assert calibration.temperature == pytest.approx(1.0, abs=0.2)
    assert max(map(abs, calibration.bias.values())) < 0.3


def test_what_is_measured_was_not_fitted_on() -> None:
    """Of labels by chance nothing can be learned, and the result says so."""
    rng = np.random.default_rng(2)
    noise: list[Case] = [(dict.fromkeys(LABELS, 1 / 3), LABELS[int(rng.integers(3))]) for _ in range(LEAST_CASES)]
    _, result = fit_calibration(noise)
    assert not result.helps


def test_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="29 decisions of which the label is known; 30 are needed"):
        fit_calibration(cases(29, 1.0))
